#!/usr/bin/env python3
"""Runs docker commands against canned answers and writes down what docker asked and printed: networks.json.

    python3 record_sessions.py

`answers` of networks.json are the objects of a small cluster by request; each session's exchanges are those that
docker asked for. A session with `typed` is answered at its prompt. Everything in the cluster is years old, so that
the ages that docker prints don't change.
"""
import json, os, subprocess, sys, time, urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import stand_in

FILE = os.path.join(HERE, "networks.json")
STATE = {}


class Handler(stand_in.Handler):
    def serve(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if "filters" in query:
            query["filters"] = json.loads(query["filters"])
        path = "/" + url.path.split("/", 2)[-1] if url.path.startswith("/v1.") else url.path
        body = self.body()
        request = self.command + " " + path
        status, answer = STATE["answers"].get(request, [404, {"message": path.split("/")[-1] + " not found"}])
        if path != "/_ping":
            exchange = {"request": request, "query": query, "status": status, "answer": answer}
            if body is not None:
                exchange["body"] = body
            STATE["exchanges"].append(exchange)
        self.answer(answer, status)

    do_GET = do_POST = do_DELETE = do_HEAD = serve


def main():
    with open(FILE) as file:
        golden = json.load(file)
    STATE["answers"] = {"HEAD /_ping": [200, {}], **golden["answers"]}
    with stand_in.serve(Handler) as (folder, docker):
        env = {"PATH": os.environ["PATH"], "HOME": folder}
        for session in golden["sessions"]:
            STATE["exchanges"] = []
            said = subprocess.run(docker + session["args"], env=env, cwd=folder, capture_output=True, text=True,
                                  timeout=30, input=session.get("typed", ""))
            session.update(stdout=said.stdout, stderr=said.stderr, rc=said.returncode, now_ms=int(time.time() * 1000),
                           exchanges=STATE["exchanges"])
    with open(FILE, "w") as file:
        file.write('{"answers": {\n' + ",\n".join(
            " %s: %s" % (json.dumps(k), json.dumps(v)) for k, v in golden["answers"].items()))
        file.write('\n},\n"sessions": [\n' + ",\n".join(json.dumps(s) for s in golden["sessions"]) + "\n]}\n")


main()
