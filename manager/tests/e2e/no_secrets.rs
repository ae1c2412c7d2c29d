//! What must stay secret is nowhere: not in a file that is not its own, not in a log, an answer, an error or what `ps`
//! shows. Plain, in hexadecimal, in base64, and as lists of numbers.
//!
//! A small cluster uses known values through success and failure; then everything it left is searched for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use racimo_common::tls;
use racimo_common::token::JoinToken;
use racimo_manager::ca::kept;
use racimo_manager::store::Store;
use racimo_manager::store::log::RealDisk;
use racimo_manager::vault::{Key, Vault};
use serde_json::json;

use crate::autolock;
use crate::cluster::{SOON, wait, wait_board};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::manager;
use crate::lab::names::MANAGER_PORT;
use crate::support::{busybox, docker, pi_mgr, pi_mgr_typing, reached, running};

/// The user's password at the registry: `ada:hunter22` in base64, as docker keeps it.
const LOGIN: &str = "YWRhOmh1bnRlcjIy";
const PASSWORD: &str = "hunter22";
/// What `htpasswd -B` writes of it.
const PASSWORD_HASH: &str = "ada:$2b$05$abcdefghijklmnopqrstuuZ6QNu0NKXZkZHC5hsQUItfxcGamvB8i";
/// What a config holds: shown by the API, sealed on the disk, in memory on boards.
const CONFIG: &str = "the-body-of-a-config-QrS-4711";
const PASSPHRASE: &str = "correct horse battery staple 815";
const SLEEP: [&str; 2] = ["sleep", "100000"];

/// Where a value may be, and why. The path is below the lab's directory; `*` stands for one folder.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("node key", "*/disk/agent/identity/key.pem", "the board's own key, 0600 in a 0700 folder"),
    ("access key", "access/key.pem", "where `pi-mgr access create` was asked to put it, 0600 in a 0700 folder"),
    ("registry password", "docker-config/config.json", "where `docker login` puts it: the user's, not ours"),
];

/// A value, and what it looks like.
struct Secret {
    name: String,
    needles: Vec<Vec<u8>>,
}

/// Secrets, found fast: what begins with which two bytes.
#[derive(Default)]
struct Secrets {
    all: Vec<Secret>,
    starts: BTreeMap<[u8; 2], Vec<(usize, usize)>>,
    is_start: Vec<bool>,
}

fn base64_forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    // Inside of something longer it begins at any of three places, and what is beside it is in its first and last signs.
    let forms = (0..3_usize).map(|shift| {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(bytes);
        let text = STANDARD_NO_PAD.encode(&shifted).into_bytes();
        let first = (shift * 8).div_ceil(6);
        let end = shifted.len() * 8 / 6;
        text[first..end].to_vec()
    });
    forms.collect()
}

impl Secrets {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= 8, "{name} is too short to be looked for");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut needles = vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
        needles.extend(base64_forms(bytes));
        // As errors and debug prints tell bytes, as JSON has them, and as MessagePack has a list of them.
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        needles.extend([", ", ","].map(|between| numbers.join(between).into_bytes()));
        let packed = bytes.iter().flat_map(|byte| if *byte < 128 { vec![*byte] } else { vec![0xcc, *byte] });
        needles.push(packed.collect());
        let url_safe = |form: &[u8]| {
            form.iter()
                .map(|sign| match sign {
                    b'+' => b'-',
                    b'/' => b'_',
                    other => *other,
                })
                .collect::<Vec<u8>>()
        };
        needles.extend(base64_forms(bytes).iter().map(|form| url_safe(form)));
        needles.sort();
        needles.dedup();
        self.is_start.resize(1 << 16, false);
        for (number, needle) in needles.iter().enumerate() {
            let start = [needle[0], needle[1]];
            self.starts.entry(start).or_default().push((self.all.len(), number));
            self.is_start[usize::from(u16::from_be_bytes(start))] = true;
        }
        self.all.push(Secret { name: name.to_owned(), needles });
    }

    /// The private number of a P-256 key, PKCS#8.
    fn add_key(&mut self, name: &str, der: &[u8]) -> Result<()> {
        // ECPrivateKey ::= SEQUENCE { INTEGER 1, OCTET STRING (32 bytes), … }
        let mark = [2, 1, 1, 4, 32];
        let at = der.windows(mark.len()).position(|part| part == mark).context("no P-256 key")?;
        let number = der.get(at + mark.len()..at + mark.len() + 32).context("a whole number")?;
        self.add(name, number);
        Ok(())
    }

    /// A key as a file has it: its number, and the text that stands for all of it.
    fn add_pem(&mut self, name: &str, pem: &str) -> Result<()> {
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        self.add(name, text.as_bytes());
        self.add_key(name, tls::key_from_pem(pem)?.secret_der())
    }

    fn add_token(&mut self, name: &str, token: &str) -> Result<()> {
        let parsed = JoinToken::parse(token)?;
        self.add(name, parsed.secret());
        self.add(name, token.rsplit('-').next().context("a secret part")?.as_bytes());
        Ok(())
    }

    fn look(&self, bytes: &[u8], found: &mut BTreeSet<String>) {
        for (at, pair) in bytes.windows(2).enumerate() {
            if !self.is_start[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] {
                continue;
            }
            for (secret, needle) in self.starts.get(&[pair[0], pair[1]]).into_iter().flatten() {
                let secret = &self.all[*secret];
                if bytes[at..].starts_with(&secret.needles[*needle]) {
                    found.insert(secret.name.clone());
                }
            }
        }
    }

    /// The names of those that are in it, in one line or broken into several.
    fn within(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.look(bytes, &mut found);
        if bytes.contains(&b'\n') {
            let joined: Vec<u8> = bytes.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
            self.look(&joined, &mut found);
        }
        found
    }
}

