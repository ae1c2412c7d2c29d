//! What the manager was told instead of an address: a name, an interface, an address that comes later. Boards follow,
//! with no announcements to help them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cluster::{Running, SOON, create, settle, sleeper, wait, wait_log};
use crate::lab::Lab;
use crate::lab::board;
use crate::lab::guard::Guard;
use crate::lab::manager::Verb;
use crate::lab::process::run;
use crate::rehome::{
    SECOND, THIRD, address, announced, ip, is_kept, is_shown, keep_secondaries, opened, same, wait_sessions,
};
use crate::support::{Said, docker, has, pi_mgr_path, said};

/// The address that comes later.
const LATE: u8 = 9;

#[test]
#[ignore = "needs root"]
fn names_and_interfaces_are_followed_to_other_addresses() -> Result<()> {
    let lab = Guard::cluster(2)?;
    create(&lab, &sleeper(&lab, "web", 2))?;
    let before = settle(&lab, &[("web", 2)]);
    let name = announced(&lab)?;
    nobody_asks_for_announcements(&lab)?;
    a_name(&lab, &name, &before)?;
    an_interface(&lab, &before)?;
    an_address_comes_after_its_manager(&lab)
}

/// Boards would find the manager by them, whatever they were told.
fn nobody_asks_for_announcements(lab: &Lab) -> Result<()> {
    for number in 1..=2 {
        let board = lab.board(number)?;
        fs::write(board.agent_config(), "discover = false\n")?;
        board.act(board::Verb::KillAgent)?;
        board.act(board::Verb::StartAgent)?;
    }
    Ok(())
}

/// Starts the manager as if `init` had been told an interface to listen on, and with this to tell boards.
fn restart(lab: &Lab, advertise: &str) -> Result<()> {
    let opened = opened(lab)?;
    lab.manager().act(Verb::Kill)?;
    let path = lab.manager().data().join("manager/self.json");
    let mut own: Value = serde_json::from_slice(&fs::read(&path)?)?;
    own["listen"] = "eth0".into();
    fs::write(&path, own.to_string())?;
    fs::write(lab.manager().config(), format!("advertise-addr = {advertise:?}\n"))?;
    lab.manager().act(Verb::Start)?;
    wait_sessions(lab, opened);
    Ok(())
}

/// The only address changes at one blow; the name leads to the new one.
fn a_name(lab: &Lab, name: &str, before: &Running) -> Result<()> {
    let (old, second) = (lab.subnet().manager(), ip(lab, SECOND));
    restart(lab, name)?;
    is_shown(lab, name, old);
    is_kept(lab, &[name, &old.to_string()])?;
    let opened = opened(lab)?;
    address(lab, "del", old)?;
    address(lab, "add", second)?;
    wait_sessions(lab, opened);
    is_shown(lab, name, second);
    is_kept(lab, &[name, &second.to_string()])?;
    wait_log(lab, &lab.manager().log(), &format!("agents are served on {second}:2377 from now on, not {old}:2377"));
    same(lab, before);
    assert_eq!(docker(lab, &["info", "--format", "{{json .Warnings}}"])?.good()?.trim(), "[]");
    Ok(())
}

/// Boards are told of both addresses while both are there, and the port moves with the interface.
fn an_interface(lab: &Lab, before: &Running) -> Result<()> {
    let (second, third) = (ip(lab, SECOND), ip(lab, THIRD));
    restart(lab, "eth0")?;
    is_shown(lab, &second.to_string(), second);
    keep_secondaries(lab)?;
    address(lab, "add", third)?;
    is_kept(lab, &[&second.to_string(), &third.to_string()])?;
    let opened = opened(lab)?;
    address(lab, "del", second)?;
    wait_sessions(lab, opened);
    is_shown(lab, &third.to_string(), third);
    wait_log(lab, &lab.manager().log(), &format!("agents are served on {third}:2377 from now on, not {second}:2377"));
    same(lab, before);
    for number in 1..=2 {
        let log = fs::read_to_string(lab.board(number)?.agent_log())?;
        assert!(!log.contains("announced on the local network"), "{log}");
    }
    Ok(())
}

