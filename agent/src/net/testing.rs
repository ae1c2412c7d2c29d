//! What a manager tells of a mesh, for tests; those in `tests/` name this file by its path.
//!
//! Board N is node N, at 10.77.0.N, and has 10.200.N.0/24.

#![allow(dead_code, reason = "used in part by each test file")]

use std::net::Ipv4Addr;

use racimo_common::id::{NetworkId, NodeId, RandomId};
use racimo_common::net::{MTU, Subnet, VXLAN_PORT};
use racimo_common::wire::{Ip, NetNetwork, NetOwn, NetPeer};

pub(crate) fn node(board: u8) -> NodeId {
    NodeId::from_bits(board.into())
}

/// A board's own part.
pub(crate) fn own(board: u8) -> NetOwn {
    NetOwn {
        mesh: "10.200.0.0/16".parse().unwrap(),
        subnet: subnet(board),
        address: address(board),
        vxlan_port: VXLAN_PORT,
        mtu: MTU,
        key_epoch: 0,
    }
}

/// As others are told of it.
pub(crate) fn peer(board: u8) -> NetPeer {
    NetPeer { node: node(board), subnet: subnet(board), address: address(board), key: None }
}

fn subnet(board: u8) -> Subnet {
    Subnet::of(Ipv4Addr::new(10, 200, board, 0), 24)
}

fn address(board: u8) -> Ip {
    Ipv4Addr::new(10, 77, 0, board).into()
}

/// Network N has 10.0.N.0/24.
pub(crate) fn network(number: u8) -> NetNetwork {
    NetNetwork {
        id: NetworkId::from_bits(number.into()),
        name: format!("net{number}"),
        vni: 4096 + u32::from(number),
        subnet: format!("10.0.{number}.0/24").parse().unwrap(),
        internal: false,
        encrypted: false,
        mtu: MTU,
    }
}
