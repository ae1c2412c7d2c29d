//! A manager whose disk is lost comes back from its backup, and its boards by themselves.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{Running, SOON, get, node_id, running as containers, settle, tasks, wait, wait_board};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::manager::Verb;
use crate::lab::process::run;
use crate::support::{create, docker, has, pi_mgr, pi_mgr_typing, remove, running};
use crate::{autolock, rehome, trust};

const SLEEP: [&str; 2] = ["sleep", "100000"];
/// Serves its secrets, so that one request shows a task, its port and its secret.
const SERVE: [&str; 6] = ["httpd", "-f", "-p", "80", "-h", "/run/secrets"];
const MARK: &str = "what-the-backup-must-bring-back";
const PORT: u16 = 8085;

/// What a board answers on a published port.
fn ask(lab: &Lab, board: u8, port: u16) -> Result<String> {
    let address = SocketAddr::new(lab.board(board)?.address().into(), port);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /key HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[track_caller]
fn answers(lab: &Lab, port: u16) {
    for board in 1..=2 {
        wait(lab, &format!("board {board} to answer on {port}"), SOON, || {
            Ok(ask(lab, board, port).is_ok_and(|answer| answer.contains(MARK)).then_some(()))
        });
    }
}

/// `pi-mgr restore` on the manager's machine.
fn restore(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let env: std::collections::BTreeMap<String, String> = lab.env().into_iter().collect();
    let of = |name: &str| env.get(name).cloned().with_context(|| format!("no {name}"));
    let (program, netns) = (format!("{}/pi-mgr", of("LAB_BIN_DIR")?), of("LAB_MANAGER_NETNS")?);
    let (netns, data) = (format!("--net=/run/netns/{netns}"), of("LAB_MANAGER_DATA")?);
    let fixed = ["timeout", "120", "nsenter", &netns, "--", &program, "restore", "--data-dir", &data];
    run(&[&fixed[..], arguments].concat())
}

/// A refusal in these words, after which there is no data directory, or the same as before.
#[track_caller]
fn refused(lab: &Lab, arguments: &[&str], want: &str) -> Result<()> {
    let was_there = lab.manager().data().exists();
    let error = format!("{:#}", restore(lab, arguments).err().context("it was restored")?);
    has(&error, want);
    ensure!(lab.manager().data().exists() == was_there, "{arguments:?} wrote something");
    Ok(())
}

fn of(containers: &Running, ids: &[String]) -> Running {
    containers.iter().filter(|(id, _)| ids.contains(id)).map(|(id, at)| (id.clone(), *at)).collect()
}

#[test]
#[ignore = "needs root"]
fn a_lost_manager_comes_back_from_its_backup() -> Result<()> {
    let lab = Guard::cluster(2)?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    fs::write(file("secret"), MARK)?;
    docker(&lab, &["secret", "create", "key", &file("secret")])?.good()?;
    let publish = format!("{PORT}:80");
    create(&lab, "web", &["--replicas", "2", "--secret", "key", "-p", &publish], &SERVE)?;
    create(&lab, "old", &[], &SLEEP)?;
    settle(&lab, &[("web", 2), ("old", 1)]);
    answers(&lab, PORT);
    let token = lab.manager().worker_token()?;
    let (plain, sealed) = backups(&lab, &file)?;

    // What the backup does not know.
    create(&lab, "later", &["--replicas", "2"], &SLEEP)?;
    running(&lab, "later", 2);
    remove(&lab, &["old"])?;
    let before = settle(&lab, &[("web", 2), ("later", 2)]);
    let web: Vec<String> = tasks(&lab, "web")?.into_iter().map(|row| row.id).collect();
    let (cluster, boards) = (get(&lab, "/swarm")?["ID"].clone(), [node_id(&lab, 1)?, node_id(&lab, 2)?]);

    // The manager's machine is gone, with its disk.
    lab.manager().act(Verb::Kill)?;
    fs::rename(lab.manager().data(), lab.directory.join("manager/lost"))?;
    damaged(&lab, &file, &plain, &sealed)?;
    let said = restore(&lab, &["--passphrase-file", &file("passphrase"), &sealed])?;
    has(&said, "what was removed later is back");
    ensure!(!said.contains("Boards know the manager at"), "the address is the same: {said}");
    lab.manager().act(Verb::Start)?;

    for board in 1..=2 {
        wait_board(&lab, board, "ready", SOON);
    }
    let after = settle(&lab, &[("web", 2), ("old", 1)]);
    assert_eq!(of(&after, &web), of(&before, &web), "the tasks of the backup run on untouched");
    assert_eq!((get(&lab, "/swarm")?["ID"].clone(), [node_id(&lab, 1)?, node_id(&lab, 2)?]), (cluster, boards));
    answers(&lab, PORT);
    // What was given out is known, the vault opens secrets, tokens let boards in.
    let taken = docker(&lab, &["service", "create", "-d", "-p", &publish, "--name", "thief", "x"])?.bad()?;
    has(&taken.1, "already in use");
    create(&lab, "fresh", &["--secret", "key", "-p", "8086:80"], &SERVE)?;
    answers(&lab, 8086);
    assert_eq!(lab.manager().worker_token()?, token);
    let (joined, said) = trust::join(&lab, &token, &folder.path().join("stranger"))?;
    ensure!(joined, "{said}");
    assert_eq!(of(&containers(&lab)?, &web), of(&before, &web));
    refused(&lab, &[&plain], "is in use: stop the manager")?;
    lab.manager().act(Verb::Kill)?;
    refused(&lab, &[&plain], "there is a cluster in")?;
    lab.manager().act(Verb::Start)
}

/// One as it is, one encrypted.
fn backups(lab: &Lab, file: &dyn Fn(&str) -> String) -> Result<(String, String)> {
    let (plain, sealed, passphrase) = (file("plain"), file("sealed"), file("passphrase"));
    fs::write(&passphrase, "correct horse battery\n")?;
    has(&pi_mgr(lab, &["backup", &plain])?.err, "the backup is not encrypted");
    has(&pi_mgr(lab, &["backup", &plain])?.bad()?.1, "use --force");
    pi_mgr(lab, &["backup", "--quiet", "--force", &plain])?.good()?;
    let said = pi_mgr(lab, &["backup", "--passphrase-file", &passphrase, &sealed])?;
    ensure!(said.code == Some(0) && !said.err.contains("not encrypted"), "{said:?}");
    for path in [&plain, &sealed] {
        ensure!(fs::metadata(path)?.permissions().mode() & 0o777 == 0o600, "{path}");
        let bytes = fs::read(path)?;
        ensure!(!bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes()), "{path} shows a secret");
    }
    let audit = fs::read_to_string(lab.manager().data().join("manager/audit.log"))?;
    ensure!(audit.contains("/racimo/backup\t200"), "who made a backup is kept: {audit}");
    Ok((plain, sealed))
}

