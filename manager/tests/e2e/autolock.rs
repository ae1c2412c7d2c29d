//! Keys at rest: autolock as the docker CLI and `pi-mgr` drive it, over restarts; and what the manager's disk tells.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use racimo_common::token::JoinToken;
use racimo_manager::ca::kept;
use racimo_manager::store::Store;
use racimo_manager::store::log::RealDisk;
use racimo_manager::vault::unlock::KeyFile;
use racimo_manager::vault::{KEY_BYTES, Vault};

use crate::cluster::{Running, SOON, create, running, settle, sleeper, wait_board};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::manager::Verb;
use crate::support::{docker, docker_typing, has, pi_mgr, pi_mgr_typing};
use crate::trust::door;

/// How long the manager stays locked while the boards are looked at.
const LOCKED_FOR: Duration = Duration::from_secs(4);
const ENCRYPTED: &str = "Swarm is encrypted and needs to be unlocked before it can be used";
/// Three secrets that nothing may show.
const BODY: &str = "a-secret-body-that-nobody-reads-7f1c";

fn say(lab: &Lab, line: &str) -> Result<String> {
    docker(lab, &line.split(' ').collect::<Vec<_>>())?.good().with_context(|| format!("docker {line}"))
}

fn refused(lab: &Lab, line: &str, wanted: &str) -> Result<()> {
    has(&docker(lab, &line.split(' ').collect::<Vec<_>>())?.bad()?.1, wanted);
    Ok(())
}

fn state(lab: &Lab) -> Result<String> {
    Ok(say(lab, "info --format {{.Swarm.LocalNodeState}}")?.trim().to_owned())
}

fn restart(lab: &Lab) -> Result<()> {
    lab.manager().act(Verb::Kill)?;
    lab.manager().act(Verb::Start)
}

/// The key that docker or `pi-mgr` printed.
pub(crate) fn key_in(text: &str) -> Result<String> {
    let found = text.split_whitespace().find(|word| word.starts_with("SWMKEY-1-"));
    found.map(str::to_owned).with_context(|| format!("no key in: {text}"))
}

