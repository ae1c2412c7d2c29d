//! Secrets, configs, templates and registry credentials: from the client's file to the container's, and nowhere else.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::{SOON, live, wait};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::disk;
use crate::lab::guard::Guard;
use crate::support::{Inside, all, busybox, create, docker, has, pi_mgr, reached, remove, running};

const SLEEP: [&str; 2] = ["sleep", "100000"];
/// In every secret of these tests.
const MARK: &str = "hunter2-is-nowhere-on-a-disk";

/// A file outside of the lab, with a mark in it.
fn file(bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), bytes)?;
    Ok(file)
}

fn make(lab: &Lab, kind: &str, name: &str, options: &[&str], bytes: &[u8]) -> Result<()> {
    let file = file(bytes)?;
    let path = file.path().to_str().context("a path")?;
    docker(lab, &[&[kind, "create"], options, &[name, path]].concat())?.good().map(drop)
}

#[test]
#[ignore = "needs root"]
fn secrets_reach_their_containers_and_nothing_else() -> Result<()> {
    let lab = Guard::cluster(2)?;
    make(&lab, "secret", "key", &["--label", "a=b"], format!("{MARK}\n").as_bytes())?;
    make(&lab, "config", "site", &[], b"plain config\n")?;
    all(
        &lab,
        &[
            ("files", files),
            ("rotation", rotation),
            ("templates", templates),
            ("sizes", sizes),
            ("refusals", refusals),
            ("pi-mgr", with_pi_mgr),
        ],
    );
    reboot(&lab)?;
    // What is stored is sealed; what is written of it anywhere is ciphertext.
    create(&lab, "last", &["--mode", "global", "--secret", "key"], &SLEEP)?;
    running(&lab, "last", 2);
    let mut found = Vec::new();
    let looked = search(&lab.directory, &mut found)?;
    assert!(found.is_empty(), "a secret is in {found:?}");
    ensure!(looked > 100, "only {looked} files were looked at");
    // Every board forgets it with its last task.
    remove(&lab, &["last"])?;
    wait(&lab, "the boards to forget the secret", SOON, || {
        let left: Vec<_> = lab.boards().iter().flat_map(|board| kept(&board.directory())).collect();
        Ok(left.is_empty().then_some(()))
    });
    docker(&lab, &["secret", "rm", "key"])?.good()?;
    Ok(())
}

/// The agent's file system in memory.
fn memory(board: &Path) -> PathBuf {
    board.join("run/agent/secrets")
}

fn kept(board: &Path) -> Vec<PathBuf> {
    let below = |what: &str| fs::read_dir(memory(board).join(what)).into_iter().flatten().flatten();
    below("body").chain(below("task")).map(|entry| entry.path()).collect()
}

/// Every file on the lab's disks that has the mark in it; how many were looked at.
fn search(directory: &Path, found: &mut Vec<PathBuf>) -> Result<usize> {
    let mut looked = 0;
    for entry in fs::read_dir(directory)?.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        // In memory only: a tmpfs, a container's root (whose layers are looked at where they are).
        let mounted = fs::symlink_metadata(&path)
            .is_ok_and(|meta| fs::symlink_metadata(directory).is_ok_and(|parent| parent.dev() != meta.dev()));
        if mounted || kind.is_symlink() || kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
            continue;
        }
        if kind.is_dir() {
            looked += search(&path, found).unwrap_or(0);
        } else if let Ok(bytes) = fs::read(&path) {
            looked += 1;
            if bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes()) {
                found.push(path);
            }
        }
    }
    Ok(looked)
}

/// A file as the container sees it: content, owner, group, permission bits.
fn seen(inside: &Inside, path: &str) -> Result<(String, u32, u32, u32)> {
    let real = PathBuf::from(format!("/proc/{}/root{path}", inside.pid));
    let meta = fs::metadata(&real).with_context(|| format!("look at {path}"))?;
    Ok((String::from_utf8_lossy(&fs::read(&real)?).into_owned(), meta.uid(), meta.gid(), meta.mode() & 0o7777))
}

