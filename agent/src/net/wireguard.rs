//! Encryption between boards: one WireGuard device, `rc-wg`, through which the VXLANs of encrypted networks go.
//!
//! In: the board's place in the mesh, the other boards with their keys, the board's own key. Out: the messages that
//! make the kernel's device so. Each board has one address inside, the first of its part of the mesh, which neither
//! its gateway nor a task has; nothing else is taken from it, and nothing else goes to it.
//!
//! ```text
//! task ─ bridge ─ VXLAN (port 4790, from 10.200.1.0 to 10.200.2.0) ─ rc-wg ─ UDP 51820 ─▶ the other board
//! ```
//!
//! A device is changed, not replaced: what stays keeps its sessions.

pub mod key;
mod link;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use racimo_common::net::WIREGUARD_PORT;
use racimo_common::wire::{NetOwn, NetPeer, encryption_address};

use super::netlink::Error;
use super::netlink::message::{Attributes, Batch, DUMP, Message, Tolerate};
use super::netlink::socket::{Protocol, Socket};
use crate::limits;

pub use key::Key;
pub use link::{ensure, remove};

/// The device's name.
pub const LINK: &str = "rc-wg";

/// A board, as the device knows it: by its public key.
pub type Peers = BTreeMap<[u8; 32], Peer>;

/// Where another board is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Outside.
    pub endpoint: SocketAddrV4,
    /// Inside: the only address that is taken from it.
    pub inside: Ipv4Addr,
}

/// What the kernel has.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Its public key; none: it has no private one.
    pub public: Option<[u8; 32]>,
    /// Its UDP port.
    pub port: u16,
    /// The boards; one whose address is not known, or that may send from others, has none.
    pub peers: BTreeMap<[u8; 32], Option<Peer>>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("port", &self.port).field("peers", &self.peers.values()).finish_non_exhaustive()
    }
}

/// The board's own address inside.
pub fn inside(own: &NetOwn) -> Ipv4Addr {
    encryption_address(own.subnet)
}

/// The other boards that can encrypt. Of two with one key the first by id counts: somebody copied a card.
pub fn peers<'a>(all: impl IntoIterator<Item = &'a NetPeer>) -> Peers {
    let mut peers = Peers::new();
    for peer in all {
        let Some(key) = peer.key else { continue };
        let endpoint = SocketAddrV4::new(peer.address.0, WIREGUARD_PORT);
        peers.entry(key.into_array()).or_insert(Peer { endpoint, inside: encryption_address(peer.subnet) });
    }
    peers
}

/// What makes a device so; nothing if it is.
#[derive(Default, PartialEq, Eq)]
pub struct Changes<'a> {
    /// A new private key, and the port.
    own: Option<&'a [u8; 32]>,
    gone: Vec<[u8; 32]>,
    /// New, or elsewhere.
    set: Vec<([u8; 32], Peer)>,
}

