//! Listings: what there is, as plain data, for comparing with what shall be.

use std::net::Ipv4Addr;

use racimo_common::net::Subnet;

use super::link::{HEADER, Link, NAME, link_header};
use super::{
    Address, BRIDGE, FRA_FWMARK, FRA_PRIORITY, FRA_PROTOCOL, FRA_TABLE, Fdb, GET_ADDRESS, GET_LINK, GET_NEIGHBOUR,
    GET_ROUTE, GET_RULE, INET, Neighbour, ONLINK_FLAG, Place, Route, RouteEntry, Rule, Target, neighbour_header,
};
use crate::net::netlink::Error;
use crate::net::netlink::message::{ACK, Batch, DUMP, Message, Tolerate, u16_at, u32_at};

/// `IFLA_EXT_MASK` with `RTEXT_FILTER_SKIP_STATS`: counters would be most of the answer.
const EXTENT: (u16, u32) = (29, 8);

impl Route {
    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = request(GET_LINK, DUMP, &link_header(0, None), |message| {
            message.u32(EXTENT.0, EXTENT.1);
        });
        self.all(&request, Link::read)
    }

    /// The link of this name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let request = request(GET_LINK, ACK, &link_header(0, None), |message| {
            message.u32(EXTENT.0, EXTENT.1).text(NAME, name);
        });
        match self.all(&request, Link::read) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(Error::Refused { errno: libc::ENODEV, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All IPv4 addresses.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let request = request(GET_ADDRESS, DUMP, &[INET, 0, 0, 0, 0, 0, 0, 0], |_| {});
        self.all(&request, |message| {
            // The second is the own address; where there is none, both are the first.
            let attributes = message.attributes(8);
            let address = attributes.get(2).or(attributes.get(1))?.ip()?;
            Some(Address { link: u32_at(message.body, 4)?, address, prefix: *message.body.get(1)? })
        })
    }

    /// The IPv4 routes that `wanted` says yes to.
    pub fn routes(&mut self, wanted: impl Fn(&RouteEntry) -> bool) -> Result<Vec<RouteEntry>, Error> {
        let request = request(GET_ROUTE, DUMP, &[INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| {});
        self.all(&request, |message| route(message).filter(&wanted))
    }

    /// The neighbours that stay for ever; of one link, or of all.
    pub fn neighbours(&mut self, link: Option<u32>) -> Result<Vec<Neighbour>, Error> {
        let request = request(GET_NEIGHBOUR, DUMP, &neighbour_header(INET, 0, 0, 0), |message| {
            if let Some(link) = link {
                message.u32(libc::NDA_IFINDEX, link);
            }
        });
        self.all(&request, |message| {
            let attributes = message.attributes(12);
            let entry = Neighbour {
                link: u32_at(message.body, 4)?,
                address: attributes.get(libc::NDA_DST)?.ip()?,
                mac: attributes.get(libc::NDA_LLADDR)?.mac()?,
            };
            let stays = u16_at(message.body, 8)? & libc::NUD_PERMANENT != 0;
            // Kernels before 4.20 list all links.
            (stays && link.is_none_or(|link| link == entry.link)).then_some(entry)
        })
    }

    /// The entries of a link's forwarding table that were put there and not learnt, without the link's own address: of
    /// a VXLAN, or of the bridge for one of its ports.
    pub fn fdb(&mut self, link: u32) -> Result<Vec<Fdb>, Error> {
        let request = request(GET_NEIGHBOUR, DUMP, &neighbour_header(BRIDGE, link, 0, 0), |_| {});
        self.all(&request, |message| fdb(message).filter(|entry| entry.link == link))
    }

    /// The rules that look at a mark and name a table.
    pub fn rules(&mut self) -> Result<Vec<Rule>, Error> {
        let request = request(GET_RULE, DUMP, &[INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| {});
        self.all(&request, |message| {
            let attributes = message.attributes(12);
            let number = |kind| attributes.get(kind).and_then(|number| number.u32());
            Some(Rule {
                priority: number(FRA_PRIORITY).unwrap_or_default(),
                mark: number(FRA_FWMARK)?,
                table: number(FRA_TABLE)?,
                protocol: attributes.get(FRA_PROTOCOL).and_then(|by| by.value.first().copied()).unwrap_or_default(),
            })
        })
    }

    /// What is queued is done first, so that it is seen.
    fn all<T>(&mut self, request: &Batch, read: impl FnMut(&Message<'_>) -> Option<T>) -> Result<Vec<T>, Error> {
        self.run()?;
        self.socket.list(request, read)
    }
}

fn request(kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    fill(batch.begin(kind, flags, Tolerate::Nothing, header));
    batch
}

fn route(message: &Message<'_>) -> Option<RouteEntry> {
    let attributes = message.attributes(12);
    let header: &[u8; 12] = message.body.first_chunk()?;
    let ip = |kind| attributes.get(kind).and_then(|address| address.ip());
    let number = |kind| attributes.get(kind).and_then(|number| number.u32());
    let target = match (header[7], number(libc::RTA_OIF)) {
        (libc::RTN_UNICAST, Some(link)) => {
            Target::Link { link, via: ip(libc::RTA_GATEWAY), onlink: u32_at(header, 8)? & ONLINK_FLAG != 0 }
        }
        (libc::RTN_BLACKHOLE, _) => Target::Blackhole,
        _ => Target::Other,
    };
    Some(RouteEntry {
        table: number(libc::RTA_TABLE).unwrap_or(u32::from(header[4])),
        to: Subnet::of(ip(libc::RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED), header[1]),
        target,
        source: ip(libc::RTA_PREFSRC),
        protocol: header[5],
    })
}

fn fdb(message: &Message<'_>) -> Option<Fdb> {
    let attributes = message.attributes(12);
    let state = u16_at(message.body, 8)?;
    let flags = *message.body.get(10)?;
    let mac = attributes.get(libc::NDA_LLADDR)?.mac()?;
    let place = if flags & libc::NTF_SELF != 0 {
        let peer = attributes.get(libc::NDA_DST).and_then(|peer| peer.ip()).map(Place::Peer);
        peer.filter(|_| state & libc::NUD_PERMANENT != 0)?
    } else {
        // The ports' own addresses are permanent; what is learnt has no such state.
        Some(Place::Port).filter(|_| state & libc::NUD_NOARP != 0)?
    };
    Some(Fdb { link: u32_at(message.body, 4)?, mac, place })
}

const _: () = assert!(HEADER == 16);
