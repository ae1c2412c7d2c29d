//! `/racimo/backup`: all that brings the manager back, as a file.

use futures_lite::{StreamExt, stream};
use hyper::body::Bytes;

use super::Context;
use super::answer::Answer;
use super::control::MadeBackup;
use super::error::ApiError;
use super::request::Request;

/// Bytes that are handed over at a time.
const PIECE_BYTES: usize = 64 << 10;

/// `GET /racimo/backup`. It holds the cluster's keys.
pub(super) async fn make(context: &Context, _: &Request) -> Result<Answer, ApiError> {
    context.cluster_view()?;
    let MadeBackup { bytes, turn } = context.control.backup().await?;
    // The turn goes with the last piece, so that slow clients do not have a copy each.
    let pieces = stream::unfold((Bytes::from(bytes), turn), |(mut rest, turn)| async move {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some((Ok(piece), (rest, turn)))
    });
    Ok(Answer::chunks(Some("application/octet-stream"), pieces.boxed()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::api::testing::Lab;

    #[test]
    fn it_is_handed_over_whole_and_only_by_a_cluster() {
        let (status, body) = Lab::active().get("/v1.47/racimo/backup");
        assert_eq!((status, body), (200, Value::String("b".repeat(100_000))));
        assert_eq!(Lab::new().get("/racimo/backup").0, 503);
    }
}
