#!/usr/bin/env python3
"""images/bake on a small image that needs no network and no ARM program: what it makes, and what it refuses.

    python3 images/test/bake.py

The image has the layout of Raspberry Pi OS and just enough files to be recognised; its apt source is a directory with
packages that have names, dependencies and nothing else.
"""

import gzip
import hashlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest
import zipfile

HERE = pathlib.Path(__file__).resolve().parent.parent
os.environ["MTOOLS_SKIP_CHECK"] = "1"
os.environ["PATH"] += ":/usr/sbin:/sbin"
BOOT_AT, BOOT_MIB, ROOT_MIB = 16384 * 512, 34, 48
ROOT_AT = BOOT_AT + BOOT_MIB * 1024 * 1024
INSTALLED = """Package: {}
Status: install ok installed
Architecture: {}
Version: 1
"""


def run(*command, **more):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace", **more)


def must(*command, **more):
    done = run(*command, **more)
    if done.returncode:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def deb(directory, name, arch="arm64", depends="", version="1.0"):
    tree = directory / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    depends = f"Depends: {depends}\n" if depends else ""
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: T <t@localhost>\n{depends}Description: test\n")
    must("dpkg-deb", "--root-owner-group", "--build", tree, directory / f"{name}_{version}_{arch}.deb")
    shutil.rmtree(tree)


