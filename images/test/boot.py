#!/usr/bin/env python3
"""A baked image, booted: it joins a manager on this machine, runs containers within limits, and survives a power cut.

    images/test/boot.py --arch arm64 --standin FILE --parts DIRECTORY --debs DIRECTORY --manager pi-mgr --work DIRECTORY
        [--pages 4k|16k] [--tasks 0,10,50]

The manager, a registry and QEMU run in a network namespace of this test, where 10.0.2.2, as which the board sees this
machine, is an address of the loopback: manager and board call the registry the same. Needs root. Judges by what
happens, not by how long it takes; the limits of time only end what hangs.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import registry  # noqa: E402
import vm  # noqa: E402
from cluster import PORT, Manager, check, say, wait  # noqa: E402
from overhead import overhead  # noqa: E402

HOST = "10.0.2.2"
IN_NAMESPACE = "RACIMO_TEST_NAMESPACE"
UPGRADE = "99.0"


def has_bytes(path, needle):
    """Whether a file has these bytes anywhere, as who finds the card would look for them."""
    return subprocess.run(["grep", "-qaF", "--", needle, path]).returncode == 0


def look_around(board):
    """What the bake promises, on the running board."""
    check(board.must("stat -fc %T /sys/fs/cgroup") == "cgroup2fs", "cgroup v2")
    controllers = board.must("cat /sys/fs/cgroup/cgroup.controllers").split()
    check({"cpu", "memory", "pids"} <= set(controllers), "controllers", controllers)
    check("some avg10" in board.must("cat /proc/pressure/memory"), "pressure is measured (psi=1)")
    check(board.must("findmnt -no FSTYPE /tmp") == "tmpfs", "/tmp is in memory")
    check("noatime" in board.must("findmnt -no OPTIONS /"), "/ is noatime")
    check(board.shell("ls /var/log/journal/*/*.journal")[0] != 0, "no journal on the card")
    check("joined the cluster" in board.must("journalctl -b -u racimo-join -o cat"), "the journal has it too")
    check(board.must("cat /proc/sys/net/ipv4/ip_forward") == "1", "ip_forward")
    modules = board.must("systemctl is-active systemd-modules-load; lsmod")
    check(modules.startswith("active") and "vxlan" in modules and "overlay" in modules, "modules are loaded", modules)
    plugins = board.must("ctr plugins ls")
    check("io.containerd.grpc.v1" in plugins and not re.search(r"\bcri\b", plugins), "containerd without CRI", plugins)
    check("overlayfs" in plugins and "btrfs" not in plugins, "containerd's snapshotters", plugins)
    managed = board.must("NetworkManager --print-config")
    check("rc-*" in managed and "wifi.powersave=2" in managed, "NetworkManager's rules", managed)
    failed = board.must("systemctl --failed --no-legend --plain")
    check(failed == "", "no unit failed", failed)
    check(board.shell("[ ! -e /var/lib/racimo/debs ] && [ ! -e /usr/sbin/policy-rc.d ]")[0] == 0, "nothing is left of the installation")
    check(board.must("dpkg --audit") == "", "packages are whole")
    say("memory of the board:\n" + board.must("free -k | head -n 2"))


def limits(board, manager, image):
    """Containers run, and within their limits."""
    manager.cli("service", "create", "--detach", "--name", "web", "--limit-memory", "32M", "--limit-cpu", "0.5", image,
                "sh", "-c", "echo here is $(uname -m); exec sleep 1000000")
    wait(900, "a task that runs", lambda: manager.running("web"), board)
    check(True, f"a container runs after {board.elapsed():.0f} s")
    found = board.must("for f in $(find /sys/fs/cgroup/racimo* -name memory.max); do echo $f $(cat $f) $(cat $(dirname $f)/cpu.max); done")
    check(re.search(r" 33554432 50000 100000$", found, re.M), "memory.max and cpu.max of the task", found)
    scores = [board.must(f"cat /proc/{process}/oom_score_adj") for process in containers(board).values()]
    check(scores == ["200"], "it is killed before the agent", scores)
    logs = wait(120, "the container's output", lambda: manager.cli("service", "logs", "--raw", "web"), board)
    check("here is " + board.must("uname -m") in logs, "its output, from the board's own architecture", logs)
    manager.cli("service", "create", "--detach", "--name", "hungry", "--limit-memory", "16M", "--restart-condition", "none", image,
                "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=4")
    ended = wait(900, "the task that takes too much to end",
                 lambda: [task for task in manager.tasks("hungry") if task["Status"]["State"] in ("failed", "complete", "rejected")], board)
    status = ended[0]["Status"]
    check(status["State"] == "failed" and "memory limit" in status["Err"], "who takes more memory than allowed is killed, and it is said", status)
    check("oom" in board.must("dmesg | grep -i 'oom-kill\\|out of memory' | tail -n 1").lower(), "by the kernel, for its memory cgroup")
    manager.cli("service", "rm", "hungry")


def unit(board):
    """The agent's unit under systemd: what it may have, who is killed first, what goes on without it."""
    shown = dict(line.split("=", 1) for line in board.must(
        "systemctl show pi-agent -p MemoryMax -p OOMScoreAdjust -p KillMode -p Restart -p MainPID -p ControlGroup").splitlines())
    group = "/sys/fs/cgroup" + shown["ControlGroup"]
    check(board.must(f"cat {group}/memory.max") == shown["MemoryMax"] == str(32 << 20), "the agent may have 32 MiB", shown)
    check(board.must(f"cat /proc/{shown['MainPID']}/oom_score_adj") == "100", "it is killed before a shell", shown)
    check(shown["KillMode"] == "process" and shown["Restart"] == "always", "stopping it stops nothing else", shown)


