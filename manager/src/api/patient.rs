//! A connection whose other end must take what it asked for: one that takes no byte for too long is an error.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use smol::Timer;

/// See the module.
pub(super) struct Patient<S> {
    stream: S,
    within: Duration,
    /// Set while the other end takes nothing.
    until: Option<Timer>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, until: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.until = None;
            return progress;
        }
        let within = self.within;
        let until = self.until.get_or_insert_with(|| Timer::after(within));
        match Pin::new(until).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.judge(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, progress)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_close(cx);
        self.judge(cx, progress)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use smol::Async;

    use super::*;

    #[test]
    fn a_reader_that_stands_still_is_given_up_and_a_slow_one_is_not() {
        smol::block_on(async {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let within = Duration::from_millis(300);
            let mut ours = Patient::new(Async::new(ours).expect("a socket"), within);
            let mut theirs = Async::new(theirs).expect("a socket");
            // Far more than the kernel holds, taken bit by bit, for longer than the limit.
            let bytes = vec![7; 2 << 20];
            let slow = async {
                let mut taken = 0;
                let mut buffer = vec![0; 256 << 10];
                while taken < 2 << 20 {
                    Timer::after(within / 4).await;
                    taken += theirs.read(&mut buffer).await.expect("bytes");
                }
            };
            let (sent, ()) = futures_lite::future::zip(ours.write_all(&bytes), slow).await;
            sent.expect("it is taken");
            let stuck = ours.write_all(&bytes).await.expect_err("nobody takes it");
            assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
        });
    }
}
