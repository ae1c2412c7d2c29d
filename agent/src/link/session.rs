//! The session with the manager: dial, `Hello`, then messages both ways until the connection ends; then again.
//!
//! ```text
//! known addresses ─▶ names ─▶ what the local network announces ─▶ pause ─┐
//!        ▲───────────────────────────────────────────────────────────────┘
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::{AsyncRead, AsyncWrite, io::split};
use racimo_common::error::chain;
use racimo_common::id::NodeId;
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::NodeDescription;
use racimo_common::tls;
use racimo_common::wire::frame::{self, FrameError};
use racimo_common::wire::{
    Assign, BoardId, Hello, Net, Refused, RefusedCode, ToAgent, ToManager, VERSION, VERSION_MIN, Welcome,
};
use smol::Timer;

use super::certificate::{Certificate, Renewal};
use super::dial::{DialError, Patience, dial_within};
use super::discover;
use super::hints::Hints;
use super::places::Places;
use crate::identity::Own;
use crate::limits;
use crate::logs::serve::Desk;

/// What the link tells the main loop.
#[derive(Debug)]
pub enum Told {
    /// A session is open: send reports there. The next set is complete.
    Open {
        /// Where reports go.
        out: Sender<ToManager>,
        /// This board's id in the cluster.
        node: NodeId,
    },
    /// News about the network.
    Net(Net),
    /// What the board shall run.
    Assign(Assign),
    /// The addresses of the managers changed.
    Managers(Vec<String>),
    /// The session ended; tasks run on.
    Closed,
    /// The manager says that this board is not a member of the cluster.
    Removed(String),
    /// The manager says that another board with the same key is in the cluster.
    Copied {
        /// In its words.
        reason: String,
        /// Whether it has said so before, and was not mistaken.
        again: bool,
    },
    /// The goodbye of a board that leaves was said, and no session follows; whether the manager took it in, or why not.
    Left(Result<(), String>),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the manager refused: {}", .0.reason)]
    Refused(Refused),
    #[error("the manager closed the connection")]
    Closed,
    #[error("the manager was silent for {0:?}")]
    Silent(Duration),
    #[error("the manager broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the random source does not work")]
    Random,
    #[error("cannot use this board's identity")]
    Identity(#[from] tls::CredentialsError),
    #[error("connect to the manager's socket {path}")]
    Local { path: String, source: std::io::Error },
    #[error("this board got a new certificate")]
    Renewed,
    #[error("this board opens it anew")]
    Reopened,
    #[error("the manager did not take in that this board leaves within {0:?}")]
    Unheard(Duration),
    #[error("the agent stops")]
    Stopped,
}

/// Everything a session needs.
pub struct Link {
    /// Who this board is; none: it is the manager's own board, and the permissions of the manager's socket
    /// stand for an identity.
    pub identity: Option<Rc<Own>>,
    /// Where to dial: `HOST:PORT`, or `unix://PATH` on the manager's own board.
    pub places: Rc<RefCell<Places>>,
    /// Whether to ask the local network for managers.
    pub discover: bool,
    /// The board; read anew for each session.
    pub description: Rc<RefCell<NodeDescription>>,
    /// The agent's directory: logs are there.
    pub data: PathBuf,
    /// Drawn when the agent started.
    pub boot: u64,
    /// Which board it runs on.
    pub board: BoardId,
    /// Seeds the pauses' jitter.
    pub rng: fastrand::Rng,
    /// Whether the goodbye of a board that leaves was said.
    pub leaves: Cell<bool>,
}

/// What the rounds of dialling remember of each other.
struct Rounds {
    pause: Duration,
    wait: Option<Duration>,
    /// Whether the last attempt became a session.
    opened: bool,
    /// Since when there has been no session.
    lost: Instant,
    /// Of each manager of the last round.
    reasons: BTreeMap<String, String>,
    hints: Hints,
    certificate: Certificate,
    /// Whether this board was refused as a copy of another since its last session.
    copied: bool,
}

/// There is nothing more to do.
struct Over;

impl Link {
    /// Keeps a session open until the main loop is gone.
    pub async fn run(mut self, told: Sender<Told>) {
        let pause = limits::DIAL_PAUSE.0;
        let (reasons, hints) = (BTreeMap::new(), Hints::default());
        let certificate = Certificate::new(self.identity.as_deref());
        let lost = Instant::now();
        let mut rounds = Rounds { pause, wait: None, opened: false, lost, reasons, hints, certificate, copied: false };
        while !told.is_closed() {
            rounds.wait = None;
            if self.round(&told, &mut rounds).await.is_err() {
                return;
            }
            // Jitter, so that a thousand boards do not come back in the same instant.
            Timer::after(rounds.wait.unwrap_or(rounds.pause).mul_f64(0.5 + self.rng.f64() / 2.0)).await;
            rounds.pause = (rounds.pause * 2).min(limits::DIAL_PAUSE.1);
        }
    }

