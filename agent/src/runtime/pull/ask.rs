//! Asking a registry whether a tag has moved whose image is here.
//!
//! Not under the pulls' turn: a registry that hangs must not keep a board from starting what it has.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_lite::FutureExt as _;
use racimo_common::registry::{Digest, Reference, RegistryError, Repository};
use smol::Timer;
use smol::lock::Semaphore;

use crate::limits::{ASK_MAX, ASK_PAUSE, ASKS_MAX, SILENT_MAX};

static TURNS: Semaphore = Semaphore::new(ASKS_MAX);
/// Registries that did not answer, and when.
static SILENT: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

/// Whether the image `here` is what `image` stands for, or nobody can tell just now.
pub(super) async fn is_current(repository: &mut Repository<'_>, image: &Reference, here: Digest) -> bool {
    let _turn = TURNS.acquire().await;
    if is_silent(image.domain()) {
        log::debug!("using the local {}: its registry did not answer a moment ago", image.familiar());
        return true;
    }
    let late = async {
        Timer::after(ASK_MAX).await;
        None
    };
    let why = match async { Some(repository.head().await) }.or(late).await {
        Some(Ok(Some(head))) => return head.digest == here,
        // It tells with the manifest itself.
        Some(Ok(None) | Err(RegistryError::Status { .. })) => return false,
        Some(Err(error)) => {
            if error.is_transient() {
                remember(image.domain());
            }
            error.to_string()
        }
        None => {
            remember(image.domain());
            format!("{} did not answer within {ASK_MAX:?}", image.domain())
        }
    };
    log::warn!("using the local {}: {why}", image.familiar());
    true
}

fn is_silent(host: &str) -> bool {
    let silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner);
    silent.get(host).is_some_and(|since| is_recent(since.elapsed()))
}

fn is_recent(ago: Duration) -> bool {
    ago < ASK_PAUSE
}

fn remember(host: &str) {
    let mut silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner);
    silent.retain(|_, since| is_recent(since.elapsed()));
    if silent.len() >= SILENT_MAX {
        silent.clear();
    }
    silent.insert(host.to_owned(), Instant::now());
}
