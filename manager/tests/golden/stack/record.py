#!/usr/bin/env python3
"""Asks the real docker CLI what it sends for a stack: NAME.yml... → NAME.json, and what it prints as its
configuration → NAME.config.yml.

    python3 record.py net [full base,override:merged]

Paths are those that files in /stack would have.
"""
import json, os, subprocess, sys, urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import stand_in

POSTED = []


class Handler(stand_in.Handler):
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
        POSTED.append(["/" + self.path.split("/", 2)[-1].split("?")[0], self.body()])
        self.answer({"ID": "x", "Id": "x"})


def main():
    with stand_in.serve(Handler) as (_, docker):
        docker = docker + ["stack"]
        env = {"PATH": os.environ["PATH"], "HOME": "/root", "FROM_CALLER": "caller"}
        for name in sys.argv[1:]:
            sources, _, target = name.partition(":")
            files = [word for source in sources.split(",") for word in ("-c", source + ".yml")]
            del POSTED[:]
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


main()