def containers(board):
    """{task: process id} of the containers that run."""
    lines = [line.split() for line in board.must("ctr -n racimo tasks ls").splitlines()[1:]]
    return {words[0]: words[1] for words in lines if words[2] == "RUNNING"}


def agent_of(board):
    return board.must("systemctl show -P MainPID pi-agent")


def upgrade(board, manager):
    """The agent is killed, and a newer package installed: containers run on."""
    running, before = containers(board), agent_of(board)
    tasks = [task["ID"] for task in manager.running("web")]
    check(len(running) == len(tasks) == 1, "one container runs", running)
    board.must(f"kill -9 {before}")
    wait(300, "systemd to start the agent again", lambda: agent_of(board) not in ("0", before), board)
    check(containers(board) == running, "the agent was killed and is back, the container ran on", running)
    before = agent_of(board)
    board.must("dpkg --install /boot/firmware/upgrade.deb && rm /boot/firmware/upgrade.deb", 900)
    check(board.must("dpkg-query -W -f '${Status} ${Version}' pi-agent") == f"install ok installed {UPGRADE}", "a newer package is installed")
    check(agent_of(board) not in ("0", before), "it has restarted the agent")
    check(containers(board) == running, "the container runs on", running)
    wait(300, "the new agent to be heard", lambda: manager.boards()[0]["Status"]["State"] == "ready", board)
    # A replacement would be made by now, and run some seconds later.
    board.must("sleep 15")
    made = [task["ID"] for task in manager.tasks("web") if task["DesiredState"] == "running"]
    check(made == tasks and containers(board) == running, "the manager has replaced nothing", manager.tasks("web"))


def newer(deb, directory):
    """The same package with a higher version."""
    subprocess.run(["dpkg-deb", "-R", deb, directory / "newer"], check=True)
    control = directory / "newer/DEBIAN/control"
    control.write_text(re.sub("(?m)^Version: .*", f"Version: {UPGRADE}", control.read_text()))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", directory / "newer", directory / "upgrade.deb"], check=True, capture_output=True)
    return directory / "upgrade.deb"


