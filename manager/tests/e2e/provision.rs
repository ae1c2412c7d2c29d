//! `pi-mgr provision`: a Debian with sshd becomes a node over the real ssh, apt, dpkg and a real manager.
//!
//! The board is a Debian of its own (mmdebstrap's, kept in target/) in a mount and UTS namespace, on the lab's network.
//! Only systemd is a stand-in, which starts what the units say.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{SOON, get, wait};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::process::{run, wait_for};
use crate::lab::require::bin_dir;
use crate::support::{Said, busybox, docker, has, pi_mgr, pi_mgr_with, said};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/provision");
const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A machine that shall be a node, and who provisions it.
struct Machine<'a> {
    lab: &'a Lab,
    root: PathBuf,
    /// Keys, ssh's configuration, packages.
    desk: PathBuf,
    /// The temporary directory of who provisions it, with a short path: there are sockets in it.
    tmp: tempfile::TempDir,
    address: String,
    token: String,
}

impl<'a> Machine<'a> {
    /// In the place of the lab's board 1, of which the manager forgets.
    fn boot(lab: &'a Lab) -> Result<Self> {
        let board = lab.board(1)?;
        board.act(Verb::KillAgent)?;
        pi_mgr(lab, &["node", "rm", "--force", "board1"])?.good()?;
        let (root, desk) = (board.directory().join("root"), lab.directory.join("desk"));
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&desk)?;
        run(&["tar", "-C", &text(&root), "-xf", &text(&base()?), "--exclude=./dev/*"])?;
        let token = pi_mgr(lab, &["join-token", "-q", "worker"])?.good()?.trim().to_owned();
        let tmp = tempfile::tempdir()?;
        let machine = Self { lab, root, desk, tmp, address: board.address().to_string(), token };
        machine.set_up()?;
        let script = format!("{HERE}/board.sh");
        let words = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", &script, &text(&machine.root)];
        board.start("sshd", &words.map(str::to_owned))?;
        let scan = |_: &()| said(Command::new("ssh-keyscan").args(["-T", "2", &machine.address]));
        wait_for("sshd to answer", SOON, || Ok(scan(&())?.out.contains("ssh-ed25519").then_some(())))?;
        Ok(machine)
    }

    fn write(&self, path: &str, content: &str) -> Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    fn read(&self, path: &str) -> Result<String> {
        let path = self.root.join(path);
        Ok(String::from_utf8_lossy(&fs::read(&path).with_context(|| path.display().to_string())?).into_owned())
    }

    /// Users `pi`, who has sudo, and `guest`, who has not; a key for both; a new card's name.
    fn set_up(&self) -> Result<()> {
        self.write("etc/hostname", "raspberrypi\n")?;
        self.write("etc/machine-id", "0123456789abcdef0123456789a1b2c3\n")?;
        self.write("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")?;
        let _ = fs::remove_file(self.root.join("etc/resolv.conf"));
        self.write("etc/sudoers.d/pi", "pi ALL=(ALL) NOPASSWD: ALL\n")?;
        // A file that somebody wrote stays when the package comes.
        let registry = self.lab.registry().host();
        self.write("etc/racimo/agent.toml", &format!("insecure-registries = [\"{registry}\"]\n"))?;
        self.apt("file:/repo")?;
        for program in ["systemctl", "journalctl"] {
            let to = self.root.join("usr/bin").join(program);
            let _ = fs::remove_file(&to);
            match program {
                "systemctl" => fs::copy(format!("{HERE}/systemctl"), &to).map(drop)?,
                _ => fs::write(&to, "#!/bin/sh\ntail -n 6 /var/log/pi-agent.log\n")?,
            }
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        }
        let key = text(&self.desk.join("key"));
        run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key])?;
        for user in ["pi", "guest"] {
            let root = text(&self.root);
            run(&["chroot", &root, "useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", user])?;
            let keys = format!("home/{user}/.ssh/authorized_keys");
            self.write(&keys, &fs::read_to_string(format!("{key}.pub"))?)?;
            run(&["chroot", &root, "chown", "-R", user, &format!("/home/{user}/.ssh")])?;
        }
        let config =
            format!("UserKnownHostsFile {0}/known\nGlobalKnownHostsFile /dev/null\nBatchMode yes\n", text(&self.desk));
        Ok(fs::write(self.desk.join("config"), config)?)
    }

    fn apt(&self, from: &str) -> Result<()> {
        let _ = fs::remove_dir_all(self.root.join("etc/apt/sources.list.d"));
        self.write("etc/apt/sources.list", &format!("deb [trusted=yes] {from} ./\n"))
    }

    /// What a person does who has looked at the board's key.
    fn trust(&self) -> Result<()> {
        let key = self.read("etc/ssh/ssh_host_ed25519_key.pub")?;
        Ok(fs::write(self.desk.join("known"), format!("{} {key}", self.address))?)
    }

    /// A package of the agent, as `make dist` makes it, of this machine's own build.
    fn pack(&self, version: &str) -> Result<String> {
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let built = self.desk.join("built").join(&target).join("release");
        fs::create_dir_all(&built)?;
        let programs = bin_dir()?;
        run(&["strip", "-o", &text(&built.join("pi-agent")), &text(&programs.join("pi-agent"))])?;
        let dist = text(&self.desk.join(version));
        let mut pack = Command::new(format!("{TOP}/cross/dist.sh"));
        pack.arg(target).env("PROGRAMS", "pi-agent").env("VERSION", version).env("RACIMO_DIST", &dist);
        pack.env("RACIMO_BUILT", self.desk.join("built"));
        pack.env("CARGO_TARGET_DIR", programs.parent().context("a target directory")?);
        said(&mut pack)?.good()?;
        Ok(dist)
    }

    /// The same package with another version.
    fn repack(&self, from: &str, version: &str) -> Result<String> {
        let (tree, dist) = (text(&self.desk.join("tree")), text(&self.desk.join(version)));
        fs::create_dir_all(&dist)?;
        let arch = run(&["dpkg", "--print-architecture"])?;
        let deb = |directory: &str, version: &str| format!("{directory}/pi-agent_{version}_{}.deb", arch.trim());
        run(&["dpkg-deb", "-R", &deb(from, "0.1.0"), &tree])?;
        let control = format!("{tree}/DEBIAN/control");
        let text = fs::read_to_string(&control)?;
        fs::write(&control, text.replace("Version: 0.1.0\n", &format!("Version: {version}\n")))?;
        run(&["dpkg-deb", "--root-owner-group", "-Znone", "--build", &tree, &deb(&dist, version)])?;
        Ok(dist)
    }

    /// `pi-mgr provision`, while nobody sees the token.
    fn provision(&self, user: &str, flags: &[&str]) -> Result<Said> {
        let board = format!("{user}@{}", self.address);
        let (config, key) = (text(&self.desk.join("config")), text(&self.desk.join("key")));
        let line = [&["provision", "-F", &config, "-i", &key], flags, &[&board]].concat();
        let (over, seen) = (AtomicBool::new(false), AtomicBool::new(false));
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if self.is_on_a_command_line() {
                        seen.store(true, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let said = pi_mgr_with(self.lab, &format!("TMPDIR={}", text(self.tmp.path())), &line);
            over.store(true, Ordering::Relaxed);
            said
        })?;
        assert!(!seen.load(Ordering::Relaxed), "the token was on a command line");
        assert!(!format!("{said:?}").contains(&self.token), "the token was shown");
        Ok(said)
    }

    fn is_on_a_command_line(&self) -> bool {
        let lines = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("cmdline"));
        let mut lines = lines.filter_map(|path| fs::read(path).ok());
        lines.any(|line| String::from_utf8_lossy(&line).contains(&self.token))
    }

    /// A command on the board, by its own sshd.
    fn ssh(&self, command: &str) -> Result<Said> {
        let (config, key) = (text(&self.desk.join("config")), text(&self.desk.join("key")));
        let board = format!("pi@{}", self.address);
        said(Command::new("ssh").args(["-F", &config, "-i", &key, &board, command]))
    }

    /// Nodes but the manager's own.
    fn nodes(&self) -> Result<Vec<Value>> {
        let mut nodes = get(self.lab, "/nodes")?.as_array().context("a list")?.clone();
        nodes.retain(|node| node["Spec"]["Role"] == "worker");
        Ok(nodes)
    }

    fn node(&self) -> Result<Value> {
        let nodes = self.nodes()?;
        ensure!(nodes.len() == 1, "one node: {nodes:?}");
        Ok(nodes[0].clone())
    }

    /// What runs that are over left in their temporary directory.
    fn left(&self) -> Result<Vec<PathBuf>> {
        Ok(fs::read_dir(self.tmp.path())?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
    }

    fn agent_pid(&self) -> Result<String> {
        self.ssh("cat /run/unit-pi-agent.pid")?.good()
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What it told while it worked, and its result.
fn both(said: Said) -> Result<(String, String)> {
    let told = said.err.clone();
    Ok((told, said.good()?))
}

/// The tar of a new board's Debian, of this machine's release, so that its programs run there.
fn base() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).context("no release")?;
    let target = bin_dir()?.parent().context("a target directory")?.to_owned();
    let file = target.join(format!("provision-base-{suite}.tar"));
    if !file.exists() {
        run(&[&format!("{HERE}/base.sh"), suite, &text(&file)])?;
    }
    Ok(file)
}

