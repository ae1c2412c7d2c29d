"""Stands in for docker's daemon, on a unix socket, so that recorders can ask the real docker CLI what it sends."""
import contextlib, json, os, socketserver, tempfile, threading
from http.server import BaseHTTPRequestHandler


class Handler(BaseHTTPRequestHandler):
    """How the daemon answers; what, each recorder says."""

    protocol_version = "HTTP/1.1"

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")

    def answer(self, value, status=200):
        """None: without a body."""
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.47")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.answer({})

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


@contextlib.contextmanager
def serve(handler):
    """While the block runs; it gets an empty folder and the beginning of docker's command line."""
    with tempfile.TemporaryDirectory() as folder:
        socket = os.path.join(folder, "s")
        with Server(socket, handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield folder, ["docker", "-H", "unix://" + socket]
            server.shutdown()