/// Another manager on the manager's board.
struct Late<'a> {
    lab: &'a Lab,
    process: Child,
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        // nsenter has become it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl<'a> Late<'a> {
    fn file(lab: &Lab, name: &str) -> PathBuf {
        lab.directory.join(name)
    }

    fn start(lab: &'a Lab) -> Result<Self> {
        let log = File::options().create(true).append(true).open(Self::file(lab, "late.log"))?;
        let process = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", lab.name.netns_manager()))
            .arg("--")
            .arg(pi_mgr_path()?)
            .args(["serve", "--announce", "false", "--data-dir"])
            .arg(Self::file(lab, "late"))
            .args(["--api", &Self::host(lab), "--api", &format!("tcp://{}:2390", ip(lab, LATE))])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let late = Self { lab, process };
        wait(lab, "the other manager to answer", SOON, || Ok(late.info().ok()));
        Ok(late)
    }

    fn host(lab: &Lab) -> String {
        format!("unix://{}", Self::file(lab, "late.sock").display())
    }

    fn pi_mgr(&self, arguments: &[&str]) -> Result<Said> {
        let program = pi_mgr_path()?;
        said(Command::new("timeout").arg("60").arg(program).args(["--host", &Self::host(self.lab)]).args(arguments))
    }

    /// `info`, with its warnings.
    fn info(&self) -> Result<String> {
        let said = self.pi_mgr(&["info"])?;
        let warnings = said.err.clone();
        Ok(said.good()? + &warnings)
    }

    fn is_silent(&self) {
        wait(self.lab, "the warnings to go", SOON, || Ok((!self.info()?.contains("WARNING")).then_some(())));
    }
}

/// Connects from the manager's board.
fn connect(lab: &Lab, port: u16) -> Result<()> {
    let netns = format!("--net=/run/netns/{}", lab.name.netns_manager());
    let line = format!("exec 3<>/dev/tcp/{}/{port}", ip(lab, LATE));
    run(&["nsenter", &netns, "--", "timeout", "10", "bash", "-c", &line]).map(drop)
}

fn an_address_comes_after_its_manager(lab: &Lab) -> Result<()> {
    let address_late = ip(lab, LATE);
    let api = format!("the API is to be served on {address_late}:2390, which is not an address of this machine");
    let boards = format!("boards are to be served on {address_late}:2388, which is not an address of this machine");
    let log = Late::file(lab, "late.log");
    let late = Late::start(lab)?;
    has(&late.info()?, &format!("WARNING: {api}"));
    has(&fs::read_to_string(&log)?, &api);
    connect(lab, 2390).err().context("nobody is there yet")?;
    // A mistyped address is refused where a person is there to read it.
    let init =
        ["init", "--listen-addr", &format!("{address_late}:2388"), "--advertise-addr", &format!("{address_late}:2388")];
    has(&late.pi_mgr(&init)?.bad()?.1, "Cannot assign requested address");
    address(lab, "add", address_late)?;
    connect(lab, 2390)?;
    wait_log(lab, &log, "was turned away: there is no cluster yet");
    late.is_silent();
    late.pi_mgr(&init)?.good()?;
    connect(lab, 2388)?;
    drop(late);

    address(lab, "del", address_late)?;
    let late = Late::start(lab)?;
    wait(lab, "both to be said", SOON, || {
        let info = late.info()?;
        Ok((info.contains("Swarm: active") && info.contains(&api) && info.contains(&boards)).then_some(()))
    });
    address(lab, "add", address_late)?;
    connect(lab, 2388)?;
    connect(lab, 2390)?;
    late.is_silent();
    drop(late);
    address(lab, "del", address_late)
}