/// What the programs of this test said, beside answers that are asked for to see the secret.
#[derive(Default)]
struct Words(Mutex<Vec<(String, String)>>);

impl Words {
    fn hear(&self, what: &str, said: String) {
        self.0.lock().expect("no panic holds it").push((what.to_owned(), said));
    }

    /// What was heard last.
    fn last(&self) -> Option<(String, String)> {
        self.0.lock().expect("no panic holds it").last().cloned()
    }

    fn docker(&self, lab: &Lab, arguments: &[&str]) -> Result<Option<i32>> {
        let said = docker(lab, arguments)?;
        self.hear(&format!("docker {}", arguments.join(" ")), format!("{}\n{}", said.out, said.err));
        Ok(said.code)
    }

    fn pi_mgr(&self, lab: &Lab, arguments: &[&str]) -> Result<Option<i32>> {
        let said = pi_mgr(lab, arguments)?;
        self.hear(&format!("pi-mgr {}", arguments.join(" ")), format!("{}\n{}", said.out, said.err));
        Ok(said.code)
    }
}

/// Looks at what `ps` shows, all the time.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Sampler {
    fn start(secrets: Arc<Secrets>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut looked, mut found) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
                    let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
                    let line = read("cmdline");
                    looked += usize::from(!line.is_empty());
                    let mut names = secrets.within(&line);
                    // A board is given its token there: only it and root can read it.
                    if !String::from_utf8_lossy(&line).contains("pi-agent\0join") {
                        names.append(&mut secrets.within(&read("environ")));
                    }
                    if !names.is_empty() && pid != std::process::id() {
                        found.push(format!("{names:?} in {}", String::from_utf8_lossy(&line).replace('\0', " ")));
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            (looked, found)
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) -> Result<(usize, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().context("it runs")?.join().ok().context("it did not panic")
    }
}

