//! The cluster's certificate authority: who is a member, and as what.
//!
//! In: a join token and a certificate request, or a verified client certificate. Out: a certificate, or the [`Peer`]
//! it stands for. Keeps nothing but the [`Authority`] of the moment: the store holds the root's key and certificate and the
//! tokens ([`kept`]).
//!
//! A certificate says: CN = node id, OU = `swarm-worker` or `swarm-manager`, O = cluster id. Only managers' carry the
//! name [`MANAGER_NAME`](racimo_common::tls::MANAGER_NAME), by which agents know them. Those of the remote API are no
//! members' (`access.rs`).

mod access;
pub mod admit;
mod authority;
pub mod given;
pub mod kept;
mod peer;
pub mod renewal;
mod root;
pub mod rotation;
pub mod run;
mod tokens;

pub use access::{Holder, Names, host_of, issuer};
pub use authority::{Authority, Present, Roots, client_time, last_signed, root_ending, time, time_to_sign};
pub use peer::{Peer, PeerError, Shown};
pub use root::{BACKDATE, Ca, CaError, CertRequest, Issued, NODE_VALIDITY, NODE_VALIDITY_MIN, ROOT_VALIDITY, Signed};
pub use tokens::{JoinTokens, TokenRefusal};

use racimo_common::object::Role;

/// The OU of a role's certificates.
fn unit(role: Role) -> &'static str {
    match role {
        Role::Worker => "swarm-worker",
        Role::Manager => "swarm-manager",
    }
}

#[cfg(test)]
mod given_tests;
#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod rotation_tests;
