//! The states of the protocol under valid, mutated, repeated and reordered messages: before `Hello`, inside a session,
//! after `Bye`, with and without a certificate that is due, when only a new one is wanted, and before anybody has shown
//! one. `RACIMO_FUZZ_SEED` and `RACIMO_FUZZ_CASES` as elsewhere.
//!
//! Whatever node 1 says: no panic, its session ends, node 2 and its task stay as they were, the secret of that task is
//! never sent, and the store takes a bounded number of writes.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_lite::future::{block_on, or};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, io::split};
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::{BoardHealth, NodeDescription, TaskState};
use racimo_common::wire::{
    BoardId, Hello, Join, LogsEnd, LogsPart, Refused, RefusedCode, Renew, Status, ToAgent, ToManager, Trusts, frame,
};
use smol::net::unix::UnixStream;

use super::board::{hello, hello_with, report};
use super::certify::{Key, certificate, now, trusts};
use super::{Manager, with_key};
use crate::ca::Peer;
use crate::dispatcher::session::{self, Other};
use crate::limits;
use crate::store::testing::*;
use crate::store::{Change, DependencyKind, NewDependency, Task, View};
use crate::vault::Owner;

#[path = "../../../../common/fuzz/mutate.rs"]
#[expect(dead_code, reason = "whole runs of it are for decoders")]
mod mutate;

/// The content of the secret that only node 2's task has.
const SECRET: &[u8] = b"only-for-node-two";
/// The content of the one that node 1's task has.
const OWN_SECRET: &[u8] = b"for-node-one";

/// A manager with this node 1 and another one.
fn manager(first: Change) -> Manager {
    let manager = Manager::new(vec![first, new_node(2)]);
    for (number, body) in [(1, OWN_SECRET), (2, SECRET)] {
        let (id, kind) = (dependency(number), DependencyKind::Secret);
        let body = crate::vault::testing().seal(Owner::Dependency(kind, id), body).expect("sealed");
        let (name, labels) = (format!("secret{number}"), Default::default());
        let new = NewDependency { id, kind, name: name.clone(), labels, template: false, body };
        manager.commit(Change::DependencyCreate(Box::new(new)));
        let spec = with_secrets(&spec(&format!("web{number}"), "nginx", 40), &[(number, &name)]);
        manager.commit(new_service(number, spec));
        let revision = manager.view().state.service(service(number)).expect("a service").revision;
        manager.commit(create(new_task(number, number, revision)));
        manager.commit(assign(number, number));
    }
    manager
}

fn victim(view: &View) -> (Option<Arc<Task>>, Option<TaskState>, bool, String) {
    let hostname = view.state.node(node(2)).map(|node| node.description.hostname.clone()).unwrap_or_default();
    let task_seen = view.state_of(task(2));
    (view.state.task(task(2)).cloned(), task_seen, view.is_ready(node(2)), hostname)
}

fn status(rng: &mut Rng, index: u64) -> ToManager {
    const STATES: [TaskState; 6] = [
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Failed,
        TaskState::Rejected,
    ];
    let tasks = (0..rng.usize(0..6)).map(|_| report(rng.u128(1..5), STATES[rng.usize(0..STATES.len())])).collect();
    let index = if rng.bool() { index } else { rng.u64(..) };
    ToManager::Status(Status { complete: rng.bool(), last: rng.bool(), index, tasks })
}