fn files(lab: &Lab) -> Result<()> {
    let options = [
        "--secret=key",
        "--secret=source=key,target=other,uid=5,gid=6,mode=0400",
        "--secret=source=key,target=/etc/deep/key",
        "--config=source=site,target=/etc/site.conf,mode=0440",
        "--config=site",
    ];
    create(lab, "files", &options, &SLEEP)?;
    let inside = Inside::of(lab, "files")?;
    let content = format!("{MARK}\n");
    assert_eq!(seen(&inside, "/run/secrets/key")?, (content.clone(), 0, 0, 0o444));
    assert_eq!(seen(&inside, "/run/secrets/other")?, (content.clone(), 5, 6, 0o400));
    assert_eq!(seen(&inside, "/etc/deep/key")?, (content, 0, 0, 0o444));
    assert_eq!(seen(&inside, "/etc/site.conf")?, ("plain config\n".into(), 0, 0, 0o440));
    assert_eq!(seen(&inside, "/site")?, ("plain config\n".into(), 0, 0, 0o444));
    let mount = inside.mount("/run/secrets/key")?;
    has(&mount, " ro,");
    has(&mount, " - tmpfs ");
    // Only paths are in what containerd keeps.
    let container = lab.board(inside.board)?.ctr(&["containers", "info", &inside.task])?;
    has(&container, "/run/secrets/key");
    assert!(!container.contains(MARK), "{container}");
    let environment = inside.process("environ")?;
    assert!(!environment.contains(MARK), "{environment}");
    let used = docker(lab, &["secret", "rm", "key"])?.bad()?.1;
    has(&used, "secret 'key' is in use by the following service");
    has(&docker(lab, &["config", "rm", "site"])?.bad()?.1, "config 'site' is in use by the following service");
    remove(lab, &["files"])
}

fn rotation(lab: &Lab) -> Result<()> {
    make(lab, "secret", "old", &[], b"old")?;
    make(lab, "secret", "new", &[], b"new")?;
    create(lab, "rotated", &["--secret=source=old,target=key"], &SLEEP)?;
    assert_eq!(seen(&Inside::of(lab, "rotated")?, "/run/secrets/key")?.0, "old");
    let update = ["service", "update", "-q", "--secret-rm", "old", "--secret-add", "source=new,target=key", "rotated"];
    docker(lab, &update)?.good()?;
    assert_eq!(seen(&Inside::of(lab, "rotated")?, "/run/secrets/key")?.0, "new");
    docker(lab, &["secret", "rm", "old"])?.good()?;
    // There is no way back to a secret that is gone.
    has(&docker(lab, &["service", "rollback", "-q", "rotated"])?.bad()?.1, "secret not found: old");
    remove(lab, &["rotated"])
}

fn templates(lab: &Lab) -> Result<()> {
    let body = "{{.Service.Name}} {{.Task.Slot}} {{.Node.Hostname}} {{env \"WHO\"}} {{secret \"key\" | len}}";
    make(lab, "config", "filled", &["--template-driver", "golang"], body.as_bytes())?;
    let options = [
        "--secret=key",
        "--config=source=filled,target=/filled",
        "--env=WHO={{.Service.Labels.who}}",
        "--label=who=me",
        "--hostname={{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}",
        "--mount=type=volume,source=vol-{{.Task.Slot}},target=/data-{{.Task.Slot}}",
    ];
    create(lab, "filled", &options, &SLEEP)?;
    let inside = Inside::of(lab, "filled")?;
    let board = format!("board{}", inside.board);
    assert_eq!(seen(&inside, "/filled")?.0, format!("filled 1 {board} me {}", MARK.len() + 1));
    assert_eq!(inside.process("root/etc/hostname")?.trim(), format!("filled-1-{board}"));
    has(&inside.process("environ")?, "WHO=me");
    inside.mount("/data-1")?;
    assert!(lab.board(inside.board)?.data().join("volumes/vol-1/_data").exists());
    // A template that fails for its tasks rejects them, with the reason.
    make(lab, "config", "broken", &["--template-driver", "golang"], b"{{secret \"nope\"}}")?;
    create(lab, "broken", &["--config=broken"], &SLEEP)?;
    let row = reached(lab, "broken", &["rejected"]);
    has(
        &row.err,
        "expanding config 'broken' failed: template: 1:1: the service has no secret with the target it asks for",
    );
    remove(lab, &["filled", "broken"])
}

