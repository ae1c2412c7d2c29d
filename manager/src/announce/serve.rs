//! The responder's socket: one for all links, beside whatever else speaks multicast DNS on this machine (avahi).
//!
//! ```text
//! other links ─▶ socket anew ─▶ announce, twice
//! question ─ of a link? about us? ─┬─ by unicast ──▶ answer to whoever asks
//!                                  └─ by multicast ▶ announce soon, once a second at most
//! the last handle is gone ─▶ goodbye
//! ```
//!
//! It is bound to the group's address, so packets to this machine's own addresses go to others. Who asks must be on a
//! link of ours by its address, whatever way the packet came.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::future::or;
use racimo_common::limits::MDNS_PACKET_BYTES_MAX;
use racimo_common::mdns::message::{self, Message, Question};
use racimo_common::mdns::{GROUP, PORT};
use racimo_common::net::Subnet;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use smol::{Async, Timer};

use super::{Service, To};
use crate::limits::{ANNOUNCE_EVERY_MIN, ANNOUNCE_RETRY, ANSWERS_PER_SECOND_MAX};

/// A link and this machine's addresses there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its networks.
    pub subnets: Vec<Subnet>,
    /// What is announced there.
    pub addresses: Vec<IpAddr>,
}

/// Announcements go on as long as the sender is kept; every list sent takes the place of the one before. The task ends
/// with a goodbye.
pub fn start(service: Service) -> (Sender<Vec<Link>>, smol::Task<()>) {
    let (sender, links) = async_channel::bounded(1);
    let task = smol::spawn(Responder::new(service).run(links));
    (sender, task)
}

struct Responder {
    service: Service,
    links: Vec<Link>,
    socket: Option<Async<UdpSocket>>,
    /// Numbers of links that could not be joined, and when they are tried again.
    missing: Vec<u32>,
    again: Option<Instant>,
    /// The next announcement, and how many follow it.
    due: Option<(Instant, u8)>,
    announced: Option<Instant>,
    /// Answers by unicast since this moment.
    answered: (Instant, u32),
    rng: fastrand::Rng,
    fault: Option<String>,
}

enum Wake {
    Links(Option<Vec<Link>>),
    Packet(usize, SocketAddr),
    Due,
    Again,
}

impl Responder {
    fn new(service: Service) -> Self {
        let answered = (Instant::now(), 0);
        let rng = fastrand::Rng::new();
        let (links, missing) = (Vec::new(), Vec::new());
        let (socket, again, due, announced, fault) = (None, None, None, None, None);
        Self { service, links, socket, missing, again, due, announced, answered, rng, fault }
    }

    async fn run(mut self, links: Receiver<Vec<Link>>) {
        let mut buffer = vec![0; MDNS_PACKET_BYTES_MAX];
        loop {
            let wake = {
                let changed = async { Wake::Links(links.recv().await.ok()) };
                let heard = async {
                    let Some(socket) = &self.socket else { return std::future::pending().await };
                    match socket.recv_from(&mut buffer).await {
                        Ok((length, from)) => Wake::Packet(length, from),
                        Err(_) => {
                            // The network's word on what was sent.
                            Timer::after(Duration::from_millis(100)).await;
                            Wake::Packet(0, SocketAddr::V4(GROUP))
                        }
                    }
                };
                let due = async {
                    self.due.map_or_else(Timer::never, |(at, _)| Timer::at(at)).await;
                    Wake::Due
                };
                let again = async {
                    self.again.map_or_else(Timer::never, Timer::at).await;
                    Wake::Again
                };
                or(changed, or(or(due, again), heard)).await
            };
            match wake {
                Wake::Links(Some(links)) => self.open(links),
                Wake::Links(None) => return self.announce(To::Goodbye),
                Wake::Packet(length, from) => self.hear(&buffer[..length], from),
                Wake::Due if self.socket.is_none() => {
                    let links = std::mem::take(&mut self.links);
                    self.open(links);
                }
                Wake::Due => self.say(),
                Wake::Again => self.join_again(),
            }
        }
    }

