//! A board for one test: a containerd of its own with root, state and socket in a directory of
//! its own, a small image made by hand, and the runtime on top.

#![allow(clippy::unwrap_used, dead_code, reason = "test support, used in part by each test file")]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use racimo_agent::runtime::{Config, Image, RunConfig, Runtime, ctrd::Executor};
use smol::{LocalExecutor, Timer};
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_secs(40);
pub(crate) const IMAGE: &str = "test.local/busybox:1";

/// A private containerd; killed, and all that it left removed, when dropped.
pub(crate) struct Board {
    dir: TempDir,
    containerd: Option<Child>,
    pub(crate) image: Image,
}

/// Runs `test` on a fresh board. Without root it is skipped, except in CI, where that is a failure.
pub(crate) fn on_a_board(test: impl AsyncFnOnce(&mut Board, &Executor)) {
    let uid = command("id", ["-u"]);
    if uid.trim() != "0" {
        assert!(std::env::var_os("CI").is_none(), "these tests need root");
        eprintln!("SKIPPED: needs root and containerd");
        return;
    }
    let mut board = Board::boot();
    let executor = Executor(Rc::new(LocalExecutor::new()));
    smol::block_on(executor.0.clone().run(test(&mut board, &executor)));
    board.check_clean();
}

impl Board {
    fn boot() -> Self {
        // Not /tmp: that may be in memory, or an overlay, where an overlay cannot stand.
        let dir = tempfile::Builder::new().prefix("racimo-rt-").tempdir_in("/var/tmp").unwrap();
        let at = dir.path().display();
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\"]\n\
             [grpc]\naddress = \"{at}/containerd.sock\"\n"
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut board = Self { dir, containerd: None, image: Image::default() };
        board.start_containerd();
        let chain = make_image(board.dir.path());
        command("ctr", ["-a", &board.socket(), "-n", "racimo", "images", "import", &board.path("image.tar")]);
        let run = RunConfig { cmd: Some(vec!["sleep".into(), "1000".into()]), ..RunConfig::default() };
        board.image = Image { name: IMAGE.into(), chain, run };
        board
    }

    pub(crate) fn start_containerd(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("containerd.log")).unwrap();
        let child = Command::new("containerd")
            .args(["--log-level", "warn", "--config", &self.path("config.toml")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is installed");
        self.containerd = Some(child);
        let end = Instant::now() + DEADLINE;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < end, "containerd does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As by power loss.
    pub(crate) fn kill_containerd(&mut self) {
        let mut child = self.containerd.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn socket(&self) -> String {
        self.path("containerd.sock")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("containerd.log")).unwrap_or_default()
    }

    pub(crate) fn ctr(&self, args: &str) -> String {
        let socket = self.socket();
        command("ctr", ["-a", &socket, "-n", "racimo"].into_iter().chain(args.split(' ')))
    }

    /// How an agent runs containers on this board.
    pub(crate) fn config(&self) -> Config {
        Config {
            socket: self.socket().into(),
            data: self.path("data").into(),
            logger: env!("CARGO_BIN_EXE_pi-agent").into(),
            run: self.path("run").into(),
            ..Config::default()
        }
    }

    /// A new agent on this board.
    pub(crate) fn runtime(&self, executor: &Executor) -> Runtime {
        Runtime::new(executor.clone(), self.config()).unwrap()
    }

    /// An image that is not on this board.
    pub(crate) fn unknown_image(&self) -> Image {
        Image { chain: format!("sha256:{}", "0".repeat(64)), ..self.image.clone() }
    }

    /// Process id of this board's containerd.
    pub(crate) fn containerd_pid(&self) -> u32 {
        self.containerd.as_ref().unwrap().id()
    }

    /// Process ids of this board's shims.
    pub(crate) fn shims(&self) -> BTreeSet<i32> {
        processes(&self.socket(), "containerd-shim")
    }

    /// Nothing may be left of any container.
    pub(crate) fn check_clean(&self) {
        assert_eq!(self.ctr("containers ls -q"), "", "containers");
        assert_eq!(self.ctr("tasks ls -q"), "", "tasks");
        assert_eq!(self.ctr("leases ls -q"), "", "leases");
        let snapshots = self.ctr("snapshots ls");
        assert!(!snapshots.contains("Active"), "{snapshots}");
        assert_eq!(self.mounts(), Vec::<String>::new());
        let end = Instant::now() + DEADLINE;
        while !self.shims().is_empty() {
            assert!(Instant::now() < end, "shims are left: {:?}", self.shims());
            std::thread::sleep(Duration::from_millis(50));
        }
        let tasks = fs::read_dir(self.path("data/tasks")).map_or(0, Iterator::count);
        assert_eq!(tasks, 0, "directories of tasks");
        let health = fs::read_dir(self.path("run/health")).map_or(0, Iterator::count);
        assert_eq!(health, 0, "files of health checks");
    }

    fn mounts(&self) -> Vec<String> {
        let at = self.dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|target| target.starts_with(&at))
            .map(Into::into)
            .collect()
    }
}

impl Drop for Board {
    /// Also after a failed test: nothing stays on the machine.
    fn drop(&mut self) {
        if self.containerd.is_some() {
            self.kill_containerd();
        }
        for pid in self.shims() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let pids = children.split_whitespace().map(Into::into).chain([pid.to_string()]);
            let _ = Command::new("kill").arg("-9").args(pids).stderr(Stdio::null()).status();
        }
        for mount in self.mounts() {
            let _ = Command::new("umount").args(["-l", &mount]).status();
        }
        if std::thread::panicking() {
            eprintln!("containerd's log:\n{}", self.log());
        }
    }
}

