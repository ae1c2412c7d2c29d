//! A thousand hostile connections at the manager's door, and a member that floods it: boards do not notice.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::TlsConnector;
use racimo_agent::identity::Identity;
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::{NodeDescription, TaskReport, TaskState};
use racimo_common::time::Wall;
use racimo_common::tls::{self, ClientConfig, TrustClock};
use racimo_common::token::JoinToken;
use racimo_common::wire::{BoardId, Hello, Join, Renew, Status, ToAgent, ToManager, Trusts, frame};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use smol::{Async, Timer};

use crate::cluster::{SOON, board_state, create, picture, running, settle, sleeper, wait_board, wait_log};
use crate::lab::Lab;
use crate::lab::board::Verb;
use crate::lab::guard::Guard;
use crate::lab::names::MANAGER_PORT;
use crate::lab::process::run;

/// Connections of each of the five kinds that are kept up.
const EACH: usize = 200;
/// Addresses they come from, beside this machine's own.
const ADDRESSES: u8 = 100;
/// How long.
const STORM: Duration = Duration::from_secs(20);
/// How much the manager's memory may grow meanwhile: its room for half-open connections, and what it keeps of sessions.
const GROWTH_KIB_MAX: u64 = 32 << 10;
/// Lines of the log that all of it may cause: one a cause and minute, for each address.
const LINES_MAX: usize = 320;
/// Bytes that it may write meanwhile, the log's segments included.
const WRITES_MAX: u64 = 8 << 20;

#[test]
#[ignore = "needs root"]
fn a_manager_under_a_thousand_hostile_connections_serves_its_boards() -> Result<()> {
    let lab = Guard::cluster(3)?;
    create(&lab, &sleeper(&lab, "web", 3))?;
    settle(&lab, &[("web", 3)]);
    // The third board's card is in an attacker's hands.
    let stolen = lab.board(3)?;
    stolen.act(Verb::KillAgent)?;
    let identity = Identity::load(&stolen.data())?.context("it joined")?;
    // Its task is replaced, so that nothing moves any more but by the attack.
    wait_board(&lab, 3, "down", SOON);
    let victims = crate::cluster::wait(&lab, "its task to be replaced", SOON, || {
        let rows = crate::cluster::live(&lab, "web")?;
        let elsewhere = rows.iter().all(|row| [1, 2].contains(&row.board)) && rows.len() == 3;
        Ok(elsewhere.then(|| rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>()))
    });

    let storm = Storm::begin(&lab)?;
    let before = Cost::of(&lab)?;
    let rogue = rogue(&lab, &identity, &victims)?;
    let begun = Instant::now();
    let mut made = false;
    while begun.elapsed() < STORM {
        for board in [1, 2] {
            ensure!(board_state(&lab, board)? == "ready", "board {board} was lost:\n{}", picture(&lab));
        }
        if !made && begun.elapsed() > STORM / 4 {
            create(&lab, &sleeper(&lab, "meanwhile", 2))?;
            made = true;
        }
        std::thread::sleep(Duration::from_millis(400));
    }
    // A board that comes anew finds its way in.
    let board = lab.board(1)?;
    board.act(Verb::KillAgent)?;
    board.act(Verb::StartAgent)?;
    wait_log(&lab, &board.agent_log(), "containers found on this board");
    wait_board(&lab, 1, "ready", SOON);
    crate::cluster::wait(&lab, "the service made meanwhile", SOON, || {
        Ok((crate::cluster::live(&lab, "meanwhile")?.len() == 2).then_some(()))
    });
    let after = Cost::of(&lab)?;
    let (tries, words) = (storm.tries.load(Ordering::Relaxed), rogue.said.load(Ordering::Relaxed));
    drop((storm, rogue));
    eprintln!("{tries} hostile connections, {words} messages of a member: {before:?} then {after:?}");
    ensure!(tries > 5 * EACH * 2, "only {tries} connections were tried");
    ensure!(words > 500, "the member said only {words} messages");
    ensure!(after.memory_kib <= before.memory_kib + GROWTH_KIB_MAX, "{before:?} then {after:?}");
    ensure!(after.lines <= before.lines + LINES_MAX, "{before:?} then {after:?}");
    ensure!(after.written <= before.written + WRITES_MAX, "{before:?} then {after:?}");

    let log = fs::read_to_string(lab.manager().log())?;
    for board in [1, 2] {
        let node = crate::cluster::node_id(&lab, board)?;
        ensure!(!log.contains(&format!("node {node} is down: heartbeat")), "board {board} was written off:\n{log}");
    }
    ensure!(log.contains("tasks of other nodes: dropped"), "{log}");
    ensure!(!log.contains("panicked"), "{log}");
    // The tasks whose ends the member reported run on.
    let now: Vec<String> = crate::cluster::live(&lab, "web")?.into_iter().map(|row| row.id).collect();
    ensure!(victims.iter().all(|task| now.contains(task)), "{victims:?} became {now:?}");
    ensure!(victims.iter().all(|task| running(&lab).is_ok_and(|running| running.contains_key(task))));
    Ok(())
}

