//! What a request is refused with: a status and the text that users see.

use hyper::StatusCode;

use crate::store::{CommitError, Refusal};

/// A refusal, as Docker's clients expect it: `{"message": …}` with a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// 4xx or 5xx.
    pub status: StatusCode,
    /// For the user.
    pub message: String,
}

/// SwarmKit's error codes. Docker shows their names to users, and some clients read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong in itself.
    InvalidArgument,
    /// The cluster's state does not allow it.
    FailedPrecondition,
    /// A name is taken.
    AlreadyExists,
    /// It cannot be done at all.
    Unimplemented,
    /// Anything else.
    Unknown,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::AlreadyExists => "AlreadyExists",
            Self::Unimplemented => "Unimplemented",
            Self::Unknown => "Unknown",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl ApiError {
    /// A refusal with this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: `service web not found`.
    pub fn not_found(kind: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{kind} {name} not found"))
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 501: a part of Docker's API that there is none of here.
    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// As SwarmKit's errors reach users: `rpc error: code = … desc = …`.
    pub fn rpc(code: Code, message: impl std::fmt::Display) -> Self {
        Self::new(code.status(), format!("rpc error: code = {} desc = {message}", code.name()))
    }

    /// 400 with the code `InvalidArgument`.
    pub fn invalid(message: impl std::fmt::Display) -> Self {
        Self::rpc(Code::InvalidArgument, message)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, refusal.to_string()),
            Refusal::OutOfSequence => Self::rpc(Code::Unknown, refusal),
            Refusal::NameTaken { .. } | Refusal::Exists { .. } => Self::rpc(Code::AlreadyExists, refusal),
            Refusal::IngressPresent(_) => Self::rpc(Code::AlreadyExists, refusal),
            Refusal::SubnetTaken { .. } => Self::new(StatusCode::FORBIDDEN, refusal.to_string()),
            Refusal::PoolsExhausted => Self::bad_request(refusal.to_string()),
            Refusal::BadSubnet(_) | Refusal::BadPorts(_) | Refusal::PortTaken { .. } | Refusal::IngressAttached(_) => {
                Self::invalid(refusal)
            }
            Refusal::IngressInUse(_) | Refusal::NoAddress { .. } => Self::rpc(Code::FailedPrecondition, refusal),
            Refusal::NetworkTaken(_) => Self::new(StatusCode::CONFLICT, refusal.to_string()),
            Refusal::NetworksMax
            | Refusal::NetworkInUse { .. }
            | Refusal::RotationUnderWay
            | Refusal::NoRotation
            | Refusal::AccessesMax
            | Refusal::DependenciesMax
            | Refusal::DependenciesBytesMax => Self::rpc(Code::FailedPrecondition, refusal),
            Refusal::InUse { .. } | Refusal::Unknown { .. } => Self::invalid(refusal),
            Refusal::Immutable(_) => Self::rpc(Code::Unimplemented, refusal),
            Refusal::ClusterExists => Self::unavailable(super::swarm::ALREADY_IN),
            Refusal::NoCluster => Self::unavailable(super::swarm::NOT_A_MANAGER),
            Refusal::TaskMoved(..) | Refusal::NodeUnfit(..) | Refusal::NoPrevious(_) => {
                Self::rpc(Code::FailedPrecondition, refusal)
            }
        }
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Refused(refusal) => refusal.into(),
            CommitError::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            CommitError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            CommitError::Stopped => Self::unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: impl Into<ApiError>, status: u16, message: &str) {
        let error = error.into();
        assert_eq!((error.status.as_u16(), &*error.message), (status, message));
    }

    #[test]
    fn refusals_read_as_recorded() {
        let taken = Refusal::NameTaken { kind: "service", name: "web1".into() };
        let text = "name conflicts with an existing object: service web1 already exists";
        check(taken, 409, &format!("rpc error: code = AlreadyExists desc = {text}"));
        check(Refusal::OutOfSequence, 500, "rpc error: code = Unknown desc = update out of sequence");
        let gone = Refusal::NotFound { kind: "node", id: "x".into() };
        check(gone, 404, "node x not found");
        let rename = Refusal::Immutable("renaming services is not supported");
        check(rename, 501, "rpc error: code = Unimplemented desc = renaming services is not supported");
    }
}
