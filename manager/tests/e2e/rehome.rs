//! The manager's address changes, and its boards find it: told while both addresses are there, by its announcements when
//! the old one is gone, and in spite of an impostor's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use racimo_common::id::ClusterId;
use racimo_common::mdns::message::{self, Data, Message, Record};
use racimo_common::mdns::{self, GROUP, SERVICE};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netdevice, socket_with, sockopt};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cluster::{Running, SOON, create, get, sessions, settle, sleeper, wait, wait_log};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::manager::Verb;
use crate::lab::process::{run, signal};
use crate::support::{docker, has, pi_mgr};

/// Addresses of the manager's board after the first, and the impostor's.
pub(crate) const SECOND: u8 = 3;
pub(crate) const THIRD: u8 = 4;
const IMPOSTOR: u8 = 200;
/// Silence is noticed after ten seconds; dialling the old address fails after three.
pub(crate) const FOUND_WITHIN: Duration = Duration::from_secs(50);

#[test]
#[ignore = "needs root"]
fn boards_find_a_manager_whose_address_changed() -> Result<()> {
    let lab = Guard::cluster(2)?;
    create(&lab, &sleeper(&lab, "web", 2))?;
    let before = settle(&lab, &[("web", 2)]);
    a_name_of_the_local_network(&lab)?;
    let impostor = Impostor::start(&lab)?;
    an_impostor_answers_first(&lab, &before)?;
    the_old_address_is_gone(&lab, &before)?;
    the_manager_says_goodbye(&lab, &impostor)?;
    drop(impostor);
    both_are_there_for_a_while(&lab, &before)
}

pub(crate) fn ip(lab: &Lab, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = lab.subnet().manager().octets();
    Ipv4Addr::new(a, b, c, last)
}

/// Changes the manager's board's addresses: `add` or `del`.
pub(crate) fn address(lab: &Lab, verb: &str, ip: Ipv4Addr) -> Result<()> {
    run(&["ip", "-n", &lab.name.netns_manager(), "addr", verb, &format!("{ip}/24"), "dev", "eth0"]).map(drop)
}

fn hint(lab: &Lab) -> Result<String> {
    let cluster = get(lab, "/swarm")?["ID"].as_str().context("the cluster's id")?.to_owned();
    Ok(mdns::hint(cluster.parse::<ClusterId>().map_err(|error| anyhow!("{error}"))?))
}

/// What `GET /nodes` says boards dial, and the manager's node's own address.
pub(crate) fn shown(lab: &Lab) -> Result<(String, String)> {
    let nodes = get(lab, "/nodes")?;
    let own = nodes.as_array().into_iter().flatten().find(|node| node["Spec"]["Role"] == "manager");
    let own = own.context("the manager's node")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok((text(&own["ManagerStatus"]["Addr"]), text(&own["Status"]["Addr"])))
}

#[track_caller]
pub(crate) fn same(lab: &Lab, before: &Running) {
    assert_eq!(before, &settle(lab, &[("web", 2)]), "no container was touched");
}

/// The sessions every board has opened.
pub(crate) fn opened(lab: &Lab) -> Result<[usize; 2]> {
    Ok([sessions(lab, 1)?, sessions(lab, 2)?])
}

#[track_caller]
pub(crate) fn wait_sessions(lab: &Lab, before: [usize; 2]) {
    wait(lab, "every board to open another session", FOUND_WITHIN, || {
        Ok((sessions(lab, 1)? > before[0] && sessions(lab, 2)? > before[1]).then_some(()))
    });
}

#[track_caller]
pub(crate) fn is_shown(lab: &Lab, advertised: &str, own: Ipv4Addr) {
    wait(lab, &format!("{advertised} and {own} to be shown"), FOUND_WITHIN, || {
        Ok((shown(lab)? == (format!("{advertised}:2377"), own.to_string())).then_some(()))
    });
}

/// Waits until every board has kept these as places to dial.
#[track_caller]
pub(crate) fn is_kept(lab: &Lab, places: &[&str]) -> Result<()> {
    for number in 1..=2 {
        let kept = lab.board(number)?.data().join("identity/cluster.json");
        wait(lab, "the board to keep what it was told", FOUND_WITHIN, || {
            let text = fs::read_to_string(&kept)?;
            Ok(places.iter().all(|place| text.contains(&format!("{place}:2377"))).then_some(()))
        });
    }
    Ok(())
}

/// An address that goes takes no others with it.
pub(crate) fn keep_secondaries(lab: &Lab) -> Result<()> {
    // Inside the namespace.
    let netns = lab.name.netns_manager();
    run(&["ip", "netns", "exec", &netns, "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1"]).map(drop)
}

