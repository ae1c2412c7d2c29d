//! Who has which port. Pure, but for the binding, which is an argument.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use racimo_common::id::TaskId;
use racimo_common::object::HostPort;

use super::Key;
use crate::limits;

/// All ports. `S`: their sockets.
#[derive(Debug)]
pub(super) struct Book<S> {
    held: BTreeMap<Key, Held<S>>,
    /// Ports of the mesh that somebody else has.
    waiting: BTreeMap<Key, Waiting>,
}

#[derive(Debug)]
struct Held<S> {
    socket: S,
    /// Whose it is; none: the mesh's.
    task: Option<TaskId>,
    /// Where connections go.
    to: Vec<SocketAddrV4>,
}

#[derive(Debug)]
struct Waiting {
    to: Vec<SocketAddrV4>,
    /// Who has it, or what is wrong; none: there is no room for another port.
    why: Option<String>,
}

impl<S> Default for Book<S> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), waiting: BTreeMap::new() }
    }
}

impl<S> Book<S> {
    /// See [`Ports::publish`](super::Ports::publish).
    pub(super) fn publish(
        &mut self,
        wanted: BTreeMap<Key, Vec<SocketAddrV4>>,
        bind: impl FnMut(Key) -> io::Result<(u16, S)>,
    ) {
        self.held.retain(|key, held| held.task.is_some() || wanted.contains_key(key));
        self.waiting.clear();
        for (key, to) in wanted {
            match self.held.get_mut(&key) {
                Some(held) if held.task.is_none() => held.to = to,
                Some(_) | None => drop(self.waiting.insert(key, Waiting { to, why: None })),
            }
        }
        self.retry(bind);
    }

    /// See [`Ports::retry`](super::Ports::retry).
    pub(super) fn retry(&mut self, mut bind: impl FnMut(Key) -> io::Result<(u16, S)>) -> bool {
        let before = self.waiting.len();
        for (key, Waiting { to, .. }) in std::mem::take(&mut self.waiting) {
            let has_room = self.held.len() < limits::PORTS_MAX;
            let why = match self.held.entry(key) {
                Entry::Occupied(_) => Some("a task that publishes it in host mode".to_owned()),
                Entry::Vacant(free) if has_room => match bind(key) {
                    Ok((_, socket)) => {
                        free.insert(Held { socket, task: None, to });
                        continue;
                    }
                    Err(error) => Some(why(&error)),
                },
                Entry::Vacant(_) => None,
            };
            self.waiting.insert(key, Waiting { to, why });
        }
        self.waiting.len() < before
    }

    /// See [`Ports::reserve`](super::Ports::reserve).
    pub(super) fn reserve(
        &mut self,
        task: TaskId,
        mesh: Ipv4Addr,
        ports: &[HostPort],
        mut bind: impl FnMut(Key) -> io::Result<(u16, S)>,
    ) -> Result<Vec<HostPort>, String> {
        let (mut got, mut new) = (Vec::new(), BTreeMap::new());
        for port in ports {
            let to = SocketAddrV4::new(mesh, port.target);
            if let Some(published) = self.present(task, *port, to) {
                got.push(HostPort { published, ..*port });
                continue;
            }
            let key = (port.protocol, port.published);
            if let Some(why) = self.owner(key) {
                return Err(taken(key, &why));
            }
            if self.held.len() + new.len() >= limits::PORTS_MAX {
                return Err(format!("{TOO_MANY}: it takes {}", limits::PORTS_MAX));
            }
            let (published, socket) = bind(key).map_err(|error| taken(key, &why(&error)))?;
            new.insert((port.protocol, published), Held { socket, task: Some(task), to: vec![to] });
            got.push(HostPort { published, ..*port });
        }
        self.held.append(&mut new);
        Ok(got)
    }

    /// The port that the task has for this one already.
    fn present(&self, task: TaskId, port: HostPort, to: SocketAddrV4) -> Option<u16> {
        let its = |held: &Held<S>| held.task == Some(task) && held.to == [to];
        match port.published {
            0 => {
                let mut all = self.held.iter();
                all.find(|((protocol, _), held)| *protocol == port.protocol && its(held)).map(|((_, port), _)| *port)
            }
            published => self.held.get(&(port.protocol, published)).filter(|held| its(held)).map(|_| published),
        }
    }

    /// Which of our own has the port.
    fn owner(&self, key: Key) -> Option<String> {
        let mesh = || "a service that publishes it on every board".to_owned();
        match self.held.get(&key) {
            Some(Held { task: Some(_), .. }) => Some("another task".to_owned()),
            Some(Held { task: None, .. }) => Some(mesh()),
            None => self.waiting.contains_key(&key).then(mesh),
        }
    }

