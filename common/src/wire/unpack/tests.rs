use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;
use crate::id::{RandomId, TaskId};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    New(i32),
    Tuple(u8, String),
    Named { at: Option<Box<Kind>>, flag: bool },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(u8, char);

fn packed<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("it packs")
}

/// It is read as it was written, and as rmp-serde reads it.
#[track_caller]
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = packed(&value);
    assert_eq!(rmp_serde::from_slice::<T>(&bytes).expect("rmp-serde reads it"), value, "{bytes:02x?}");
    assert_eq!(read::<T>(&bytes).expect("it is read"), (value, 0), "{bytes:02x?}");
}

#[track_caller]
fn refused<T: DeserializeOwned + Debug>(bytes: &[u8], why: &str) {
    assert_eq!(read::<T>(bytes).expect_err("it is refused").to_string(), why);
}

#[test]
fn every_kind_of_value_is_read() {
    same(());
    same(Nothing);
    same(Pair(1, 'ñ'));
    same((true, false, 1.5_f32, -1e300_f64));
    same([None, Some(7_u16)]);
    same(vec![(1_u8, "a".to_owned()); 70_000]);
    same((0..70_000_u32).map(|key| (key, ())).collect::<BTreeMap<_, _>>());
    for length in [0, 31, 32, 255, 256, 65_535, 65_536] {
        same("x".repeat(length));
        same(serde_bytes::ByteBuf::from(vec![7; length]));
    }
    same(serde_bytes::ByteArray::new([9_u8; 32]));
    same(TaskId::from_bits(u128::MAX / 3));
    same(Duration::new(3, 999_999_999));
    same(["10.0.0.1", "::1"].map(|address| address.parse::<IpAddr>().expect("an address")));
    same([Kind::Unit, Kind::New(-5), Kind::Tuple(3, String::new())]);
    same(Kind::Named { at: Some(Box::new(Kind::Named { at: None, flag: false })), flag: true });
}

#[test]
fn numbers_are_taken_in_any_width_that_fits() {
    for bytes in [&[5][..], &[0xcc, 5], &[0xcd, 0, 5], &[0xd0, 5], &[0xd3, 0, 0, 0, 0, 0, 0, 0, 5]] {
        assert_eq!(read::<u8>(bytes).expect("a number"), (5, 0));
        assert_eq!(read::<i64>(bytes).expect("a number"), (5, 0));
        assert_eq!(read::<f64>(bytes).expect("a number"), (5.0, 0));
    }
    assert_eq!(read::<i8>(&[0xd1, 0xff, 0x80]).expect("a number"), (-128, 0));
    refused::<u8>(&[0xcd, 1, 0], "invalid value: integer `256`, expected u8");
    refused::<u8>(&[0xff], "invalid value: integer `-1`, expected u8");
    refused::<i8>(&[0xcc, 200], "invalid value: integer `200`, expected i8");
}

#[test]
fn what_is_unknown_is_read_over() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Known {
        last: u8,
    }
    // A key with a value of each kind, also of extensions, which nobody writes.
    let values: [&[u8]; 17] = [
        &[0x7f],
        &[0xe0],
        &[0xc0],
        &[0xc3],
        &[0xa2, 1, 2],
        &[0xd9, 1, 1],
        &[0xc5, 0, 1, 1],
        &[0xca, 1, 2, 3, 4],
        &[0xcb, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xce, 1, 2, 3, 4],
        &[0xd3, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xd4, 1, 1],
        &[0xd8, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        &[0xc7, 2, 1, 1, 2],
        &[0x92, 0x91, 1, 0x81, 1, 0x90],
        &[0xdc, 0, 1, 7],
        &[0xdf, 0, 0, 0, 1, 7, 7],
    ];
    for value in values {
        let bytes = [b"\x82\xa1x", value, b"\xa4last\x05"].concat();
        assert_eq!(read::<Known>(&bytes).expect("it is read"), (Known { last: 5 }, 0), "{value:02x?}");
        for end in 0..bytes.len() {
            refused::<Known>(&bytes[..end], "the message ends too early");
        }
    }
    let deep = [b"\x82\xa1x", &[0x91; 100_000][..], b"\x90\xa4last\x05"].concat();
    assert_eq!(read::<Known>(&deep).expect("it is read").0.last, 5);
}

#[test]
fn what_is_not_expected_is_refused() {
    refused::<u8>(b"\xa1a", "invalid type: byte 0xa1, expected a number");
    refused::<String>(&[0xc0], "invalid type: byte 0xc0, expected a text");
    refused::<String>(&[0xa1, 0xff], "invalid utf-8 sequence of 1 bytes from index 0");
    refused::<bool>(&[1], "invalid type: byte 0x01, expected true or false");
    refused::<TaskId>(b"\xa1a", "invalid type: byte 0xa1, expected bytes");
    refused::<Vec<u8>>(&[0x80], "invalid type: byte 0x80, expected a list");
    refused::<Vec<u8>>(&[0xdd, 255, 255, 255, 255], "the message ends too early");
    refused::<BTreeMap<u8, u8>>(&[0x90], "invalid type: byte 0x90, expected a map");
    refused::<(u8, u8)>(&[0x93, 1, 2, 3], "1 items more than expected");
    refused::<()>(&[1], "invalid type: byte 0x01, expected nothing");
    refused::<Kind>(b"\xa3New", "a variant without its value");
    refused::<Kind>(b"\x82\xa4Unit\xc0\xa4Unit\xc0", "2 variants at once");
    refused::<Kind>(b"\x81\xa4Unit\x01", "invalid type: byte 0x01, expected nothing");
    refused::<serde_json::Value>(&[1], "nothing of a message is without a type");
    let named = b"\x81\xa5Named\x82\xa4flag\xc2\xa2at";
    refused::<Kind>(&named.repeat(MESSAGE_DEPTH_MAX), "over the limit of depth");
}

fn kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        Just(Kind::Unit),
        any::<i32>().prop_map(Kind::New),
        (any::<u8>(), "\\PC{0,40}").prop_map(|(number, text)| Kind::Tuple(number, text)),
    ];
    leaf.prop_recursive(6, 6, 1, |inner| {
        (proptest::option::of(inner.prop_map(Box::new)), any::<bool>()).prop_map(|(at, flag)| Kind::Named { at, flag })
    })
}

proptest! {
    #[test]
    fn rmp_serde_reads_the_same(kinds in proptest::collection::vec(kind(), 0..20), numbers in any::<Vec<(i64, u64, i16)>>()) {
        same(kinds);
        same(numbers);
    }
}