/// The name under which the manager announces itself.
pub(crate) fn announced(lab: &Lab) -> Result<String> {
    wait_log(lab, &lab.manager().log(), "announced on the local network as");
    let log = fs::read_to_string(lab.manager().log())?;
    let name = log.split("announced on the local network as ").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(name.context("its name")?.to_owned())
}

/// A board joins by the name under which the manager announces itself; no name server knows it.
fn a_name_of_the_local_network(lab: &Lab) -> Result<()> {
    let name = &announced(lab)?;
    has(name, &format!("{}.local", hint(lab)?));
    let data = lab.directory.join("by-name");
    let (agent, data_dir) = (crate::lab::require::bin_dir()?.join("pi-agent"), data.display().to_string());
    let (agent, token) = (agent.display().to_string(), lab.manager().worker_token()?);
    let join = ["timeout", "60", &agent, "join", "--token", &token, "--data-dir", &data_dir, name];
    let line = lab.board(2)?.on_its_network(&join);
    let said = run(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
    has(&said, "This board joined the cluster as node");
    has(&fs::read_to_string(data.join("places.json"))?, &format!("{name:?}"));
    Ok(())
}

/// Who announced what.
type Heard = Arc<Mutex<Vec<(SocketAddr, Vec<Record>)>>>;

/// Announces what is not there, by any name that is asked for, and answers with a certificate of its own.
struct Impostor {
    server: Child,
    over: Arc<AtomicBool>,
    /// What others announced to everybody.
    heard: Heard,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Impostor {
    fn start(lab: &Lab) -> Result<Self> {
        let netns = lab.name.netns_bridge();
        let address = ip(lab, IMPOSTOR);
        run(&["ip", "-n", &netns, "addr", "add", &format!("{address}/24"), "dev", "bridge"])?;
        let file = |name: &str| lab.directory.join(name).display().to_string();
        let (key, certificate) = (file("impostor.key"), file("impostor.pem"));
        let request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let subject = ["-days", "9", "-subj", "/CN=swarm-manager", "-keyout", &key, "-out", &certificate];
        run(&[&request[..], &subject].concat())?;
        let server = Command::new("nsenter")
            .args([&format!("--net=/run/netns/{netns}"), "--", "openssl", "s_server", "-quiet", "-tls1_3"])
            .args(["-accept", &format!("{address}:2377"), "-cert", &certificate, "-key", &key])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let over = Arc::new(AtomicBool::new(false));
        let heard = Heard::default();
        let (stop, told, hint) = (over.clone(), heard.clone(), hint(lab)?);
        let thread = std::thread::spawn(move || announce(&netns, address, &hint, &stop, &told));
        Ok(Self { server, over, heard, thread: Some(thread) })
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.server.kill();
        let _ = self.server.wait();
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the impostor: {error:#}");
        }
    }
}

fn announce(netns: &str, address: Ipv4Addr, hint: &str, over: &AtomicBool, heard: &Heard) -> Result<()> {
    let namespace = fs::File::open(format!("/run/netns/{netns}"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &GROUP)?;
    let index = netdevice::name_to_index(&socket, "bridge")?;
    sockopt::set_ip_add_membership_with_ifindex(&socket, GROUP.ip(), &Ipv4Addr::UNSPECIFIED, index)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let record = |name: &str, data| Record { name: name.to_owned(), ttl: 120, unique: false, data };
    let instance = format!("impostor.{SERVICE}");
    let records = [
        record(SERVICE, Data::Pointer(instance.clone())),
        record(&instance, Data::Service { port: 2377, host: "impostor.local".to_owned() }),
        record(&instance, Data::Texts(vec![format!("cluster={hint}")])),
        record("impostor.local", Data::Address(address.into())),
    ];
    let mut buffer = [0; 1500];
    while !over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        match message::read(&buffer[..length]) {
            Some(Message::Query { id, .. }) => {
                socket.send_to(&message::answer(id, &[], &records, &[]), from)?;
            }
            Some(Message::Answer { records, .. }) => heard.lock().expect("no panic holds it").push((from, records)),
            None => {}
        }
    }
    Ok(())
}

/// While the manager is away only the impostor answers: it is tried, told of, and left alone.
fn an_impostor_answers_first(lab: &Lab, before: &Running) -> Result<()> {
    let opened = opened(lab)?;
    lab.manager().act(Verb::Kill)?;
    let said = format!("no session with {}:2377, which was announced on the local network", ip(lab, IMPOSTOR));
    for board in 1..=2 {
        wait_log(lab, &lab.board(board)?.agent_log(), &said);
    }
    lab.manager().act(Verb::Start)?;
    wait_sessions(lab, opened);
    same(lab, before);
    for board in 1..=2 {
        let log = fs::read_to_string(lab.board(board)?.agent_log())?;
        assert!(log.matches(&said).count() <= 2, "once a minute at most: {log}");
    }
    Ok(())
}

/// Nobody could be told: boards notice the silence and ask the network. What was said at `init` is said still, and the
/// manager warns of it.
fn the_old_address_is_gone(lab: &Lab, before: &Running) -> Result<()> {
    let old = lab.subnet().manager();
    assert_eq!(shown(lab)?, (format!("{old}:2377"), old.to_string()));
    has(&docker(lab, &["info", "--format", "{{json .Warnings}}"])?.good()?, "[]");
    let opened = opened(lab)?;
    address(lab, "del", old)?;
    address(lab, "add", ip(lab, SECOND))?;
    wait_sessions(lab, opened);
    same(lab, before);
    let warning =
        format!("{old}:2377, which is not an address of this machine any more (it has {} on eth0)", ip(lab, SECOND));
    let said = docker(lab, &["info"])?;
    has(&format!("{}{}", said.out, said.err), &format!("WARNING: boards and people are told to dial {warning}"));
    let said = pi_mgr(lab, &["info"])?;
    has(&said.err, &warning);
    wait_log(lab, &lab.manager().log(), &warning);
    assert_eq!(shown(lab)?, (format!("{old}:2377"), ip(lab, SECOND).to_string()));
    for board in 1..=2 {
        let places = fs::read_to_string(lab.board(board)?.data().join("places.json"))?;
        has(&places, &SocketAddr::from((ip(lab, SECOND), 2377)).to_string());
    }
    Ok(())
}

/// What was announced to everybody, at its new address too, is taken back when the manager is asked to stop.
fn the_manager_says_goodbye(lab: &Lab, impostor: &Impostor) -> Result<()> {
    let (from, hint) = (SocketAddr::from((ip(lab, SECOND), mdns::PORT)), hint(lab)?);
    let said = |holds: fn(u32) -> bool| {
        let heard = impostor.heard.lock().expect("no panic holds it");
        let mut ours =
            heard.iter().filter(|(by, records)| *by == from && records.iter().all(|record| holds(record.ttl)));
        ours.next_back().map(|(_, records)| records.clone())
    };
    let announced = said(|ttl| ttl > 0).context("an announcement")?;
    assert_eq!(mdns::managers(&announced, &hint), [SocketAddr::from((ip(lab, SECOND), 2377))]);
    assert!(said(|ttl| ttl == 0).is_none(), "it is there");
    let process = lab.manager().process().context("the manager runs")?;
    signal(process.pid, Signal::TERM)?;
    wait(lab, "the manager to say goodbye and end", SOON, || {
        Ok((!process.alive() && said(|ttl| ttl == 0).is_some()).then_some(()))
    });
    lab.manager().act(Verb::Start)
}

/// With an interface instead of an address there is nothing to warn of; boards are told of the new address in time, so
/// nobody need announce anything.
fn both_are_there_for_a_while(lab: &Lab, before: &Running) -> Result<()> {
    fs::write(lab.manager().config(), "advertise-addr = \"eth0\"\nannounce = false\n")?;
    let mut before_it = opened(lab)?;
    lab.manager().act(Verb::Kill)?;
    lab.manager().act(Verb::Start)?;
    wait_sessions(lab, before_it);
    let (second, third) = (ip(lab, SECOND), ip(lab, THIRD));
    is_shown(lab, &second.to_string(), second);
    assert_eq!(docker(lab, &["info", "--format", "{{json .Warnings}}"])?.good()?.trim(), "[]");
    keep_secondaries(lab)?;
    address(lab, "add", third)?;
    is_kept(lab, &[&second.to_string(), &third.to_string()])?;
    before_it = opened(lab)?;
    address(lab, "del", second)?;
    wait_sessions(lab, before_it);
    is_shown(lab, &third.to_string(), third);
    same(lab, before);
    let board = lab.board(1)?;
    board.act(crate::lab::board::Verb::KillAgent)?;
    before_it = [sessions(lab, 1)?, 0];
    board.act(crate::lab::board::Verb::StartAgent)?;
    wait_sessions(lab, before_it);
    same(lab, before);
    Ok(())
}
