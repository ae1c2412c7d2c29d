"""A manager on this machine, asked as its clients would, and what tests say and wait for."""

import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse

PORT = 2377


class Unix(http.client.HTTPConnection):
    """HTTP over the manager's socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Manager:
    """pi-mgr on this machine."""

    def __init__(self, program, directory, advertise, environment=None):
        self.program, self.socket = program, str(directory / "api.sock")
        self.data, self.environment = directory / "manager", {**os.environ, **(environment or {})}
        shutil.rmtree(self.data, ignore_errors=True)
        self.log = open(directory / "manager.log", "wb")
        self.start()
        self.cli("init", "--listen-addr", f"0.0.0.0:{PORT}", "--advertise-addr", f"{advertise}:{PORT}")

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "serve", "--data-dir", self.data, "--api", f"unix://{self.socket}", "--announce", "false"],
            stdout=self.log, stderr=subprocess.STDOUT, env=self.environment)
        wait(120, "the manager to answer", self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the manager ended; see {self.log.name}")
        try:
            return os.path.exists(self.socket) and self.ask("GET", "/_ping")
        except ConnectionRefusedError:  # the socket of one that was killed
            return False

    def ask(self, method, path, body=None):
        connection = Unix(self.socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return text

    def get(self, path):
        return json.loads(self.ask("GET", path))

    def cli(self, *words):
        done = subprocess.run([self.program, "-H", f"unix://{self.socket}", *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"pi-mgr {words}: {done.stdout}{done.stderr}")
        return done.stdout

    def boards(self):
        return [node for node in self.get("/nodes") if node["Spec"]["Role"] == "worker"]

    def tasks(self, service):
        return self.get("/tasks?filters=" + urllib.parse.quote(json.dumps({"service": [service]})))

    def running(self, service):
        return [task for task in self.tasks(service) if task["Status"]["State"] == "running" and task["DesiredState"] == "running"]


def say(text):
    print(f"{pathlib.Path(sys.argv[0]).stem}: {text}", flush=True)


def wait(seconds, what, probe, pump=None):
    """Until probe() gives something."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        if pump:
            pump.pump(0.5)
        else:
            time.sleep(0.5)


def check(holds, what, details=""):
    if not holds:
        raise AssertionError(f"{what}: {details}")
    say(f"ok: {what}")
