//! Links: what is told to the kernel about them, and what it tells.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use crate::net::netlink::message::{Attributes, Batch, Message, u32_at};
use crate::net::ns::Namespace;

/// A hardware address.
pub type Mac = [u8; 6];

/// Bytes of `struct ifinfomsg`.
pub(super) const HEADER: usize = 16;
const MAC: u16 = 1;
pub(super) const NAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const PORT: u16 = 12;
const INFO: u16 = 18;
const GROUP: u16 = 27;
const NETNS_FD: u16 = 28;
const KIND: u16 = 1;
const DATA: u16 = 2;
const BRIDGE_SNOOPING: u16 = 23;
const VXLAN_ID: u16 = 1;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PROXY: u16 = 11;
const VXLAN_PORT: u16 = 15;
const VETH_PEER: u16 = 1;
const UP: u32 = libc::IFF_UP as u32;

/// A VXLAN: neither learns nor floods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The board's own address.
    pub local: Ipv4Addr,
    /// Whether it answers for known neighbours, so that asking for them crosses no wire.
    pub proxy: bool,
}

/// A link to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// Its name, up to 15 bytes.
    pub name: &'a str,
    /// Its hardware address; without one the kernel draws one, and udev may change it.
    pub mac: Option<Mac>,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Whether it is put to work at once; none: it is not.
    pub up: Option<bool>,
    /// The index of the bridge it is a port of.
    pub master: Option<u32>,
    /// What it is.
    pub kind: NewKind<'a>,
}

/// What a link to be made is.
#[derive(Debug, Clone, Copy)]
pub enum NewKind<'a> {
    /// A bridge that does not look into multicast.
    Bridge,
    /// A VXLAN.
    Vxlan(Vxlan),
    /// One end of a pair.
    Veth {
        /// The other end's name.
        peer: &'a str,
        /// The other end's hardware address.
        mac: Option<Mac>,
        /// The other end's namespace; none: this one.
        namespace: Option<&'a Namespace>,
    },
    /// A WireGuard device.
    Wireguard,
}

impl NewLink<'_> {
    pub(super) fn write(&self, message: &mut Batch) {
        message.text(NAME, self.name).u32(MTU, self.mtu);
        if let Some(mac) = self.mac {
            message.attribute(MAC, &mac);
        }
        if let Some(master) = self.master {
            message.u32(MASTER, master);
        }
        message.nest(INFO, |info| match self.kind {
            NewKind::Bridge => {
                info.text(KIND, "bridge").nest(DATA, |data| {
                    data.u8(BRIDGE_SNOOPING, 0);
                });
            }
            NewKind::Vxlan(vxlan) => {
                info.text(KIND, "vxlan").nest(DATA, |data| {
                    data.u32(VXLAN_ID, vxlan.vni).ip(VXLAN_LOCAL, vxlan.local);
                    data.attribute(VXLAN_PORT, &vxlan.port.to_be_bytes());
                    data.u8(VXLAN_LEARNING, 0).u8(VXLAN_PROXY, u8::from(vxlan.proxy));
                });
            }
            NewKind::Veth { peer, mac, namespace } => {
                info.text(KIND, "veth").nest(DATA, |data| {
                    data.nest(VETH_PEER, |other| {
                        other.raw(&link_header(0, None)).text(NAME, peer).u32(MTU, self.mtu);
                        if let Some(mac) = mac {
                            other.attribute(MAC, &mac);
                        }
                        if let Some(namespace) = namespace {
                            other.u32(NETNS_FD, descriptor(namespace));
                        }
                    });
                });
            }
            NewKind::Wireguard => {
                info.text(KIND, "wireguard");
            }
        });
    }
}

/// What shall be different about a link; what is none stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Whether it is at work.
    pub up: Option<bool>,
    /// The index of the bridge it is a port of; 0: of none.
    pub master: Option<u32>,
    /// Bytes of the largest packet.
    pub mtu: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its group.
    pub group: Option<u32>,
    /// Its name.
    pub name: Option<&'a str>,
    /// The namespace it moves to.
    pub namespace: Option<&'a Namespace>,
    /// The board's own address; the link is a VXLAN.
    pub vxlan_local: Option<Ipv4Addr>,
}

impl Change<'_> {
    /// A change that puts a link to work.
    pub const UP: Change<'static> = Change {
        up: Some(true),
        master: None,
        mtu: None,
        mac: None,
        group: None,
        name: None,
        namespace: None,
        vxlan_local: None,
    };

    pub(super) fn header(&self, index: u32) -> [u8; HEADER] {
        link_header(index, self.up)
    }

    pub(super) fn write(&self, message: &mut Batch) {
        if let Some(name) = self.name {
            message.text(NAME, name);
        }
        for (kind, value) in [(MTU, self.mtu), (MASTER, self.master), (GROUP, self.group)] {
            if let Some(value) = value {
                message.u32(kind, value);
            }
        }
        if let Some(mac) = self.mac {
            message.attribute(MAC, &mac);
        }
        if let Some(namespace) = self.namespace {
            message.u32(NETNS_FD, descriptor(namespace));
        }
        if let Some(local) = self.vxlan_local {
            message.nest(INFO, |info| {
                info.text(KIND, "vxlan").nest(DATA, |data| {
                    data.ip(VXLAN_LOCAL, local);
                });
            });
        }
    }
}