impl<'a> Changes<'a> {
    /// The difference.
    pub fn between(have: &Device, key: &'a Key, want: &Peers) -> Self {
        let is_own = have.public == Some(key.public.into_array()) && have.port == WIREGUARD_PORT;
        let differs = |(key, peer): &(&[u8; 32], &Peer)| have.peers.get(*key) != Some(&Some(**peer));
        Self {
            own: (!is_own).then(|| key.private()),
            gone: have.peers.keys().filter(|key| !want.contains_key(*key)).copied().collect(),
            set: want.iter().filter(differs).map(|(key, peer)| (*key, *peer)).collect(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.gone.is_empty() && self.set.is_empty()
    }

    /// The messages for the family that the kernel calls `wireguard`. They hold a key: wipe them.
    pub fn write(&self, family: u16, batch: &mut Batch) {
        if let Some(private) = self.own {
            begin(family, batch).attribute(device::PRIVATE_KEY, private).u16(device::LISTEN_PORT, WIREGUARD_PORT);
        }
        for part in self.gone.chunks(limits::WIREGUARD_PEERS_PER_MESSAGE) {
            begin(family, batch).nest(device::PEERS, |list| {
                for key in part {
                    list.nest(0, |peer| {
                        peer.attribute(peer::PUBLIC_KEY, key).u32(peer::FLAGS, peer::REMOVE);
                    });
                }
            });
        }
        for part in self.set.chunks(limits::WIREGUARD_PEERS_PER_MESSAGE) {
            begin(family, batch).nest(device::PEERS, |list| {
                for (key, wanted) in part {
                    list.nest(0, |peer| wanted.write(key, peer));
                }
            });
        }
    }
}

/// Makes the kernel's device so, which is there. True: it was otherwise.
///
/// # Errors
/// The kernel has no WireGuard, or there is no such device.
pub fn apply(key: &Key, want: &Peers) -> Result<bool, Error> {
    let mut socket = Socket::open(Protocol::Generic)?;
    let family = family(&mut socket)?;
    let mut request = Batch::new();
    request.begin(family, DUMP, Tolerate::Nothing, &[GET, VERSION, 0, 0]).text(device::NAME, LINK);
    let mut have = Device::default();
    socket.list(&request, |message| {
        have.take(message);
        None::<()>
    })?;
    let changes = Changes::between(&have, key, want);
    if changes.is_empty() {
        return Ok(false);
    }
    let mut batch = Batch::new();
    changes.write(family, &mut batch);
    let done = socket.run_each(&mut batch);
    batch.wipe();
    done.map(|()| true)
}

/// The number that the kernel has given to WireGuard; its module is loaded if need be.
pub(super) fn family(socket: &mut Socket) -> Result<u16, Error> {
    const CONTROLLER: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const ID: u16 = 1;
    const NAME: u16 = 2;
    const ACK: u16 = 4;
    let mut request = Batch::new();
    request.begin(CONTROLLER, ACK, Tolerate::Nothing, &[GET_FAMILY, 2, 0, 0]).text(NAME, "wireguard");
    let found = match socket.list(&request, |message| message.attributes(4).get(ID)?.u16()) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Vec::new(),
        other => other?,
    };
    found.first().copied().ok_or(Error::NoFamily("wireguard"))
}

fn begin(family: u16, batch: &mut Batch) -> &mut Batch {
    batch.begin(family, 0, Tolerate::Nothing, &[SET, VERSION, 0, 0]).text(device::NAME, LINK)
}

/// `WG_CMD_GET_DEVICE`, `WG_CMD_SET_DEVICE`.
const GET: u8 = 0;
const SET: u8 = 1;
const VERSION: u8 = 1;

/// `WGDEVICE_A_…`.
mod device {
    pub(super) const NAME: u16 = 2;
    pub(super) const PRIVATE_KEY: u16 = 3;
    pub(super) const PUBLIC_KEY: u16 = 4;
    pub(super) const LISTEN_PORT: u16 = 6;
    pub(super) const PEERS: u16 = 8;
}

/// `WGPEER_A_…`, and its flags.
mod peer {
    pub(super) const PUBLIC_KEY: u16 = 1;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const ENDPOINT: u16 = 4;
    pub(super) const ALLOWED: u16 = 9;
    pub(super) const REMOVE: u32 = 1;
    pub(super) const REPLACE_ALLOWED: u32 = 2;
}

/// `WGALLOWEDIP_A_…`.
mod allowed {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const ADDRESS: u16 = 2;
    pub(super) const PREFIX: u16 = 3;
}

const INET: u16 = 2;

impl Peer {
    fn write(&self, key: &[u8; 32], message: &mut Batch) {
        message.attribute(peer::PUBLIC_KEY, key).u32(peer::FLAGS, peer::REPLACE_ALLOWED);
        message.attribute(peer::ENDPOINT, &socket_address(self.endpoint));
        message.nest(peer::ALLOWED, |list| {
            list.nest(0, |entry| {
                entry.u16(allowed::FAMILY, INET).ip(allowed::ADDRESS, self.inside).u8(allowed::PREFIX, 32);
            });
        });
    }
}

/// `struct sockaddr_in`.
fn socket_address(address: SocketAddrV4) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&INET.to_ne_bytes());
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&address.ip().octets());
    bytes
}

impl Device {
    /// Takes one message of the answer to `WG_CMD_GET_DEVICE`: a device with many peers comes in several, and a peer
    /// with many addresses in several of them.
    pub fn take(&mut self, message: &Message<'_>) {
        for attribute in message.attributes(4) {
            match attribute.kind {
                device::PUBLIC_KEY => self.public = attribute.value.try_into().ok().filter(|key| *key != [0; 32]),
                device::LISTEN_PORT => self.port = attribute.u16().unwrap_or_default(),
                device::PEERS => attribute.nested().for_each(|peer| self.take_peer(peer.nested())),
                _ => {}
            }
        }
    }

    fn take_peer(&mut self, attributes: Attributes<'_>) {
        let (mut key, mut endpoint, mut inside) = (None, None, Vec::new());
        for attribute in attributes {
            match attribute.kind {
                peer::PUBLIC_KEY => key = <[u8; 32]>::try_from(attribute.value).ok(),
                peer::ENDPOINT => endpoint = endpoint_of(attribute.value),
                peer::ALLOWED => inside.extend(attribute.nested().map(|entry| only_address(entry.nested()))),
                _ => {}
            }
        }
        let Some(key) = key else { return };
        let peer = match (endpoint, inside.as_slice()) {
            (Some(endpoint), &[Some(inside)]) => Some(Peer { endpoint, inside }),
            _ => None,
        };
        // The second part of one: it has more addresses than it should.
        self.peers.entry(key).and_modify(|known| *known = None).or_insert(peer);
    }
}

fn endpoint_of(bytes: &[u8]) -> Option<SocketAddrV4> {
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let (address, _) = rest.split_first_chunk::<4>()?;
    (u16::from_ne_bytes(*family) == INET).then(|| SocketAddrV4::new((*address).into(), u16::from_be_bytes(*port)))
}

/// The address, if it is IPv4 and stands alone.
fn only_address(entry: Attributes<'_>) -> Option<Ipv4Addr> {
    let (mut address, mut prefix) = (None, 0);
    for attribute in entry {
        match attribute.kind {
            allowed::ADDRESS => address = attribute.ip(),
            allowed::PREFIX => prefix = attribute.value.first().copied().unwrap_or_default(),
            _ => {}
        }
    }
    address.filter(|_| prefix == 32)
}

#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod tests;
