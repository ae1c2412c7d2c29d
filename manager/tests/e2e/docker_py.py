"""Uses the API as programs in Python do: docker_py.py write|remove IMAGE."""

import inspect
import os
import ssl
import sys

import docker


def client():
    certs = os.environ["DOCKER_CERT_PATH"]
    pair = (os.path.join(certs, "cert.pem"), os.path.join(certs, "key.pem"))
    options = {"client_cert": pair, "ca_cert": os.path.join(certs, "ca.pem"), "verify": True}
    if "ssl_version" not in inspect.signature(docker.tls.TLSConfig.__init__).parameters:
        return docker.from_env(timeout=60)
    # Before version 7 it speaks TLS 1.2 only, unless it is told otherwise.
    tls = docker.tls.TLSConfig(ssl_version=ssl.PROTOCOL_TLS_CLIENT, **options)
    return docker.DockerClient(os.environ["DOCKER_HOST"], tls=tls, timeout=60)


def show(docker):
    for node in sorted(docker.nodes.list(), key=lambda node: node.attrs["Description"]["Hostname"]):
        if node.attrs["Spec"]["Role"] == "worker":
            print(node.attrs["Description"]["Hostname"], node.attrs["Status"]["State"])
    for service in sorted(docker.services.list(), key=lambda service: service.name):
        labels = [f"{key}={value}" for key, value in service.attrs["Spec"].get("Labels", {}).items()]
        print(service.name, service.attrs["Spec"]["Mode"]["Replicated"]["Replicas"], *labels)


def main(what, image):
    me = client()
    try:
        if what == "write":
            show(me)
            mode = docker.types.ServiceMode("replicated", replicas=2)
            made = me.services.create(image, ["sleep", "1000"], name="py", labels={"a": "b"}, mode=mode)
            assert me.services.get(made.id).name == "py"
            show(me)
        else:
            me.services.get("py").remove()
            show(me)
            print("removed")
    except docker.errors.APIError as error:
        print(error.response.status_code, error.explanation)


main(*sys.argv[1:])