fn sizes(lab: &Lab) -> Result<()> {
    let (secret, config) = (vec![b's'; 511_999], vec![b'c'; 1_023_999]);
    make(lab, "secret", "large", &[], &secret)?;
    make(lab, "config", "large", &[], &config)?;
    create(lab, "large", &["--secret=large", "--config=source=large,target=/large"], &SLEEP)?;
    let inside = Inside::of(lab, "large")?;
    assert_eq!(seen(&inside, "/run/secrets/large")?.0.as_bytes(), secret);
    assert_eq!(seen(&inside, "/large")?.0.as_bytes(), config);
    let too = |kind: &str, bytes: usize| make(lab, kind, "too", &[], &vec![b'x'; bytes]).map_err(|e| format!("{e:#}"));
    has(&too("secret", 512_000).expect_err("refused"), "secret data must be larger than 0 and less than 512000 bytes");
    // docker reads no more than 1,000 KiB of a config.
    has(&too("config", 1_024_000).expect_err("refused"), "1024000");
    remove(lab, &["large"])
}

fn refusals(lab: &Lab) -> Result<()> {
    let bad = |arguments: &[&str], wanted: &str| -> Result<()> {
        has(&docker(lab, arguments)?.bad()?.1, wanted);
        Ok(())
    };
    let again = file(b"x")?;
    let path = again.path().to_str().context("a path")?;
    bad(&["secret", "create", "key", path], "secret key already exists")?;
    bad(&["secret", "create", "KEY", path], "secret KEY already exists")?;
    bad(&["secret", "create", "--driver", "vault", "x"], "secrets of external drivers are not supported")?;
    bad(&["config", "create", "--template-driver", "jinja", "x", path], "expected golang")?;
    bad(&["secret", "inspect", "nosuch"], "secret nosuch not found")?;
    bad(&["secret", "rm", "nosuch"], "secret nosuch not found")?;
    let image = busybox(lab);
    let create = |option: &str, wanted: &str| bad(&["service", "create", "-d", option, &image, "true"], wanted);
    create("--secret=nosuch", "secret not found: nosuch")?;
    create("--secret=source=key,target=../key", "invalid target file name provided")?;
    let shown = docker(lab, &["secret", "inspect", "key"])?.good()?;
    assert!(!shown.contains("Data"), "{shown}");
    Ok(())
}

fn with_pi_mgr(lab: &Lab) -> Result<()> {
    let say = |line: &str| pi_mgr(lab, &line.split(' ').collect::<Vec<_>>())?.good().with_context(|| line.to_owned());
    let (secret, config) = (file(MARK.as_bytes())?, file(b"{{.Task.Slot}}")?);
    let id = say(&format!("secret create -l x=y mine {}", secret.path().display()))?;
    say(&format!("config create --template-driver golang mine {}", config.path().display()))?;
    for line in
        ["secret ls -q --filter name=mine", "config ls --filter name=mine --format {{.Name}}", "secret inspect mine"]
    {
        assert_eq!(say(line)?, docker(lab, &line.split(' ').collect::<Vec<_>>())?.good()?, "{line}");
    }
    assert_eq!(say("secret ls -q --filter name=mine")?, id);
    let image = busybox(lab);
    say(&format!("service create -d --name mine --secret mine --config source=mine,target=/c {image} sleep 100000"))?;
    let inside = Inside::of(lab, "mine")?;
    assert_eq!(seen(&inside, "/run/secrets/mine")?.0, MARK);
    assert_eq!(seen(&inside, "/c")?.0, "1");
    has(&pi_mgr(lab, &["secret", "rm", "mine"])?.bad()?.1, "secret 'mine' is in use by the following service: mine");
    say("service rm mine")?;
    say("secret rm mine")?;
    say("config rm mine").map(drop)
}