/// Bytes that must not be found, each with its name.
type Hidden = Vec<(&'static str, Vec<u8>)>;

#[test]
#[ignore = "needs root"]
fn a_locked_manager_waits_for_its_key_while_tasks_run_on() -> Result<()> {
    // Whatever the umask is, keys are nobody else's.
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let lab = Guard::cluster(2)?;
    rustix::process::umask(umask);
    has(&docker_typing(&lab, BODY, &["secret", "create", "quiet", "-"])?.good()?, "");
    let mut spec = sleeper(&lab, "web", 3);
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = serde_json::json!(["SEEN=an-environment-is-as-it-is"]);
    create(&lab, &spec)?;
    let before = settle(&lab, &[("web", 3)]);
    modes(&lab)?;

    let mut hidden = keys(&lab)?;
    assert!(found(&lab, b"an-environment-is-as-it-is")?.is_some(), "the search finds what is there");
    nothing_shows(&lab, &hidden)?;
    let vault_key = fs::read(lab.manager().data().join("manager/vault.key"))?;
    assert_eq!(vault_key.len(), KEY_BYTES);

    // On, by docker.
    let said = say(&lab, "swarm update --autolock=true")?;
    let first = key_in(&said)?;
    assert_eq!(key_in(&say(&lab, "swarm unlock-key")?)?, first);
    hidden.extend([("the vault's key", vault_key), ("the unlock key", first.clone().into_bytes())]);
    nothing_shows(&lab, &hidden)?;

    restart(&lab)?;
    locked(&lab, &before)?;
    wrong_keys(&lab)?;
    docker_typing(&lab, &format!("{first}\n"), &["swarm", "unlock"])?.good()?;
    active(&lab, &before)?;

    // Another key, by pi-mgr.
    let second = key_in(&pi_mgr(&lab, &["unlock-key", "--rotate", "-q"])?.good()?)?;
    assert_ne!(first, second);
    hidden.push(("the second unlock key", second.clone().into_bytes()));
    restart(&lab)?;
    has(&pi_mgr_typing(&lab, &first, &["unlock"])?.bad()?.1, "invalid key provided");
    pi_mgr_typing(&lab, &second, &["unlock"])?.good()?;
    active(&lab, &before)?;
    has(&pi_mgr_typing(&lab, &second, &["unlock"])?.bad()?.1, "the manager is not locked");
    nothing_shows(&lab, &hidden)?;

    // Off: it starts by itself.
    say(&lab, "swarm update --autolock=false")?;
    refused(&lab, "swarm unlock-key", "no unlock key is set")?;
    restart(&lab)?;
    active(&lab, &before)?;

    // A locked cluster can be left, and a new one be made with the lock.
    pi_mgr(&lab, &["update", "--autolock"])?.good()?;
    restart(&lab)?;
    refused(&lab, "swarm leave", "Swarm is encrypted and locked")?;
    say(&lab, "swarm leave --force")?;
    assert_eq!(state(&lab)?, "inactive");
    for file in ["vault.key", "self.json"] {
        assert!(!lab.manager().data().join("manager").join(file).exists(), "{file} is still there");
    }
    let said = say(&lab, &format!("swarm init --autolock --advertise-addr {}", door(&lab)?.ip()))?;
    let third = key_in(&said)?;
    restart(&lab)?;
    assert_eq!(state(&lab)?, "locked");
    docker_typing(&lab, &third, &["swarm", "unlock"])?.good()?;
    assert_eq!(state(&lab)?, "active");
    nothing_shows(&lab, &vec![("the third unlock key", third.into_bytes())])
}

/// Nothing is answered or decided, and what runs on the boards runs on.
fn locked(lab: &Lab, before: &Running) -> Result<()> {
    let since = Instant::now();
    assert_eq!(state(lab)?, "locked");
    has(&say(lab, "info")?, "Swarm: locked");
    for line in ["node ls", "service ls", "service scale web=1", "swarm unlock-key", "swarm update --autolock=false"] {
        refused(lab, line, ENCRYPTED)?;
    }
    has(&pi_mgr(lab, &["node", "ls"])?.bad()?.1, ENCRYPTED);
    has(&pi_mgr(lab, &["init"])?.bad()?.1, "already part of a swarm");
    let door = door(lab)?;
    while since.elapsed() < LOCKED_FOR {
        assert!(TcpStream::connect(door).is_err(), "agents are served");
        assert_eq!(&running(lab)?, before, "what runs on the boards is left alone");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn wrong_keys(lab: &Lab) -> Result<()> {
    let other = "SWMKEY-1-W9Kqj0GqPF9YCLtl4NbMhhwvl3RM4A/o8we31P26bhs";
    let unlock = |key: &str| docker_typing(lab, &format!("{key}\n"), &["swarm", "unlock"])?.bad();
    has(&unlock(other)?.1, "swarm could not be unlocked: invalid key provided");
    has(&unlock("SWMKEY-1-short")?.1, "invalid key string");
    has(&unlock("")?.1, "invalid key string");
    has(&pi_mgr_typing(lab, other, &["unlock"])?.bad()?.1, "invalid key provided");
    assert_eq!(state(lab)?, "locked");
    // Guessing ends soon.
    let body = serde_json::json!({ "UnlockKey": other });
    for _ in 0..racimo_manager::limits::UNLOCK_TRIES_MAX {
        lab.manager().api("POST", "/swarm/unlock", Some(&body))?;
    }
    let tired = lab.manager().api("POST", "/swarm/unlock", Some(&body))?;
    assert_eq!(tired.status, 429, "{}", tired.text());
    // A start forgets the count; it is to keep the log short, not the key safe.
    restart(lab)
}

/// The boards come back to the same tasks.
fn active(lab: &Lab, before: &Running) -> Result<()> {
    assert_eq!(state(lab)?, "active");
    for board in [1, 2] {
        wait_board(lab, board, "ready", SOON);
    }
    assert_eq!(&settle(lab, &[("web", 3)]), before, "the tasks are the same ones");
    Ok(())
}

/// What is sealed in the store: opened here as the manager opens it, on a copy.
fn keys(lab: &Lab) -> Result<Hidden> {
    let token = |role| {
        let text = pi_mgr(lab, &["join-token", "-q", role])?.good()?;
        JoinToken::parse(&text).map_err(anyhow::Error::from)
    };
    let (worker, manager) = (token("worker")?, token("manager")?);
    let data = lab.manager().data();
    let copy = lab.directory.join("copy");
    fs::create_dir(&copy)?;
    lab.manager().act(Verb::Kill)?;
    for entry in fs::read_dir(data.join("store"))? {
        let entry = entry?;
        fs::copy(entry.path(), copy.join(entry.file_name()))?;
    }
    lab.manager().act(Verb::Start)?;
    let vault = Vault::default();
    let Some(KeyFile::Plain(key)) = KeyFile::read(&fs::read(data.join("manager/vault.key"))?) else {
        anyhow::bail!("the vault's key is not plain")
    };
    vault.unlock(&key)?;
    let store = Store::open(RealDisk::new(&copy)?, 1)?;
    let view = store.view();
    let cluster = view.state.cluster().context("a cluster")?;
    let pem = kept::open(&vault, cluster)?.key_pem();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&body)?;
    // SEC 1: version 1, then the number itself.
    let at = der.windows(5).position(|part| part == [2, 1, 1, 4, 32]).context("no EC key")? + 5;
    let scalar = der.get(at..at + 32).context("a whole key")?.to_vec();
    fs::remove_dir_all(&copy)?;
    let first = pem.lines().nth(1).context("a line of the key")?.as_bytes().to_vec();
    let secret = |token: &JoinToken| token.to_string().rsplit('-').next().unwrap_or_default().as_bytes().to_vec();
    Ok(vec![
        ("the root's key, PEM", first),
        ("the root's key, DER", der),
        ("the root's key, the number", scalar),
        ("a private key", b"PRIVATE KEY".to_vec()),
        ("the worker token's secret, text", secret(&worker)),
        ("the worker token's secret", worker.secret().to_vec()),
        ("the manager token's secret, text", secret(&manager)),
        ("the manager token's secret", manager.secret().to_vec()),
        ("a secret's body", BODY.as_bytes().to_vec()),
    ])
}

/// Nothing of it is on the manager's disk or in its log.
#[track_caller]
fn nothing_shows(lab: &Lab, hidden: &Hidden) -> Result<()> {
    for (name, bytes) in hidden {
        ensure!(bytes.len() >= 11, "{name} is too short to be looked for");
        if let Some(path) = found(lab, bytes)? {
            panic!("{name} is in {}", path.display());
        }
    }
    Ok(())
}

/// The first file of the manager's that holds these bytes.
fn found(lab: &Lab, bytes: &[u8]) -> Result<Option<PathBuf>> {
    let mut files = Vec::new();
    walk(&lab.directory.join("manager"), &mut files)?;
    ensure!(files.iter().any(|path| path.ends_with("store/snapshot")), "the store was not looked at: {files:?}");
    for path in files.into_iter().filter(|path| path.is_file()) {
        let text = fs::read(&path)?;
        if text.windows(bytes.len()).any(|part| part == bytes) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Every file and folder below one, and itself.
fn walk(path: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    into.push(path.to_owned());
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), into)?;
        }
    }
    Ok(())
}

/// Keys, and the folders they are in, are the owner's alone.
fn modes(lab: &Lab) -> Result<()> {
    let mut paths = Vec::new();
    for part in ["manager", "store"] {
        walk(&lab.manager().data().join(part), &mut paths)?;
    }
    for board in lab.boards() {
        walk(&board.data().join("identity"), &mut paths)?;
    }
    assert!(paths.len() > 10, "{paths:?}");
    for path in &paths {
        // Segments come and go.
        let Ok(meta) = fs::metadata(path) else { continue };
        let (mode, wanted) = (meta.permissions().mode() & 0o7777, if meta.is_dir() { 0o700 } else { 0o600 });
        assert_eq!(mode, wanted, "{}: mode {mode:o}, not {wanted:o}", path.display());
    }
    Ok(())
}
