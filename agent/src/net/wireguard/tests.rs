use racimo_common::id::{IdSource, NodeId};
use racimo_common::object::WireguardKey;
use racimo_common::wire::Ip;
use ring::rand::SystemRandom;

use super::*;
use crate::net::netlink::message::Messages;

fn peer(number: u8, key: Option<u8>) -> NetPeer {
    let mut ids = IdSource::seeded(number.into());
    NetPeer {
        node: ids.draw::<NodeId>(),
        subnet: format!("10.200.{number}.0/24").parse().unwrap(),
        address: Ip([192, 168, 0, number].into()),
        key: key.map(|byte| WireguardKey::new([byte; 32])),
    }
}

fn at(number: u8) -> Peer {
    Peer {
        endpoint: SocketAddrV4::new([192, 168, 0, number].into(), WIREGUARD_PORT),
        inside: [10, 200, number, 0].into(),
    }
}

fn key() -> Key {
    let data = tempfile::tempdir().unwrap();
    Key::load(data.path(), 0, &SystemRandom::new()).unwrap()
}

/// A device that does what it is told, by the bytes alone, as the kernel's does.
#[derive(Default)]
struct Fake {
    device: Device,
    private: Option<[u8; 32]>,
}

impl Fake {
    fn do_all(&mut self, key: &Key, batch: &Batch) {
        for message in Messages(batch.bytes()) {
            assert_eq!((message.kind, &message.body[..4]), (30, &[SET, VERSION, 0, 0][..]));
            assert_eq!(message.attributes(4).get(device::NAME).unwrap().text(), LINK);
            for attribute in message.attributes(4) {
                match attribute.kind {
                    device::PRIVATE_KEY => {
                        self.private = Some(attribute.value.try_into().unwrap());
                        self.device.public = Some(key.public.into_array());
                    }
                    device::LISTEN_PORT => self.device.port = attribute.u16().unwrap(),
                    device::PEERS => attribute.nested().for_each(|peer| self.do_peer(peer.nested())),
                    _ => {}
                }
            }
        }
    }

    fn do_peer(&mut self, attributes: Attributes<'_>) {
        let key: [u8; 32] = attributes.get(peer::PUBLIC_KEY).unwrap().value.try_into().unwrap();
        self.device.peers.remove(&key);
        if attributes.get(peer::FLAGS).unwrap().u32() != Some(peer::REMOVE) {
            self.device.take_peer(attributes);
        }
    }
}

#[test]
fn a_device_is_made_changed_and_left_alone() {
    let (first, second) = (key(), key());
    let mut fake = Fake::default();
    let mut make = |key: &Key, all: &[NetPeer], own: bool, gone: usize, set: usize| {
        let want = peers(all);
        let changes = Changes::between(&fake.device, key, &want);
        assert_eq!((changes.own.is_some(), changes.gone.len(), changes.set.len()), (own, gone, set));
        let mut batch = Batch::new();
        changes.write(30, &mut batch);
        fake.do_all(key, &batch);
        assert_eq!(fake.private.as_ref(), Some(key.private()));
        assert!(Changes::between(&fake.device, key, &want).is_empty());
    };
    make(&first, &[peer(2, Some(2)), peer(3, Some(3)), peer(4, None)], true, 0, 2);
    make(&first, &[peer(2, Some(2)), peer(3, Some(3)), peer(4, None)], false, 0, 0);
    // One has a new key, one another address.
    let moved = NetPeer { address: Ip([10, 1, 1, 1].into()), ..peer(3, Some(3)) };
    make(&first, &[peer(2, Some(22)), moved], false, 1, 2);
    make(&second, &[peer(2, Some(22))], true, 1, 0);
    make(&second, &[], false, 1, 0);
    // More than go into one message.
    let many: Vec<NetPeer> = (1..=200).map(|number| peer(number, Some(number))).collect();
    make(&second, &many, false, 0, 200);
    make(&second, &[], false, 200, 0);
}

#[test]
fn boards_with_the_same_key_are_one() {
    let found = peers(&[peer(2, Some(2)), peer(3, Some(2))]);
    assert_eq!(found, Peers::from([([2; 32], at(2))]));
    assert!(peers(&[peer(2, None)]).is_empty());
}

#[test]
fn golden_bytes_of_a_peer() {
    let want = Peers::from([([0xaa; 32], at(2))]);
    let key = key();
    let have = Device { public: Some(key.public.into_array()), port: WIREGUARD_PORT, ..Device::default() };
    let mut batch = Batch::new();
    Changes::between(&have, &key, &want).write(30, &mut batch);
    let hex: String = batch.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = "aa".repeat(32);
    // Little-endian: length, family, NLM_F_REQUEST, number, port; WG_CMD_SET_DEVICE, version 1.
    let want = format!(
        "88000000 1e00 0100 01000000 00000000 01010000 \
         0a000200 72632d7767000000 \
         6800 0880  6400 0080 \
           24000100 {key} \
           08000300 02000000 \
           14000400 0200 ca6c c0a80002 0000000000000000 \
           2000 0980 1c00 0080 06000100 02000000 08000200 0ac80200 05000300 20000000"
    );
    if cfg!(target_endian = "little") {
        assert_eq!(hex, want.replace([' ', '\n'], ""));
    }
}

#[test]
fn peers_that_are_not_ours_are_set_right() {
    let mut batch = Batch::new();
    // Two messages of one answer; the second goes on with a peer of the first.
    for address in [[10, 200, 2, 0], [10, 9, 9, 9]] {
        batch.begin(30, 2, Tolerate::Nothing, &[GET, VERSION, 0, 0]).attribute(device::PUBLIC_KEY, &[7; 32]);
        batch.nest(device::PEERS, |list| {
            list.nest(0, |entry| Peer { inside: address.into(), ..at(2) }.write(&[2; 32], entry));
        });
    }
    let mut device = Device::default();
    Messages(batch.bytes()).for_each(|message| device.take(&message));
    assert_eq!(device.public, Some([7; 32]));
    assert_eq!(device.peers, BTreeMap::from([([2; 32], None)]));
    assert_eq!(Changes::between(&device, &key(), &Peers::from([([2; 32], at(2))])).set.len(), 1);
    assert!(!format!("{device:?}").contains("7, 7"));

    // A device without a key.
    let mut batch = Batch::new();
    batch.begin(30, 0, Tolerate::Nothing, &[GET, VERSION, 0, 0]).attribute(device::PUBLIC_KEY, &[0; 32]);
    let mut device = Device::default();
    Messages(batch.bytes()).for_each(|message| device.take(&message));
    assert_eq!(device, Device::default());
}