#[test]
#[ignore = "needs root"]
fn a_debian_becomes_a_node_over_ssh() -> Result<()> {
    let lab = Guard::cluster(1)?;
    let machine = Machine::boot(&lab)?;
    let packages = machine.pack("0.1.0")?;
    let flags = ["--debs", packages.as_str(), "--hostname", "board1", "--label", "room=kitchen north"];
    refusals(&machine, &flags)?;
    waits_for_its_apt(&machine, &flags)?;
    installs(&machine, &flags)?;
    a_second_run_changes_nothing(&machine, &flags)?;
    only_what_is_older_is_replaced(&machine)?;
    a_node_of_others_is_left_alone(&machine, &flags)
}

/// Each says what is wrong and what to do, and leaves the board as it was.
fn refusals(machine: &Machine<'_>, flags: &[&str]) -> Result<()> {
    let failed = |user: &str, flags: &[&str], words: &[&str]| {
        let (code, said) = machine.provision(user, flags)?.bad()?;
        assert_eq!(code, 1, "{said}");
        words.iter().for_each(|words| has(&said, words));
        anyhow::Ok(said)
    };
    failed("pi", flags, &["cannot connect", "Host key verification failed", "compare its key: ssh pi@"])?;
    machine.trust()?;
    failed("nobody-there", flags, &["cannot connect", "Permission denied", "ssh-copy-id"])?;
    failed("guest", flags, &["sudo asks for a password there", "NOPASSWD"])?;
    let said = failed("pi", &[], &["pi-agent is not installed there, and its apt does not know it", "--debs DIR"])?;
    ensure!(said.lines().count() == 1, "one reason: {said}");
    machine.apt("file:/gone")?;
    failed("pi", flags, &["installing packages failed\n    ", "/gone", "run this again"])?;
    machine.apt("file:/repo")?;
    ensure!(!machine.root.join("usr/bin/containerd").exists() && machine.nodes()?.is_empty(), "something was changed");
    Ok(())
}

