"""An image registry with one small image for ARM boards: a busybox."""

import hashlib
import http.server
import io
import json
import tarfile
import threading

PROGRAMS = "sh cat dd echo httpd sleep true uname"
PLATFORMS = {"arm64": {"architecture": "arm64", "os": "linux"}, "armhf": {"architecture": "arm", "variant": "v7", "os": "linux"},
             "armv6": {"architecture": "arm", "variant": "v6", "os": "linux"}}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def layer(busybox):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(busybox), 0o755
        tar.addfile(entry, io.BytesIO(busybox))
        for name in PROGRAMS.split():
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return data.getvalue()


class Registry:
    """Serves IMAGE on every address; counts what is fetched."""

    def __init__(self, arch, busybox):
        self.blobs, self.fetched = {}, []
        packed = layer(busybox)
        config = self.keep(json.dumps(PLATFORMS[arch] | {
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000000"]},
            "rootfs": {"type": "layers", "diff_ids": [self.keep(packed)]}}).encode())
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": len(self.blobs[config])},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": self.digest(packed), "size": len(packed)}],
        }).encode()
        self.manifest = self.keep(manifest)
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                kind, _, reference = self.path.rpartition("/")
                body = b"{}"
                if kind.endswith(("/manifests", "/blobs")):
                    digest = registry.manifest if reference == "1" else reference
                    body = registry.blobs.get(digest)
                    if body is None:
                        self.send_error(404)
                        return
                    if self.command == "GET":
                        registry.fetched.append(digest)
                self.send_response(200)
                is_manifest = kind.endswith("/manifests")
                self.send_header("Content-Type", MANIFEST if is_manifest else "application/octet-stream")
                if is_manifest:
                    self.send_header("Docker-Content-Digest", registry.manifest)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def digest(data):
        return "sha256:" + hashlib.sha256(data).hexdigest()

    def keep(self, data):
        self.blobs[self.digest(data)] = data
        return self.digest(data)
