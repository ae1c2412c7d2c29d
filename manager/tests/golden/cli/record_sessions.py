#!/usr/bin/env python3
"""Runs docker commands against canned answers and writes down what docker asked and printed: networks.json.

    python3 record_sessions.py

`answers` of networks.json are the objects of a small cluster by request; each session's exchanges are those that
docker asked for. A session with `typed` is answered at its prompt. Everything in the cluster is years old, so that
the ages that docker prints don't change.
"""
import json, os, socketserver, subprocess, tempfile, threading, time, urllib.parse
from http.server import BaseHTTPRequestHandler

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "networks.json")
STATE = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if "filters" in query:
            query["filters"] = json.loads(query["filters"])
        path = "/" + url.path.split("/", 2)[-1] if url.path.startswith("/v1.") else url.path
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        request = self.command + " " + path
        status, answer = STATE["answers"].get(request, [404, {"message": path.split("/")[-1] + " not found"}])
        if path != "/_ping":
            exchange = {"request": request, "query": query, "status": status, "answer": answer}
            if body is not None:
                exchange["body"] = body
            STATE["exchanges"].append(exchange)
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.47")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_HEAD = serve

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


def main():
    with open(FILE) as file:
        golden = json.load(file)
    STATE["answers"] = {"HEAD /_ping": [200, {}], **golden["answers"]}
    with tempfile.TemporaryDirectory() as folder:
        socket = os.path.join(folder, "s")
        server = Server(socket, Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"PATH": os.environ["PATH"], "HOME": folder}
        for session in golden["sessions"]:
            STATE["exchanges"] = []
            said = subprocess.run(["docker", "-H", "unix://" + socket] + session["args"], env=env, cwd=folder,
                                  capture_output=True, text=True, timeout=30, input=session.get("typed", ""))
            session.update(stdout=said.stdout, stderr=said.stderr, rc=said.returncode, now_ms=int(time.time() * 1000),
                           exchanges=STATE["exchanges"])
        server.shutdown()
    with open(FILE, "w") as file:
        file.write('{"answers": {\n' + ",\n".join(
            " %s: %s" % (json.dumps(k), json.dumps(v)) for k, v in golden["answers"].items()))
        file.write('\n},\n"sessions": [\n' + ",\n".join(json.dumps(s) for s in golden["sessions"]) + "\n]}\n")


main()