/// A board's own apt is waited for; a pi-mgr that is ended meanwhile leaves no connection.
fn waits_for_its_apt(machine: &Machine<'_>, flags: &[&str]) -> Result<()> {
    let lock = fs::OpenOptions::new().create(true).append(true).open(machine.root.join("var/lib/apt/lists/lock"))?;
    rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let said = machine.desk.join("said");
    let socket = format!("unix://{}", machine.lab.manager().socket().display());
    let (config, key) = (text(&machine.desk.join("config")), text(&machine.desk.join("key")));
    let mut child = Command::new(bin_dir()?.join("pi-mgr"))
        .args(["provision", "-F", &config, "-i", &key])
        .args(flags)
        .arg(format!("pi@{}", machine.address))
        .env("RACIMO_HOST", socket)
        .env("TMPDIR", machine.tmp.path())
        .stderr(fs::File::create(&said)?)
        .spawn()?;
    let masters = || {
        let lines = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("cmdline"));
        let lines = lines.filter_map(|path| String::from_utf8(fs::read(path).ok()?).ok());
        lines.filter(|line| line.contains("ControlPersist=no") && line.contains(&config)).count()
    };
    wait(machine.lab, "it to wait", SOON, || {
        let said = fs::read_to_string(&said)?;
        Ok((said.contains("Its own apt is at work (") && said.contains("Installing containerd")).then_some(()))
    });
    assert_eq!(masters(), 1);
    assert!(!machine.root.join("usr/bin/containerd").exists(), "it did not wait");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    assert_eq!(child.wait()?.code(), Some(128 + 15));
    assert_eq!(machine.left()?, Vec::<PathBuf>::new(), "it left something here");
    // What ran there has its end when the lock is free; what it left half done the next run finishes.
    drop(lock);
    wait(machine.lab, "ssh to end", SOON, || Ok((masters() == 0).then_some(())));
    Ok(())
}

