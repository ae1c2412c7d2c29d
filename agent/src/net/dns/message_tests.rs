//! Reading queries and writing answers.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::message::{
    A, ANY, Code, HEADER, PTR, Query, Records, TCP_BYTES_MAX, UDP_BYTES_MAX, UDP_BYTES_MIN, Unfit, refusal, reverse,
};

/// A query as dig sends it; `opt`: bytes of an answer over UDP.
fn query(name: &str, kind: u16, opt: Option<u16>) -> Vec<u8> {
    let mut out = vec![0xab, 0xcd, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    if let Some(bytes) = opt {
        out.extend([0, 0, 41]);
        out.extend(bytes.to_be_bytes());
        // With an option: a cookie.
        out.extend([0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
    out
}

fn addresses(count: u32) -> Vec<Ipv4Addr> {
    (0..count).map(|i| Ipv4Addr::from(0x0a00_0000 + i)).collect()
}

#[test]
fn an_answer_has_the_query_s_own_bytes() {
    let packet = query("WeB.Net", A, None);
    let query = Query::parse(&packet).unwrap();
    assert_eq!((query.name.as_str(), query.labels(), query.kind, query.class), ("web.net", 2, A, 1));
    let answer = query.answer(Code::Fine, Records::Addresses(&[Ipv4Addr::new(10, 0, 1, 2)]), 5, query.udp_limit());
    let mut want = vec![0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    want.extend(b"\x03WeB\x03Net\x00\x00\x01\x00\x01");
    want.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 1, 2]);
    assert_eq!(answer, want);
}

#[test]
fn a_name_and_its_absence() {
    let packet = query("2.1.0.10.in-addr.arpa", PTR, Some(4096));
    let query = Query::parse(&packet).unwrap();
    assert_eq!(reverse(&query.name), Some(Ipv4Addr::new(10, 0, 1, 2)));
    let answer = query.answer(Code::Fine, Records::Name("web.1.net"), 5, 512);
    assert_eq!(answer[6..HEADER], [0, 1, 0, 0, 0, 1]);
    let record = b"\x00\x0b\x03web\x011\x03net\x00";
    assert!(answer.windows(record.len()).any(|bytes| bytes == record), "{answer:?}");
    assert!(answer.ends_with(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]));
    // A label that is too long is in no record.
    let long = "x".repeat(64);
    let answer = query.answer(Code::Fine, Records::Name(&long), 5, 512);
    assert_eq!((answer[7], answer[2] & 2), (0, 2));
    let unknown = query.answer(Code::NoName, Records::None, 5, 512);
    assert_eq!((unknown[2], unknown[3], unknown[7]), (0x85, 0x83, 0));
    assert_eq!(query.fail(Code::Failed)[2..4], [0x81, 0x82]);
    for no in ["10.in-addr.arpa", "x.0.0.10.in-addr.arpa", "1.0.0.10", "1.2.3.4.5.in-addr.arpa"] {
        assert_eq!(reverse(no), None, "{no}");
    }
}

#[test]
fn what_does_not_fit_is_left_out() {
    let many = addresses(5000);
    let answered = |opt: Option<u16>, limit: Option<usize>| {
        let packet = query("web", A, opt);
        let query = Query::parse(&packet).unwrap();
        let limit = limit.unwrap_or_else(|| query.udp_limit());
        let answer = query.answer(Code::Fine, Records::Addresses(&many), 5, limit);
        assert!(answer.len() <= limit && answer.len() + 16 > limit, "{} of {limit}", answer.len());
        (u16::from_be_bytes([answer[6], answer[7]]), answer[2] & 2)
    };
    assert_eq!(answered(None, None), (30, 2));
    assert_eq!(answered(Some(0), None), (30, 2));
    assert_eq!(answered(Some(1232), None), (75, 2));
    assert_eq!(answered(Some(65535), None), (75, 2));
    assert_eq!(answered(None, Some(TCP_BYTES_MAX)), (4094, 2));
    let packet = query("web", A, None);
    let whole = Query::parse(&packet).unwrap().answer(Code::Fine, Records::Addresses(&many[..30]), 5, UDP_BYTES_MIN);
    assert_eq!((whole[7], whole[2] & 2), (30, 0));
}

#[test]
fn what_is_no_question_is_turned_down() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Vec<u8>), want: Unfit) {
        let mut packet = query("web", A, Some(1232));
        change(&mut packet);
        assert_eq!(Query::parse(&packet).unwrap_err(), want);
        let answer = refusal(&packet, want);
        match want {
            Unfit::Silent => assert_eq!(answer, None),
            Unfit::Refused(code) => {
                let answer = answer.unwrap();
                assert_eq!((answer[2] & 0x80, answer[3]), (0x80, 0x80 | (code as u8 & 15)));
                assert_eq!(answer.len(), if code == Code::Version { 23 } else { 12 });
            }
        }
    }
    let format = Unfit::Refused(Code::Format);
    check(|packet| packet.truncate(11), Unfit::Silent);
    check(|packet| packet[2] |= 0x80, Unfit::Silent);
    check(|packet| packet[2] = 0x28, Unfit::Refused(Code::NotImplemented));
    check(|packet| packet[5] = 2, format);
    check(|packet| packet[5] = 0, format);
    check(|packet| packet[7] = 1, format);
    check(|packet| packet[11] = 5, format);
    check(|packet| packet[11] = 2, format);
    check(|packet| packet.truncate(16), format);
    check(|packet| packet.truncate(packet.len() - 1), format);
    // A pointer, which might point at itself.
    check(|packet| packet.splice(12..17, [0xc0, 12]).for_each(drop), format);
    check(|packet| packet[27] = 1, Unfit::Refused(Code::Version));
    let long = vec!["x".repeat(60); 5].join(".");
    assert_eq!(Query::parse(&query(&long, A, None)), Err(format));
    // 255 bytes are the most.
    let fits = format!("{}.y", vec!["x".repeat(62); 4].join("."));
    assert_eq!(Query::parse(&query(&fits, A, None)).unwrap().name, fits);
    assert_eq!(Query::parse(&query(&format!("{fits}y"), A, None)), Err(format));
    assert_eq!(Query::parse(&query("", ANY, None)).unwrap().labels(), 0);
    // A dot inside a label makes no second label.
    let mut packet = query("a-b", A, None);
    packet[14] = b'.';
    assert_eq!(Query::parse(&packet).unwrap().labels(), 1);
}

