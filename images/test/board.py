#!/usr/bin/env python3
"""The programs that a baked image runs at its first start, run here below a directory instead of a board's root.

    python3 images/test/board.py
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = HERE / "files/usr/lib/racimo"
TOKEN = "SWMTKN-1-" + "5a" * 25 + "-" + "k7" * 12
JOIN = f'join = "pi-agent join --token {TOKEN} 192.168.1.10:2377"\n'
NODE = '{"node":"%s","cluster":"c1"}'


class Parse(unittest.TestCase):
    """join-file: what of racimo.toml is understood, and how it is refused."""

    def parse(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            done = subprocess.run([LIBRARY / "join-file", file.name], capture_output=True, text=True)
        self.assertNotIn("5a5a5a5a", done.stderr, "a fault shows the token")
        return done

    def check(self, text, *lines):
        done = self.parse(text)
        self.assertEqual((done.returncode, done.stdout.splitlines()), (0, list(lines)), done.stderr)

    def refused(self, text, *words):
        done = self.parse(text)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(done.stdout, "")
        for word in words:
            self.assertIn(word, done.stderr)

    def test_what_is_understood(self):
        both = ("manager\t10.0.0.1:2377", "token\t" + TOKEN)
        self.check("")
        self.check("# only comments\n\n")
        self.check(f'manager = "10.0.0.1:2377"\ntoken = "{TOKEN}"\n', *both)
        self.check(f"manager='10.0.0.1:2377'\ntoken  =  '{TOKEN}' # mine", *both)
        self.check(f'manager = ["10.0.0.1", \'pi.local\']\ntoken = "{TOKEN}"', "manager\t10.0.0.1", "manager\tpi.local", both[1])
        self.check(f'manager = [ "[fd00::1]:2377", ] # one\ntoken = "{TOKEN}"', "manager\t[fd00::1]:2377", both[1])
        self.check(JOIN, "manager\t192.168.1.10:2377", "token\t" + TOKEN)
        self.check(f'join = "  sudo pi-agent join 192.168.1.10 --token {TOKEN} "', "manager\t192.168.1.10", "token\t" + TOKEN)
        self.check('hostname = "kitchen"\n[labels]\nroom = "kitchen north"\n"io.x" = \'a=b\'', "hostname\tkitchen",
                   "label\troom=kitchen north", "label\tio.x=a=b")
        self.check('role = "manager"\nadvertise-addr = "eth0"', "role\tmanager", "advertise-addr\teth0")
        self.check('insecure-registries = ["10.0.0.1:5000", "b:1"]\nregistry-mirrors = "http://m:5000"',
                   "insecure-registries\t10.0.0.1:5000", "insecure-registries\tb:1", "registry-mirrors\thttp://m:5000")

    def test_any_editor(self):
        crlf = JOIN.replace("\n", "\r\n")
        want = ("manager\t192.168.1.10:2377", "token\t" + TOKEN)
        self.check(crlf, *want)
        self.check(b"\xef\xbb\xbf" + crlf.encode() + b'\r\n[labels]\r\nort = "K\xc3\xbcche"\r\n', *want, "label\tort=Küche")
        self.check(JOIN.rstrip("\n"), *want)
        self.check("\t" + JOIN.replace(" = ", "\t=\t"), *want)

    def test_what_is_refused(self):
        for text, *words in [
            ("hello", "line 1: expected KEY"),
            ("\n\nhostnam = 'a'", "line 3: unknown key hostnam", "hostname"),
            ("hostname = kitchen", "line 1: expected the value in quotes"),
            ("hostname = “kitchen”", "line 1: curly quotes"),
            ('hostname = "kitchen', "line 1: the closing quote is missing"),
            ('hostname = "a" "b"', "line 1: unexpected text"),
            ('hostname = "a"\nhostname = "b"', "line 2: the key hostname is there twice"),
            ('hostname = "Kitchen"', "line 1: hostname: expected small letters"),
            ('hostname = "-a"', "hostname"),
            ('hostname = ["a"]', "one value, not a list"),
            ('role = "boss"', "worker or manager"),
            (f'token = "{TOKEN}"', 'line 1: token needs manager'),
            ('manager = "a"', "line 1: manager needs token"),
            ('manager = "a b"\n', "manager: not an address"),
            ("manager = []\n", "manager is empty"),
            ('manager = ["a"\n', "expected , or ]"),
            ('manager = [\n"a"]\n', "line 1: expected a list"),
            ('token = "SWMTKN-1-5a5a5a5a"', "line 1: token: expected SWMTKN-1-"),
            (f'token = "{TOKEN} "', "token: expected"),
            (JOIN + f'token = "{TOKEN}"', "line 1: join stands for"),
            (f'token = "{TOKEN}"\n' + JOIN, "line 2: join stands for"),
            (f'join = "{TOKEN}"', "join: expected"),
            (f'join = "docker swarm join --token {TOKEN} 10.0.0.1"', "join: expected"),
            ('role = "manager"\n' + JOIN, "line 1: a board of role"),
            ('advertise-addr = "eth0"', "for role"),
            ('[label]\na = "b"', "line 1: unknown table"),
            ('labels = "a=b"', "[labels]"),
            ('[labels]\na = "b,c"', "line 2: label a"),
            ('[labels]\na = "b\\"', "line 2: a backslash"),
            ('[labels]\na = ["b"]', "line 2: a label is one value"),
            ('[labels]\nä = "b"', "line 2: the key before ="),
            (b'hostname = "a\x01"', "control characters"),
        ]:
            with self.subTest(text=text):
                self.refused(text, *words)
        # All faults at once.
        self.refused("a\nb\n", "line 1", "line 2")


class Board(unittest.TestCase):
    """import and join, with a pi-agent that does as it is told."""

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="racimo-board-"))
        self.addCleanup(shutil.rmtree, self.root)
        for directory in ("boot/firmware", "etc", "run", "proc/sys/kernel", "proc/device-tree", "bin", "var/lib/racimo/agent/identity",
                          "sys/class/leds/ACT"):
            (self.root / directory).mkdir(parents=True)
        self.write("etc/hostname", "raspberrypi\n")
        self.write("proc/sys/kernel/hostname", "raspberrypi\n")
        self.write("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
        self.write("etc/machine-id", "0123456789abcdef0123456789fedcba\n")
        self.write("proc/device-tree/serial-number", "10000000a1b2c3d4\0")
        self.write("sys/class/leds/ACT/trigger", "none timer [mmc0] heartbeat\n")
        self.program("systemctl", 'echo "$@" >>"$RACIMO_ROOT/systemctl"')
        self.program("sleep", 'echo "$1" >>"$RACIMO_ROOT/sleeps"; [ "$(wc -l <"$RACIMO_ROOT/sleeps")" -lt 6 ] || rm -f "$RACIMO_ROOT/boot/firmware/racimo.toml"')
        # Answers as `answer` says; joining makes an identity.
        self.program("pi-agent", '''
            printf '%s %s\\n' "$*" "$RACIMO_TOKEN" >>"$RACIMO_ROOT/joins"
            if [ -e "$RACIMO_ROOT/refuse-$3" ]; then cat "$RACIMO_ROOT/refuse-$3" >&2; exit 1; fi
            printf '{"node": "n%s", "cluster": "c1"}' "$(wc -l <"$RACIMO_ROOT/joins")" >"$RACIMO_ROOT/var/lib/racimo/agent/identity/cluster.json"
            if [ -e "$RACIMO_ROOT/power-cut" ]; then rm "$RACIMO_ROOT/power-cut"; kill -9 0; fi
            echo "This board joined the cluster as node n1."''')

    def program(self, name, text):
        path = self.root / "bin" / name
        path.write_text("#!/bin/sh\n" + text + "\n")
        path.chmod(0o755)

    def write(self, path, text):
        path = self.root / path
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def read(self, path):
        path = self.root / path
        return path.read_text() if path.exists() else None

    def run_program(self, name, *arguments, **more):
        environment = dict(os.environ, RACIMO_ROOT=str(self.root), PATH=f"{self.root}/bin:{os.environ['PATH']}", **more)
        done = subprocess.run([LIBRARY / name, *arguments], capture_output=True, text=True, env=environment, timeout=60,
                              start_new_session=True)
        self.assertNotIn("5a5a5a5a", done.stdout + done.stderr + (self.read("boot/firmware/racimo-status.txt") or ""))
        return done

    def file(self, text):
        path = self.write("boot/firmware/racimo.toml", text)
        return path

    def status(self):
        data = (self.root / "boot/firmware/racimo-status.txt").read_bytes().decode()
        self.assertEqual(data.count("\n"), data.count("\r\n"), "ends of lines that Windows knows")
        return data.replace("\r", "")

    def test_a_name_of_its_own(self):
        self.run_program("import")
        self.assertEqual(self.read("etc/hostname"), "rpi-b2c3d4\n")
        self.assertEqual(self.read("proc/sys/kernel/hostname"), "rpi-b2c3d4\n")
        self.assertIn("127.0.1.1\trpi-b2c3d4\n", self.read("etc/hosts"))
        # A name that somebody gave stays.
        self.write("etc/hostname", "lounge\n")
        self.run_program("import")
        self.assertEqual(self.read("etc/hostname"), "lounge\n")
        # Unless the file has one.
        self.file('hostname = "kitchen"\r\n')
        self.run_program("import")
        self.assertEqual(self.read("etc/hostname"), "kitchen\n")

    def test_a_name_without_a_serial_number(self):
        (self.root / "proc/device-tree/serial-number").unlink()
        self.run_program("import")
        self.assertEqual(self.read("etc/hostname"), "rpi-fedcba\n")

    def test_what_the_agent_is_told(self):
        self.file(JOIN + '[labels]\nroom = "kitchen north"\nrack = "2"\n')
        self.run_program("import")
        self.assertEqual(self.read("etc/racimo/board.env").splitlines()[1:], ['RACIMO_LABEL="room=kitchen north,rack=2"'])
        self.file('role = "manager"\ninsecure-registries = ["a:1", "b:2"]')
        self.run_program("import")
        self.assertEqual(self.read("etc/racimo/board.env").splitlines()[1:],
                         ['RACIMO_INSECURE_REGISTRY="a:1,b:2"', 'RACIMO_MANAGER_SOCKET="/run/racimo/agent.sock"'])

    def test_pi_mgr_hears_of_faults(self):
        self.file('[labels]\nroom = "a"\nroom = "b"\n')
        self.assertEqual(self.run_program("import").returncode, 0, "a board goes on starting")
        done = self.run_program("import", RACIMO_KEEP="yes")
        self.assertEqual(done.returncode, 1)
        self.assertIn("line 3: the key room is there twice", self.status())
        self.assertIsNone(self.read("etc/racimo/board.env"))

    def test_only_what_somebody_changes(self):
        self.file('insecure-registries = "a:1"\n[labels]\nroom = "kitchen"\nrack = "2"\n')
        self.run_program("import")
        self.file('hostname = "lounge"')
        self.run_program("import", RACIMO_KEEP="yes")
        want = ['RACIMO_INSECURE_REGISTRY="a:1"', 'RACIMO_LABEL="room=kitchen,rack=2"']
        self.assertEqual(self.read("etc/racimo/board.env").splitlines()[1:], want)
        self.file('[labels]\nroom = "cellar"\n')
        self.run_program("import", RACIMO_KEEP="yes")
        self.assertEqual(self.read("etc/racimo/board.env").splitlines()[1:], [want[0], 'RACIMO_LABEL="room=cellar"'])
        self.run_program("import")
        self.assertEqual(self.read("etc/racimo/board.env").splitlines()[1:], ['RACIMO_LABEL="room=cellar"'])

    def test_joining_wipes_the_token(self):
        path = self.file(JOIN)
        # The same sectors by another name.
        os.link(path, self.root / "sectors")
        size = path.stat().st_size
        done = self.run_program("join")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(path.exists())
        self.assertEqual((self.root / "sectors").read_bytes(), bytes(size))
        # It came by the environment, not by the command line, which others can see.
        self.assertEqual(self.read("joins"), f"join --again 192.168.1.10:2377 {TOKEN}\n")
        self.assertIn("joined the cluster as node n1", self.status())
        self.assertIn("try-restart pi-agent.service", self.read("systemctl"))
        self.assertEqual(self.read("sys/class/leds/ACT/trigger"), "mmc0\n")
        for path in self.root.rglob("*"):
            if path.is_file() and path.name != "joins":
                self.assertNotIn(TOKEN.encode(), path.read_bytes(), path)

    def test_it_tries_the_next_manager_and_again(self):
        self.file(f'manager = ["10.0.0.1", "10.0.0.2"]\ntoken = "{TOKEN}"')
        self.write("refuse-10.0.0.1", "pi-agent: no route to 10.0.0.1\n")
        self.run_program("join")
        self.assertEqual([line.split()[2] for line in self.read("joins").splitlines()], ["10.0.0.1", "10.0.0.2"])

    def test_what_is_said_while_nobody_takes_it(self):
        path = self.file(JOIN)
        self.write("refuse-192.168.1.10:2377", "trying\npi-agent: the manager refused: A valid join token is necessary\n")
        # The stand-in for sleep takes the file away in the end.
        self.run_program("join")
        self.assertEqual(self.read("sleeps").split(), ["5", "10", "20", "40", "60", "60"])
        self.assertIn("192.168.1.10:2377: pi-agent: the manager refused: A valid join token is necessary", self.status())
        self.assertEqual(self.read("sys/class/leds/ACT/trigger"), "timer\n")
        self.assertFalse(path.exists())

    def test_one_try_of_somebody_who_waits(self):
        boot = self.root / "run/boot"
        boot.mkdir()
        path = self.write("run/boot/racimo.toml", JOIN)
        refusal = self.write("refuse-192.168.1.10:2377", "pi-agent: the manager refused: A valid join token is necessary\n")
        done = self.run_program("join", "once", RACIMO_BOOT=str(boot))
        self.assertEqual(done.returncode, 1)
        self.assertIn("192.168.1.10:2377: pi-agent: the manager refused", done.stdout)
        self.assertFalse(path.exists(), "it has the token")
        self.assertIsNone(self.read("sleeps"))
        self.write("run/boot/racimo.toml", "join = 'x'")
        done = self.run_program("join", "once", RACIMO_BOOT=str(boot))
        self.assertEqual(done.returncode, 1)
        self.assertIn("line 1: join: expected", done.stdout)
        refusal.unlink()
        self.write("run/boot/racimo.toml", JOIN)
        done = self.run_program("join", "once", RACIMO_BOOT=str(boot))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("joined the cluster as node n1", done.stdout)
        self.assertEqual([path.name for path in (self.root / "boot/firmware").iterdir()], [])

    def test_the_status_is_written_when_it_changes(self):
        self.file("hostnam = 'a'")
        self.run_program("import")
        before = os.stat(self.root / "boot/firmware/racimo-status.txt").st_mtime_ns
        done = self.run_program("import")
        # (import before gave the board its name, which the status has.)
        self.assertEqual(self.run_program("import").stdout, "")
        self.assertLessEqual(before, os.stat(self.root / "boot/firmware/racimo-status.txt").st_mtime_ns)
        self.assertEqual(done.returncode, 0)

    def test_a_mistake_is_told(self):
        path = self.file("hostnam = 'a'\njoin = 'x'\n")
        for program in ("import", "join"):
            done = self.run_program(program)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("line 1: unknown key hostnam", self.status())
            self.assertIn("line 2: join: expected", self.status())
            self.assertEqual(self.read("sys/class/leds/ACT/trigger"), "timer\n")
            self.assertTrue(path.exists(), "the file stays, to be corrected")
        self.assertIsNone(self.read("joins"))
        # Corrected.
        self.file(JOIN)
        self.run_program("join")
        self.assertIn("joined", self.status())
        self.assertEqual(self.read("sys/class/leds/ACT/trigger"), "mmc0\n")

    def test_files_of_the_wrong_kind(self):
        for data, words in [(JOIN.encode("utf-16"), "UTF-16"), (b"#" * 20000, "more than 16384 bytes")]:
            self.file(data)
            self.run_program("join")
            self.assertIn(words, self.status())

    def test_an_untouched_file_is_no_mistake(self):
        for profile in ("worker", "manager"):
            text = (HERE / f"racimo.toml.{profile}").read_text().replace("\n", "\r\n")
            path = self.file("\n".join(line for line in text.split("\n") if line.startswith("#")))
            done = self.run_program("join")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("not filled in yet", self.status())
            self.assertTrue(path.exists())
        self.assertEqual(self.read("sys/class/leds/ACT/trigger"), "none timer [mmc0] heartbeat\n")
        # Each line of it, with the # removed, is understood.
        text = (HERE / "racimo.toml.worker").read_text().replace("SWMTKN-1-...", TOKEN)
        lines = [line.lstrip("# ") for line in text.splitlines() if "=" in line and "constraint" not in line or line.startswith("#[")]
        self.file("\n".join(lines))
        self.run_program("import")
        self.assertIn("room=kitchen", self.read("etc/racimo/board.env"))

    def test_a_power_cut_after_joining_makes_no_second_node(self):
        for before in (None, '{"node": "old", "cluster": "c0"}'):
            identity = self.root / "var/lib/racimo/agent/identity/cluster.json"
            identity.unlink(missing_ok=True)
            if before:
                identity.write_text(before)
            (self.root / "joins").unlink(missing_ok=True)
            path = self.file(JOIN)
            self.write("power-cut", "")
            self.run_program("join")
            self.assertTrue(path.exists(), "the cut came before wiping")
            self.run_program("join")
            self.assertEqual(len(self.read("joins").splitlines()), 1, "joined twice")
            self.assertFalse(path.exists())

    def test_the_same_file_joins_again_if_somebody_drops_it_again(self):
        for count in (1, 2):
            self.file(JOIN)
            self.run_program("join")
            self.assertEqual(len(self.read("joins").splitlines()), count)

    def test_a_manager(self):
        self.program("pi-mgr", '''echo "$@" >>"$RACIMO_ROOT/inits"
            [ ! -e "$RACIMO_ROOT/member" ] || { echo "Error: This node is already part of a swarm" >&2; exit 1; }
            [ "$(wc -l <"$RACIMO_ROOT/inits")" -gt 1 ] || { echo "pi-mgr: cannot connect" >&2; exit 1; }
            echo "Cluster initialized; token %s"''' % TOKEN)
        path = self.file('role = "manager"\nadvertise-addr = "eth0"\n')
        self.run_program("join")
        self.assertEqual(self.read("inits"), "init --advertise-addr eth0\n" * 2)
        self.assertFalse(path.exists())
        self.assertIn("It is a manager", self.status())
        self.write("member", "")
        self.file('role = "manager"\n')
        self.run_program("join")
        self.assertIn("It is a manager", self.status())


if __name__ == "__main__":
    unittest.main()