/// What a bridge does on one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortFlags {
    /// Whether it learns hardware addresses there.
    pub learning: bool,
    /// Whether packets for unknown hardware addresses go there.
    pub flood: bool,
    /// Whether multicast goes there.
    pub multicast: bool,
    /// Whether broadcast goes there.
    pub broadcast: bool,
}

impl PortFlags {
    const LEARNING: u16 = 8;
    const FLOOD: u16 = 9;
    const MULTICAST: u16 = 27;
    const BROADCAST: u16 = 30;

    pub(super) fn write(self, message: &mut Batch) {
        message.nest(PORT, |port| {
            port.u8(Self::LEARNING, u8::from(self.learning)).u8(Self::FLOOD, u8::from(self.flood));
            port.u8(Self::MULTICAST, u8::from(self.multicast)).u8(Self::BROADCAST, u8::from(self.broadcast));
        });
    }

    fn read(attributes: &Attributes<'_>) -> Self {
        let flag = |kind| attributes.get(kind).is_some_and(|flag| flag.value.first().is_some_and(|value| *value != 0));
        Self {
            learning: flag(Self::LEARNING),
            flood: flag(Self::FLOOD),
            multicast: flag(Self::MULTICAST),
            broadcast: flag(Self::BROADCAST),
        }
    }
}

/// What a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A VXLAN; whether it learns.
    Vxlan(Vxlan, bool),
    /// One end of a pair.
    Veth,
    /// A WireGuard device.
    Wireguard,
    /// Anything else: real hardware, the loopback device.
    Other,
}

/// A link that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index: it stays, also when its name changes.
    pub index: u32,
    /// Its name.
    pub name: Box<str>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Whether it is at work.
    pub up: bool,
    /// The index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Its group.
    pub group: u32,
    /// What it is.
    pub kind: LinkKind,
    /// What its bridge does there, if it is a port of one.
    pub port: Option<PortFlags>,
}

const PORT_KIND: u16 = 4;
const PORT_DATA: u16 = 5;

impl Link {
    pub(super) fn read(message: &Message<'_>) -> Option<Self> {
        let attributes = message.attributes(HEADER);
        let info = attributes.get(INFO).map(|info| info.nested());
        let part = |kind| info.as_ref().and_then(|info| info.get(kind));
        let number = |kind| attributes.get(kind).and_then(|number| number.u32());
        let data = part(DATA).map_or(Attributes(&[]), |data| data.nested());
        let kind = match part(KIND).map(|kind| kind.text()).unwrap_or_default() {
            "bridge" => LinkKind::Bridge,
            "veth" => LinkKind::Veth,
            "wireguard" => LinkKind::Wireguard,
            "vxlan" => {
                let flag =
                    |kind| data.get(kind).is_some_and(|flag| flag.value.first().is_some_and(|value| *value != 0));
                let port = data.get(VXLAN_PORT).and_then(|port| port.u16()).map_or(0, u16::from_be);
                let vxlan = Vxlan {
                    vni: data.get(VXLAN_ID).and_then(|vni| vni.u32()).unwrap_or_default(),
                    port,
                    local: data.get(VXLAN_LOCAL).and_then(|local| local.ip()).unwrap_or(Ipv4Addr::UNSPECIFIED),
                    proxy: flag(VXLAN_PROXY),
                };
                LinkKind::Vxlan(vxlan, flag(VXLAN_LEARNING))
            }
            _ => LinkKind::Other,
        };
        let bridged = part(PORT_KIND).is_some_and(|kind| kind.text() == "bridge");
        Some(Self {
            index: u32_at(message.body, 4)?,
            name: attributes.get(NAME)?.text().into(),
            mac: attributes.get(MAC).and_then(|mac| mac.mac()),
            mtu: number(MTU).unwrap_or_default(),
            up: u32_at(message.body, 8)? & UP != 0,
            master: number(MASTER),
            group: number(GROUP).unwrap_or_default(),
            kind,
            port: part(PORT_DATA).filter(|_| bridged).map(|port| PortFlags::read(&port.nested())),
        })
    }
}

/// `struct ifinfomsg`; none of `up`: that stays.
pub(super) fn link_header(index: u32, up: Option<bool>) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        header[8..12].copy_from_slice(&(if up { UP } else { 0 }).to_ne_bytes());
        header[12..].copy_from_slice(&UP.to_ne_bytes());
    }
    header
}

/// The number of the open namespace, which the kernel looks up while the message is sent.
fn descriptor(namespace: &Namespace) -> u32 {
    u32::try_from(namespace.as_fd().as_raw_fd()).unwrap_or(u32::MAX)
}
