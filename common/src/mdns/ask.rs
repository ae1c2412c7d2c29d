//! Asks the local network once.
//!
//! In: a socket per link, a question. Out: what answers say, until whoever asks has enough or the time is over. The
//! question goes out from a port of our own, as plain DNS clients do it, so answers come by unicast and whatever else
//! speaks multicast DNS on this board (avahi) is left alone.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::Poll;
use std::time::Duration;

use smol::{Async, Timer};

use super::message::{self, Message, Question, Record};
use super::{GROUP, PORT};
use crate::limits::{MDNS_PACKET_BYTES_MAX, MDNS_PACKETS_MAX};

/// Asks through each socket, twice in `within`, as packets get lost. `take` is given each answer's records; what it
/// returns ends the asking.
pub async fn ask<T>(
    sockets: Vec<UdpSocket>,
    id: u16,
    question: Question,
    within: Duration,
    mut take: impl FnMut(&[Record]) -> Option<T>,
) -> Option<T> {
    let sockets: Vec<Async<UdpSocket>> = sockets.into_iter().filter_map(|socket| Async::new(socket).ok()).collect();
    if sockets.is_empty() {
        return None;
    }
    let packet = message::query(id, &[question]);
    let send = async {
        for pause in [within / 4, within - within / 4] {
            for socket in &sockets {
                // A link that is down says no; others may not.
                let _ = socket.get_ref().send_to(&packet, SocketAddr::V4(GROUP));
            }
            Timer::after(pause).await;
        }
        None
    };
    let hear = async {
        let mut buffer = vec![0; MDNS_PACKET_BYTES_MAX];
        for _ in 0..MDNS_PACKETS_MAX {
            let (length, from) = receive(&sockets, &mut buffer).await;
            if from.port() != PORT {
                continue;
            }
            let Some(Message::Answer { id: of, records }) = message::read(&buffer[..length]) else { continue };
            if of != id {
                continue;
            }
            if let Some(enough) = take(&records) {
                return Some(enough);
            }
        }
        // A flood: what came is all there is.
        None
    };
    futures_lite::future::or(hear, send).await
}

/// The next packet of any of the sockets.
async fn receive(sockets: &[Async<UdpSocket>], buffer: &mut [u8]) -> (usize, SocketAddr) {
    poll_fn(|context| {
        for socket in sockets {
            loop {
                match socket.get_ref().recv_from(buffer) {
                    Ok(packet) => return Poll::Ready(packet),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if socket.poll_readable(context).is_pending() {
                            break;
                        }
                    }
                    // The network's word on what we sent; the next look has the next one.
                    Err(_) => {}
                }
            }
        }
        Poll::Pending
    })
    .await
}