fn installs(machine: &Machine<'_>, flags: &[&str]) -> Result<()> {
    let begin = Instant::now();
    // A manager that the board does not reach: what was installed stays, and the next run goes on.
    let wrong = [flags, &["--manager", "127.0.0.2:1"]].concat();
    let (_, said) = machine.provision("pi", &wrong)?.bad()?;
    has(&said, "no board can dial \"127.0.0.2:1\"");
    let closed = format!("{}:9", machine.lab.subnet().manager());
    let wrong = [flags, &["--manager", &closed]].concat();
    let (_, said) = machine.provision("pi", &wrong)?.bad()?;
    has(&said, "joining failed\n    ");
    has(&said, "--manager HOST[:PORT]");
    clean(machine)?;
    // It takes no tasks yet.
    let (page, result) = both(machine.provision("pi", &[flags, &["--availability", "drain"]].concat())?)?;
    assert!(!page.contains("Installing"), "{page}");
    has(&page, "board1, Debian GNU/Linux");
    has(&page, "Joining the cluster at ");
    println!("two runs took {:?}", begin.elapsed());
    let node = machine.node()?;
    let id = node["ID"].as_str().unwrap_or_default();
    assert_eq!(result, format!("board1 is node {id}. It is ready, its availability drain.\n"));
    assert_eq!((&node["Status"]["State"], &node["Spec"]["Availability"]), (&"ready".into(), &"drain".into()));
    // And then it does. A program reads what came of it.
    let flags = ["--debs", flags[1], "--availability", "active"];
    for is_changed in [true, false] {
        let (page, result) = both(machine.provision("pi", &[&flags[..], &["--format", "json"]].concat())?)?;
        let want = json!({
            "ID": id, "Hostname": "board1", "Status": "ready", "Availability": "active", "Changed": is_changed
        });
        assert_eq!(serde_json::from_str::<Value>(&result)?, want);
        assert_eq!(page.contains("Waiting until it is ready"), is_changed, "{page}");
    }
    let (_, result) = both(machine.provision("pi", &["--format", "{{.Hostname}}: {{.Changed}}"])?)?;
    assert_eq!(result, "board1: false\n");
    assert_eq!(node["Description"]["Hostname"], "board1");
    wait(machine.lab, "its label", SOON, || {
        Ok((machine.node()?["Description"]["Engine"]["Labels"]["room"] == "kitchen north").then_some(()))
    });
    // Real packages of a real dpkg.
    let packages = machine.ssh(
        "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' pi-agent containerd runc crun tini nftables",
    )?;
    let packages = packages.good()?;
    assert_eq!(packages.matches(" installed\n").count(), 6, "{packages}");
    has(&packages, "pi-agent 0.1.0 ");
    has(&machine.read("etc/racimo/agent.toml")?, "insecure-registries");
    clean(machine)?;
    // It does a node's work.
    docker(
        machine.lab,
        &[
            "service",
            "create",
            "-d",
            "-q",
            "--name",
            "web",
            "--network",
            "host",
            &busybox(machine.lab),
            "sleep",
            "1000000",
        ],
    )?
    .good()?;
    crate::support::running(machine.lab, "web", 1);
    Ok(())
}

