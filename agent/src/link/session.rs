//! The session with the manager: dial, `Hello`, then messages both ways until the connection ends.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::{AsyncRead, AsyncWrite, io::split};
use racimo_common::id::NodeId;
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::NodeDescription;
use racimo_common::time::{Clock, Mono};
use racimo_common::tls;
use racimo_common::wire::frame::{self, FrameError};
use racimo_common::wire::{
    Assign, BoardId, Hello, Net, Refused, ToAgent, ToManager, VERSION, VERSION_HEALTH, VERSION_MIN, Welcome,
};
use smol::Timer;

use super::certificate::{Certificate, Renewal};
use super::dial::{DialError, Patience, dial_within};
use super::places::Places;
use crate::hardware::Hardware;
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
    /// Tells how the board is.
    pub hardware: Arc<Hardware>,
    /// Seeds the pauses' jitter.
    pub rng: fastrand::Rng,
    /// Whether the goodbye of a board that leaves was said.
    pub leaves: Cell<bool>,
    /// Tells when something was said that a manager answered.
    pub clock: Clock,
    /// When that was for the last time: the manager was there then, or later.
    pub heard: Rc<Cell<Mono>>,
}

impl Link {
    /// One session: dialled, spoken, and why it ended. `opened`: whether the manager let this board in.
    pub(super) async fn session(
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
        let said = self.clock.now().mono;
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
        self.heard.set(said);
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
        let health = out.clone();
        let logs = async {
            desk.serve(out).await;
            Err(End::Stopped)
        };
        let hardware = async {
            // An older manager could not read it.
            if welcome.version >= VERSION_HEALTH {
                self.hardware.clone().tell(health).await;
            }
            std::future::pending().await
        };
        let (says, said) = async_channel::bounded(1);
        let renewal = Renewal { own: self.identity.as_deref(), says };
        let read = self.read_all(from, told, &welcome, &desk, &renewal);
        let write = write_all(to, queue, said, parts, &welcome, self);
        smol::future::or(read, smol::future::or(write, smol::future::or(logs, hardware))).await
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
                ToAgent::Pong(said) => self.heard.set(Mono::from_nanos(said.min(self.clock.now().mono.nanos()))),
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
    link: &Link,
) -> Result<Infallible, End> {
    // The main loop closes the queue when the session must begin anew; before it stops it says goodbye.
    let mut timer = Timer::interval(heartbeat(welcome));
    loop {
        let beat = async {
            futures_lite::StreamExt::next(&mut timer).await;
            Ok(ToManager::Heartbeat(link.clock.now().mono.nanos()))
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
                link.leaves.set(true);
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

    /// A manager of this version that answers each `Hello` and then waits for the connection's end; what it was told,
    /// up to the first message that `is_last`.
    async fn manager(listener: &UnixListener, version: u16, is_last: fn(&ToManager) -> bool) -> Vec<ToManager> {
        let (mut stream, _) = listener.accept().await.expect("a board dials");
        let hello: Option<ToManager> = frame::receive(&mut stream, FRAME_FROM_AGENT_MAX).await.expect("a frame");
        assert!(matches!(hello, Some(ToManager::Hello(Hello { versions: (1, 2), .. }))), "{hello:?}");
        let welcome = Welcome {
            version,
            heartbeat_ms: 100,
            managers: Vec::new(),
            node: NodeId::from_bits(1),
            time: Wall::default(),
        };
        frame::send(&mut stream, &ToAgent::Welcome(welcome), FRAME_TO_AGENT_MAX).await.expect("it listens");
        let mut said = Vec::new();
        while let Ok(Some(message)) = frame::receive(&mut stream, FRAME_FROM_AGENT_MAX).await {
            said.push(message);
            if said.last().is_some_and(is_last) {
                break;
            }
        }
        said
    }

    fn link(directory: &std::path::Path) -> (Link, UnixListener) {
        let socket = directory.join("manager.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let link = Link {
            identity: None,
            places: Rc::new(Places::fixed(vec![format!("unix://{}", socket.display())]).into()),
            discover: false,
            description: Rc::default(),
            data: directory.to_owned(),
            boot: 1,
            board: BoardId::default(),
            hardware: Hardware::new(directory, directory),
            leaves: Cell::default(),
            clock: Clock::start(),
            heard: Rc::default(),
            rng: fastrand::Rng::with_seed(1),
        };
        (link, listener)
    }

    /// Ends a session by `end`; whether another one follows.
    #[track_caller]
    fn check(end: fn(&Sender<ToManager>), said: Option<ToManager>, opens_again: bool) {
        let directory = tempfile::tempdir().expect("a directory");
        let (link, listener) = link(directory.path());
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
            let mut heard = manager(&listener, VERSION, |_| false).await;
            heard.retain(|message| !matches!(message, ToManager::Health(_) | ToManager::Heartbeat(_)));
            assert_eq!(heard.pop(), said);
            manager(&listener, VERSION, |_| false).await;
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

    /// A manager of version 1 could not read how the board is, and would end the session.
    #[test]
    fn only_a_manager_that_can_read_it_is_told_how_the_board_is() {
        let is_health = |message: &ToManager| matches!(message, ToManager::Health(_));
        // After five heartbeats: long after the board was read.
        let is_late = |message: &ToManager| matches!(message, ToManager::Heartbeat(at) if *at > 500_000_000);
        for (version, is_last, is_told) in [(2, is_health as fn(&_) -> _, true), (1, is_late, false)] {
            let directory = tempfile::tempdir().expect("a directory");
            let (link, listener) = link(directory.path());
            let (told, says) = async_channel::bounded(limits::OUT_QUEUE_MAX);
            let heard = manager(&listener, version, is_last);
            let keeps = async {
                // Its end of the queue, so that the session goes on.
                let opened = says.recv().await;
                while says.recv().await.is_ok() {}
                drop(opened);
            };
            let dials = async {
                smol::future::zip(link.run(told), keeps).await;
                Vec::new()
            };
            let heard = smol::block_on(smol::future::or(heard, dials));
            assert!(heard.last().is_some_and(is_last), "{version}: {heard:?}");
            assert_eq!(heard.iter().any(is_health), is_told, "{version}: {heard:?}");
        }
    }
}
