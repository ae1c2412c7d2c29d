"""A board in QEMU: boots an image file as Raspberry Pi OS would be booted, types into its serial console, pulls the plug.

The kernel's command line is that of the image's boot partition, but for the console and what makes Debian's kernels like
Raspberry Pi's, so that what a bake changed there counts. QEMU has no board of Raspberry Pi that is fit for tests
(images/README.md); its "virt" machine has the CPUs.
"""

import os
import re
import select
import subprocess
import time

MACHINES = {
    "arm64": ["qemu-system-aarch64", "-M", "virt,gic-version=2", "-cpu", "cortex-a72"],
    "armhf": ["qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15"],
}
# Which of QEMU's processors has pages of this size too: the Raspberry Pi 5's.
PROCESSORS = {"4k": None, "16k": "cortex-a76"}
# Raspberry Pi's kernels have no transparent huge pages (raspberrypi/linux#4687); Debian's for arm64 has them for everybody.
AS_ON_BOARDS = "transparent_hugepage=never"
# MiB: as much as the smallest boards have.
MEMORY = "512"
BOOT_AT = 16384 * 512
PROMPT = "racimo-vm> "


def boot_file(image, name):
    """A file of the boot partition; None if there is none."""
    done = subprocess.run(["mtype", "-i", f"{image}@@{BOOT_AT}", f"::{name}"], capture_output=True,
                          env=dict(os.environ, MTOOLS_SKIP_CHECK="1"))
    return done.stdout if done.returncode == 0 else None


def put_boot_file(image, source, name):
    """Puts a file on the boot partition of a card that is in no board."""
    subprocess.run(["mcopy", "-o", "-i", f"{image}@@{BOOT_AT}", str(source), f"::{name}"], check=True,
                   env=dict(os.environ, MTOOLS_SKIP_CHECK="1"))


class Board:
    """One run of one board, from power on to power off."""

    def __init__(self, arch, image, kernel, initrd, log, pages="4k"):
        words = boot_file(image, "cmdline.txt").decode()
        line = re.sub(r"console=\S+ ?", "", words).strip() + f" {AS_ON_BOARDS} console=ttyAMA0"
        processor = ["-cpu", PROCESSORS[pages]] if PROCESSORS[pages] else []
        argv = MACHINES[arch] + processor + [
            "-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY, "-nographic", "-no-reboot", "-nodefaults",
            "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initrd), "-append", line,
            "-drive", f"file={image},format=raw,if=none,id=card", "-device", "virtio-blk-pci,drive=card",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"]
        self.started = time.monotonic()
        self.log = open(log, "ab")
        self.log.write(f"\n===== {' '.join(argv)}\n".encode())
        self.seen = b""
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def elapsed(self):
        return time.monotonic() - self.started

    def pump(self, seconds):
        """Takes what the console says. EOFError: the board is off."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if ready:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise EOFError("the board is off")
            self.seen += data
            self.log.write(data)
            self.log.flush()

    def expect(self, pattern, seconds):
        """Waits until the console has said it."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(pattern.encode(), self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"the console did not say {pattern!r} in {seconds} s; its end: {self.seen[-400:]!r}")
            self.pump(1)

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def login(self, seconds=1200):
        """Waits for the root shell on the serial port."""
        self.expect(r"root@[^\n]*[#$] ", seconds)
        self.send(f"unset HISTFILE; stty -echo cols 250; unset PROMPT_COMMAND; export TERM=dumb PAGER=cat SYSTEMD_PAGER=; dmesg -n 1; PS1='{PROMPT}'")
        self.expect(re.escape(PROMPT), 120)

    def shell(self, command, seconds=300):
        """(exit code, output)."""
        mark = f"{time.monotonic_ns()}"
        self.seen = b""
        self.send(f"{{ {command}\n}} 2>&1; echo \"<{mark}:$?>\"")
        found = None
        deadline = time.monotonic() + seconds
        while not found:
            found = re.search(rf"<{mark}:(\d+)>".encode(), self.seen)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command!r} did not end in {seconds} s; so far: {self.seen[-400:]!r}")
            if not found:
                self.pump(1)
        text = self.seen[:found.start()].decode(errors="replace").replace("\r", "").replace(PROMPT, "")
        # The continuation prompts of a command with several lines.
        return int(found[1]), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|^(> )+", "", text, flags=re.M).strip()

    def must(self, command, seconds=300):
        code, output = self.shell(command, seconds)
        if code:
            raise AssertionError(f"on the board: {command}: exit code {code}: {output}")
        return output

    def pull_the_plug(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def power_off(self, seconds=600):
        self.send("systemctl poweroff")
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                self.pump(5)
            raise TimeoutError(f"no power off in {seconds} s")
        except EOFError:
            self.process.wait()
            self.log.close()
