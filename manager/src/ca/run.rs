//! Ends a root rotation once everybody has a certificate of the new root. Whoever asks for one begins it.
//!
//! In: the store. Out: [`Change::RotationFinish`], with new secrets for the join tokens. Keeps nothing that a restart
//! could lose.

use std::time::Duration;

use racimo_common::error::chain;
use racimo_common::id::NodeId;
use racimo_common::time::{Clock, Mono};
use ring::rand::SystemRandom;

use super::JoinTokens;
use super::rotation::{Verdict, judge, named, names_of};
use crate::store::{Change, CommitError, Store, View, Wake};
use crate::vault::Vault;

/// How long to wait after the end of a rotation could not be stored.
const RETRY: Duration = Duration::from_secs(10);
/// How often to say who is still waited for.
const REMIND: Duration = Duration::from_secs(60);

/// Ends rotations until the store stops.
pub async fn run(store: Store, clock: Clock, vault: Vault) {
    let (mut view, mut feed) = store.watch();
    let (mut committed, mut not_before, mut remind) = (0, None, None);
    loop {
        let now = clock.now().mono;
        let due = match judge(&view) {
            _ if view.version() < committed => None,
            Verdict::Rest => {
                remind = None;
                None
            }
            Verdict::Wait(nodes) => {
                let due: &mut Mono = remind.get_or_insert(now + REMIND);
                if *due <= now {
                    log::warn!("the root rotation waits for {}: pi-mgr ca says what to do", names(&view, &nodes));
                    *due = now + REMIND;
                }
                Some(*due)
            }
            Verdict::Finish if not_before.is_none_or(|time| time <= now) => {
                not_before = Some(now + RETRY);
                match finish(&store, clock, &vault).await {
                    Ok(version) => {
                        log::info!("the root is rotated; join tokens are new, those before let nobody in");
                        (committed, not_before) = (version, None);
                    }
                    Err(FinishError::Commit(CommitError::Stopped)) => return,
                    Err(error) => {
                        log::warn!("end the root rotation: {}; next try in {RETRY:?}", chain(&error));
                    }
                }
                not_before
            }
            Verdict::Finish => not_before,
        };
        match feed.next_until(&clock, due).await {
            Wake::Batch(batch) => view = batch.view,
            Wake::Time => {}
            Wake::Stopped => return,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FinishError {
    #[error("the system's random source does not work")]
    Random,
    #[error("seal the new join tokens")]
    Seal(#[from] crate::vault::VaultError),
    #[error("store it")]
    Commit(#[from] CommitError),
}

async fn finish(store: &Store, clock: Clock, vault: &Vault) -> Result<u64, FinishError> {
    // The root's digest is no part of what is stored.
    let tokens = JoinTokens::draw(Default::default(), &SystemRandom::new()).map_err(|_| FinishError::Random)?;
    let tokens = tokens.seal(vault)?;
    Ok(store.commit(clock.now().wall, vec![Change::RotationFinish { tokens }]).await?)
}

fn names(view: &View, nodes: &[NodeId]) -> String {
    named(&names_of(view, nodes.iter().filter_map(|id| view.state.node(*id))))
}
