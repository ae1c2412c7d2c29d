//! Who asks, and what they may do. Pure.
//!
//! In: how a request came, the store's accesses, the time. Out: a role, or why there is none. A certificate alone gives
//! nothing: its access is looked up at every request, so that one that was revoked ends at once.

use std::fmt;
use std::net::IpAddr;

use hyper::StatusCode;
use racimo_common::time::Wall;

use super::convert;
use super::error::ApiError;
use super::route::Need;
use crate::ca::Holder;
use crate::store::{AccessRole, State};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Somebody who may open the unix socket: its permissions decide.
    Unix {
        /// As whom their process runs, if the kernel says it.
        uid: Option<u32>,
    },
    /// A program of this machine, over loopback TCP.
    Local(IpAddr),
    /// Somebody with a certificate of this cluster's root.
    Remote {
        /// Whose it is; none: not an access's, but a node's.
        holder: Option<Holder>,
        /// Where they are.
        from: IpAddr,
    },
}

impl Who {
    /// What they may do.
    ///
    /// # Errors
    /// 403 with the reason.
    pub fn role(&self, state: &State, now: Wall) -> Result<AccessRole, ApiError> {
        let (holder, refuse) = match self {
            Self::Unix { .. } | Self::Local(_) => return Ok(AccessRole::Admin),
            Self::Remote { holder, .. } => (holder, |why: String| ApiError::new(StatusCode::FORBIDDEN, why)),
        };
        let Some(holder) = holder else {
            return Err(refuse(
                "this certificate is a node's: the API takes those that pi-mgr access create makes".into(),
            ));
        };
        let name = &holder.name;
        if state.cluster().is_none_or(|cluster| cluster.id != holder.cluster) {
            return Err(refuse(format!("access {name} is of another cluster")));
        }
        let Some(access) = state.access(name) else {
            return Err(refuse(format!("access {name} was revoked")));
        };
        if access.key_digest != holder.key_digest {
            return Err(refuse(format!("this certificate of access {name} was revoked: there is a newer one")));
        }
        if access.expires <= now {
            let at = convert::time(access.expires);
            return Err(refuse(format!("access {name} expired at {at}: revoke it and make a new one")));
        }
        Ok(access.role)
    }

    /// The name of their access, if they came with one.
    pub fn name(&self) -> &str {
        match self {
            Self::Remote { holder: Some(holder), .. } => &holder.name,
            Self::Unix { .. } | Self::Local(_) | Self::Remote { holder: None, .. } => "",
        }
    }
}

/// As the audit file has it.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid: Some(uid) } => write!(f, "unix uid={uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
            Self::Local(from) => write!(f, "tcp {from}"),
            Self::Remote { holder: Some(holder), from } => write!(f, "access {}@{from}", holder.name),
            Self::Remote { holder: None, from } => write!(f, "node@{from}"),
        }
    }
}

/// Whether a role is enough for what a route needs; `what` for the message.
///
/// # Errors
/// 403 with the reason.
pub fn permit(role: AccessRole, need: Need, who: &Who, what: &str) -> Result<(), ApiError> {
    let why = match (role, need) {
        (AccessRole::Admin, Need::Read | Need::Write | Need::Secret) | (AccessRole::ReadOnly, Need::Read) => {
            return Ok(());
        }
        (AccessRole::ReadOnly, Need::Write) => "it may look, but change nothing",
        (AccessRole::ReadOnly, Need::Secret) => "it does not see what lets somebody in",
    };
    Err(ApiError::new(StatusCode::FORBIDDEN, format!("access {} is read-only: {why} ({what})", who.name())))
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{ClusterId, RandomId};

    use super::*;
    use crate::store::testing::{apply, at, base};
    use crate::store::{Access, Change};

    const KEY: [u8; 32] = [1; 32];

    fn state() -> State {
        let access = |name: &str, role| Access {
            name: name.to_owned(),
            role,
            key_digest: KEY,
            created: Wall::default(),
            expires: at(100),
            issuer: None,
        };
        let changes = [access("ann", AccessRole::Admin), access("bob", AccessRole::ReadOnly)];
        let changes = changes.map(|access| Change::AccessCreate(Box::new(access)));
        apply(&base(), changes.to_vec()).expect("it is taken").0
    }

    fn remote(name: &str, key_digest: [u8; 32], cluster: Option<ClusterId>) -> Who {
        let cluster = cluster.unwrap_or_else(|| base().cluster().expect("a cluster").id);
        let holder = Holder { name: name.to_owned(), cluster, key_digest };
        Who::Remote { holder: Some(holder), from: [192, 168, 1, 7].into() }
    }

    #[track_caller]
    fn check(who: &Who, now: Wall, want: Result<AccessRole, &str>) {
        match (who.role(&state(), now), want) {
            (Ok(role), Ok(want)) => assert_eq!(role, want),
            (Err(error), Err(want)) => {
                assert!(error.status == StatusCode::FORBIDDEN && error.message.contains(want), "{error}");
            }
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn roles() {
        let now = at(50);
        check(&Who::Unix { uid: Some(0) }, now, Ok(AccessRole::Admin));
        check(&Who::Local([127, 0, 0, 1].into()), now, Ok(AccessRole::Admin));
        check(&remote("ann", KEY, None), now, Ok(AccessRole::Admin));
        check(&remote("bob", KEY, None), now, Ok(AccessRole::ReadOnly));
        check(&remote("ann", [2; 32], None), now, Err("there is a newer one"));
        check(&remote("eve", KEY, None), now, Err("access eve was revoked"));
        check(&remote("ann", KEY, Some(ClusterId::from_bits(999))), now, Err("another cluster"));
        check(&remote("ann", KEY, None), at(100), Err("access ann expired at"));
        check(&Who::Remote { holder: None, from: [10, 0, 0, 1].into() }, now, Err("is a node's"));
    }

    #[test]
    fn what_roles_may_do() {
        let who = remote("bob", KEY, None);
        let refused = |need| permit(AccessRole::ReadOnly, need, &who, "POST /x").map_err(|error| error.message);
        assert_eq!(refused(Need::Read), Ok(()));
        let why = "access bob is read-only: it may look, but change nothing (POST /x)";
        assert_eq!(refused(Need::Write), Err(why.to_owned()));
        assert!(refused(Need::Secret).is_err());
        for need in [Need::Read, Need::Write, Need::Secret] {
            assert_eq!(permit(AccessRole::Admin, need, &who, ""), Ok(()));
        }
    }

    #[test]
    fn names_in_the_audit_file() {
        for (who, want) in [
            (Who::Unix { uid: Some(1000) }, "unix uid=1000"),
            (Who::Local([127, 0, 0, 1].into()), "tcp 127.0.0.1"),
            (remote("ann", KEY, None), "access ann@192.168.1.7"),
            (Who::Remote { holder: None, from: [10, 0, 0, 1].into() }, "node@10.0.0.1"),
        ] {
            assert_eq!(who.to_string(), want);
        }
    }
}