fn reboot(lab: &Lab) -> Result<()> {
    create(lab, "reboot", &["--secret=key", "--constraint=node.hostname==board2"], &SLEEP)?;
    let before = Inside::of(lab, "reboot")?;
    let board = lab.board(2)?;
    // An agent that is killed leaves its containers their files, and the next one knows them.
    board.act(Verb::KillAgent)?;
    assert_eq!(seen(&before, "/run/secrets/key")?.0.trim(), MARK);
    board.act(Verb::StartAgent)?;
    docker(lab, &["service", "scale", "-d", "reboot=2"])?.good()?;
    for row in running(lab, "reboot", 2) {
        ensure!(row.id != before.task || row.state == "running", "{row:?}");
    }
    docker(lab, &["service", "scale", "-d", "reboot=1"])?.good()?;
    running(lab, "reboot", 1);
    board.act(Verb::PowerOff)?;
    assert!(disk::mounts_below(&memory(&board.directory()))?.is_empty(), "memory survives no loss of power");
    board.act(Verb::PowerOn)?;
    let after = wait(lab, "a new task with its secret", SOON * 2, || {
        let rows = live(lab, "reboot")?;
        let fresh = rows.len() == 1 && rows[0].id != before.task;
        Ok(fresh.then(|| Inside::of(lab, "reboot").ok()).flatten())
    });
    assert_eq!(seen(&after, "/run/secrets/key")?.0.trim(), MARK);
    remove(lab, &["reboot"])
}

/// `docker login` would write the same.
fn login(lab: &Lab, user: Option<&str>) -> Result<()> {
    let folder = lab.directory.join("docker-config");
    fs::create_dir_all(&folder)?;
    let auths = user.map_or_else(|| json!({}), |pair| json!({ lab.registry().host(): { "auth": pair } }));
    Ok(fs::write(folder.join("config.json"), json!({ "auths": auths }).to_string())?)
}

#[test]
#[ignore = "needs root"]
fn boards_pull_with_a_user_s_credentials() -> Result<()> {
    let lab = Guard::cluster(1)?;
    // hunter22, as `htpasswd -B` writes it.
    lab.registry().lock("ada:$2b$05$abcdefghijklmnopqrstuuZ6QNu0NKXZkZHC5hsQUItfxcGamvB8i")?;
    lab.registry().kill()?;
    lab.start_registry()?;
    login(&lab, None)?;
    create(&lab, "stranger", &["--no-resolve-image"], &SLEEP)?;
    let row = reached(&lab, "stranger", &["rejected"]);
    ensure!(row.err.contains("401") || row.err.to_lowercase().contains("auth"), "{row:?}");
    remove(&lab, &["stranger"])?;
    // ada:hunter22
    login(&lab, Some("YWRhOmh1bnRlcjIy"))?;
    create(&lab, "ada", &["--with-registry-auth"], &SLEEP)?;
    running(&lab, "ada", 1);
    let shown = docker(&lab, &["service", "inspect", "ada"])?.good()?;
    assert!(!shown.contains("hunter22") && !shown.contains("YWRhOmh1bnRlcjIy"), "{shown}");
    // An update without credentials keeps them; pi-mgr sends them too.
    docker(&lab, &["service", "update", "-d", "-q", "--env-add", "A=1", "ada"])?.good()?;
    running(&lab, "ada", 1);
    let image = busybox(&lab);
    let line = ["service", "create", "-d", "--with-registry-auth", "--name", "ours", &image, "sleep", "100000"];
    pi_mgr(&lab, &line)?.good()?;
    running(&lab, "ours", 1);
    let mut found = Vec::new();
    for directory in [lab.manager().data(), lab.board(1)?.directory()] {
        credentials(&directory, &mut found)?;
    }
    assert!(found.is_empty(), "the password is in {found:?}");
    Ok(())
}

/// Files that hold the password.
fn credentials(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            let _ = credentials(&path, found);
        } else if kind.is_file() && fs::read(&path).is_ok_and(|bytes| bytes.windows(8).any(|part| part == b"hunter22"))
        {
            found.push(path);
        }
    }
    Ok(())
}