fn processes(argument: &str, name: &str) -> BTreeSet<i32> {
    let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        (line.contains(argument) && line.contains(name)).then_some(pid)
    });
    found.collect()
}

pub(crate) fn command<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {} {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for `condition`, which says what it sees while it does not hold.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < end, "waited for {what}, but: {seen}"),
        }
        Timer::after(Duration::from_millis(20)).await;
    }
}

/// `image.tar` in Docker's format with one busybox layer; answers the chain id.
fn make_image(dir: &Path) -> String {
    let rootfs = dir.join("rootfs");
    for made in ["bin", "etc", "tmp", "proc", "sys", "dev", "srv/owned"] {
        fs::create_dir_all(rootfs.join(made)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    fs::copy(busybox.expect("busybox-static is installed"), rootfs.join("bin/busybox")).unwrap();
    for applet in ["sh", "sleep", "id", "cat", "env", "dd", "hostname", "echo", "pwd", "true", "touch"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n").unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\nwww:x:34:\nvideo:x:44:www\n").unwrap();
    fs::write(rootfs.join("srv/owned/seed"), "from the image\n").unwrap();
    // runc 1.1 gives a memory mount the mode of the directory below it, whatever was asked for.
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    chown(rootfs.join("srv/owned"), Some(33), Some(34)).unwrap();
    let tar = |to: &str, from: &str, what: &[&str]| {
        let (to, from) = (dir.join(to).display().to_string(), dir.join(from).display().to_string());
        command("tar", ["-cf", to.as_str(), "-C", from.as_str()].into_iter().chain(what.iter().copied()));
    };
    tar("layer.tar", "rootfs", &["."]);
    let diff = format!("sha256:{}", sha256(&dir.join("layer.tar")));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"os":"linux","architecture":"{architecture}","config":{{"Cmd":["sleep","1000"]}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
    );
    fs::write(dir.join("config.json"), config).unwrap();
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{IMAGE}"],"Layers":["layer.tar"]}}]"#);
    fs::write(dir.join("manifest.json"), manifest).unwrap();
    tar("image.tar", "", &["manifest.json", "config.json", "layer.tar"]);
    diff
}

fn sha256(path: &Path) -> String {
    let line = command("sha256sum", [path]);
    line.split(' ').next().unwrap().to_owned()
}