def root_tar(path, repository):
    """The root file system: what bake looks at."""
    files = {
        "etc/fstab": "",
        "usr/lib/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\n',
        "etc/apt/sources.list": f"deb [trusted=yes] copy:{repository} ./\n",
        "etc/systemd/system.conf": "[Manager]\n#RuntimeWatchdogSec=off\n",
        "etc/dhcpcd.conf": "hostname\n",
        "var/lib/dpkg/status": INSTALLED.format("dpkg", "arm64") + "\n" + INSTALLED.format("nftables", "arm64"),
    }
    with tarfile.open(path, "w") as tar:
        for directory in ("etc", "etc/apt", "etc/systemd", "usr", "usr/lib", "usr/sbin", "var", "var/lib", "var/lib/dpkg", "boot"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("etc/os-release")
        link.type, link.linkname = tarfile.SYMTYPE, "../usr/lib/os-release"
        tar.addfile(link)


class Image:
    """Looks into an image file, and changes it."""

    def __init__(self, path):
        self.path = path
        self.fat = f"{path}@@{BOOT_AT}"
        self.ext4 = f"{path}?offset={ROOT_AT}"

    def boot(self, name):
        done = subprocess.run(["mtype", "-i", self.fat, f"::{name}"], capture_output=True)
        return done.stdout if done.returncode == 0 else None

    def put_boot(self, name, data):
        subprocess.run(["mcopy", "-o", "-i", self.fat, "-", f"::{name}"], input=data, check=True, capture_output=True)

    def root(self, name):
        done = subprocess.run(["debugfs", "-R", f'cat "{name}"', self.ext4], capture_output=True)
        return None if b"not found" in done.stderr else done.stdout

    def stat(self, name):
        return run("debugfs", "-R", f'stat "{name}"', self.ext4).stdout

    def change(self, *commands):
        must("debugfs", "-w", "-f", "-", self.ext4, input="\n".join(commands) + "\n")

    def put_root(self, name, text):
        with tempfile.NamedTemporaryFile() as file:
            file.write(text.encode())
            file.flush()
            self.change(f'rm "{name}"', f'write "{file.name}" "{name}"')

    def list(self, directory):
        lines = run("debugfs", "-R", f'ls -p "{directory}"', self.ext4).stdout.splitlines()
        return sorted(line.split("/")[5] for line in lines if line.count("/") > 5 and line.split("/")[5] not in (".", ".."))

    def tree(self):
        """Everything in the root: {path: (mode, owners, link or digest)}."""
        with tempfile.TemporaryDirectory() as directory:
            run("debugfs", "-R", f'rdump / "{directory}"', self.ext4)
            top = pathlib.Path(directory)
            paths = [path for path in sorted(top.rglob("*")) if path.name != "lost+found"]
            names = ["/" + str(path.relative_to(top)) for path in paths]
            said = must("debugfs", "-f", "-", self.ext4, input="".join(f'stat "{name}"\n' for name in names))
            modes = re.findall(r"Mode: +(\d+)", said)
            owners = re.findall(r"User: +(\d+) +Group: +(\d+)", said)
            assert len(modes) == len(owners) == len(names), said
            contents = [os.readlink(path) if path.is_symlink() else digest(path) if path.is_file() else None for path in paths]
            return dict(zip(names, zip(modes, owners, contents)))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Bake(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # A space in it: people have such directories.
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="racimo bake-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        repository = pathlib.Path(tempfile.mkdtemp(prefix="racimo-repository-"))
        cls.addClassCleanup(shutil.rmtree, repository)
        for name, depends in [("containerd", "runc, libseccomp2 (>= 1)"), ("runc", ""), ("libseccomp2", ""), ("crun", ""), ("tini", ""),
                              ("nftables", ""), ("zathura", "")]:
            deb(repository, name, depends=depends, version="1:2.0" if name == "runc" else "1.0")
        (repository / "Packages").write_text("".join(
            must("dpkg-deb", "-f", file) + f"Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest(file)}\n\n"
            for file in sorted(repository.glob("*.deb"))))
        (repository / "Packages.gz").write_bytes(gzip.compress((repository / "Packages").read_bytes()))
        cls.debs = cls.dir / "dist"
        cls.debs.mkdir()
        deb(cls.debs, "pi-agent", depends="containerd | containerd.io, nftables (>= 0.9)", version="0.1.0")
        deb(cls.debs, "pi-mgr", version="0.1.0")
        root_tar(cls.dir / "rootfs.tar", repository)
        cls.stock = cls.dir / "stock.img"
        must(HERE / "standin/image", cls.dir / "rootfs.tar", cls.stock, BOOT_MIB, ROOT_MIB)
        cls.digest = digest(cls.stock)
        cls.once = cls.dir / "once.img"
        cls.said = cls.bake(cls.stock, cls.once).stdout

    def tearDown(self):
        self.assertEqual(digest(self.stock), self.digest, "the input was written to")
        self.assertEqual(list(self.dir.glob("*.work.*")), [], "work left behind")

    @classmethod
    def bake(cls, image, output, *flags, refused=False):
        done = run(HERE / "bake", "--image", image, "--output", output, "--debs", cls.debs, "--cache", cls.dir / "cache", *flags)
        if (done.returncode == 0) == refused:
            raise AssertionError(f"bake {image} {flags}: {done.stdout}{done.stderr}")
        return done

    def changed(self, change):
        """A copy of the stock image with something else about it."""
        path = self.dir / "changed.img"
        shutil.copy(self.stock, path)
        change(Image(path))
        return path

    def check_refused(self, words, image, *flags, output=None):
        output = output or self.dir / "refused.img"
        there = output.exists()
        done = self.bake(image, output, *flags, refused=True)
        self.assertIn(words, done.stderr)
        self.assertEqual(output.exists(), there, "refused, and yet there is an output")
        self.assertNotIn("unexpected", done.stderr)

    def test_what_is_made(self):
        image = Image(self.once)
        must("e2fsck", "-fn", image.ext4)
        tree = image.tree()
        for path in pathlib.Path(HERE / "files").rglob("*"):
            name = "/" + str(path.relative_to(HERE / "files"))
            self.assertIn(name, tree)
            if path.is_file():
                self.assertEqual(tree[name][1], ("0", "0"), name)
                self.assertEqual(image.root(name), path.read_bytes(), name)
                self.assertEqual(tree[name][0], "0755" if os.access(path, os.X_OK) else "0644", name)
        for unit, target in [("racimo-debs.service", "multi-user"), ("racimo-join.service", "multi-user"), ("racimo-join.path", "multi-user"),
                             ("racimo-import.service", "sysinit")]:
            self.assertEqual(tree[f"/etc/systemd/system/{target}.target.wants/{unit}"][2], f"/usr/lib/systemd/system/{unit}")
        # Our package, what is missing, what that needs; not what is there (nftables) nor anything else.
        self.assertEqual(image.list("/var/lib/racimo/debs"), [
            "containerd_1.0_arm64.deb", "crun_1.0_arm64.deb", "libseccomp2_1.0_arm64.deb", "pi-agent_0.1.0_arm64.deb",
            "runc_1%3a2.0_arm64.deb", "tini_1.0_arm64.deb"])
        self.assertIn(b"profile=worker", image.root("/etc/racimo/image-release"))
        words = image.boot("cmdline.txt").decode()
        self.assertEqual(words.count("\n"), 1)
        self.assertTrue(words.rstrip().endswith("rootwait cgroup_enable=memory psi=1"), words)
        fstab = image.root("/etc/fstab").decode()
        self.assertEqual([fields[3] for fields in map(str.split, fstab.splitlines())], ["defaults", "defaults,noatime", "defaults,noatime"])
        # A file to fill in, for every editor.
        self.assertIn(b"# join = ", image.boot("racimo.toml"))
        self.assertEqual(image.boot("racimo.toml").count(b"\r\n"), image.boot("racimo.toml").count(b"\n"))
        self.assertEqual(image.root("/etc/machine-id"), b"uninitialized\n")
        self.assertEqual(image.root("/etc/dhcpcd.conf").decode().count("denyinterfaces"), 1)
        for word in ("copying", "fetching packages: containerd crun runc tini", "writing", "made"):
            self.assertIn(word, self.said)

    def test_baking_again_changes_nothing(self):
        mine, twice = self.dir / "mine.img", self.dir / "twice.img"
        shutil.copy(self.once, mine)
        Image(mine).put_boot("racimo.toml", b"# mine\n")
        self.bake(mine, twice)
        self.assertEqual(Image(twice).tree(), Image(self.once).tree())
        self.assertEqual(digest(twice), digest(mine), "not even a byte")

    def test_baking_again_is_an_upgrade(self):
        before, after = Image(self.once).tree(), self.dir / "upgraded.img"
        debs = self.dir / "newer"
        debs.mkdir()
        deb(debs, "pi-agent", depends="containerd", version="0.2.0")
        self.bake(self.once, after, "--debs", debs, "--wifi-power-save", "on")
        image = Image(after)
        tree = image.tree()
        gone = set(before) - set(tree)
        self.assertEqual(gone, {"/etc/NetworkManager/conf.d/91-racimo-wifi.conf", "/var/lib/racimo/debs/pi-agent_0.1.0_arm64.deb"})
        self.assertEqual(set(tree) - set(before), {"/var/lib/racimo/debs/pi-agent_0.2.0_arm64.deb"})
        self.assertIn(b"version=0.2.0\n", image.root("/etc/racimo/image-release"))
        must("e2fsck", "-fn", image.ext4)

    def test_kinds_of_input_and_output(self):
        must("xz", "-0", "--keep", self.stock)
        with zipfile.ZipFile(self.dir / "stock.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            file.write(self.stock, "stock.img")
            file.writestr("readme.txt", "of the image")
        want = Image(self.once).tree()
        for name in ("stock.img.xz", "stock.zip"):
            before = digest(self.dir / name)
            output = self.dir / "of-packed.img"
            self.bake(self.dir / name, output)
            self.assertEqual(Image(output).tree(), want)
            self.assertEqual(digest(self.dir / name), before)
        packed = self.dir / "packed.img.xz"
        self.bake(self.stock, packed)
        must("xz", "--decompress", packed)
        self.assertEqual(Image(self.dir / "packed.img").tree(), want)

    def test_profiles_and_flags(self):
        output = self.dir / "manager.img"
        self.bake(self.stock, output, "--profile", "manager", "--arch", "arm64")
        image = Image(output)
        self.assertIn("pi-mgr_0.1.0_arm64.deb", image.list("/var/lib/racimo/debs"))
        self.assertIn(b'\r\nrole = "manager"\r\n', image.boot("racimo.toml"))
        join = self.dir / "join.toml"
        join.write_text('hostname = "kitchen"\n')
        self.bake(self.stock, output, "--join", join)
        self.assertEqual(image.boot("racimo.toml"), join.read_bytes())
        self.assertEqual(output.stat().st_mode & 0o777, 0o600, "it may have a token")
        self.assertEqual(self.once.stat().st_mode & 0o777, 0o644)

    def test_baking_again_for_another_profile(self):
        again, back, filled = (self.dir / f"{name}.img" for name in ("again", "back", "filled"))
        self.bake(self.once, again, "--profile", "manager")
        self.assertIn(b'\r\nrole = "manager"\r\n', Image(again).boot("racimo.toml"))
        self.bake(again, back)
        self.assertEqual(Image(back).boot("racimo.toml"), Image(self.once).boot("racimo.toml"))
        # What a person wrote is neither replaced nor put where it does not fit.
        shutil.copy(self.once, filled)
        Image(filled).put_boot("racimo.toml", b'hostname = "kitchen"\n')
        self.check_refused('it needs role = "manager"', filled, "--profile", "manager")
        Image(filled).put_boot("racimo.toml", b'role = "manager"\nhostname = "kitchen"\n')
        self.check_refused("is for an image of profile manager", filled)
        # With a mistake in it, it is the board that tells.
        Image(filled).put_boot("racimo.toml", b"hostname = kitchen\n")
        self.assertEqual(self.bake(filled, back).stderr, "")
        self.assertEqual(Image(back).boot("racimo.toml"), b"hostname = kitchen\n")

    def test_make_image(self):
        # A target directory that is not absolute, as it is by default.
        top = HERE.parent
        (top / "target").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=top / "target") as place:
            target = os.path.relpath(place, top)
            must("make", "-s", "-C", top, "image", f"IMG={self.stock}", "OUT=", f"DEBS={self.debs}", f"CARGO_TARGET_DIR={target}")
            made = Image(pathlib.Path(place) / "images/stock-racimo.img")
            self.assertEqual(made.tree(), Image(self.once).tree())

    def test_image_builders_lay_the_same(self):
        root = self.dir / "root"
        with tarfile.open(self.dir / "rootfs.tar") as tar:
            tar.extractall(root)
        image = Image(self.once)
        (root / "boot/firmware").mkdir()
        (root / "boot/firmware/cmdline.txt").write_text("console=tty1 rootwait\n")
        (root / "etc/fstab").write_text("PARTUUID=x-02 / ext4 defaults 0 1\n")
        for _ in range(2):
            # Whoever builds it, as strict as they are.
            must(HERE / "lay", root, umask=0o077)
        baked = {name: entry for name, entry in image.tree().items() if "racimo" in name and "/var/lib" not in name}
        for name in ("/usr/lib/racimo/image-files", *(name for name in baked if "debs" in name or "policy" in name)):
            # Packages are installed by the builder.
            self.assertFalse((root / name[1:]).exists(), name)
            del baked[name]
        self.assertEqual((root / "etc/racimo/image-release").read_text(),
                         "version=none\nprofile=worker\nwifi-power-save=off\nbase=Debian GNU/Linux 12 (bookworm)\n")
        del baked["/etc/racimo/image-release"]
        self.assertGreater(len(baked), 14)
        for name, (mode, _, content) in baked.items():
            path = root / name[1:]
            if not path.is_symlink():
                self.assertEqual(f"{path.stat().st_mode & 0o7777:04o}", mode, name)
            if content is not None:
                self.assertEqual(os.readlink(path) if path.is_symlink() else digest(path), content, name)
        self.assertEqual((root / "boot/firmware/cmdline.txt").read_text(), "console=tty1 rootwait cgroup_enable=memory psi=1\n")
        self.assertEqual((root / "boot/firmware/racimo.toml").read_bytes(), image.boot("racimo.toml"))
        self.assertIn("defaults,noatime", (root / "etc/fstab").read_text())
        self.assertEqual((root / "etc/dhcpcd.conf").read_bytes(), image.root("/etc/dhcpcd.conf"))
        self.assertTrue((root / "etc/systemd/system.conf.d/90-racimo-watchdog.conf").exists())
        (root / "etc/systemd/system.conf.d/95-board.conf").write_text("[Manager]\nRuntimeWatchdogSec=1m\n")
        (root / "etc/systemd/system.conf.d/90-racimo-watchdog.conf").unlink()
        must(HERE / "lay", root)
        self.assertFalse((root / "etc/systemd/system.conf.d/90-racimo-watchdog.conf").exists())
        self.assertIn("lay: " + str(self.dir), run(HERE / "lay", self.dir).stderr)
        self.assertIn("not the root of a Debian system", run(HERE / "lay", self.dir).stderr)

    def test_what_image_builders_are_told(self):
        # pi-gen runs a stage's scripts in their directory, with the variables that its config exports.
        stage = HERE / "pi-gen/stage-racimo/00-racimo"
        elsewhere = self.dir / "stage"
        shutil.copytree(stage, elsewhere)
        for directory, more, words in [(elsewhere, {}, "is not Racimo's repository: link this stage"),
                                       (elsewhere, {"RACIMO": str(HERE.parent)}, "lay: /nowhere: not the root of a Debian system"),
                                       (stage, {}, "lay: /nowhere: not the root of a Debian system")]:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("RACIMO")}
            done = run("./01-run.sh", cwd=directory, env={**environment, "ROOTFS_DIR": "/nowhere", **more})
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
        # rpi-image-gen puts the command line together from layers' fragments, a line each.
        fragment = (HERE / "rpi-image-gen/layer/racimo.d/for/linux-base/cmdline.d/50-racimo").read_text()
        self.assertIn(f"cmdline_words='{fragment.strip()}'", (HERE / "lib/tree.sh").read_text())
        self.assertEqual(fragment.count("\n"), 1)

    def test_what_the_image_does_itself_is_left_to_it(self):
        def change(image):
            image.change("mkdir /usr/lib/systemd", "mkdir /usr/lib/systemd/system", "mkdir /usr/lib/systemd/system.conf.d")
            image.put_root("/usr/lib/systemd/system.conf.d/40-rpi.conf", "[Manager]\nRuntimeWatchdogSec=1m\n")
            image.put_root("/usr/lib/systemd/system/tmp.mount", "[Mount]\n")
        output = self.dir / "trixie.img"
        self.bake(self.changed(change), output)
        tree = Image(output).tree()
        self.assertNotIn("/etc/systemd/system.conf.d/90-racimo-watchdog.conf", tree)
        self.assertNotIn("/etc/systemd/system/tmp.mount", tree)
        self.assertNotIn("/etc/systemd/system/local-fs.target.wants/tmp.mount", tree)

    def test_files_that_are_no_image(self):
        junk = self.dir / "junk"
        junk.write_bytes(b"x" * 4_000_000)
        self.check_refused("no partition table", junk)
        junk.write_bytes(b"short")
        self.check_refused("5 bytes: not a disk image", junk)
        junk.write_bytes(gzip.compress(b"x"))
        self.check_refused("gzip, zstd or bzip2; unpack it first", junk)
        junk.write_bytes(b"\xfd7zXZ\0 broken")
        self.check_refused("damaged, or cut off", junk)
        self.check_refused("there is no such file", self.dir / "nothing")
        self.check_refused("not a file", self.dir)
        self.check_refused("not a file", "/dev/null")
        self.check_refused("the output is the input", self.stock, output=self.stock)
        alias = self.dir / "alias.img"
        alias.symlink_to(self.stock)
        self.check_refused("the output is the input", self.stock, output=alias)
        for name, entries, words in [("empty.zip", ["junk"], "no .img in this .zip"), ("two.zip", ["a.img", "b.img"], "more than one .img")]:
            with zipfile.ZipFile(self.dir / name, "w") as file:
                for entry in entries:
                    file.writestr(entry, "x")
            self.check_refused(words, self.dir / name)
        with open(junk, "wb") as file:
            file.truncate(1 << 43)
        self.check_refused("MiB are needed", junk)

    def test_a_cut_off_xz(self):
        must("xz", "-0", "--keep", "--force", self.once)
        path = self.dir / "once.img.xz"
        path.write_bytes(path.read_bytes()[:-1000])
        self.check_refused("damaged, or cut off", path)

    def test_images_that_are_not_raspberry_pi_os(self):
        for words, change in [
            ("GPT", lambda image: must("sfdisk", "--quiet", image.path, input="label: gpt\n")),
            ("expected two partitions", lambda image: must("sfdisk", "--quiet", "--delete", image.path, "2")),
            ("expected two partitions", lambda image: must("sfdisk", "--quiet", "--part-type", image.path, "1", "83")),
            ("cut off: its partitions end at byte", lambda image: os.truncate(image.path, ROOT_AT + 1_000_000)),
            ("no cmdline.txt", lambda image: must("mdel", "-i", image.fat, "::cmdline.txt")),
            ("no config.txt", lambda image: must("mdel", "-i", image.fat, "::config.txt")),
            ("cmdline.txt has more or less than one line", lambda image: image.put_boot("cmdline.txt", b"a\nb\n")),
            ("no ext4 file system", lambda image: must("dd", "if=/dev/zero", f"of={image.path}", "bs=1M", f"seek={ROOT_AT >> 20}", "count=1", "conv=notrunc")),
            ("it is not clean", lambda image: image.change("ssv state 0", "freei /etc/fstab")),
            ("not Raspberry Pi OS", lambda image: image.put_root("/etc/rpi-issue", "Armbian\n")),
            ("Raspberry Pi OS 'bullseye'", lambda image: image.put_root("/usr/lib/os-release", "VERSION_CODENAME=bullseye\n")),
            ("its packages are for 'amd64'", lambda image: image.put_root("/var/lib/dpkg/status", INSTALLED.format("dpkg", "amd64"))),
            ("MiB free,", lambda image: image.put_root("/usr/big", "x" * (ROOT_MIB - 8) * 1_000_000)),
            ("apt sources cannot be read", lambda image: image.put_root("/etc/apt/sources.list", "deb copy:/nonexistent ./\n")),
        ]:
            with self.subTest(words=words):
                self.check_refused(words, self.changed(change))

    def test_flags_and_packages_that_do_not_fit(self):
        empty = self.dir / "no-debs"
        empty.mkdir()
        self.check_refused("no package pi-agent for arm64", self.stock, "--debs", empty)
        deb(empty, "pi-agent", version="1")
        deb(empty, "pi-agent", version="2")
        self.check_refused("more than one package pi-agent", self.stock, "--debs", empty)
        shutil.rmtree(empty)
        empty.mkdir()
        deb(empty, "other")
        (empty / "other_1.0_arm64.deb").rename(empty / "pi-agent_1.0_arm64.deb")
        self.check_refused("not a package pi-agent for arm64", self.stock, "--debs", empty)
        join = self.dir / "bad.toml"
        join.write_text("hostnam = 'x'\n")
        self.check_refused("unknown key hostnam", self.stock, "--join", join)
        for text, flags, words in [(b"# nothing\n", (), "nothing is filled in"), ("\ufeffa = 'b'\n".encode("utf-16-le"), (), "UTF-16"),
                                   (b"#" * 16385, (), "more than 16384 bytes"), (b"role = 'manager'\n", (), "for an image of profile manager"),
                                   (b"hostname = 'x'\n", ("--profile", "manager"), 'it needs role = "manager"')]:
            join.write_bytes(text)
            self.check_refused(words, self.stock, "--join", join, *flags)
        self.check_refused("it is for arm64, not armhf", self.stock, "--arch", "armhf")
        for flags, words in [(("--arch", "mips"), "expected arm64 or armhf"), (("--profile", "boss"), "expected worker or manager"),
                             (("--wifi-power-save", "maybe"), "expected on or off"), (("--colour", "red"), "unknown flag --colour"),
                             (("--join",), "--join needs a value"), (("--join", self.dir / "nothing"), "no such file")]:
            self.check_refused(words, self.stock, *flags)
        self.check_refused("ends in .img or .img.xz", self.stock, output=self.dir / "out.iso")
        self.check_refused("no such directory", self.stock, output=self.dir / "nowhere/out.img")


if __name__ == "__main__":
    unittest.main()
