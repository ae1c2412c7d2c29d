"""What a board pays beside its tasks: agent, containerd, shims, log processes. The same figures as `bench --only overhead`."""

import re
import time

from cluster import check, say, wait

KINDS = {"agent": "agent", "containerd": "containerd", "containerd-shim-runc-v2": "shims", "log": "log processes"}
LOOK = r"""for p in $(pgrep -f '^([^ ]*/)?(pi-agent|containerd)'); do
  [ -r /proc/$p/smaps_rollup ] && { echo "= $(tr '\0' ' ' </proc/$p/cmdline)"; cat /proc/$p/smaps_rollup; }; done; true"""
# As long as the bench waits.
SETTLE = 10


def measured(text):
    """{kind: {"count": processes, field: KiB}} of what LOOK prints."""
    kinds = {kind: dict.fromkeys(("count", "Rss", "Pss", "Private", "Anonymous", "AnonHugePages"), 0) for kind in KINDS.values()}
    for part in re.split(r"(?m)^= ", text)[1:]:
        words = part.splitlines()[0].split()
        name = words[0].rsplit("/", 1)[-1] if words else ""
        if name == "pi-agent":
            name = "log" if words[1:2] == ["log"] else "agent"
        fields = {key: int(value) for key, value in re.findall(r"(?m)^(\w+): +(\d+) kB", part)}
        # Others, and one that has ended since it was listed.
        if name not in KINDS or "Pss" not in fields:
            continue
        kind = kinds[KINDS[name]]
        kind["count"] += 1
        for field in ("Rss", "Pss", "Anonymous", "AnonHugePages"):
            kind[field] += fields[field]
        kind["Private"] += fields["Private_Clean"] + fields["Private_Dirty"]
    return kinds


def tell(board, tasks):
    time.sleep(SETTLE)
    kinds = measured(board.must(LOOK))
    counts = {name: kind["count"] for name, kind in kinds.items()}
    check(counts["agent"] == counts["containerd"] == 1 and counts["log processes"] == tasks, f"a board's programs with {tasks} tasks", counts)

    # Anonymous: what is not pages of programs' files, which the kernel can drop.
    def line(of):
        return (f"PSS {of('Pss')} KiB, private {of('Private')}, anonymous {of('Anonymous')} ({of('AnonHugePages')} in huge pages), "
                f"RSS {of('Rss')}")

    say(f"overhead: {tasks} tasks: {line(lambda field: sum(kind[field] for kind in kinds.values()))}")
    for name, kind in kinds.items():
        say(f"overhead: {tasks} tasks: {name} ({kind['count']}): {line(kind.get)}")


def overhead(board, manager, image, counts):
    """Prints the figures of a board with so many tasks, one count after the other, ascending."""
    def ended():
        return len(board.must("ctr -n racimo containers ls -q").split()) == 0

    # Image and programs have been used once, as on any board that has run for a while.
    manager.cli("service", "create", "--detach", "--name", "warm", image)
    wait(900, "a task that runs", lambda: manager.running("warm"), board)
    manager.cli("service", "rm", "warm")
    wait(300, "the task to be gone", ended, board)
    manager.cli("service", "create", "--detach", "--name", "many", "--replicas", 0, image)
    for count in sorted(counts):
        manager.cli("service", "scale", "--detach", f"many={count}")
        wait(1800, f"{count} tasks", lambda: len(manager.running("many")) == count, board)
        tell(board, count)
    manager.cli("service", "rm", "many")
    wait(1800, "the tasks to be gone", ended, board)
