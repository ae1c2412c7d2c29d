//! What the board itself needs: the mesh's device, and the rules for what comes in, goes out and passes through.

use std::net::Ipv4Addr;

use racimo_common::net::{Subnet, VXLAN_ENCRYPTED_PORT, WIREGUARD_PORT};
use racimo_common::object::Protocol;
use racimo_common::wire::NetOwn;

use super::rule::{At, Base, Device, Hook, KEPT_MARK, Rule, Step};
use crate::net::netlink::nft::{DSTNAT, FILTER, MANGLE, RAW, SRCNAT};

/// The board's own part of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Its place in the mesh.
    pub own: NetOwn,
    /// Whether a service wants to see its clients' addresses.
    pub keeps_source: bool,
    /// Whether a network of this board is encrypted.
    pub encrypts: bool,
}

/// What of a board's place in the mesh cannot change without everything being made anew.
pub fn place(own: &NetOwn) -> (Subnet, Subnet, u16, u16) {
    let NetOwn { mesh, subnet, vxlan_port, mtu, address: _, key_epoch: _ } = *own;
    (mesh, subnet, vxlan_port, mtu)
}

fn base(name: &'static str, kind: &'static str, hook: At, priority: i32, rules: Vec<Rule>) -> Base {
    Base { name, hook: Hook { kind, hook, priority }, rules }
}

impl Board {
    /// The chains that the kernel calls.
    pub fn chains(&self) -> Vec<Base> {
        let mut chains = vec![
            base("guard", "filter", At::Prerouting, RAW, self.guard()),
            base("prerouting", "nat", At::Prerouting, DSTNAT, vec![vec![Step::Local, Step::Published]]),
            base("output", "nat", At::Output, DSTNAT, vec![vec![Step::Local, Step::Published]]),
            base("postrouting", "nat", At::Postrouting, SRCNAT, self.postrouting()),
            base("forward", "filter", At::Forward, FILTER, self.forward()),
        ];
        if self.encrypts {
            // Without its device, what shall be encrypted would find another way.
            let port = Step::Port(Protocol::Udp, VXLAN_ENCRYPTED_PORT);
            let rule = vec![port, Step::NotOut(Device::Encryption), Step::Drop];
            chains.push(base("seal", "filter", At::Output, FILTER, vec![rule]));
        }
        if self.keeps_source {
            chains.push(base("origin", "filter", At::Prerouting, MANGLE, self.origin()));
            chains.push(base("unmark", "filter", At::Postrouting, MANGLE, self.unmark()));
        }
        chains
    }

    /// What must not get in whatever else is allowed.
    fn guard(&self) -> Vec<Rule> {
        let vxlan = Step::Port(Protocol::Udp, self.own.vxlan_port);
        let encrypted = Step::Port(Protocol::Udp, VXLAN_ENCRYPTED_PORT);
        let mut rules = vec![
            // What makes it safe that the board's own 127.0.0.1 can be sent on to tasks.
            vec![Step::In(Device::Legs), Step::To(loopback()), Step::Drop],
            vec![Step::In(Device::Mesh), Step::To(loopback()), Step::Drop],
            // A task is who it says it is.
            vec![Step::In(Device::Legs), Step::NotFrom(self.own.subnet), Step::Drop],
            // With the board's address, other boards would take it for the board's.
            vec![Step::In(Device::Legs), vxlan, Step::Drop],
            vec![vxlan, Step::Local, Step::NotFromPeer, Step::Drop],
            // No task's connection that has the same port outside can draw it to itself.
            vec![vxlan, Step::Local, Step::Untrack],
        ];
        if self.encrypts {
            rules.push(vec![Step::NotIn(Device::Encryption), encrypted, Step::Local, Step::Drop]);
            rules.push(vec![Step::In(Device::Legs), encrypted, Step::Drop]);
            rules.push(vec![Step::Port(Protocol::Udp, WIREGUARD_PORT), Step::Local, Step::Untrack]);
        }
        rules
    }

    fn postrouting(&self) -> Vec<Rule> {
        let gateway = Step::Snat(self.own.gateway());
        let inside = [Step::From(loopback()), Step::From(self.own.subnet)];
        let mut rules = Vec::new();
        if self.keeps_source {
            // Only clients from outside: the way back to the others is another one.
            rules.push(vec![Step::Out(Device::Mesh), Step::Dnatted, Step::Marked(KEPT_MARK, false), gateway]);
            for from in inside.into_iter().chain([Step::FromPeer]) {
                rules.push(vec![Step::Out(Device::Mesh), Step::Dnatted, from, gateway]);
            }
        } else {
            rules.push(vec![Step::Out(Device::Mesh), Step::Dnatted, gateway]);
        }
        for from in inside {
            rules.push(vec![Step::Out(Device::Legs), Step::Dnatted, from, gateway]);
        }
        let mut egress = vec![Step::From(self.own.subnet), Step::NotOut(Device::Legs), Step::NotOut(Device::Mesh)];
        if self.encrypts {
            egress.push(Step::NotOut(Device::Encryption));
        }
        egress.push(Step::Masquerade);
        rules.push(egress);
        rules
    }

    fn forward(&self) -> Vec<Rule> {
        let mut from_mesh = vec![Step::In(Device::Mesh), Step::Out(Device::Legs)];
        if !self.keeps_source {
            from_mesh.push(Step::From(self.own.mesh));
        }
        from_mesh.push(Step::Accept);
        vec![
            vec![
                Step::NotIn(Device::Legs),
                Step::NotIn(Device::Mesh),
                Step::NotOut(Device::Legs),
                Step::NotOut(Device::Mesh),
                Step::Accept,
            ],
            vec![Step::Established, Step::Accept],
            vec![Step::Dnatted, Step::Accept],
            from_mesh,
            vec![Step::In(Device::Legs), Step::NotOut(Device::Legs), Step::NotOut(Device::Mesh), Step::Accept],
            vec![Step::Drop],
        ]
    }

    /// Answers of a task go back to the board that its client came to.
    fn origin(&self) -> Vec<Rule> {
        vec![
            vec![Step::In(Device::Mesh), Step::New, Step::NotFrom(self.own.mesh), Step::MarkOrigin],
            vec![
                Step::In(Device::Legs),
                Step::Reply,
                Step::Marked(0, false),
                Step::Marked(KEPT_MARK, false),
                Step::Restore,
            ],
        ]
    }

    /// The mark must not steer what the packet is wrapped in.
    fn unmark(&self) -> Vec<Rule> {
        vec![vec![Step::Out(Device::Mesh), Step::Marked(0, false), Step::Unmark]]
    }
}

/// All chains that a board may have.
pub const CHAINS: [&str; 8] = ["guard", "prerouting", "output", "postrouting", "forward", "seal", "origin", "unmark"];

fn loopback() -> Subnet {
    Subnet::of(Ipv4Addr::LOCALHOST, 8)
}