/// One message that can be decoded.
fn message(rng: &mut Rng, index: u64) -> ToManager {
    let digest = |rng: &mut Rng| [rng.u8(..); 32];
    let trusts = Trusts { certificate: digest(rng), roots: (0..rng.usize(0..6)).map(|_| digest(rng)).collect() };
    match rng.u8(0..17) {
        0 => hello((1, 1)),
        1 => {
            let description = NodeDescription { hostname: "h".repeat(rng.usize(0..300)), ..NodeDescription::default() };
            let board = BoardId { serial: Some(digest(rng)), machine: None };
            ToManager::Hello(Hello {
                versions: (rng.u16(..), rng.u16(..)),
                boot: rng.u64(..),
                description,
                trusts,
                board,
            })
        }
        2 => {
            ToManager::Describe(NodeDescription { hostname: format!("x{}", rng.u8(..)), ..NodeDescription::default() })
        }
        3..7 => status(rng, index),
        7 | 8 => ToManager::Heartbeat(rng.u64(..)),
        9 => {
            let end = rng.bool().then(|| LogsEnd::Failed("f".repeat(rng.usize(0..2000))));
            ToManager::Logs(LogsPart { reading: rng.u64(0..4), entries: Vec::new(), end })
        }
        10 => ToManager::Renew(Renew { csr: (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect() }),
        11 | 12 => ToManager::Trusts(trusts),
        13 => ToManager::Bye { leaving: rng.bool() },
        14 => {
            let (token, hostname) = ("SWMTKN-1-x-y".to_owned(), "h".to_owned());
            ToManager::Join(Join { versions: (1, 1), token, csr: vec![rng.u8(..); 90], hostname })
        }
        15 => ToManager::Health(BoardHealth {
            temperature: Some(rng.i16(..)),
            throttled: Some(rng.u32(..)),
            storage_spare: Some(rng.u8(..)),
            ..BoardHealth::default()
        }),
        _ => hello((1, 1)),
    }
}

/// What is sent: frames as they should be, or not. `first`: what it should begin with. `apt`: what is said besides what
/// is drawn.
fn script(rng: &mut Rng, index: u64, first: &[ToManager], apt: &[ToManager]) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    // Most begin well, so that deep states are met.
    if rng.u8(0..4) > 0 {
        frames.extend(first.iter().map(packed));
    }
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for _ in 0..rng.usize(0..12) {
        let said = rng.choice(apt).filter(|_| rng.bool()).cloned().unwrap_or_else(|| message(rng, index));
        let body = frame::encode(&said, FRAME_FROM_AGENT_MAX).expect("it fits");
        bodies.push(body.clone());
        let body = match rng.u8(0..10) {
            // Again what was said before.
            0 => rng.choice(&bodies).cloned().unwrap_or_default(),
            1 | 2 => mutate::input(rng, &bodies),
            _ => body,
        };
        let mut frame = u32::try_from(body.len()).expect("small").to_be_bytes().to_vec();
        match rng.u8(0..24) {
            0 => frame = u32::MAX.to_be_bytes().to_vec(),
            1 => frame = vec![0; 4],
            2 => frame = u32::try_from(body.len() + 5).expect("small").to_be_bytes().to_vec(),
            _ => {}
        }
        frame.extend_from_slice(&body);
        frames.push(frame);
    }
    if rng.u8(0..6) == 0 {
        rng.shuffle(&mut frames);
    }
    if let Some(last) = frames.last_mut().filter(|_| rng.u8(0..6) == 0) {
        last.truncate(rng.usize(0..=last.len()));
    }
    frames
}