def main():
    parser = argparse.ArgumentParser()
    for flag in ("arch", "standin", "parts", "debs", "manager", "work"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--pages", default="4k", choices=vm.PROCESSORS)
    parser.add_argument("--tasks", default="0,10,50", type=lambda text: [int(count) for count in text.split(",")])
    args = parser.parse_args()
    if IN_NAMESPACE not in os.environ:
        script = f"ip link set lo up && ip addr add {HOST}/32 dev lo && exec \"$@\""
        # The namespace in which there are Debian's mirrors, for the bake.
        outside = os.open("/proc/self/ns/net", os.O_RDONLY)
        os.set_inheritable(outside, True)
        os.execvpe("unshare", ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, *sys.argv],
                   {**os.environ, IN_NAMESPACE: str(outside)})
    outside = int(os.environ[IN_NAMESPACE])
    work, parts = pathlib.Path(args.work).resolve(), pathlib.Path(args.parts).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    busybox = subprocess.run(["tar", "-xf", parts / "rootfs.tar", "-O", "--wildcards", "--occurrence=1", "./*bin/busybox"],
                             check=True, capture_output=True).stdout
    images = registry.Registry(args.arch, busybox)
    image = f"{HOST}:{images.port}/busybox:1"
    # The manager asks the registry too, as what the board calls it.
    os.environ["RACIMO_INSECURE_REGISTRY"] = f"{HOST}:{images.port}"
    manager = Manager(args.manager, work, HOST)
    # Emulated, on a busy machine, a board may be silent for seconds; its tasks would be replaced.
    manager.cli("update", "--dispatcher-heartbeat", "15s")
    board = None
    try:
        token = manager.cli("join-token", "--quiet", "worker").strip()
        card = work / "board.img"
        join = work / "racimo.toml"
        line = f"pi-agent join --token {token} {HOST}:{PORT}"
        # What the manager writes for cards, and more, as an editor of another computer would save it.
        text = manager.cli("join-token", "--toml", "worker") + \
            f'insecure-registries = ["{HOST}:{images.port}"]\n[labels]\nroom = "kitchen"\n'
        join.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        subprocess.run(["nsenter", f"--net=/proc/self/fd/{outside}", HERE.parent / "bake", "--image", args.standin, "--output", card,
                        "--arch", args.arch, "--debs", args.debs, "--join", join], check=True, pass_fds=[outside])
        check(has_bytes(card, token), "the token is on the new card")

        def boot():
            return vm.Board(args.arch, card, parts / "vmlinuz", parts / "initrd.gz", work / "console.log", args.pages)

        board = boot()
        board.login()
        say(f"a shell after {board.elapsed():.0f} s")
        node = wait(1800, "the board to join", lambda: [node for node in manager.boards() if node["Status"]["State"] == "ready"], board)[0]
        check(True, f"it joined: {node['Description']['Hostname']} ({node['ID']}), {board.elapsed():.0f} s after power on")
        check(re.fullmatch(r"rpi-[0-9a-f]{6}", node["Description"]["Hostname"]), "a name of its own", node["Description"]["Hostname"])
        check(node["Description"]["Engine"]["Labels"].get("room") == "kitchen", "labels of racimo.toml", node["Description"]["Engine"])
        pages = board.must("getconf PAGE_SIZE")
        check(pages == str(int(args.pages.removesuffix("k")) << 10), "the kernel's pages are as asked for", pages)
        check(node["Description"]["Engine"]["Labels"]["io.racimo.page-size"] == pages, "the node says so", node["Description"]["Engine"])
        wait(120, "the file to be wiped", lambda: vm.boot_file(card, "racimo.toml") is None, board)
        board.must("sync")
        check(not has_bytes(card, token), "the token is nowhere on the card")
        status = (vm.boot_file(card, "racimo-status.txt") or b"").decode()
        check("joined the cluster" in status and token not in status, "racimo-status.txt says so", status)
        look_around(board)
        unit(board)
        overhead(board, manager, image, args.tasks)
        limits(board, manager, image)

        say("the plug is pulled")
        task = manager.running("web")[0]
        fetched = len(images.fetched)
        board.pull_the_plug()
        # The board's own start must not wait for what is wrong in a file.
        (work / "wrong.toml").write_text("manager = 10.0.0.1\n")
        vm.put_boot_file(card, work / "wrong.toml", "racimo.toml")
        vm.put_boot_file(card, newer(next(pathlib.Path(args.debs).glob(f"pi-agent_*_{args.arch}.deb")), work), "upgrade.deb")
        wait(300, "the manager to notice", lambda: manager.boards()[0]["Status"]["State"] == "down")
        board = boot()
        board.login()
        wait(900, "the board to come back", lambda: manager.boards()[0]["Status"]["State"] == "ready", board)
        say(f"it is back {board.elapsed():.0f} s after power on")
        check([node["ID"] for node in manager.boards()] == [node["ID"]], "as the same node", manager.boards())
        again = wait(900, "the task to run again", lambda: [new for new in manager.running("web") if board.shell(
            f"ctr -n racimo tasks ls | grep -q '{new['ID']}.*RUNNING'")[0] == 0], board)[0]
        check(True, f"the service runs again {board.elapsed():.0f} s after power on (task {again['ID']}, before {task['ID']})")
        check(len([digest for digest in images.fetched[fetched:] if digest != images.manifest]) == 0, "from what was on the card")
        check(board.must("systemctl --failed --no-legend --plain") == "", "no unit failed")
        check(board.must("dpkg --audit") == "", "packages are whole")
        wait(300, "racimo-status.txt", lambda: b"cannot be used" in (vm.boot_file(card, "racimo-status.txt") or b""), board)
        status = vm.boot_file(card, "racimo-status.txt").decode()
        check("line 1" in status, "racimo-status.txt tells the mistake in racimo.toml", status)
        upgrade(board, manager)

        say("another racimo.toml is dropped, on the running board")
        board.must(f"printf 'join = \"{line}\"\\r\\n[labels]\\r\\nroom = \"lounge\"\\r\\n' >/boot/firmware/racimo.toml; sync")
        wait(600, "the board to join again", lambda: [new for new in manager.boards() if new["ID"] != node["ID"] and
             new["Status"]["State"] == "ready" and new["Description"]["Engine"]["Labels"].get("room") == "lounge"], board)
        wait(120, "the file to be wiped", lambda: vm.boot_file(card, "racimo.toml") is None, board)
        check(True, "it joined again, with the new label")
        board.power_off()
        check(not has_bytes(card, token), "the token is nowhere on the card")
        subprocess.run(["e2fsck", "-fn", f"{card}?offset={vm.BOOT_AT + 512 * 1024 * 1024}"], check=True, capture_output=True)
        check(True, "the root file system is clean")
        board = None
        card.unlink()
        say(f"passed ({args.arch}, pages of {args.pages})")
    except BaseException:
        if board is not None and board.process.poll() is None:
            # The journal is in the board's memory. A board that hangs has none to tell.
            with contextlib.suppress(Exception):
                (work / "journal.log").write_text(board.shell("journalctl -b -o short-monotonic --no-hostname", 120)[1])
        raise
    finally:
        if board is not None and board.process.poll() is None:
            board.pull_the_plug()
        manager.process.terminate()
        manager.process.wait(30)


if __name__ == "__main__":
    main()
