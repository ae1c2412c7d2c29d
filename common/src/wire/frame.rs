//! Frames: how one message travels.
//!
//! A `u32` big-endian length, then as many bytes of MessagePack: a map with
//! named fields, so that a field can be added without breaking an older board.
//! A body is never empty and never longer than the limit its direction has in
//! [`limits`](crate::limits).

use std::io::{self, Write};

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::unpack;

const HEADER_BYTES: usize = 4;

/// Why a frame could not be sent or taken. The connection is of no use
/// afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The body is longer than its direction allows; nothing was sent or
    /// allocated.
    #[error("a frame of {got} bytes is over the limit of {max}")]
    TooLong {
        /// Bytes wanted; of a message being encoded, where it passed `max`.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A length of zero: no message is empty.
    #[error("a frame of 0 bytes")]
    Empty,
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame")]
    Cut,
    /// There is no memory for a body of this many bytes.
    #[error("no memory for a frame of {0} bytes")]
    Memory(usize),
    /// The body is not the message expected here.
    #[error("a frame that is no message: {0}")]
    Decode(String),
    /// A message cannot be put into MessagePack.
    #[error("a message that cannot be encoded: {0}")]
    Encode(String),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// A message's MessagePack bytes, without the length.
///
/// # Errors
/// [`FrameError::TooLong`] above `max` bytes.
pub fn encode<T: Serialize>(message: &T, max: usize) -> Result<Vec<u8>, FrameError> {
    encode_after(Vec::new(), message, max)
}

/// The message in `body`: all of it, and nothing else.
///
/// # Errors
/// [`FrameError::Decode`] for anything but one `T`, for bytes after it, and
/// for nesting deeper than [`MESSAGE_DEPTH_MAX`](crate::limits::MESSAGE_DEPTH_MAX).
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match unpack::read(body) {
        Ok((message, 0)) => Ok(message),
        Ok((_, left)) => Err(FrameError::Decode(format!("{left} bytes after the message"))),
        Err(error) => Err(FrameError::Decode(error.to_string())),
    }
}

/// Sends one message: encoded, in one write, flushed.
///
/// # Errors
/// [`FrameError::TooLong`] above `max` bytes (nothing was sent),
/// [`FrameError::Io`].
pub async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T, max: usize) -> Result<(), FrameError> {
    let mut frame = encode_after(vec![0; HEADER_BYTES], message, max)?;
    let header = header(frame.len() - HEADER_BYTES, max)?;
    frame[..HEADER_BYTES].copy_from_slice(&header);
    push(to, &frame).await
}

/// Takes one message; `None` when the connection ended before it began.
///
/// Not safe to cancel: a dropped call may leave half a frame behind.
///
/// # Errors
/// As [`read`] and [`decode`].
pub async fn receive<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> Result<Option<T>, FrameError> {
    match read(from, max).await? {
        Some(body) => decode(&body).map(Some),
        None => Ok(None),
    }
}

/// Sends an encoded body, length and body in one write, flushed.
///
/// # Errors
/// [`FrameError::TooLong`] above `max` bytes (nothing was sent),
/// [`FrameError::Empty`], [`FrameError::Memory`], [`FrameError::Io`].
pub async fn write(to: &mut (impl AsyncWrite + Unpin), body: &[u8], max: usize) -> Result<(), FrameError> {
    let header = header(body.len(), max)?;
    let mut frame = reserve(HEADER_BYTES + body.len())?;
    frame.extend_from_slice(&header);
    frame.extend_from_slice(body);
    push(to, &frame).await
}

/// Takes one body; `None` when the connection ended before it began.
///
/// Not safe to cancel: a dropped call may leave half a frame behind.
///
/// # Errors
/// [`FrameError::TooLong`] above `max` bytes, before any memory is taken,
/// [`FrameError::Empty`], [`FrameError::Memory`], [`FrameError::Cut`],
/// [`FrameError::Io`].
pub async fn read(from: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Option<Vec<u8>>, FrameError> {
    let mut header = [0; HEADER_BYTES];
    let mut have = 0;
    while have < HEADER_BYTES {
        match from.read(&mut header[have..]).await {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::Cut),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && have == 0 => return Ok(None),
            Err(e) => return Err(broken(e)),
        }
    }
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    check_length(len, max)?;
    let mut body = reserve(len)?;
    body.resize(len, 0);
    from.read_exact(&mut body).await.map_err(broken)?;
    Ok(Some(body))
}

async fn push(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<(), FrameError> {
    to.write_all(frame).await.map_err(FrameError::Io)?;
    to.flush().await.map_err(FrameError::Io)
}

fn check_length(len: usize, max: usize) -> Result<(), FrameError> {
    match len {
        0 => Err(FrameError::Empty),
        got if got > max => Err(FrameError::TooLong { got, max }),
        _ => Ok(()),
    }
}

fn header(len: usize, max: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    check_length(len, max)?;
    let len = u32::try_from(len).map_err(|_| FrameError::TooLong { got: len, max })?;
    Ok(len.to_be_bytes())
}

fn reserve(len: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| FrameError::Memory(len))?;
    Ok(bytes)
}

fn broken(e: io::Error) -> FrameError {
    if e.kind() == io::ErrorKind::UnexpectedEof { FrameError::Cut } else { FrameError::Io(e) }
}

/// Encodes behind what `head` already holds; `max` counts the message only.
fn encode_after<T: Serialize>(head: Vec<u8>, message: &T, max: usize) -> Result<Vec<u8>, FrameError> {
    let mut out = Bounded { end: head.len().saturating_add(max), bytes: head, over: None };
    let start = out.bytes.len();
    let result = message.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map());
    match (result, out.over) {
        (_, Some(got)) => Err(FrameError::TooLong { got: got - start, max }),
        (Err(e), None) => Err(FrameError::Encode(e.to_string())),
        (Ok(()), None) => Ok(out.bytes),
    }
}

