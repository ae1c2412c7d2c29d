//! Waiting for something, but not for ever.

use std::io;
use std::time::Duration;

use smol::Timer;

/// What comes of `work`, or [`TimedOut`](io::ErrorKind::TimedOut) if it takes longer.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    smol::future::or(work, late).await
}
