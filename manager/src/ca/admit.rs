//! Letting a board in: what its request to join is worth.
//!
//! In: the [`Join`] of a peer without a certificate. Out: a role and the request to sign, or a refusal to send. The
//! caller then looks its key up (an agent whose answer was lost asks again with the same key), draws an id if it is
//! new, stores the node, and only then sends what [`Admission::grant`] makes.

use std::time::Duration;

use racimo_common::id::NodeId;
use racimo_common::object::Role;
use racimo_common::time::Wall;
use racimo_common::token::JoinToken;
use racimo_common::wire::{Join, Joined, Refused, RefusedCode, VERSION, VERSION_MIN};
use ring::rand::SecureRandom;

use super::{CaError, CertRequest, JoinTokens, Present};

/// A request to join that may be granted.
#[derive(Debug)]
pub struct Admission {
    /// What the board becomes.
    pub role: Role,
    /// The key it will be known by.
    pub request: CertRequest,
}

/// Judges a request to join.
///
/// # Errors
/// The refusal to send.
pub fn judge(tokens: &JoinTokens, join: &Join) -> Result<Admission, Refused> {
    let refuse = |code, reason: String| Refused { code, reason };
    let (oldest, newest) = join.versions;
    if newest < VERSION_MIN || oldest > VERSION {
        let reason = format!(
            "the agent speaks protocol versions {oldest} to {newest}, this manager {VERSION_MIN} to {VERSION}: \
             upgrade the older one"
        );
        return Err(refuse(RefusedCode::Version, reason));
    }
    let token = JoinToken::parse(&join.token).map_err(|e| refuse(RefusedCode::Token, e.to_string()))?;
    let role = tokens.role(&token).map_err(|e| refuse(RefusedCode::Token, e.to_string()))?;
    let request = CertRequest::parse(&join.csr).map_err(|e| refuse(RefusedCode::Protocol, e.to_string()))?;
    Ok(Admission { role, request })
}

impl Admission {
    /// The answer to a board that was stored as `node`: its certificate, and the managers it may dial.
    ///
    /// # Errors
    /// As [`Ca::issue`](super::Ca::issue).
    pub fn grant(
        &self,
        authority: &Present,
        node: NodeId,
        managers: &[String],
        now: Wall,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Joined, CaError> {
        let certificate = authority.ca.issue(&self.request, node, self.role, now, validity, rng)?.der.to_vec();
        // The one that the token names it has found by itself.
        let roots = if authority.roots.coming.is_some() { authority.trusted() } else { Vec::new() };
        Ok(Joined {
            cluster: authority.ca.cluster(),
            node,
            role: self.role,
            certificate,
            managers: managers.to_vec(),
            roots,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[track_caller]
    fn check(tokens: &JoinTokens, join: Join, want: Result<Role, (RefusedCode, &str)>) {
        match (judge(tokens, &join), want) {
            (Ok(admission), Ok(role)) => assert_eq!(admission.role, role),
            (Err(refused), Err((code, words))) => {
                assert_eq!(refused.code, code);
                assert!(refused.reason.contains(words), "{}", refused.reason);
            }
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn requests_to_join() {
        let tokens = JoinTokens::draw([7; 32], &SystemRandom::new()).unwrap();
        let other = JoinTokens::draw([8; 32], &SystemRandom::new()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let good = Join {
            versions: (VERSION_MIN, VERSION),
            token: tokens.worker.to_string(),
            csr: csr.clone(),
            hostname: "a".into(),
        };
        check(&tokens, good.clone(), Ok(Role::Worker));
        check(&tokens, Join { token: tokens.manager.to_string(), ..good.clone() }, Ok(Role::Manager));
        check(&tokens, Join { versions: (VERSION, 99), ..good.clone() }, Ok(Role::Worker));
        let newer = Join { versions: (VERSION + 1, 99), ..good.clone() };
        check(&tokens, newer, Err((RefusedCode::Version, "upgrade the older one")));
        check(&tokens, Join { versions: (0, 0), ..good.clone() }, Err((RefusedCode::Version, "0 to 0")));
        let garbled = Join { token: "SWMTKN-1-x".into(), ..good.clone() };
        check(&tokens, garbled, Err((RefusedCode::Token, "copied whole")));
        let foreign = Join { token: other.worker.to_string(), ..good.clone() };
        check(&tokens, foreign, Err((RefusedCode::Token, "another cluster")));
        check(&tokens, Join { csr: vec![1, 2], ..good }, Err((RefusedCode::Protocol, "certificate request")));
    }
}