#[test]
fn only_the_answer_to_what_was_asked_is_taken() {
    let packet = query("Example.Org", A, None);
    let query_ = Query::parse(&packet).unwrap();
    let sent = query_.with_id(7);
    let mut good = Query::parse(&sent).unwrap().answer(Code::Fine, Records::Addresses(&addresses(1)), 60, 512);
    let take = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut answer = good.clone();
        change(&mut answer);
        query_.adopt(7, &mut answer)
    };
    assert_eq!(take(&|_| {}), Some(0));
    assert_eq!(take(&|answer| answer[13] = b'e'), Some(0));
    assert_eq!(take(&|answer| answer[1] = 8), None);
    assert_eq!(take(&|answer| answer[2] &= 0x7f), None);
    assert_eq!(take(&|answer| answer[14] = b'y'), None);
    assert_eq!(take(&|answer| answer.truncate(20)), None);
    assert_eq!(take(&|answer| answer[5] = 0), None);
    assert_eq!(take(&|answer| (answer[3], answer[5]) = (5, 0)), Some(5));
    query_.adopt(7, &mut good);
    assert_eq!(good[..2], packet[..2]);
    assert_eq!(query_.fit(good.clone()), good);
    good.resize(600, 0);
    let cut = query_.fit(good);
    assert_eq!((cut.len(), cut[2] & 2, &cut[6..12]), (packet.len(), 2, &[0; 6][..]));
}

/// Packets that are nearly queries.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::collection::vec("[a-zA-Z0-9.-]{0,70}", 0..6).prop_map(|labels| labels.join("."));
    let name = name.prop_filter("a label has at most 255 bytes", |name| name.split('.').all(|label| label.len() < 256));
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (name, any::<u16>(), any::<Option<u16>>(), changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(name, kind, opt, changes, end, cut)| {
            let mut packet = query(&name, kind, opt);
            for (place, byte) in changes {
                let place = place.index(packet.len());
                packet[place] = byte;
            }
            if cut {
                packet.truncate(end.index(packet.len()));
            }
            packet
        },
    )
}

#[track_caller]
fn handle(packet: &[u8], count: u32) {
    match Query::parse(packet) {
        Err(unfit) => {
            let answer = refusal(packet, unfit);
            assert!(answer.is_none_or(|answer| answer.len() <= 23 && answer[2] & 0x80 != 0));
        }
        Ok(query) => {
            let limit = query.udp_limit();
            assert!((UDP_BYTES_MIN..=UDP_BYTES_MAX).contains(&limit));
            let many = addresses(count);
            for records in [Records::None, Records::Addresses(&many), Records::Name("web.1.net")] {
                let answer = query.answer(Code::Fine, records, 5, limit);
                assert!(answer.len() <= limit, "{} of {limit}", answer.len());
                assert_eq!(Query::parse(&answer), Err(Unfit::Silent));
            }
            // Forwarded, it is the same question.
            let sent = query.with_id(1);
            let again = Query::parse(&sent).unwrap();
            assert_eq!((&again.name, again.kind, again.class), (&query.name, query.kind, query.class));
            assert!(query.fit(packet.repeat(20)).len() <= usize::from(u16::MAX));
            let _ = query.adopt(1, &mut packet.to_vec());
        }
    }
}

proptest! {
    #[test]
    fn fuzz_packets_of_any_kind(packet in proptest::collection::vec(any::<u8>(), 0..600), count in 0u32..100) {
        handle(&packet, count);
    }

    #[test]
    fn fuzz_packets_that_are_nearly_queries(packet in nearly(), count in 0u32..100) {
        handle(&packet, count);
    }
}