/// Nothing of the token, and of what was brought to join, is left.
fn clean(machine: &Machine<'_>) -> Result<()> {
    for place in ["etc", "home", "root", "tmp", "var"] {
        let place = text(&machine.root.join(place));
        let found =
            said(Command::new("grep").args(["-rlIF", "--exclude-dir=containerd", "-e", &machine.token, &place]))?;
        assert_eq!(found.out, "", "the token is there");
    }
    let left = machine
        .ssh("sudo find /run /var/lib /var/tmp -maxdepth 1 -name 'racimo*.*' -o -maxdepth 1 -name 'racimo-p*'")?;
    assert_eq!(left.good()?, "");
    assert_eq!(machine.left()?, Vec::<PathBuf>::new(), "ssh's socket is left");
    Ok(())
}

fn a_second_run_changes_nothing(machine: &Machine<'_>, flags: &[&str]) -> Result<()> {
    let before = (machine.agent_pid()?, machine.read("var/log/dpkg.log")?, machine.node()?["ID"].clone());
    let page = machine.provision("pi", &flags[..2])?.good()?;
    has(&page, "board1 is already in the cluster, as node ");
    // Settings that it has already start nothing anew, and the token is not needed for them.
    has(&both(machine.provision("pi", flags)?)?.0, "Giving it its settings");
    let quiet = machine.provision("pi", &["--debs", flags[1], "--quiet"])?.good()?;
    assert_eq!(quiet.trim(), before.2.as_str().unwrap_or_default());
    let after = (machine.agent_pid()?, machine.read("var/log/dpkg.log")?, machine.node()?["ID"].clone());
    assert_eq!(before, after);
    // Another label is there without another package, and the node stays.
    machine.provision("pi", &["--label", "room=cellar"])?.good()?;
    wait(machine.lab, "its new label", SOON, || {
        Ok((machine.node()?["Description"]["Engine"]["Labels"]["room"] == "cellar").then_some(()))
    });
    assert_eq!(machine.node()?["ID"], before.2);
    // An agent that somebody stopped runs again.
    machine.ssh("sudo systemctl stop pi-agent")?.good()?;
    let (page, result) = both(machine.provision("pi", &["--format", "{{.Changed}}"])?)?;
    has(&page, "Started pi-agent\n");
    assert_eq!(result, "true\n");
    machine.ssh("sudo systemctl is-active pi-agent")?.good()?;
    Ok(())
}

/// How often the manager has said that a node is down.
fn downs(machine: &Machine<'_>) -> Result<usize> {
    Ok(String::from_utf8_lossy(&fs::read(machine.lab.manager().log())?).matches(" is down: ").count())
}