/// What the manager takes.
#[derive(Debug)]
struct Cost {
    memory_kib: u64,
    lines: usize,
    written: u64,
}

impl Cost {
    fn of(lab: &Lab) -> Result<Self> {
        let pid = lab.manager().process().context("the manager runs")?.pid;
        let number = |file: &str, field: &str| -> Result<u64> {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix(field)).context("a field")?;
            line.split_whitespace().next().context("a number")?.parse().context("a number")
        };
        let lines = fs::read_to_string(lab.manager().log())?.lines().count();
        Ok(Self { memory_kib: number("status", "VmRSS:")?, lines, written: number("io", "write_bytes:")? })
    }
}

/// Connections that are kept up until it is dropped.
struct Storm {
    tries: Arc<AtomicUsize>,
    _tasks: Vec<smol::Task<()>>,
}

/// What each of them does.
#[derive(Clone, Copy)]
enum Kind {
    /// Says nothing.
    Idle,
    /// Says a byte from time to time, of what could be TLS.
    Slow,
    /// Says anything, and comes again.
    Garbage,
    /// A whole handshake, then a wrong token; and comes again.
    WrongToken,
    /// A whole handshake, then a frame that never ends.
    EndlessFrame,
}

impl Storm {
    fn begin(lab: &Lab) -> Result<Self> {
        let env = |name: &str| lab.env().into_iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let manager: Ipv4Addr = env("LAB_MANAGER_IP").context("an address")?.parse()?;
        let door = SocketAddrV4::new(manager, MANAGER_PORT);
        let [a, b, slot, _] = manager.octets();
        // On the lab's own link, which goes with the lab.
        let link = lab.name.host_link();
        let own = Ipv4Addr::new(a, b, slot, 254);
        let others: Vec<Ipv4Addr> = (0..ADDRESSES).map(|number| Ipv4Addr::new(a, b, slot, 100 + number)).collect();
        for address in &others {
            run(&["ip", "addr", "add", &format!("{address}/32"), "dev", &link])?;
        }
        let token: JoinToken = JoinToken::parse(&lab.manager().worker_token()?)?;
        let wrong = JoinToken::new(*token.root_digest(), [0x5a; 16]).to_string();
        let tls = tls::join_client(*token.root_digest(), TrustClock::standing(Wall::default())).0;
        let tries = Arc::new(AtomicUsize::new(0));
        let kinds = [Kind::Idle, Kind::Slow, Kind::Garbage, Kind::WrongToken, Kind::EndlessFrame];
        let tasks = (0..5 * EACH).map(|number| {
            // Half of them from one address.
            let from = if number % 2 == 0 { own } else { others[number / 2 % others.len()] };
            let hostile = Hostile {
                kind: kinds[number % 5],
                from,
                door,
                tls: tls.clone(),
                wrong: wrong.clone(),
                tries: tries.clone(),
            };
            smol::spawn(hostile.run(u64::try_from(number).unwrap_or_default()))
        });
        Ok(Self { _tasks: tasks.collect(), tries })
    }
}

struct Hostile {
    kind: Kind,
    from: Ipv4Addr,
    door: SocketAddrV4,
    tls: Arc<ClientConfig>,
    wrong: String,
    tries: Arc<AtomicUsize>,
}

impl Hostile {
    async fn run(self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        loop {
            // Refused ones come again soon, so that as many as can be are there all the time.
            Timer::after(Duration::from_millis(rng.u64(50..400))).await;
            self.tries.fetch_add(1, Ordering::Relaxed);
            let _ = self.once(&mut rng).await;
        }
    }

    async fn once(&self, rng: &mut fastrand::Rng) -> Result<()> {
        let mut stream = connect(self.from, self.door).await?;
        match self.kind {
            Kind::Idle => drop(stream.read(&mut [0; 64]).await),
            Kind::Slow => {
                for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().chain(std::iter::repeat(0)) {
                    stream.write_all(&[byte]).await?;
                    Timer::after(Duration::from_millis(300)).await;
                }
            }
            Kind::Garbage => {
                let mut bytes = vec![0; rng.usize(1..20_000)];
                rng.fill(&mut bytes);
                stream.write_all(&bytes).await?;
                let _ = stream.read(&mut [0; 64]).await;
            }
            Kind::WrongToken => {
                let mut stream = TlsConnector::from(self.tls.clone()).connect(tls::manager_name(), stream).await?;
                let (token, hostname) = (self.wrong.clone(), "hostile".to_owned());
                let join = Join { versions: (1, 1), token, csr: vec![1; 90], hostname };
                frame::send(&mut stream, &ToManager::Join(join), FRAME_FROM_AGENT_MAX).await?;
                let answer = frame::receive::<ToAgent>(&mut stream, FRAME_TO_AGENT_MAX).await?;
                assert!(matches!(answer, None | Some(ToAgent::Refused(_))), "{answer:?}");
            }
            Kind::EndlessFrame => {
                let mut stream = TlsConnector::from(self.tls.clone()).connect(tls::manager_name(), stream).await?;
                stream.write_all(&[0, 0, 0x3f, 0xff]).await?;
                loop {
                    stream.write_all(&[7]).await?;
                    stream.flush().await?;
                    Timer::after(Duration::from_millis(300)).await;
                }
            }
        }
        Ok(())
    }
}

