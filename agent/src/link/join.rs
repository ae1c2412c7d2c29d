//! Joining a cluster: a token and a new key go in, an identity comes out.
//!
//! ```text
//! dial ─▶ TLS, the root judged by the token's digest ─▶ Join ─▶ Joined ─▶ kept on disk
//!   ▲                                                   │  └─▶ Refused: the end
//!   └──── 2 s, 5 tries ──── the network failed ─────────┘
//! ```
//!
//! All tries use one key, so that a manager whose answer was lost on the way sees the same node asking again.

use std::path::Path;

use futures_lite::future;
use racimo_common::id::NodeId;
use racimo_common::limits::{FRAME_JOIN_MAX, FRAME_TO_AGENT_MAX, ROOTS_MAX};
use racimo_common::time::Wall;
use racimo_common::tls::{self, CertificateDer, CredentialsError, SeenRoot, TrustClock};
use racimo_common::token::JoinToken;
use racimo_common::wire::frame::{self, FrameError};
use racimo_common::wire::{Join, Joined, Refused, RefusedCode, ToAgent, ToManager, VERSION, VERSION_MIN};
use ring::rand::SecureRandom;
use smol::Timer;

use super::dial::{DialError, dial};
use super::places::Places;
use crate::identity::{Identity, IdentityError, KeyError, NodeKey, Turn, removed};
use crate::limits::{JOIN_ANSWER_MAX, JOIN_PAUSE, JOIN_TRIES};
use crate::net::wireguard;

