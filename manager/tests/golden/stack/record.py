#!/usr/bin/env python3
"""Asks the real docker CLI what it sends for a stack: NAME.yml... → NAME.json, and what it prints as its
configuration → NAME.config.yml.

    python3 record.py net [full base,override:merged]

Paths are those that files in /stack would have.
"""
import json, os, socketserver, subprocess, sys, tempfile, threading, urllib.parse
from http.server import BaseHTTPRequestHandler

HERE = os.path.dirname(os.path.abspath(__file__))
POSTED = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (("Api-Version", "1.47"), ("Ostype", "linux"), ("Content-Type", "application/json"),
                           ("Content-Length", str(len(body)))):
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.answer({})

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        path = "/" + url.path.split("/", 2)[-1]
        query = dict(urllib.parse.parse_qsl(url.query))
        names = json.loads(query.get("filters", "{}")).get("name", {})
        if path == "/info":
            self.answer({"Swarm": {"ControlAvailable": True, "LocalNodeState": "active"}})
        elif path.startswith("/networks/"):
            self.answer({"Name": path[10:], "Id": path[10:], "Scope": "swarm"})
        elif path in ("/secrets", "/configs"):
            self.answer([{"ID": "id-" + name, "Spec": {"Name": name}} for name in names])
        elif path in ("/networks", "/services"):
            self.answer([])
        else:
            self.answer({"message": "no " + path}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        POSTED.append(["/" + self.path.split("/", 2)[-1].split("?")[0], body])
        self.answer({"ID": "x", "Id": "x"})

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


def main():
    with tempfile.TemporaryDirectory() as folder:
        socket = os.path.join(folder, "s")
        server = Server(socket, Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"PATH": os.environ["PATH"], "HOME": "/root", "FROM_CALLER": "caller"}
        for name in sys.argv[1:]:
            sources, _, target = name.partition(":")
            files = [word for source in sources.split(",") for word in ("-c", source + ".yml")]
            del POSTED[:]
            docker = ["docker", "-H", "unix://" + socket, "stack"]
            subprocess.run(docker + ["deploy", "-d", "--resolve-image", "never"] + files + ["st"], env=env, cwd=HERE,
                           check=True)
            bodies = sorted(POSTED, key=lambda one: (one[0], one[1]["Name"]))
            text = "[\n" + ",\n".join(json.dumps(body) for body in bodies) + "\n]"
            target = target or sources
            with open(os.path.join(HERE, target + ".json"), "w") as file:
                file.write(text.replace(HERE, "/stack") + "\n")
            config = subprocess.run(docker + ["config"] + files, env=env, cwd=HERE, check=True, capture_output=True)
            with open(os.path.join(HERE, target + ".config.yml"), "w") as file:
                file.write(config.stdout.decode().replace(HERE, "/stack"))
        server.shutdown()


main()