async fn connect(from: Ipv4Addr, to: SocketAddrV4) -> Result<Async<TcpStream>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(from, 0))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = Async::new(TcpStream::from(socket))?;
    let late = async {
        Timer::after(Duration::from_secs(5)).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    smol::future::or(stream.writable(), late).await?;
    match stream.get_ref().take_error()? {
        Some(error) => Err(error.into()),
        None => Ok(stream),
    }
}

/// A member that floods, with a certificate that is good; ends when dropped.
struct Rogue {
    said: Arc<AtomicUsize>,
    _task: smol::Task<()>,
}

fn rogue(lab: &Lab, identity: &Identity, victims: &[String]) -> Result<Rogue> {
    let env = |name: &str| lab.env().into_iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let manager: Ipv4Addr = env("LAB_MANAGER_IP").context("an address")?.parse()?;
    let door = SocketAddrV4::new(manager, MANAGER_PORT);
    // It has an address of its own: from one that floods it would be kept out as well.
    let [a, b, slot, _] = manager.octets();
    let from = Ipv4Addr::new(a, b, slot, 99);
    run(&["ip", "addr", "add", &format!("{from}/32"), "dev", &lab.name.host_link()])?;
    let client = client(identity)?;
    let victims: Vec<racimo_common::id::TaskId> =
        victims.iter().map(|id| id.parse().context("a task's id")).collect::<Result<_>>()?;
    let said = Arc::new(AtomicUsize::new(0));
    let count = said.clone();
    let task = smol::spawn(async move {
        let mut rng = fastrand::Rng::with_seed(3);
        loop {
            Timer::after(Duration::from_millis(300)).await;
            let _ = flood(from, door, &client, &victims, &mut rng, &count).await;
        }
    });
    Ok(Rogue { said, _task: task })
}

fn client(identity: &Identity) -> Result<Arc<ClientConfig>> {
    let credentials = identity.credentials()?;
    Ok(tls::session_client(&identity.roots, &credentials, TrustClock::standing(Wall::default()))?)
}

/// One session: a good beginning, then everything that it has no right to, as fast as it is taken.
async fn flood(
    from: Ipv4Addr,
    door: SocketAddrV4,
    client: &Arc<ClientConfig>,
    victims: &[racimo_common::id::TaskId],
    rng: &mut fastrand::Rng,
    said: &AtomicUsize,
) -> Result<()> {
    let stream = connect(from, door).await?;
    let stream = TlsConnector::from(client.clone()).connect(tls::manager_name(), stream).await?;
    let (mut ears, mut to) = futures_lite::io::split(stream);
    let describe = |number: u32| NodeDescription { hostname: format!("rogue{number}"), ..NodeDescription::default() };
    let hello = Hello {
        versions: (1, 1),
        boot: 5,
        description: describe(0),
        trusts: Trusts::default(),
        board: BoardId::default(),
    };
    frame::send(&mut to, &ToManager::Hello(hello), FRAME_FROM_AGENT_MAX).await?;
    let hear = async {
        loop {
            match frame::receive::<ToAgent>(&mut ears, FRAME_TO_AGENT_MAX).await? {
                // The last seconds of a session may bring a word; another's contents never.
                Some(ToAgent::Assign(assign)) => ensure!(assign.bodies.is_empty(), "contents of others were sent"),
                Some(_) => {}
                None => return Ok(()),
            }
        }
    };
    let say = async {
        for number in 0_u64.. {
            let message = match rng.u8(0..20) {
                0 => ToManager::Describe(describe(rng.u32(..))),
                1 => ToManager::Heartbeat(number),
                2 => ToManager::Trusts(Trusts { certificate: [rng.u8(..); 32], roots: vec![[rng.u8(..); 32]] }),
                // Ends the session, once in a while.
                3 if rng.u8(0..40) == 0 => ToManager::Renew(Renew { csr: vec![rng.u8(..); 200] }),
                4 if rng.u8(0..40) == 0 => ToManager::Bye { leaving: rng.bool() },
                _ => {
                    let report = |task: &racimo_common::id::TaskId| TaskReport {
                        unhealthy: false,
                        restarts: 0,
                        ports: Vec::new(),
                        task: *task,
                        state: TaskState::Failed,
                        at: Wall::default(),
                        message: "it failed".repeat(50),
                        err: Some("hostile".to_owned()),
                        container: None,
                    };
                    let tasks = victims.iter().map(report).collect();
                    ToManager::Status(Status { complete: true, last: true, index: number, tasks })
                }
            };
            frame::send(&mut to, &message, FRAME_FROM_AGENT_MAX).await?;
            said.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    smol::future::or(say, hear).await
}