/// Why the board is not in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No connection, or one that must not be used.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The manager said no.
    #[error("the manager refused: {}", .0.reason)]
    Refused(Refused),
    /// The manager closed the connection without a word.
    #[error("the manager at {address} closed the connection without an answer")]
    Closed {
        /// The manager.
        address: String,
    },
    /// The manager did not answer in time.
    #[error("the manager at {address} did not answer within {JOIN_ANSWER_MAX:?}")]
    Silent {
        /// The manager.
        address: String,
    },
    /// The manager's answer makes no sense.
    #[error("the manager's answer is not usable: {0}")]
    Answer(String),
    /// The manager's certificate does not fit our key, or its root judges nothing.
    #[error("the identity that the manager gave is not usable")]
    Identity(#[from] CredentialsError),
    /// It is in one, and no manager said that it was removed.
    #[error("this board is already part of a cluster, as node {0}: `pi-agent leave` first, or join with --again")]
    Member(NodeId),
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key for encrypted networks of the node that the board is cannot be moved.
    #[error("set the key for encrypted networks of the node that this board is aside")]
    KeyStays(#[source] std::io::Error),
    /// The board has joined, but the key for encrypted networks of the node before is still there.
    #[error("the board has joined; erase the key for encrypted networks of the node that it was")]
    OldKey(#[source] std::io::Error),
    /// The identity could not be kept.
    #[error(transparent)]
    Store(#[from] IdentityError),
}

impl JoinError {
    /// Whether another try may end better.
    fn is_passing(&self) -> bool {
        match self {
            Self::Dial(e) => e.is_passing(),
            Self::Closed { .. } | Self::Silent { .. } => true,
            Self::Refused(refused) => match refused.code {
                RefusedCode::Busy => true,
                RefusedCode::Token
                | RefusedCode::Protocol
                | RefusedCode::Version
                | RefusedCode::NotMember
                | RefusedCode::Replaced
                | RefusedCode::Expired
                | RefusedCode::Clone => false,
            },
            Self::Answer(_)
            | Self::Identity(_)
            | Self::Member(_)
            | Self::Key(_)
            | Self::KeyStays(_)
            | Self::OldKey(_)
            | Self::Store(_) => false,
        }
    }
}

/// Joins the cluster of the manager at `address` (`HOST` or `HOST:PORT`) and keeps the identity under `data`, in
/// place of any other.
///
/// # Errors
/// After [`JOIN_TRIES`] tries if the network is to blame, else at once.
pub async fn join(
    data: &Path,
    address: &str,
    token: &JoinToken,
    hostname: &str,
    rng: &dyn SecureRandom,
) -> Result<Identity, JoinError> {
    let key = NodeKey::generate(rng)?;
    let ask = ToManager::Join(Join {
        versions: (VERSION_MIN, VERSION),
        token: token.to_string(),
        csr: key.request()?,
        hostname: hostname.to_owned(),
    });
    let mut tries = 1;
    let (joined, root) = loop {
        match try_once(address, token, &ask).await {
            Err(e) if e.is_passing() && tries < JOIN_TRIES => {
                log::warn!("joining, try {tries} of {JOIN_TRIES}: {e}");
                tries += 1;
                Timer::after(JOIN_PAUSE).await;
            }
            other => break other?,
        }
    };
    // While another root is on its way, both count.
    let roots = match joined.roots.len() {
        0 => vec![root],
        1..=ROOTS_MAX => joined.roots.into_iter().map(|root| root.into_vec().into()).collect(),
        more => return Err(JoinError::Answer(format!("{more} roots, not 1 to {ROOTS_MAX}"))),
    };
    let identity = Identity {
        cluster: joined.cluster,
        node: joined.node,
        role: joined.role,
        managers: joined.managers,
        roots,
        certificate: joined.certificate.into(),
        key,
    };
    // What is kept must work later, when nobody is there to help.
    tls::session_client(&identity.roots, &identity.credentials()?, clock())?;
    keep(data, &identity, address)?;
    log::info!("joined cluster {} as node {} ({})", identity.cluster, identity.node, identity.role);
    Ok(identity)
}

/// Whether the board joins without having left: not if it is a member. A damaged identity is none.
///
/// # Errors
/// [`JoinError::Member`], or the disk says no.
pub fn refuse_member(data: &Path) -> Result<(), JoinError> {
    match Identity::load(data) {
        Ok(Some(there)) if !removed::is_noted(data, there.node) => Err(JoinError::Member(there.node)),
        Ok(_) | Err(IdentityError::Damaged { .. }) => Ok(()),
        Err(other @ IdentityError::Io { .. }) => Err(other.into()),
    }
}

/// Puts the identity in the place of any other, with what belongs to it.
pub(crate) fn keep(data: &Path, identity: &Identity, address: &str) -> Result<(), JoinError> {
    let turn = Turn::take(data)?;
    // The key for encrypted networks belongs to the node that this board is until now.
    wireguard::key::set_aside(data).map_err(JoinError::KeyStays)?;
    if let Err(error) = turn.store(identity) {
        // It may have failed when the new one was there already.
        let is_new = matches!(turn.load(), Ok(Some(there)) if there.node == identity.node);
        if !is_new && let Err(error) = wireguard::key::put_back(data) {
            log::warn!("this board will make a new key for encrypted networks: {error}");
        }
        return Err(error.into());
    }
    let erased = wireguard::key::erase(data);
    if let Err(error) = Places::store_joined(data, identity.cluster, address) {
        log::warn!("the manager's name was not kept, only its addresses: {error}");
    }
    // If it stays: it is another node's.
    let _ = removed::forget(data);
    erased.map_err(JoinError::OldKey)
}

async fn try_once(
    address: &str,
    token: &JoinToken,
    ask: &ToManager,
) -> Result<(Joined, CertificateDer<'static>), JoinError> {
    let (config, seen) = tls::join_client(*token.root_digest(), clock());
    let mut stream = dial(address, config).await?;
    let late = async {
        Timer::after(JOIN_ANSWER_MAX).await;
        Err(JoinError::Silent { address: address.to_owned() })
    };
    let talk = async {
        frame::send(&mut stream, ask, FRAME_JOIN_MAX).await.map_err(|e| broken(address, e))?;
        frame::receive(&mut stream, FRAME_TO_AGENT_MAX).await.map_err(|e| broken(address, e))
    };
    match future::or(talk, late).await? {
        Some(ToAgent::Joined(joined)) => Ok((joined, root(&seen)?)),
        Some(ToAgent::Refused(refused)) => Err(JoinError::Refused(refused)),
        Some(
            ToAgent::Welcome(_)
            | ToAgent::Net(_)
            | ToAgent::Assign(_)
            | ToAgent::Pong(_)
            | ToAgent::Renew
            | ToAgent::Certified(_)
            | ToAgent::Roots(_)
            | ToAgent::Managers(_)
            | ToAgent::LogsOpen(_)
            | ToAgent::LogsMore { .. }
            | ToAgent::LogsClose { .. },
        ) => Err(JoinError::Answer("neither a yes nor a no".into())),
        None => Err(JoinError::Closed { address: address.to_owned() }),
    }
}

fn root(seen: &SeenRoot) -> Result<CertificateDer<'static>, JoinError> {
    seen.certificate().cloned().ok_or_else(|| JoinError::Answer("it showed no root certificate".into()))
}

fn broken(address: &str, error: FrameError) -> JoinError {
    match error {
        FrameError::Io(source) => DialError::of(address, source).into(),
        FrameError::Cut => JoinError::Closed { address: address.to_owned() },
        other @ (FrameError::TooLong { .. }
        | FrameError::Empty
        | FrameError::Memory(_)
        | FrameError::Decode(_)
        | FrameError::Encode(_)) => JoinError::Answer(other.to_string()),
    }
}

fn clock() -> TrustClock {
    TrustClock::standing(Wall::default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_member_does_not_join() {
        let data = tempfile::tempdir().expect("a directory");
        let data = data.path();
        let identity = crate::identity::tests::identity(2);
        refuse_member(data).expect("it is in no cluster");
        keep(data, &identity, "m:2377").expect("kept");
        let refused = refuse_member(data).expect_err("it is in one");
        let reason =
            format!("this board is already part of a cluster, as node {}: `pi-agent leave` first", identity.node);
        assert!(refused.to_string().starts_with(&reason), "{refused}");
        removed::note(data, crate::identity::tests::identity(3).node).expect("noted");
        assert!(refuse_member(data).is_err(), "another node was removed");
        removed::note(data, identity.node).expect("noted");
        refuse_member(data).expect("its manager removed it");
        keep(data, &identity, "m:2377").expect("kept");
        assert!(matches!(refuse_member(data), Err(JoinError::Member(node)) if node == identity.node));
        fs::write(data.join("identity/cluster.json"), "{").expect("written");
        refuse_member(data).expect("a damaged one is none");
    }

    #[test]
    fn the_old_key_goes_once_the_new_identity_is_kept() {
        let data = tempfile::tempdir().expect("a directory");
        let data = data.path();
        let identity = crate::identity::tests::identity(2);
        let old = wireguard::key::Key::load(data, 3, &SystemRandom::new()).expect("a key").public;
        // The disk does not take the identity: the board stays who it was.
        fs::write(data.join("identity.new"), "in the way").expect("written");
        assert!(matches!(keep(data, &identity, "m:2377"), Err(JoinError::Store(_))));
        let there = wireguard::key::Key::load(data, 3, &SystemRandom::new()).expect("a key").public;
        assert!(there == old, "the key of the node that it still is has gone");
        fs::remove_file(data.join("identity.new")).expect("removed");
        keep(data, &identity, "m:2377").expect("kept");
        assert!(
            fs::read_dir(data)
                .expect("read")
                .flatten()
                .all(|file| !file.file_name().to_string_lossy().contains("wireguard"))
        );
        assert!(Turn::try_take(data).is_some());
    }
}
