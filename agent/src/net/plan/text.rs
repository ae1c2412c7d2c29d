//! What is to be done, as text: for the log, and for tests.

use std::fmt;

use racimo_common::wire::NetOwn;

use super::rule::Backends;
use super::{Op, Place};
use crate::net::netlink::conntrack::Which;

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backends = |to: &Backends| {
            let to: Vec<String> = to
                .to
                .iter()
                .map(|(address, port)| match port {
                    Some(port) => format!("{address}:{port}"),
                    None => address.to_string(),
                })
                .collect();
            if to.is_empty() { "refuse".to_owned() } else { to.join(" ") }
        };
        match self {
            Self::Board(None) => f.write_str("no board"),
            Self::Board(Some(board)) => {
                let NetOwn { subnet, address, vxlan_port, mtu, .. } = &board.own;
                write!(f, "board {subnet} at {address:?}:{vxlan_port} mtu {mtu}")?;
                f.write_str(if board.keeps_source { " keeps sources" } else { "" })?;
                f.write_str(if board.encrypts { " encrypts" } else { "" })
            }
            Self::Left(address) => write!(f, "no board at {address}"),
            Self::Peer { peer, keeps_source } => {
                write!(f, "peer {} at {}", peer.subnet, peer.address)?;
                if *keeps_source { write!(f, " mark {:#x}", peer.origin) } else { Ok(()) }
            }
            Self::PeerGone { peer, address } => {
                write!(f, "no peer {} at {}", peer.subnet, peer.address)?;
                f.write_str(if *address { "" } else { ", which another one has" })
            }
            Self::Overlay(overlay) => {
                write!(
                    f,
                    "overlay {} {} at {}:{} mtu {}",
                    overlay.vni, overlay.subnet, overlay.local, overlay.port, overlay.mtu
                )
            }
            Self::OverlayGone(vni) => write!(f, "no overlay {vni}"),
            Self::Remote { vni, address, board: Some(board) } => write!(f, "overlay {vni}: {address} at {board}"),
            Self::Remote { vni, address, board: None } => write!(f, "overlay {vni}: no {address}"),
            Self::Publish { port: (protocol, port), to: Some(to) } => {
                write!(f, "publish {protocol} {port}: {}", backends(to))?;
                f.write_str(if to.keeps_source { " keeps sources" } else { "" })
            }
            Self::Publish { port: (protocol, port), to: None } => write!(f, "no publish {protocol} {port}"),
            Self::Virtual { task, address, to: Some(to) } => write!(f, "task {task}: {address}: {}", backends(to)),
            Self::Virtual { task, address, to: None } => write!(f, "task {task}: no {address}"),
            Self::Forget { place, addresses, which } => {
                f.write_str(match which {
                    Which::All => "forget connections to",
                    Which::Datagrams => "forget datagrams to",
                    Which::Unanswered => "forget unanswered connections to",
                })?;
                addresses.iter().try_for_each(|address| write!(f, " {address}"))?;
                match place {
                    Place::Board => Ok(()),
                    Place::Task(task) => write!(f, " in task {task}"),
                }
            }
        }
    }
}
