//! A private containerd in a directory of its own, and a registry.

#![allow(dead_code, reason = "test support, used in part by each test file")]

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use racimo_agent::runtime::ctrd::{Ctrd, Executor};
use smol::LocalExecutor;
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// containerd's root, state and socket; everything ends when it is dropped.
pub(crate) struct Board {
    dir: TempDir,
    containerd: Child,
    /// A small file system for containerd's data, if asked for.
    small_disk: bool,
}

/// Runs `test` with a connection to a fresh containerd, whose disk has `disk` (`8m`) or plenty.
/// Without root or containerd it is skipped, except under CI, where that is a failure.
pub(crate) fn on_board(disk: Option<&str>, test: impl AsyncFnOnce(&Board, &Ctrd)) {
    let is_root = run("id", &["-u"]).trim() == "0";
    if !is_root || Command::new("containerd").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root and containerd");
        eprintln!("SKIPPED: needs root and containerd");
        return;
    }
    let board = Board::boot(disk);
    let executor = Executor(Rc::new(LocalExecutor::new()));
    let task = async {
        let ctrd = Ctrd::connect(&executor, &board.path("containerd.sock")).await.unwrap();
        test(&board, &ctrd).await;
    };
    smol::block_on(executor.0.run(task));
    let snapshots = board.ctr(&["snapshots", "ls"]);
    assert!(!snapshots.contains("Active"), "{snapshots}");
}

impl Board {
    fn boot(disk: Option<&str>) -> Self {
        // Not /tmp: that may be an overlay, on which no overlay can stand.
        let dir = tempfile::Builder::new().prefix("racimo-pull-").tempdir_in("/var/tmp").unwrap();
        let at = dir.path().display();
        fs::create_dir(dir.path().join("root")).unwrap();
        if let Some(size) = disk {
            let target = format!("{at}/root");
            run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "racimo-test", &target]);
        }
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\"]\n\
             [grpc]\naddress = \"{at}/containerd.sock\"\n"
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let log = File::create(dir.path().join("containerd.log")).unwrap();
        let containerd = Command::new("containerd")
            .args(["--log-level", "warn", "--config"])
            .arg(dir.path().join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is installed");
        let board = Self { dir, containerd, small_disk: disk.is_some() };
        wait_for("containerd", || UnixStream::connect(board.path("containerd.sock")).is_ok());
        board
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `ctr` prints in our namespace.
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        let socket = self.path("containerd.sock").display().to_string();
        run("ctr", &[&["-a", &socket, "-n", "racimo"], args].concat())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        if self.small_disk {
            run("umount", &["--lazy", &self.path("root").display().to_string()]);
        }
    }
}

/// Debian's registry with its data in a directory of its own.
pub(crate) struct DockerRegistry {
    dir: Rc<TempDir>,
    process: Child,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
}

impl DockerRegistry {
    pub(crate) fn start() -> Self {
        Self::serve(Rc::new(TempDir::new().unwrap()), "127.0.0.1", "")
    }

    /// Another server for the same data: with TLS, on a host that is not exempt from checks
    /// (Linux takes 0.0.0.0 as itself). Certificate and key are PEM.
    pub(crate) fn with_tls(&self, certificate: &str, key: &str) -> Self {
        let at = self.dir.path().display();
        fs::write(self.dir.path().join("cert.pem"), certificate).unwrap();
        fs::write(self.dir.path().join("key.pem"), key).unwrap();
        let tls = format!(", tls: {{certificate: {at}/cert.pem, key: {at}/key.pem}}");
        Self::serve(Rc::clone(&self.dir), "0.0.0.0", &tls)
    }

    fn serve(dir: Rc<TempDir>, host: &str, tls: &str) -> Self {
        let free = std::net::TcpListener::bind((host, 0)).unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let data = dir.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data}/data}}}}\n\
             http: {{addr: '{address}'{tls}}}\n"
        );
        let path = dir.path().join(format!("{address}.yml"));
        fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        wait_for("docker-registry", || std::net::TcpStream::connect(&address).is_ok());
        Self { dir, process, address }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A tar archive of what is in `dir`.
pub(crate) fn tar(dir: &Path) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(dir).args(["-cf", "-", "."]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_there() {
        assert!(Instant::now() < end, "{what} does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}
