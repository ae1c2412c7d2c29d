#!/usr/bin/env python3
"""Asks the real docker CLI what it sends, flag by flag.

    python3 record.py [FILE...]     (default: create-flags.json update-flags.json network-flags.json
    init-flags.json, and flags.json)

Reads the command lines of each file's cases, runs `docker service create -d --no-resolve-image …`,
`docker service update -d --no-resolve-image … web` or what the file's `command` says against a small
server on a unix socket, and writes back what docker posted (`body`; for an update the `changes` to its base, by JSON pointer),
which lists it asked for (`asks`), or why it refused (`docker`). Nothing else of a file changes. flags.json is the flags that
docker's `--help` names.
"""
import json, os, re, subprocess, sys, urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import stand_in

STATE = {}


class Handler(stand_in.Handler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = url.path.split("/", 2)[-1] if url.path.startswith("/v1.") else url.path
        kind = path.split("/")[0]
        if kind in ("secrets", "configs"):
            filters = json.loads(query.get("filters", "{}"))
            STATE["asks"].append([kind, filters])
            found = [o for o in STATE["file"][kind] if o["Spec"]["Name"] in filters.get("name", {})]
            self.answer(found)
        elif kind == "networks":
            name = path.split("/")[1]
            STATE["asks"].append([path, query])
            found = [o for o in STATE["file"].get("networks", []) if name in (o["Name"], o["Id"])]
            self.answer(*([found[0]] if found else [{"message": "network %s not found" % name}, 404]))
        elif kind == "services":
            self.answer({"ID": "sid", "Version": {"Index": 7}, "Spec": STATE["file"]["bases"][STATE["base"]]})
        else:
            self.answer({"message": "no " + path}, 404)

    def do_POST(self):
        STATE["body"] = self.body()
        STATE["target"] = self.path
        self.answer({"ID": "sid", "Id": "nid"})


def changes(old, new, path=""):
    """Pointer → new value, null where something went away."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted(old.keys() | new.keys()):
            here = path + "/" + key.replace("~", "~0").replace("/", "~1")
            if key not in new:
                found[here] = None
            elif key not in old:
                found[here] = new[key]
            else:
                found.update(changes(old[key], new[key], here))
        return found
    return {} if old == new else {path: new}


def record(case, docker, folder):
    STATE.update(asks=[], body=None, base=case.get("base"))
    command = list(docker)
    if "command" in STATE["file"]:
        command += STATE["file"]["command"].split() + case["args"]
    elif "base" in case:
        command += ["service", "update", "-d"] + ([] if "--rollback" in case["args"] else ["--no-resolve-image"]) + case["args"] + ["web"]
    else:
        command += ["service", "create", "-d", "--no-resolve-image"] + case["args"] + ["busybox:1"]
    env = {"PATH": os.environ["PATH"], "HOME": folder, "CLI_TEST": "from-env"}
    said = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder, timeout=30)
    for key in ("body", "changes", "asks", "docker", "query"):
        case.pop(key, None)
    if STATE["asks"]:
        case["asks"] = STATE["asks"]
    if STATE["body"] is None:
        lines = [line for line in said.stderr.splitlines() if line.strip()]
        case["docker"] = [said.returncode, lines[0] if lines else ""]
    elif "base" in case:
        case["changes"] = changes(STATE["file"]["bases"][case["base"]], STATE["body"])
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(STATE["target"]).query))
        if "rollback" in query:
            case["query"] = query
    else:
        case["body"] = STATE["body"]


def flags():
    """Writes the flags that each command's help names."""
    commands = ["service " + verb for verb in "create update rollback scale ls ps inspect rm".split()]
    found = {}
    networks = ["network " + verb for verb in "create ls inspect rm prune".split()]
    for command in commands + networks + ["swarm init", "swarm update", "swarm ca", "swarm join-token"]:
        text = subprocess.run(["docker"] + command.split() + ["--help"], capture_output=True, text=True).stdout
        found[command] = re.findall(r"^ +(?:-\w, +| )+--([a-z][a-z0-9-]+)", text, re.M)
    with open(os.path.join(HERE, "flags.json"), "w") as file:
        file.write("{\n" + ",\n".join(" %s: %s" % (json.dumps(k), json.dumps(v)) for k, v in found.items()) + "\n}\n")


def main():
    if not sys.argv[1:]:
        flags()
    names = sys.argv[1:] or ["create-flags.json", "update-flags.json", "network-flags.json", "init-flags.json"]
    with stand_in.serve(Handler) as (folder, docker):
        for name in names:
            path = os.path.join(HERE, name)
            with open(path) as file:
                STATE["file"] = json.load(file)
            for case in STATE["file"]["cases"]:
                record(case, docker, folder)
            with open(path, "w") as file:
                head = {key: value for key, value in STATE["file"].items() if key != "cases"}
                file.write("{\n")
                for key, value in head.items():
                    file.write(" %s: %s,\n" % (json.dumps(key), json.dumps(value)))
                lines = ",\n".join("  " + json.dumps(case) for case in STATE["file"]["cases"])
                file.write(' "cases": [\n' + lines + "\n ]\n}\n")


main()