fn packed(message: &ToManager) -> Vec<u8> {
    let body = frame::encode(message, FRAME_FROM_AGENT_MAX).expect("it fits");
    let mut frame = u32::try_from(body.len()).expect("small").to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// Sends all of it, hears everything, and hangs up; what was heard.
async fn play(stream: impl AsyncRead + AsyncWrite + Unpin, frames: &[Vec<u8>], pause: Duration) -> Vec<ToAgent> {
    let (mut from, mut to) = split(stream);
    let say = async {
        for frame in frames {
            if to.write_all(frame).await.is_err() || to.flush().await.is_err() {
                break;
            }
        }
        // What is said is heard before the connection goes.
        smol::Timer::after(pause).await;
        let _ = to.close().await;
        std::future::pending::<()>().await;
    };
    let mut heard = Vec::new();
    let hear = async {
        while let Ok(Some(message)) = frame::receive::<ToAgent>(&mut from, FRAME_TO_AGENT_MAX).await {
            heard.push(message);
        }
        // Until it is closed from the other side too.
        while matches!(from.read(&mut [0; 64]).await, Ok(1..)) {}
    };
    or(say, hear).await;
    heard
}

#[track_caller]
fn check_words(heard: &[ToAgent]) {
    let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    for message in heard {
        let bytes = frame::encode(message, FRAME_TO_AGENT_MAX).expect("it was sent");
        assert!(!holds(&bytes, SECRET), "a secret of another's task was sent");
        if let ToAgent::Assign(assign) = message {
            assert!(assign.tasks.iter().all(|one| one.task != task(2)), "another's task was sent");
        }
    }
    // After the refusal nothing follows.
    let refused = heard.iter().position(|message| matches!(message, ToAgent::Refused(_)));
    assert!(refused.is_none_or(|at| at + 1 == heard.len()), "{:?}", heard.last());
}

fn seed() -> u64 {
    std::env::var("RACIMO_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Says on a failure how it is repeated.
struct Case(u64, u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("RACIMO_FUZZ_SEED={}: failed in case {}", self.0, self.1);
        }
    }
}

/// Ends in time, or panics.
#[track_caller]
fn soon<T>(work: impl Future<Output = T>) -> T {
    let late = async {
        smol::Timer::after(Duration::from_secs(30)).await;
        None
    };
    block_on(or(async { Some(work.await) }, late)).expect("the session does not end")
}

/// A whole connection of this other end, which says this; what it was told.
#[track_caller]
fn converse(manager: &Manager, other: Other, frames: &[Vec<u8>], pause: Duration) -> Vec<ToAgent> {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let context = manager.context.clone();
    let session = smol::spawn(async move { session::run(&context, theirs, other, "192.0.2.9".to_owned()).await });
    let heard = soon(play(ours, frames, pause));
    let end = soon(session);
    assert!(!end.to_string().is_empty());
    check_words(&heard);
    heard
}

#[test]
fn whatever_a_member_says() {
    let manager = manager(new_node(1));
    let before = victim(&manager.view());
    let begun = manager.view().version();
    let (mut opened, mut own) = (0, 0);
    for number in 0..mutate::cases(400) {
        let case = Case(seed(), number);
        let mut rng = Rng::with_seed(seed().wrapping_mul(1_000_003).wrapping_add(number));
        let first = [hello((1, rng.u16(1..3)))];
        let mut frames = script(&mut rng, manager.view().version(), &first, &[]);
        let mut pause = Duration::from_millis(rng.u64(0..30));
        // Now and then one that waits for all that it is sent, on a busy machine, too.
        if number % 64 == 0 {
            frames.truncate(1);
            pause = Duration::from_secs(1);
        }
        let heard = converse(&manager, Other::Own(node(1)), &frames, pause);
        opened += usize::from(heard.iter().any(|message| matches!(message, ToAgent::Welcome(_))));
        own += usize::from(heard.iter().any(|message| format!("{message:?}").contains("BodyPart")));
        assert_eq!(victim(&manager.view()), before, "node 2 or its task changed");
        assert_eq!(manager.context.logs.readings(), 0);
        drop(case);
    }
    // The store took node 1's words only as far as its share goes: its task's end, its descriptions and returns, and
    // that it left as often as it came back.
    let written = manager.view().version() - begun;
    assert!(written <= 2 * u64::from(limits::NODE_WRITES_BURST) + 8, "{written} writes");
    assert!(opened > 20 && own > 0, "{opened} sessions opened, {own} with contents: it tests nothing");
}

/// Boards whose certificates are good, due or over: a new one is all that some may have, and only for their own key.
#[test]
fn whatever_a_board_says_that_wants_a_certificate() {
    let (own, others) = (Key::draw(), Key::draw());
    let manager = manager(with_key(new_node(1), &own.0));
    let present = manager.context.authority.now();
    let (root, roots) = (present.ca.root().to_vec(), present.roots.known());
    let minute = Duration::from_secs(60);
    // Signed for an hour.
    let shown = [0, 54, 70].map(|age| certificate(&present.ca, &own, now() - minute * age));
    let peer = |certificate: &[u8]| Peer::of(certificate, &roots).expect("a member's");
    let before = victim(&manager.view());
    let begun = manager.view().version();
    let (mut renewed, mut expired, mut opened, mut inside) = (0, 0, 0, 0);
    for number in 0..mutate::cases(300) {
        let case = Case(seed(), number);
        let mut rng = Rng::with_seed(seed().wrapping_mul(3_000_017).wrapping_add(number));
        let at = rng.usize(0..shown.len());
        let hello = hello_with(trusts(&shown[at], &[&root]));
        let first = if rng.bool() { vec![own.renew()] } else { vec![hello, ToManager::Heartbeat(1), own.renew()] };
        let apt = [own.renew(), ToManager::Heartbeat(2), others.renew()];
        let mut frames = script(&mut rng, manager.view().version(), &first, &apt);
        // What ends the session must not always come before the answer.
        frames.truncate(if rng.bool() { first.len() } else { frames.len() });
        let other = Other::Certified(peer(&shown[at]));
        let heard = converse(&manager, other, &frames, Duration::from_millis(rng.u64(0..150)));
        let count = |of: fn(&ToAgent) -> bool| heard.iter().filter(|message| of(message)).count();
        let is_open = matches!(heard.first(), Some(ToAgent::Welcome(_)));
        let asked = count(|message| *message == ToAgent::Renew);
        let certified = count(|message| matches!(message, ToAgent::Certified(_)));
        for message in &heard {
            if let ToAgent::Certified(certified) = message {
                let new = peer(&certified.certificate);
                assert_eq!((new.node, new.key_digest), (node(1), peer(&shown[0]).key_digest), "another's key");
            }
        }
        if is_open {
            assert!(at < 2, "a session with a certificate that is over");
            let most = usize::try_from(limits::RENEWALS_BURST).expect("few");
            assert!(certified <= asked && asked <= most, "{certified} certificates, asked {asked} times");
        } else {
            assert!(heard.len() <= 1, "{heard:?}");
        }
        let is_over =
            |message: &&ToAgent| matches!(message, ToAgent::Refused(Refused { code: RefusedCode::Expired, .. }));
        expired += heard.iter().filter(is_over).count();
        opened += usize::from(is_open);
        *if is_open { &mut inside } else { &mut renewed } += certified;
        assert_eq!(victim(&manager.view()), before, "node 2 or its task changed");
        drop(case);
    }
    let written = manager.view().version() - begun;
    assert!(written <= 2 * u64::from(limits::NODE_WRITES_BURST) + 8, "{written} writes");
    let met = [renewed, expired, opened, inside];
    assert!(met.into_iter().all(|times| times > 3), "{met:?}: it tests little");
}

/// Over TLS, without a certificate: nothing is stored, whatever is said.
#[test]
fn whatever_a_stranger_says() {
    let served = super::serve::serve();
    let begun = served.store.view().version();
    for number in 0..mutate::cases(60).min(100_000) {
        let case = Case(seed(), number);
        let mut rng = Rng::with_seed(seed().wrapping_mul(7_000_003).wrapping_add(number));
        let frames = script(&mut rng, 1, &[hello((1, 1))], &[]);
        let heard = soon(async {
            match served.dial(super::serve::nobody(&served.ca)).await {
                Some(stream) => play(stream, &frames, Duration::from_millis(5)).await,
                None => Vec::new(),
            }
        });
        check_words(&heard);
        assert!(heard.iter().all(|message| matches!(message, ToAgent::Refused(_))), "{heard:?}");
        assert!(heard.len() <= 1);
        assert_eq!(served.store.view().version(), begun, "a stranger made the store write");
        drop(case);
    }
}

/// Messages are what they were, so that the fuzzing above meets each of them.
#[test]
fn every_message_is_drawn() {
    let mut rng = Rng::with_seed(3);
    let kinds: std::collections::BTreeSet<String> = (0..1000)
        .map(|_| match message(&mut rng, 1) {
            ToManager::Join(_) => "Join",
            ToManager::Hello(_) => "Hello",
            ToManager::Describe(_) => "Describe",
            ToManager::Status(_) => "Status",
            ToManager::Heartbeat(_) => "Heartbeat",
            ToManager::Logs(_) => "Logs",
            ToManager::Renew(_) => "Renew",
            ToManager::Trusts(_) => "Trusts",
            ToManager::Health(_) => "Health",
            ToManager::Bye { .. } => "Bye",
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(kinds.len(), 10);
}