#[test]
#[ignore = "needs root"]
fn secrets_are_nowhere_else() -> Result<()> {
    let lab = Guard::cluster(2)?;
    let manager = lab.manager();
    let words = Words::default();
    let mut secrets = Secrets::default();
    let body = "the-body-of-a-secret-XyZ+/?~";
    secrets.add("secret body", body.as_bytes());
    secrets.add("registry password", PASSWORD.as_bytes());
    secrets.add("registry password", LOGIN.as_bytes());
    for role in ["worker", "manager"] {
        let token = manager.pi_mgr(&["join-token", "-q", role])?;
        secrets.add_token(&format!("{role} token"), token.trim())?;
    }
    let worker = manager.worker_token()?;
    let wrong = JoinToken::new(*JoinToken::parse(&worker)?.root_digest(), [0xa7; 16]).to_string();
    secrets.add_token("wrong token", &wrong)?;
    for board in lab.boards() {
        let pem = fs::read_to_string(board.data().join("identity/key.pem"))?;
        secrets.add_pem("node key", &pem)?;
    }
    secrets.add("vault key", &fs::read(manager.data().join("manager/vault.key"))?);
    secrets.add_pem("root key", &root_key(&lab)?)?;
    secrets.add("config body", CONFIG.as_bytes());
    secrets.add("backup passphrase", PASSPHRASE.as_bytes());
    secrets.add("wrong unlock key", &[0xa6; 32]);
    let access = lab.directory.join("access");
    let out = access.display().to_string();
    ensure!(words.pi_mgr(&lab, &["access", "create", "--out", &out, "ann"])? == Some(0), "{:?}", words.last());
    secrets.add_pem("access key", &fs::read_to_string(access.join("key.pem"))?)?;
    let unlock_key = lock(&lab, &mut secrets)?;
    // It finds what is there, whatever it looks like: a search that finds nothing proves nothing.
    proof(&secrets, body)?;
    let mut secrets = Arc::new(secrets);
    let sampler = Sampler::start(secrets.clone());

    joins(&lab, &words, &wrong)?;
    services(&lab, &words, body)?;
    // A new token, and the old one is of no use.
    ensure!(pi_mgr(&lab, &["join-token", "--rotate", "-q", "worker"])?.code == Some(0));
    joins(&lab, &words, &worker)?;
    backups(&lab, &words)?;
    restarts(&lab, &words, &unlock_key)?;
    let (looked, seen) = sampler.end()?;
    ensure!(seen.is_empty(), "`ps` shows {seen:#?}");
    ensure!(looked > 200, "only {looked} processes were looked at");

    let all = Arc::get_mut(&mut secrets).context("nobody else has them")?;
    all.add_token("new worker token", &manager.worker_token()?)?;
    for (what, said) in words.0.lock().expect("no panic holds it").iter() {
        let found = secrets.within(said.as_bytes());
        ensure!(found.is_empty(), "{found:?} in what `{what}` said:\n{said}");
    }
    let mut search =
        Search { root: &lab.directory, secrets: &secrets, looked: 0, wrong: Vec::new(), excused: BTreeSet::new() };
    search.below(&lab.directory)?;
    ensure!(search.wrong.is_empty(), "{:#?}", search.wrong);
    ensure!(search.looked > 100, "only {} files were looked at", search.looked);
    // Each exception is one: otherwise it must go.
    let unused: Vec<_> = EXCEPTIONS.iter().filter(|(_, path, _)| !search.excused.contains(path)).collect();
    ensure!(unused.is_empty(), "nothing needs {unused:?}");
    Ok(())
}

/// The root's private key, as only who has store and vault key can read it.
fn root_key(lab: &Lab) -> Result<String> {
    // A copy: the manager runs on.
    let copy = tempfile::tempdir()?;
    for entry in fs::read_dir(lab.manager().data().join("store"))?.flatten() {
        fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    let store = Store::open(RealDisk::new(copy.path())?, 1)?;
    let vault = Vault::default();
    let key = fs::read(lab.manager().data().join("manager/vault.key"))?;
    vault.unlock(&Key::from_bytes(&key).context("a key")?)?;
    let view = store.view();
    let cluster = view.state.cluster().context("a cluster")?;
    Ok(kept::open(&vault, cluster)?.key_pem().to_string())
}

fn proof(secrets: &Secrets, body: &str) -> Result<()> {
    let base64 = |text: &str| STANDARD_NO_PAD.encode(text);
    let hex: String = body.bytes().map(|byte| format!("{byte:02X}")).collect();
    let broken = base64(&format!("xx{body}yy"));
    let (first, second) = broken.split_at(20);
    for text in [
        format!("a{body}b"),
        base64(&format!("{body}1")),
        base64(&format!("1{body}2")),
        format!("{first}\n{second}"),
        format!("x{hex}"),
        format!("not a key: {:?}", format!("1{body}2").as_bytes()),
    ] {
        ensure!(secrets.within(text.as_bytes()).contains("secret body"), "it is not found in {text}");
    }
    ensure!(secrets.within(b"nothing of that kind, and much of it").is_empty());
    Ok(())
}

/// Boards with tokens that are of no use: told in the environment, as the documentation says.
fn joins(lab: &Lab, words: &Words, token: &str) -> Result<()> {
    let agent = crate::lab::require::bin_dir()?.join("pi-agent");
    let env = |name: &str| lab.env().into_iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let door = format!("{}:{MANAGER_PORT}", env("LAB_MANAGER_IP").context("an address")?);
    // From a file, through a shell: the token is in nobody's environment for others to see but the agent's own.
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), token)?;
    for door in [door.as_str(), "127.0.0.1:1"] {
        let data = tempfile::tempdir()?;
        let said = Command::new("timeout")
            .args(["30", "sh", "-c", "RACIMO_TOKEN=$(cat \"$0\") exec \"$@\""])
            .arg(file.path())
            .arg(&agent)
            .args(["join", "--data-dir"])
            .arg(data.path())
            .arg(door)
            .stdin(Stdio::null())
            .output()?;
        ensure!(!said.status.success(), "it joined with a wrong token");
        let text = format!("{}\n{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        words.hear(&format!("pi-agent join {door}"), text);
    }
    Ok(())
}

