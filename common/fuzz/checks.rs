//! What must hold of any bytes; `common/tests/fuzz.rs` and the coverage-guided targets beside this file call it.

use racimo_common::id::{NodeId, TaskId};
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_JOIN_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::mdns::{self, message};
use racimo_common::registry::{Digest, Platform, Reference};
use racimo_common::token::JoinToken;
use racimo_common::units::{Bytes, NanoCpus};
use racimo_common::wire::{ToAgent, ToManager, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes from the network: a stream of frames, and each as the body of a message.
pub(crate) fn wire(bytes: &[u8]) {
    let mut stream = bytes;
    for max in [FRAME_JOIN_MAX, FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX] {
        while let Ok(Some(body)) = futures_lite::future::block_on(frame::read(&mut stream, max)) {
            assert!(!body.is_empty() && body.len() <= max);
            message::<ToManager>(&body);
        }
    }
    message::<ToManager>(bytes);
    message::<ToAgent>(bytes);
}

/// What is taken can be sent on, and is the same then.
fn message<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = frame::decode::<T>(bytes) else { return };
    let again = frame::encode(&message, usize::MAX).expect("what was decoded can be encoded");
    assert_eq!(frame::decode::<T>(&again).expect("what was encoded can be decoded"), message);
    // For the log.
    let _ = format!("{message:?}");
}

/// A packet of the local network: what is taken is bounded, and can be written and read again.
pub(crate) fn mdns(bytes: &[u8]) {
    use message::Message;
    match message::read(bytes) {
        Some(Message::Query { id, questions }) => {
            let again = message::read(&message::query(id, &questions));
            // Names with bytes that ours never have cannot be written.
            assert!(matches!(again, Some(Message::Query { id: of, .. }) if of == id), "{again:?}");
        }
        Some(Message::Answer { id, records }) => {
            assert!(mdns::managers(&records, "00").len() <= racimo_common::limits::MDNS_FOUND_MAX);
            assert!(mdns::addresses(&records, "pi.local").len() <= racimo_common::limits::MDNS_FOUND_MAX);
            let again = message::read(&message::answer(id, &[], &records, &[]));
            assert!(matches!(again, Some(Message::Answer { id: of, .. }) if of == id), "{again:?}");
        }
        None => {}
    }
}

/// Text that people write: tokens, image references, amounts.
pub(crate) fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = JoinToken::parse(text) {
        let again = JoinToken::parse(&token.to_string()).expect("what is shown is a token");
        assert!(again.matches(&token) && again.root_digest() == token.root_digest());
    }
    shown(text.parse::<Reference>().ok(), |shown| shown.parse().ok());
    shown(text.parse::<Digest>().ok(), |shown| shown.parse().ok());
    shown(text.parse::<Platform>().ok(), |shown| shown.parse().ok());
    shown(text.parse::<NodeId>().ok(), |shown| shown.parse().ok());
    shown(text.parse::<TaskId>().ok(), |shown| shown.parse().ok());
    let _ = (text.parse::<Bytes>(), text.parse::<NanoCpus>());
    if let Ok(reference) = text.parse::<Reference>() {
        let familiar = reference.familiar().to_string();
        let again: Reference = familiar.parse().expect("the short form is a reference");
        assert_eq!(again.to_string(), reference.to_string(), "{familiar}");
    }
}

/// What was parsed, written and parsed again, is the same.
fn shown<T: PartialEq + std::fmt::Debug + ToString>(parsed: Option<T>, parse: impl Fn(&str) -> Option<T>) {
    if let Some(parsed) = parsed {
        let text = parsed.to_string();
        assert_eq!(parse(&text), Some(parsed), "{text}");
    }
}