/// A buffer that refuses to grow past `end` bytes.
struct Bounded {
    bytes: Vec<u8>,
    end: usize,
    /// The size that was refused.
    over: Option<usize>,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let size = self.bytes.len().saturating_add(part.len());
        if size > self.end {
            self.over = Some(size);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.try_reserve(part.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MESSAGE_DEPTH_MAX;
    use futures_lite::future::block_on;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Message {
        Bye,
        Status { node: String, counts: Vec<u32>, labels: BTreeMap<String, Option<i64>> },
    }

    /// Nests as deeply as its bytes say.
    #[derive(Debug, Serialize, Deserialize)]
    struct Deep(Vec<Deep>);

    fn take(bytes: &[u8], max: usize) -> Result<Option<Vec<u8>>, FrameError> {
        block_on(read(&mut &*bytes, max))
    }

    #[track_caller]
    fn check(bytes: &[u8], max: usize, want: &str) {
        let got = match take(bytes, max) {
            Ok(Some(body)) => format!("{body:?}"),
            Ok(None) => "end".into(),
            Err(e) => e.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn frames() {
        check(&[], 8, "end");
        check(&[0, 0, 0, 2, 7, 8, 9], 8, "[7, 8]");
        check(&[0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], 8, "[1, 2, 3, 4, 5, 6, 7, 8]");
        check(&[0, 0, 0, 9], 8, "a frame of 9 bytes is over the limit of 8");
        check(&[255; 4], 8, "a frame of 4294967295 bytes is over the limit of 8");
        check(&[0; 4], 8, "a frame of 0 bytes");
        check(&[0, 0], 8, "the connection ended inside a frame");
        check(&[0, 0, 0, 2, 1], 8, "the connection ended inside a frame");
    }

    #[test]
    fn length_and_body_leave_together() {
        struct Writes(Vec<Vec<u8>>);
        impl AsyncWrite for Writes {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                part: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                self.0.push(part.to_vec());
                std::task::Poll::Ready(Ok(part.len()))
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        let mut to = Writes(Vec::new());
        block_on(write(&mut to, &[5, 6], 2)).unwrap();
        block_on(send(&mut to, &Message::Bye, 64)).unwrap();
        assert_eq!(to.0[0], [0, 0, 0, 2, 5, 6]);
        assert_eq!(to.0[1], b"\0\0\0\x04\xa3Bye");
        assert_eq!(to.0.len(), 2);
        assert!(matches!(block_on(write(&mut to, &[5, 6, 7], 2)), Err(FrameError::TooLong { got: 3, max: 2 })));
        assert_eq!(to.0.len(), 2);
    }

    #[test]
    fn messages_over_the_limit_are_not_encoded() {
        assert_eq!(encode(&Message::Bye, 4).unwrap(), b"\xa3Bye");
        let long = encode(&"x".repeat(100), 50);
        assert!(matches!(long, Err(FrameError::TooLong { max: 50, .. })), "{long:?}");
    }

    #[test]
    fn nesting_and_trailing_bytes_are_refused() {
        let mut deep = vec![0x91; MESSAGE_DEPTH_MAX + 5];
        deep.push(0x90);
        let error = decode::<Deep>(&deep).unwrap_err().to_string();
        assert!(error.contains("depth"), "{error}");
        assert!(decode::<Deep>(&[0x91, 0x91, 0x90]).is_ok());
        let error = decode::<Message>(b"\xa3Bye\xc0").unwrap_err().to_string();
        assert!(error.contains("1 bytes after the message"), "{error}");
    }

    #[test]
    fn fields_travel_by_name() {
        #[derive(Serialize)]
        struct New {
            added: u8,
            node: &'static str,
        }
        #[derive(Deserialize)]
        struct Old {
            node: String,
        }
        let bytes = encode(&New { added: 1, node: "a" }, 64).unwrap();
        assert_eq!(decode::<Old>(&bytes).unwrap().node, "a");
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            Just(Message::Bye),
            (
                "\\PC{0,20}",
                proptest::collection::vec(any::<u32>(), 0..20),
                proptest::collection::btree_map("[a-z]{1,5}", any::<Option<i64>>(), 0..8),
            )
                .prop_map(|(node, counts, labels)| Message::Status { node, counts, labels }),
        ]
    }

    proptest! {
        #[test]
        fn receive_undoes_send(messages in proptest::collection::vec(message(), 0..4)) {
            let mut bytes = Vec::new();
            for message in &messages {
                block_on(send(&mut bytes, message, 4096)).unwrap();
            }
            let mut from = bytes.as_slice();
            for message in &messages {
                let got: Option<Message> = block_on(receive(&mut from, 4096)).unwrap();
                prop_assert_eq!(got.as_ref(), Some(message));
            }
            prop_assert!(block_on(receive::<Message>(&mut from, 4096)).unwrap().is_none());
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = take(&bytes, 128);
            let _ = decode::<Message>(&bytes);
            let _ = decode::<Deep>(&bytes);
            let _ = decode::<BTreeMap<String, Vec<Option<f64>>>>(&bytes);
        }

        #[test]
        fn a_cut_message_is_refused(message in message(), keep in 0.0..1.0f64) {
            let bytes = encode(&message, 4096).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
            let kept = (bytes.len() as f64 * keep) as usize;
            prop_assert!(decode::<Message>(&bytes[..kept]).is_err());
        }
    }
}