fn damaged(lab: &Lab, file: &dyn Fn(&str) -> String, plain: &str, sealed: &str) -> Result<()> {
    let bytes = fs::read(plain)?;
    let broken = file("broken");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for (bytes, want) in
        [(&bytes[..bytes.len() - 1], "cut off"), (&flipped[..], "is damaged"), (b"zip", "not a backup")]
    {
        fs::write(&broken, bytes)?;
        refused(lab, &[&broken], want)?;
    }
    fs::write(file("wrong"), "battery staple")?;
    refused(lab, &["--passphrase-file", &file("wrong"), sealed], "not the passphrase")?;
    refused(lab, &["--passphrase-file", &file("wrong"), plain], "not encrypted")?;
    ensure!(!Path::new(&lab.manager().data()).exists());
    Ok(())
}

/// The new machine has another address than the lost one, and its manager waits for the unlock key.
#[test]
#[ignore = "needs root"]
fn a_locked_manager_comes_back_at_another_address() -> Result<()> {
    let lab = Guard::cluster(2)?;
    create(&lab, "web", &["--replicas", "2"], &SLEEP)?;
    let before = settle(&lab, &[("web", 2)]);
    let key = |arguments: &[&str]| autolock::key_in(&pi_mgr(&lab, arguments)?.good()?);
    let first = key(&["update", "--autolock"])?;
    let folder = tempfile::tempdir()?;
    let backup = folder.path().join("backup").display().to_string();
    let said = pi_mgr(&lab, &["backup", &backup])?;
    has(&said.err, "who restores it needs the unlock key of now");
    // The backup was made with the first key: a later one does not open it.
    let second = key(&["unlock-key", "--rotate"])?;
    let boards = [node_id(&lab, 1)?, node_id(&lab, 2)?];
    let opened = rehome::opened(&lab)?;

    lab.manager().act(Verb::Kill)?;
    fs::rename(lab.manager().data(), lab.directory.join("manager/lost"))?;
    let (old, new) = (lab.subnet().manager(), rehome::ip(&lab, 3));
    rehome::address(&lab, "del", old)?;
    rehome::address(&lab, "add", new)?;
    let said = restore(&lab, &[&backup])?;
    has(&said, "The manager starts locked");
    has(&said, &format!("boards are told to dial {new}:2377"));
    has(&said, &format!("Boards know the manager at {old}:2377"));
    lab.manager().act(Verb::Start)?;
    let state = || Ok::<_, anyhow::Error>(get(&lab, "/info")?["Swarm"]["LocalNodeState"].clone());
    assert_eq!(state()?, "locked");
    has(&pi_mgr_typing(&lab, &second, &["unlock"])?.bad()?.1, "invalid key provided");
    pi_mgr_typing(&lab, &first, &["unlock"])?.good()?;
    assert_eq!(state()?, "active");
    // Nobody told the boards: they ask the local network.
    rehome::wait_sessions(&lab, opened);
    assert_eq!(settle(&lab, &[("web", 2)]), before, "no container was touched");
    assert_eq!([node_id(&lab, 1)?, node_id(&lab, 2)?], boards);
    assert_eq!(key(&["unlock-key"])?, first);
    pi_mgr(&lab, &["backup", "--quiet", "--force", &backup])?.good().map(drop)
}