    /// Listens on these links, in place of others.
    fn open(&mut self, links: Vec<Link>) {
        if self.socket.is_some() && self.links == links {
            return;
        }
        self.socket = None;
        self.links = links;
        self.missing.clear();
        (self.due, self.again) = (None, None);
        if self.links.is_empty() {
            return;
        }
        match open(&self.links).and_then(|(socket, missing)| Ok((Async::new(socket)?, missing))) {
            Ok((socket, missing)) => {
                self.socket = Some(socket);
                self.missing = missing;
                self.plan_again();
                self.due = Some((Instant::now(), 1));
                self.fault = None;
            }
            Err(error) => {
                let fault = format!("this manager is not announced on the local network: {error}");
                if self.fault.as_ref() != Some(&fault) {
                    log::warn!("{fault}");
                    self.fault = Some(fault);
                }
                self.due = Some((Instant::now() + ANNOUNCE_RETRY, 0));
            }
        }
    }

    /// Tries the links that could not be joined.
    fn join_again(&mut self) {
        let Some(socket) = &self.socket else { return };
        let before = self.missing.len();
        self.missing.retain(|index| join(socket.get_ref(), *index).is_err());
        if self.missing.len() < before {
            self.due = Some((Instant::now(), 1));
        }
        self.plan_again();
    }

    fn plan_again(&mut self) {
        self.again = (!self.missing.is_empty()).then(|| Instant::now() + ANNOUNCE_RETRY);
    }

    fn say(&mut self) {
        self.announce(To::All);
        let now = Instant::now();
        self.announced = Some(now);
        self.due = match self.due {
            Some((_, left @ 1..)) => Some((now + ANNOUNCE_EVERY_MIN, left - 1)),
            Some((_, 0)) | None => None,
        };
    }

    fn announce(&self, to: To) {
        let Some(socket) = &self.socket else { return };
        for link in &self.links {
            let packet = message::answer(0, &[], &self.service.all(&link.addresses, to), &[]);
            let on_link = sockopt::set_ip_multicast_if_with_ifindex(
                socket.get_ref(),
                GROUP.ip(),
                &Ipv4Addr::UNSPECIFIED,
                link.index,
            );
            // A link that went away is told of soon.
            let _ = on_link
                .map_err(io::Error::from)
                .and_then(|()| socket.get_ref().send_to(&packet, SocketAddr::V4(GROUP)));
        }
    }

    fn hear(&mut self, packet: &[u8], from: SocketAddr) {
        let IpAddr::V4(asker) = from.ip() else { return };
        // Two of our links may be on one network.
        let near = |link: &&Link| link.subnets.iter().any(|subnet| subnet.contains(asker));
        let addresses: Vec<IpAddr> = self.links.iter().filter(near).flat_map(|link| link.addresses.clone()).collect();
        if addresses.is_empty() {
            return;
        }
        let Some(Message::Query { id, questions }) = message::read(packet) else { return };
        let is_legacy = from.port() != PORT;
        let to = if is_legacy { To::Legacy } else { To::All };
        let Some(answer) = self.service.answer(&questions, &addresses, to) else { return };
        if !is_legacy && !questions.iter().all(|question| question.unicast) {
            let now = Instant::now();
            let soon = now + Duration::from_millis(self.rng.u64(20..=120));
            let at = self.announced.map_or(soon, |last| soon.max(last + ANNOUNCE_EVERY_MIN));
            let (at, left) = self.due.map_or((at, 0), |(due, left)| (due.min(at), left));
            self.due = Some((at, left));
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.answered.0) >= Duration::from_secs(1) {
            self.answered = (now, 0);
        }
        if self.answered.1 >= ANSWERS_PER_SECOND_MAX {
            return;
        }
        self.answered.1 += 1;
        let repeated: Vec<Question> = if is_legacy { asked(&questions) } else { Vec::new() };
        let packet = message::answer(if is_legacy { id } else { 0 }, &repeated, &answer.answers, &answer.further);
        if let Some(socket) = &self.socket {
            // It may be gone.
            let _ = socket.get_ref().send_to(&packet, from);
        }
    }
}