    async fn round(&mut self, told: &Sender<Told>, rounds: &mut Rounds) -> Result<(), Over> {
        let known = self.places.borrow().round();
        rounds.reasons.retain(|address, _| known.contains(address));
        for address in &known {
            let patience = if known.len() > 1 { Patience::ONE_OF_SEVERAL } else { Patience::KNOWN };
            let end = self.attempt(address, patience, told, rounds).await?;
            let reason = chain(&end);
            // One line per reason, not per try.
            if !matches!(end, End::Renewed) && rounds.reasons.get(address) != Some(&reason) {
                log::warn!("no session with {address}: {reason}");
                rounds.reasons.insert(address.clone(), reason);
            }
            // Where to dial may have changed meanwhile.
            let another = matches!(end, End::Refused(Refused { code: RefusedCode::Clone, .. }));
            // Whose key is on another board is so for every address of the manager.
            if rounds.opened || another {
                return Ok(());
            }
        }
        let Some(cluster) = self.identity.as_ref().map(|own| own.identity().cluster).filter(|_| self.discover) else {
            return Ok(());
        };
        if rounds.wait.is_some() || rounds.lost.elapsed() < limits::DISCOVER_AFTER {
            return Ok(());
        }
        let found = discover::managers(cluster).await;
        for hint in rounds.hints.pick(found, &known, Instant::now(), &mut self.rng) {
            let end = self.attempt(&hint.to_string(), Patience::HINT, told, rounds).await?;
            let passing = !matches!(end, End::Dial(DialError::Tls { .. }));
            if rounds.hints.failed(hint, passing, Instant::now()) {
                log::warn!("no session with {hint}, which was announced on the local network: {}", chain(&end));
            }
            if rounds.opened {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One session, if there comes one; why it ended.
    async fn attempt(
        &mut self,
        address: &str,
        patience: Patience,
        told: &Sender<Told>,
        rounds: &mut Rounds,
    ) -> Result<End, Over> {
        let mut opened = false;
        let began = Instant::now();
        let end = match self.session(address, patience, &mut rounds.certificate, told, &mut opened).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        rounds.opened = opened;
        rounds.copied &= !opened;
        if opened {
            // Sessions that end at once must not become a flood of dials and lines; but a manager that lets us in is
            // up, and its boards are missed.
            let steady = began.elapsed() > limits::SESSION_STEADY_AFTER;
            let pause = rounds.pause.min(limits::REOPEN_PAUSE_MAX);
            rounds.pause = if steady { limits::DIAL_PAUSE.0 } else { pause };
            rounds.reasons.clear();
            rounds.lost = Instant::now();
            rounds.certificate.renewals = 0;
            told.send(Told::Closed).await.map_err(|_| Over)?;
        }
        if self.leaves.get() {
            let left = if matches!(end, End::Closed) { Ok(()) } else { Err(chain(&end)) };
            // The main loop may be gone.
            let _ = told.send(Told::Left(left)).await;
            return Err(Over);
        }
        match &end {
            End::Stopped => return Err(Over),
            End::Refused(Refused { code: RefusedCode::Clone, reason }) => {
                let (first, later) = limits::CLONE_PAUSE;
                let again = std::mem::replace(&mut rounds.copied, true);
                rounds.wait = Some(if again { later } else { first });
                told.send(Told::Copied { reason: reason.clone(), again }).await.map_err(|_| Over)?;
            }
            End::Refused(Refused { code: RefusedCode::NotMember, reason }) => {
                rounds.wait = Some(limits::REMOVED_PAUSE);
                told.send(Told::Removed(reason.clone())).await.map_err(|_| Over)?;
            }
            End::Refused(Refused { code: RefusedCode::Expired, .. }) => {
                rounds.certificate.comes_first = true;
                // After some tries that came to nothing the pauses grow as for everything else.
                if rounds.certificate.is_hopeful() {
                    rounds.wait = Some(limits::DIAL_PAUSE.0);
                }
            }
            End::Renewed => rounds.wait = Some(limits::DIAL_PAUSE.0),
            End::Refused(Refused { code: RefusedCode::Replaced, .. }) => rounds.wait = Some(limits::DIAL_PAUSE.1),
            End::Refused(_)
            | End::Dial(_)
            | End::Frame(_)
            | End::Closed
            | End::Silent(_)
            | End::Protocol(_)
            | End::Identity(_)
            | End::Random
            | End::Local { .. }
            | End::Unheard(_)
            | End::Reopened => {}
        }
        Ok(end)
    }

    async fn session(
        &mut self,
        address: &str,
        patience: Patience,
        certificate: &mut Certificate,
        told: &Sender<Told>,
        opened: &mut bool,
    ) -> Result<Infallible, End> {
        if let Some(path) = address.strip_prefix("unix://") {
            let local = |source| End::Local { path: path.to_owned(), source };
            let stream = smol::net::unix::UnixStream::connect(path).await.map_err(local)?;
            return self.speak(stream, None, certificate, told, opened).await;
        }
        let Some(own) = self.identity.clone() else {
            return Err(End::Protocol("a board without an identity can only use its own manager's socket"));
        };
        let identity = own.identity();
        let config = tls::session_client(&identity.roots, &identity.credentials()?, certificate.clock.clone())?;
        let stream = dial_within(address, config, patience).await?;
        if certificate.comes_first {
            return certificate.renew(&own, stream).await;
        }
        let place = stream.get_ref().0.peer_addr().ok();
        self.speak(stream, place, certificate, told, opened).await
    }

    async fn speak<S>(
        &mut self,
        mut stream: S,
        place: Option<SocketAddr>,
        certificate: &Certificate,
        told: &Sender<Told>,
        opened: &mut bool,
    ) -> Result<Infallible, End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let description = self.description.borrow().clone();
        let hello = Hello {
            versions: (VERSION_MIN, VERSION),
            boot: self.boot,
            description,
            trusts: self.identity.as_ref().map(|own| own.trusts()).unwrap_or_default(),
            board: self.board,
        };
        let hello = ToManager::Hello(hello);
        frame::send(&mut stream, &hello, FRAME_FROM_AGENT_MAX).await?;
        let welcome = match receive_within(&mut stream, limits::MANAGER_SILENCE_MAX).await? {
            ToAgent::Welcome(welcome) => welcome,
            ToAgent::Refused(refused) => return Err(End::Refused(refused)),
            ToAgent::Joined(_)
            | ToAgent::Net(_)
            | ToAgent::Assign(_)
            | ToAgent::Pong(_)
            | ToAgent::Renew
            | ToAgent::Certified(_)
            | ToAgent::Roots(_)
            | ToAgent::Managers(_)
            | ToAgent::LogsOpen(_)
            | ToAgent::LogsMore { .. }
            | ToAgent::LogsClose { .. } => {
                return Err(End::Protocol("a session starts with Welcome"));
            }
        };
        log::info!("session open as node {}, heartbeat every {} ms", welcome.node, welcome.heartbeat_ms);
        *opened = true;
        certificate.clock.raise(welcome.time);
        let (out, queue) = async_channel::bounded(limits::OUT_QUEUE_MAX);
        told.send(Told::Open { out, node: welcome.node }).await.map_err(|_| End::Stopped)?;
        if let (Some(own), Some(place)) = (&self.identity, place) {
            let kept = self.places.borrow_mut().worked(place, &self.data, own.identity().cluster);
            kept.unwrap_or_else(|error| log::warn!("the manager's address was not kept: {error}"));
            self.take(welcome.managers.clone(), told).await?;
        }
        let (from, to) = split(stream);
        let desk = Desk::new(self.data.clone());
        // One part of a log at a time; a report goes first.
        let (out, parts) = async_channel::bounded(1);
        let logs = async {
            desk.serve(out).await;
            Err(End::Stopped)
        };
        let (says, said) = async_channel::bounded(1);
        let renewal = Renewal { own: self.identity.as_deref(), says };
        let read = self.read_all(from, told, &welcome, &desk, &renewal);
        let write = write_all(to, queue, said, parts, &welcome, &self.leaves);
        smol::future::or(read, smol::future::or(write, logs)).await
    }

    /// What a manager says about where managers are.
    async fn take(&self, managers: Vec<String>, told: &Sender<Told>) -> Result<(), End> {
        let changed = if self.identity.is_some() { self.places.borrow_mut().told(managers) } else { None };
        match changed {
            Some(managers) => {
                log::info!("managers are at {}", managers.join(", "));
                told.send(Told::Managers(managers)).await.map_err(|_| End::Stopped)
            }
            None => Ok(()),
        }
    }

    async fn read_all(
        &self,
        mut from: impl AsyncRead + Unpin,
        told: &Sender<Told>,
        welcome: &Welcome,
        desk: &Desk,
        renewal: &Renewal<'_>,
    ) -> Result<Infallible, End> {
        // Every heartbeat is answered, so silence means that the way is cut.
        let silence = limits::MANAGER_SILENCE_MAX.max(heartbeat(welcome) * 4);
        loop {
            match receive_within(&mut from, silence).await? {
                ToAgent::Pong(_) => {}
                ToAgent::LogsOpen(open) => desk.open(open),
                ToAgent::LogsMore { reading, parts } => desk.more(reading, parts),
                ToAgent::LogsClose { reading } => desk.close(reading),
                ToAgent::Net(net) => told.send(Told::Net(net)).await.map_err(|_| End::Stopped)?,
                ToAgent::Assign(assign) => told.send(Told::Assign(assign)).await.map_err(|_| End::Stopped)?,
                ToAgent::Refused(refused) => return Err(End::Refused(refused)),
                ToAgent::Managers(list) => self.take(list, told).await?,
                ToAgent::Renew => renewal.asked().await?,
                ToAgent::Certified(certified) => renewal.certified(certified).await?,
                ToAgent::Roots(roots) => renewal.roots(roots).await?,
                ToAgent::Welcome(_) | ToAgent::Joined(_) => return Err(End::Protocol("Welcome inside a session")),
            }
        }
    }
}

pub(super) async fn receive_within(stream: &mut (impl AsyncRead + Unpin), within: Duration) -> Result<ToAgent, End> {
    let message = async { frame::receive(stream, FRAME_TO_AGENT_MAX).await.map_err(End::Frame) };
    let late = async {
        Timer::after(within).await;
        Err(End::Silent(within))
    };
    smol::future::or(message, late).await?.ok_or(End::Closed)
}

fn heartbeat(welcome: &Welcome) -> Duration {
    Duration::from_millis(u64::from(welcome.heartbeat_ms.max(100)))
}

async fn write_all(
    mut to: impl AsyncWrite + Unpin,
    queue: Receiver<ToManager>,
    said: Receiver<ToManager>,
    parts: Receiver<ToManager>,
    welcome: &Welcome,
    leaves: &Cell<bool>,
) -> Result<Infallible, End> {
    // The main loop closes the queue when the session must begin anew; before it stops it says goodbye.
    let mut beats = 0u64;
    let mut timer = Timer::interval(heartbeat(welcome));
    loop {
        let beat = async {
            futures_lite::StreamExt::next(&mut timer).await;
            beats += 1;
            Ok(ToManager::Heartbeat(beats))
        };
        let report = async { queue.recv().await.map_err(|_| End::Reopened) };
        let answer = async { said.recv().await.map_err(|_| End::Stopped) };
        let part = async { parts.recv().await.map_err(|_| End::Stopped) };
        let message = smol::future::or(report, smol::future::or(answer, smol::future::or(beat, part))).await?;
        let bye = if let ToManager::Bye { leaving } = message { Some(leaving) } else { None };
        frame::send(&mut to, &message, FRAME_FROM_AGENT_MAX).await?;
        match bye {
            None => {}
            Some(true) => {
                leaves.set(true);
                // The manager closes the connection once it has taken it in, and the other half hears that.
                Timer::after(limits::LEAVE_TAKEN_WITHIN).await;
                return Err(End::Unheard(limits::LEAVE_TAKEN_WITHIN));
            }
            Some(false) => {
                let _ = futures_lite::AsyncWriteExt::close(&mut to).await;
                return Err(End::Stopped);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;
    use racimo_common::time::Wall;
    use smol::net::unix::UnixListener;

    use super::*;

    /// A manager that answers each `Hello` and then waits for the connection's end; says what it was told last.
    async fn manager(listener: &UnixListener) -> Option<ToManager> {
        let (mut stream, _) = listener.accept().await.expect("a board dials");
        let hello: Option<ToManager> = frame::receive(&mut stream, FRAME_FROM_AGENT_MAX).await.expect("a frame");
        assert!(matches!(hello, Some(ToManager::Hello(_))), "{hello:?}");
        let welcome = Welcome {
            version: VERSION,
            heartbeat_ms: 60_000,
            managers: Vec::new(),
            node: NodeId::from_bits(1),
            time: Wall::default(),
        };
        frame::send(&mut stream, &ToAgent::Welcome(welcome), FRAME_TO_AGENT_MAX).await.expect("it listens");
        let mut last = None;
        while let Ok(Some(message)) = frame::receive(&mut stream, FRAME_FROM_AGENT_MAX).await {
            last = Some(message);
        }
        last
    }

    /// Ends a session by `end`; whether another one follows.
    #[track_caller]
    fn check(end: fn(&Sender<ToManager>), said: Option<ToManager>, opens_again: bool) {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("manager.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let link = Link {
            identity: None,
            places: Rc::new(Places::fixed(vec![format!("unix://{}", socket.display())]).into()),
            discover: false,
            description: Rc::default(),
            data: directory.path().to_owned(),
            boot: 1,
            board: BoardId::default(),
            leaves: Cell::default(),
            rng: fastrand::Rng::with_seed(1),
        };
        let (told, says) = async_channel::bounded(limits::OUT_QUEUE_MAX);
        let board = async {
            let Ok(Told::Open { out, .. }) = says.recv().await else { panic!("no session") };
            end(&out);
            out.close();
            assert!(matches!(says.recv().await, Ok(Told::Closed)));
            let again = says.recv().await;
            assert_eq!(matches!(again, Ok(Told::Open { .. })), opens_again, "{again:?}");
        };
        let managers = async {
            assert_eq!(manager(&listener).await, said);
            manager(&listener).await;
        };
        let link = async {
            link.run(told).await;
            smol::future::pending().await
        };
        let managers = async {
            managers.await;
            smol::future::pending().await
        };
        let late = async {
            Timer::after(Duration::from_secs(30)).await;
            panic!("nothing happens");
        };
        smol::block_on(smol::future::or(board, smol::future::or(link, smol::future::or(managers, late))));
    }

    #[test]
    fn a_session_that_is_given_up_is_opened_again() {
        check(|_| {}, None, true);
        let bye = |out: &Sender<ToManager>| out.try_send(ToManager::Bye { leaving: false }).expect("room");
        check(bye, Some(ToManager::Bye { leaving: false }), false);
    }
}