    /// A task's ports are free.
    pub(super) fn release(&mut self, task: TaskId) {
        self.held.retain(|_, held| held.task != Some(task));
    }

    /// Whether a socket is bound.
    pub(super) fn is_held(&self, key: Key) -> bool {
        self.held.contains_key(&key)
    }

    /// Whether the port is this task's.
    pub(super) fn has(&self, task: TaskId, key: Key) -> bool {
        self.held.get(&key).is_some_and(|held| held.task == Some(task))
    }

    /// Whether a port of the mesh is not ours.
    pub(super) fn is_short(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A port's socket, and where its connections go.
    pub(super) fn find(&self, key: Key) -> Option<(&S, &[SocketAddrV4])> {
        self.held.get(&key).map(|held| (&held.socket, held.to.as_slice()))
    }

    /// What is wrong, one sentence for each port; beyond a few they are counted.
    pub(super) fn degraded(&self) -> Vec<String> {
        let taken: Vec<(Key, &str)> =
            self.waiting.iter().filter_map(|(key, waiting)| Some((*key, waiting.why.as_deref()?))).collect();
        let told = taken.iter().take(limits::DEGRADED_PORTS_MAX).map(|(key, why)| {
            format!(
                "{}, so that it does not answer here for its service: stop that, or publish another port",
                self::taken(*key, why)
            )
        });
        let rest = taken.len().saturating_sub(limits::DEGRADED_PORTS_MAX);
        let rest = (rest > 0).then(|| format!("{rest} more published ports are taken on this board"));
        let beyond = self.waiting.len() - taken.len();
        let beyond = (beyond > 0).then(|| {
            let most = limits::PORTS_MAX;
            format!("{TOO_MANY}: {beyond} of them do not answer here, as it takes {most}: publish fewer")
        });
        told.chain(rest).chain(beyond).collect()
    }
}

const TOO_MANY: &str = "too many published ports on this board";

fn taken((protocol, port): Key, why: &str) -> String {
    format!("port {port}/{protocol} is taken on this board by {why}")
}

fn why(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        "another program".to_owned()
    } else {
        format!("the kernel ({error})")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use racimo_common::id::RandomId;
    use racimo_common::object::Protocol;

    use super::*;

    /// A board where programs and sockets have ports.
    #[derive(Clone, Default)]
    struct Board(Rc<RefCell<BTreeSet<Key>>>);

    /// Bound as long as it lives.
    struct Bound(Board, Key);

    impl Drop for Bound {
        fn drop(&mut self) {
            self.0.0.borrow_mut().remove(&self.1);
        }
    }

    impl Board {
        fn bind(&self, (protocol, port): Key) -> io::Result<(u16, Bound)> {
            let mut taken = self.0.borrow_mut();
            let port = match port {
                0 => (40_000..).find(|port| !taken.contains(&(protocol, *port))).expect("room"),
                port => port,
            };
            if taken.insert((protocol, port)) {
                Ok((port, Bound(self.clone(), (protocol, port))))
            } else {
                Err(io::ErrorKind::AddrInUse.into())
            }
        }
    }

    const WEB: Key = (Protocol::Tcp, 80);
    const MESH: Ipv4Addr = Ipv4Addr::new(10, 200, 1, 2);

    fn wanted(keys: &[Key]) -> BTreeMap<Key, Vec<SocketAddrV4>> {
        keys.iter().map(|key| (*key, Vec::new())).collect()
    }

    fn task(bits: u8) -> TaskId {
        TaskId::from_bits(bits.into())
    }

    fn port(published: u16, target: u16) -> HostPort {
        HostPort { protocol: Protocol::Tcp, published, target }
    }

    #[test]
    fn a_port_of_the_mesh_waits_for_a_program_to_end() {
        let (board, mut book) = (Board::default(), Book::default());
        let program = board.bind(WEB).expect("free");
        book.publish(wanted(&[WEB, (Protocol::Udp, 80)]), |key| board.bind(key));
        assert!(!book.is_held(WEB) && book.is_held((Protocol::Udp, 80)));
        assert_eq!(
            book.degraded(),
            [
                "port 80/tcp is taken on this board by another program, so that it does not answer here for its service: \
              stop that, or publish another port"
            ]
        );
        assert!(!book.retry(|key| board.bind(key)));
        drop(program);
        assert!(book.retry(|key| board.bind(key)) && book.is_held(WEB) && book.degraded().is_empty());
        book.publish(wanted(&[]), |key| board.bind(key));
        assert!(board.0.borrow().is_empty(), "everything is let go");
    }

    #[test]
    fn a_tasks_ports_are_all_its_own_or_none() {
        let (board, mut book) = (Board::default(), Book::default());
        let _program = board.bind(WEB);
        let refused = book.reserve(task(1), MESH, &[port(81, 1), port(80, 2)], |key| board.bind(key));
        assert_eq!(refused, Err("port 80/tcp is taken on this board by another program".to_owned()));
        assert!(!book.is_held((Protocol::Tcp, 81)) && board.0.borrow().len() == 1);

        let got = book.reserve(task(1), MESH, &[port(81, 1), port(0, 2), port(0, 3)], |key| board.bind(key));
        let got = got.expect("free");
        assert_eq!(got, [port(81, 1), port(40_000, 2), port(40_001, 3)]);
        for again in [&[port(0, 3), port(81, 1), port(0, 2)], &[got[2], got[0], got[1]]] {
            let again = book.reserve(task(1), MESH, again, |key| board.bind(key)).expect("its own");
            assert_eq!(BTreeSet::from_iter(again), BTreeSet::from_iter(got.clone()));
        }
        let refused = book.reserve(task(2), MESH, &[port(81, 1)], |key| board.bind(key));
        assert_eq!(refused, Err("port 81/tcp is taken on this board by another task".to_owned()));
        book.release(task(1));
        assert_eq!(board.0.borrow().len(), 1);
    }

    #[test]
    fn the_mesh_and_tasks_wait_for_each_other() {
        let (board, mut book) = (Board::default(), Book::default());
        book.reserve(task(1), MESH, &[port(80, 8080)], |key| board.bind(key)).expect("free");
        book.publish(wanted(&[WEB]), |key| board.bind(key));
        assert!(book.is_short() && book.degraded()[0].contains("by a task that publishes it in host mode"));
        assert_eq!(book.find(WEB).map(|(_, to)| to), Some([SocketAddrV4::new(MESH, 8080)].as_slice()));
        // It has waited longer than the next task.
        let refused = book.reserve(task(2), MESH, &[port(80, 8080)], |key| board.bind(key)).unwrap_err();
        assert_eq!(refused, "port 80/tcp is taken on this board by another task");
        book.release(task(1));
        let refused = book.reserve(task(2), MESH, &[port(80, 8080)], |key| board.bind(key)).unwrap_err();
        assert_eq!(refused, "port 80/tcp is taken on this board by a service that publishes it on every board");
        assert!(book.retry(|key| board.bind(key)) && !book.is_short());
    }

    #[test]
    fn many_taken_ports_are_counted() {
        let mut book = Book::<Bound>::default();
        let all: Vec<Key> = (1..=20).map(|port| (Protocol::Tcp, port)).collect();
        book.publish(wanted(&all), |_| Err(io::ErrorKind::AddrInUse.into()));
        assert_eq!(book.degraded().len(), limits::DEGRADED_PORTS_MAX + 1);
        assert_eq!(book.degraded().last().map(String::as_str), Some("12 more published ports are taken on this board"));
    }

    #[test]
    fn ports_beyond_the_limit_wait_and_are_counted() {
        let (board, mut book) = (Board::default(), Book::default());
        let all: Vec<Key> = (1..=u16::MAX).map(|port| (Protocol::Tcp, port)).take(limits::PORTS_MAX + 2).collect();
        book.reserve(task(1), MESH, &[port(0, 1), port(40_010, 1)], |key| board.bind(key)).expect("room");
        book.publish(wanted(&all), |key| board.bind(key));
        assert_eq!(board.0.borrow().len(), limits::PORTS_MAX);
        let told = format!(
            "too many published ports on this board: 4 of them do not answer here, as it takes {}: publish fewer",
            limits::PORTS_MAX
        );
        assert_eq!(book.degraded(), [told]);
        let refused = book.reserve(task(2), MESH, &[port(0, 1)], |key| board.bind(key)).unwrap_err();
        assert_eq!(refused, format!("too many published ports on this board: it takes {}", limits::PORTS_MAX));
        // What a task has it keeps; what it leaves others get.
        let again = book.reserve(task(1), MESH, &[port(40_010, 1)], |key| board.bind(key));
        assert_eq!(again, Ok(vec![port(40_010, 1)]));
        book.release(task(1));
        assert!(book.retry(|key| board.bind(key)) && board.0.borrow().len() == limits::PORTS_MAX);
        assert!(book.degraded()[0].contains("2 of them"), "{:?}", book.degraded());
        book.publish(wanted(&all[2..]), |key| board.bind(key));
        assert!(book.degraded().is_empty() && !book.is_short());
    }
}