/// The questions as they are repeated: the bit that asks for unicast is not.
fn asked(questions: &[Question]) -> Vec<Question> {
    questions.iter().map(|question| Question { unicast: false, ..question.clone() }).collect()
}

/// A socket on these links, and the numbers of those that could not be joined: one that will not is no reason to be
/// silent on the others.
fn open(links: &[Link]) -> io::Result<(UdpSocket, Vec<u32>)> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &GROUP)?;
    sockopt::set_ip_multicast_ttl(&socket, 255)?;
    sockopt::set_ip_ttl(&socket, 255)?;
    // Others on this machine hear it too.
    sockopt::set_ip_multicast_loop(&socket, true)?;
    let (mut missing, mut fault) = (Vec::new(), io::Error::other("there is no link to announce it on"));
    for link in links {
        if let Err(error) = join(&socket, link.index) {
            missing.push(link.index);
            fault = error;
        }
    }
    if missing.len() < links.len() { Ok((socket.into(), missing)) } else { Err(fault) }
}

fn join(socket: impl AsFd, index: u32) -> io::Result<()> {
    Ok(sockopt::set_ip_add_membership_with_ifindex(socket, GROUP.ip(), &Ipv4Addr::UNSPECIFIED, index)?)
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{ClusterId, RandomId};

    use super::*;

    #[test]
    fn links_that_could_not_be_joined_are_tried_again() {
        let mut responder = Responder::new(Service::new("pi", ClusterId::from_bits(1), 2377));
        responder.socket = Some(Async::<UdpSocket>::bind(([127, 0, 0, 1], 0)).expect("a socket"));
        responder.links = vec![Link { index: 1, subnets: Vec::new(), addresses: Vec::new() }];
        // The first is there: loopback.
        responder.missing = vec![1, u32::MAX];
        responder.join_again();
        assert_eq!(responder.missing, [u32::MAX]);
        assert!(responder.due.is_some_and(|(at, _)| at <= Instant::now()), "it is announced there");
        assert!(responder.again.is_some_and(|at| at > Instant::now()));
        (responder.missing, responder.due) = (vec![u32::MAX], None);
        responder.join_again();
        assert!(responder.missing.len() == 1 && responder.due.is_none() && responder.again.is_some());
        responder.open(Vec::new());
        assert!(responder.missing.is_empty() && responder.again.is_none());
    }

    #[test]
    fn the_same_links_again_are_no_news() {
        let link = |index, last: u8| Link {
            index,
            subnets: vec![Subnet::of([192, 0, 2, 0].into(), 24)],
            addresses: vec![[192, 0, 2, last].into()],
        };
        let mut responder = Responder::new(Service::new("pi", ClusterId::from_bits(1), 2377));
        // As if it had been opened and announced; there is no need to say anything on this machine's links.
        let socket = || Async::<UdpSocket>::bind(([127, 0, 0, 1], 0)).expect("a socket");
        let (no_link, place) = (u32::MAX, |responder: &Responder| {
            responder.socket.as_ref().map(|socket| socket.get_ref().local_addr().expect("an address"))
        });
        (responder.socket, responder.links) = (Some(socket()), vec![link(no_link, 5)]);
        let before = place(&responder);
        responder.open(vec![link(no_link, 5)]);
        assert_eq!((place(&responder), responder.due), (before, None));
        // Another address there is.
        responder.open(vec![link(no_link, 6)]);
        assert!(place(&responder) != before && responder.due.is_some());
        // And no link ends it.
        responder.socket = Some(socket());
        responder.open(Vec::new());
        assert!(responder.socket.is_none() && responder.due.is_none());
    }
}