fn services(lab: &Lab, words: &Words, body: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), body)?;
    let path = file.path().to_str().context("a path")?;
    let image = busybox(lab);
    ensure!(words.docker(lab, &["secret", "create", "key", path])? == Some(0));
    ensure!(words.docker(lab, &["secret", "create", "key", path])? != Some(0), "a second of that name");
    ensure!(words.pi_mgr(lab, &["secret", "create", "--template-driver", "golang", "filled", path])? == Some(0));
    let config = tempfile::NamedTempFile::new()?;
    fs::write(config.path(), CONFIG)?;
    ensure!(words.docker(lab, &["config", "create", "conf", config.path().to_str().context("a path")?])? == Some(0));
    let create = |name: &str, more: &[&str], command: &[&str]| {
        let line = [&["service", "create", "-d", "--name", name], more, &[image.as_str()], command].concat();
        words.docker(lab, &line)
    };
    ensure!(
        create("good", &["--mode", "global", "--secret", "key", "--secret", "filled", "--config", "conf"], &SLEEP)?
            == Some(0)
    );
    running(lab, "good", 2);
    // One that cannot start, and one that ends: their reasons are told.
    ensure!(create("bad", &["--secret", "source=key,target=/proc/key"], &["/no/such/program"])?.is_some());
    ensure!(create("ends", &["--secret", "key", "--restart-condition", "none"], &["sh", "-c", "exit 3"])? == Some(0));
    reached(lab, "ends", &["failed"]);
    // With a registry that asks for a password: a wrong one, then the right one.
    lab.registry().lock(PASSWORD_HASH)?;
    lab.registry().kill()?;
    lab.start_registry()?;
    let folder = lab.directory.join("docker-config");
    fs::create_dir_all(&folder)?;
    let fresh = format!("{}/web:latest", lab.registry().host());
    for (name, login) in [("stranger", "YWRhOndyb25nLW9uZQ=="), ("ada", LOGIN)] {
        let auths = json!({"auths": {lab.registry().host(): {"auth": login}}});
        fs::write(folder.join("config.json"), auths.to_string())?;
        let line = ["service", "create", "-d", "--with-registry-auth", "--no-resolve-image", "--name", name, &fresh];
        ensure!(words.docker(lab, &line)? == Some(0), "{:?}", words.last());
        if name == "ada" {
            running(lab, "ada", 1);
        } else {
            reached(lab, name, &["rejected"]);
        }
    }
    for line in [
        &["secret", "inspect", "key"][..],
        &["secret", "ls"],
        &["secret", "rm", "key"],
        &["service", "inspect", "good", "bad", "ada", "stranger"],
        &["service", "ps", "--no-trunc", "good"],
        &["service", "ps", "--no-trunc", "bad"],
        &["service", "ps", "--no-trunc", "stranger"],
        &["service", "logs", "good"],
        &["node", "inspect", "board1", "board2"],
        &["info"],
        &["info", "--format", "{{json .}}"],
    ] {
        words.docker(lab, line)?;
        words.pi_mgr(lab, line)?;
    }
    for path in ["/swarm", "/services", "/tasks", "/secrets", "/nodes", "/info"] {
        let answer = lab.manager().api("GET", path, None)?;
        // It is there to show the tokens to who may add boards.
        let mut text = answer.text();
        if path == "/swarm" {
            let mut shown = answer.json()?;
            shown.as_object_mut().and_then(|swarm| swarm.remove("JoinTokens")).context("the tokens")?;
            text = shown.to_string();
        }
        words.hear(&format!("GET {path}"), text);
    }
    Ok(())
}

