//! The two join tokens of a cluster.

use racimo_common::object::Role;
use racimo_common::token::{DIGEST_BYTES, JoinToken, SECRET_BYTES};
use ring::error::Unspecified;
use ring::rand::SecureRandom;

/// A cluster's tokens: which of them a board shows decides what it becomes.
#[derive(Debug, Clone)]
pub struct JoinTokens {
    /// Makes workers.
    pub worker: JoinToken,
    /// Makes managers.
    pub manager: JoinToken,
}

/// Why a token does not let a board in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It names another root certificate.
    #[error("the join token is of another cluster, or this cluster's root certificate has changed since")]
    OtherCluster,
    /// Its secret is neither of the two: it was rotated, or guessed.
    #[error("A valid join token is necessary to join this cluster")]
    Invalid,
}

impl JoinTokens {
    /// New tokens for the cluster with this root.
    ///
    /// # Errors
    /// The random source fails.
    pub fn draw(root_digest: [u8; DIGEST_BYTES], rng: &dyn SecureRandom) -> Result<Self, Unspecified> {
        Ok(Self { worker: draw_one(root_digest, rng)?, manager: draw_one(root_digest, rng)? })
    }

    /// The token that makes nodes of this role.
    pub fn of(&self, role: Role) -> &JoinToken {
        match role {
            Role::Worker => &self.worker,
            Role::Manager => &self.manager,
        }
    }

    /// Replaces the token for `role`; the old one lets nobody in any more.
    ///
    /// # Errors
    /// The random source fails; nothing changed.
    pub fn rotate(&mut self, role: Role, rng: &dyn SecureRandom) -> Result<(), Unspecified> {
        let token = draw_one(*self.of(role).root_digest(), rng)?;
        match role {
            Role::Worker => self.worker = token,
            Role::Manager => self.manager = token,
        }
        Ok(())
    }

    /// What a board that shows `token` may become.
    ///
    /// # Errors
    /// It may not join.
    pub fn role(&self, token: &JoinToken) -> Result<Role, TokenRefusal> {
        if token.root_digest() != self.worker.root_digest() {
            return Err(TokenRefusal::OtherCluster);
        }
        match (self.manager.matches(token), self.worker.matches(token)) {
            (true, _) => Ok(Role::Manager),
            (false, true) => Ok(Role::Worker),
            (false, false) => Err(TokenRefusal::Invalid),
        }
    }
}

fn draw_one(root_digest: [u8; DIGEST_BYTES], rng: &dyn SecureRandom) -> Result<JoinToken, Unspecified> {
    let mut secret = [0; SECRET_BYTES];
    rng.fill(&mut secret)?;
    Ok(JoinToken::new(root_digest, secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[test]
    fn the_token_decides_the_role() {
        let rng = SystemRandom::new();
        let mut tokens = JoinTokens::draw([7; 32], &rng).unwrap();
        let old = tokens.clone();
        assert_eq!(tokens.role(&old.worker), Ok(Role::Worker));
        assert_eq!(tokens.role(&old.manager), Ok(Role::Manager));
        let foreign = JoinToken::new([8; 32], *old.worker.secret());
        assert_eq!(tokens.role(&foreign), Err(TokenRefusal::OtherCluster));
        tokens.rotate(Role::Worker, &rng).unwrap();
        assert_eq!(tokens.role(&old.worker), Err(TokenRefusal::Invalid));
        assert_eq!(tokens.role(&old.manager), Ok(Role::Manager));
        assert_eq!(tokens.role(tokens.of(Role::Worker)), Ok(Role::Worker));
    }
}