fn only_what_is_older_is_replaced(machine: &Machine<'_>) -> Result<()> {
    let older = text(&machine.desk.join("0.1.0"));
    let newer = machine.repack(&older, "0.1.1")?;
    let (pid, node) = (machine.agent_pid()?, machine.node()?["ID"].clone());
    let (task, downs) = (crate::support::running(machine.lab, "web", 1)[0].id.clone(), downs(machine)?);
    let (page, _) = both(machine.provision("pi", &["--debs", &newer])?)?;
    has(&page, "Installing pi-agent 0.1.1");
    assert!(!page.contains("containerd") && !page.contains("Joining"), "{page}");
    assert_eq!(machine.ssh("dpkg-query -W -f '${Version}' pi-agent")?.good()?, "0.1.1");
    assert_ne!(machine.agent_pid()?, pid, "the new one runs");
    assert_eq!(machine.node()?["ID"], node);
    // Its task runs on, unless the machine was so busy that the board counted as down meanwhile.
    if self::downs(machine)? == downs {
        assert_eq!(crate::support::running(machine.lab, "web", 1)[0].id, task);
    } else {
        println!("NOT LOOKED AT: whether the task ran on, as the board counted as down meanwhile");
    }
    // And not by an older one.
    machine.provision("pi", &["--debs", &older])?.good()?;
    assert_eq!(machine.ssh("dpkg-query -W -f '${Version}' pi-agent")?.good()?, "0.1.1");
    crate::support::running(machine.lab, "web", 1);
    // What the board leaves outside of its own namespaces is gone before it is.
    crate::support::remove(machine.lab, &["web"])?;
    wait(machine.lab, "its container to go", SOON, || {
        Ok(machine.ssh("sudo ctr --namespace racimo containers ls --quiet")?.good()?.trim().is_empty().then_some(()))
    });
    Ok(())
}

fn a_node_of_others_is_left_alone(machine: &Machine<'_>, flags: &[&str]) -> Result<()> {
    let path = "var/lib/racimo/agent/identity/cluster.json";
    let own = machine.read(path)?;
    let record: Value = serde_json::from_str(&own)?;
    let cluster = record["cluster"].as_str().context("a cluster")?;
    machine.write(path, &own.replace(cluster, "0000000000000000000000000"))?;
    let (_, said) = machine.provision("pi", flags)?.bad()?;
    has(&said, "it is in another cluster (0000000000000000000000000)");
    has(&said, "sudo pi-agent leave");
    // Nor one that keeps its identity elsewhere; where that cannot be told, nothing is joined.
    let settings = machine.read("etc/racimo/agent.toml")?;
    let elsewhere = "srv/agent/identity/cluster.json";
    machine.write(elsewhere, &own.replace(cluster, "0000000000000000000000001"))?;
    for (text, words) in [
        ("data-dir = '/srv/agent' # disk\r\n", "it is in another cluster (0000000000000000000000001)"),
        ("\"data-dir\" = \"/srv/agent\"\n", "the line data-dir in /etc/racimo/agent.toml is not a plain one"),
        ("log-level = \"\"\"\ninfo\"\"\"\n", "is not a plain one"),
    ] {
        machine.write("etc/racimo/agent.toml", &format!("{text}{settings}[labels]\ndata-dir = \"x\"\n"))?;
        has(&machine.provision("pi", flags)?.bad()?.1, words);
    }
    machine.write("etc/racimo/agent.toml", &settings)?;
    let dropin = "etc/systemd/system/pi-agent.service.d/50-own.conf";
    machine.write(dropin, "[Service]\nEnvironment=RACIMO_DATA_DIR=/srv/agent\n")?;
    has(&machine.provision("pi", flags)?.bad()?.1, "the unit pi-agent.service, or a file of its environment, names");
    fs::remove_file(machine.root.join(dropin))?;
    machine.write(path, "{")?;
    has(&machine.provision("pi", flags)?.bad()?.1, "pi-agent reset-identity");
    machine.write(path, &own)?;
    // Removed at the manager: it says so rather than wait for what never comes.
    machine.ssh("sudo systemctl stop pi-agent")?.good()?;
    pi_mgr(machine.lab, &["node", "rm", "--force", "board1"])?.good()?;
    let (_, said) = machine.provision("pi", flags)?.bad()?;
    has(&said, "which was removed");
    machine.ssh("sudo pi-agent reset-identity")?.good()?;
    has(&both(machine.provision("pi", flags)?)?.0, "Joining the cluster");
    assert_eq!(machine.node()?["Status"]["State"], "ready");
    Ok(())
}