/// The disk is locked, and the key replaced; the last one, which opens the manager.
fn lock(lab: &Lab, secrets: &mut Secrets) -> Result<String> {
    let mut last = String::new();
    for line in [&["update", "--autolock"][..], &["unlock-key", "--rotate"]] {
        last = autolock::key_in(&pi_mgr(lab, line)?.good()?)?;
        let key = last.strip_prefix("SWMKEY-1-").context("a key")?;
        secrets.add("unlock key", key.as_bytes());
        secrets.add("unlock key", &STANDARD_NO_PAD.decode(key)?);
    }
    Ok(last)
}

/// The vault's key in them is locked; with a passphrase all of it is.
fn backups(lab: &Lab, words: &Words) -> Result<()> {
    let passphrase = tempfile::NamedTempFile::new()?;
    fs::write(passphrase.path(), PASSPHRASE)?;
    let passphrase = passphrase.path().to_str().context("a path")?;
    let file = |name: &str| lab.directory.join(name).display().to_string();
    let (plain, sealed) = (file("backup-plain"), file("backup-sealed"));
    ensure!(words.pi_mgr(lab, &["backup", &plain])? == Some(0), "{:?}", words.last());
    ensure!(words.pi_mgr(lab, &["backup", "--passphrase-file", passphrase, &sealed])? == Some(0), "{:?}", words.last());
    Ok(())
}

fn restarts(lab: &Lab, words: &Words, unlock_key: &str) -> Result<()> {
    lab.manager().act(manager::Verb::Kill)?;
    lab.manager().act(manager::Verb::Start)?;
    let wrong = json!({ "UnlockKey": format!("SWMKEY-1-{}", STANDARD_NO_PAD.encode([0xa6; 32])) });
    let refused = lab.manager().api("POST", "/swarm/unlock", Some(&wrong))?;
    ensure!(refused.status == 401, "{}", refused.text());
    words.hear("POST /swarm/unlock", refused.text());
    pi_mgr_typing(lab, unlock_key, &["unlock"])?.good()?;
    let board = lab.board(2)?;
    board.act(Verb::KillAgent)?;
    board.act(Verb::StartAgent)?;
    wait_board(lab, 1, "ready", SOON);
    wait_board(lab, 2, "ready", SOON);
    running(lab, "good", 2);
    wait(lab, "the log to be written", SOON, || Ok(fs::metadata(lab.manager().log())?.len().gt(&0).then_some(())));
    Ok(())
}

/// Goes through files.
struct Search<'a> {
    root: &'a Path,
    secrets: &'a Secrets,
    looked: usize,
    wrong: Vec<String>,
    excused: BTreeSet<&'static str>,
}

impl Search<'_> {
    fn below(&mut self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory)?.flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            // In memory only: a tmpfs, a container's root (whose layers are looked at where they are).
            let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).unwrap_or_default();
            let special = kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device();
            if kind.is_symlink() || special || device(&path) != device(directory) {
                continue;
            }
            if kind.is_dir() {
                // What was there a moment ago may be gone.
                let _ = self.below(&path);
            } else if let Ok(bytes) = fs::read(&path) {
                self.looked += 1;
                for name in self.secrets.within(&bytes) {
                    self.judge(&name, &path);
                }
            }
        }
        Ok(())
    }

    fn judge(&mut self, name: &str, path: &Path) {
        let below: PathBuf = path.strip_prefix(self.root).unwrap_or(path).to_owned();
        let fits = |pattern: &str| {
            let (wanted, had): (Vec<_>, Vec<_>) = (Path::new(pattern).iter().collect(), below.iter().collect());
            wanted.len() == had.len() && wanted.iter().zip(&had).all(|(one, other)| *one == "*" || one == other)
        };
        match EXCEPTIONS.iter().find(|(secret, pattern, _)| *secret == name && fits(pattern)) {
            Some((_, pattern, _)) => drop(self.excused.insert(pattern)),
            None => self.wrong.push(format!("{name} in {}", below.display())),
        }
    }
}
