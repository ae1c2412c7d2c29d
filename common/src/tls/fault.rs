//! Why a TLS connection did not come about, in words for a person.

use std::io;

use futures_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

/// What went wrong between us and the other side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// No certificate of the server's chain has the digest that the token names.
    #[error(
        "the manager's root certificate is not the one the join token names: \
         the token is of another cluster or older than its root certificate, or somebody is in between"
    )]
    WrongRoot,
    /// The certificate was not signed by our root.
    #[error("the other side's certificate was not signed by this cluster's root")]
    Foreign,
    /// A member, but not a manager.
    #[error("the other side's certificate is not a manager's")]
    NotManager,
    /// The certificate's time is over.
    #[error("the other side's certificate has expired")]
    Expired,
    /// Not a certificate we can judge.
    #[error("the other side's certificate is unusable: {0}")]
    BadCertificate(String),
    /// The other side did not accept the certificate we showed.
    #[error("the other side refused this node's certificate: {0}")]
    RefusedUs(&'static str),
    /// The bytes are not TLS.
    #[error("the other side does not speak TLS: is it a manager's port?")]
    NotTls,
    /// TLS failed otherwise.
    #[error("TLS failed: {0}")]
    Other(String),
}

impl TlsFault {
    /// The fault inside an error of a TLS stream; `None` if only the network failed. With TLS 1.3 a client learns
    /// that its certificate was refused at its first read, not from the handshake.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().map(Self::of_tls)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum of which we tell a few apart")]
    fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(e) => Self::of_certificate(e),
            Error::AlertReceived(alert) => match alert {
                AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                    Self::RefusedUs("it was not signed by that cluster's root")
                }
                AlertDescription::CertificateExpired => Self::RefusedUs("it has expired"),
                AlertDescription::CertificateRevoked => Self::RefusedUs("it was revoked"),
                AlertDescription::CertificateRequired => Self::RefusedUs("none was shown"),
                AlertDescription::CertificateUnknown => Self::RefusedUs("it is not the one expected"),
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied => Self::RefusedUs("it is not a member's"),
                _ => Self::Other(error.to_string()),
            },
            // A port that speaks something else answers our greeting with something else.
            Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                Self::NotTls
            }
            _ => Self::Other(error.to_string()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum of which we tell a few apart")]
    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Other(OtherError(ours)) => match ours.downcast_ref::<Self>() {
                Some(fault) => fault.clone(),
                None => Self::BadCertificate(error.to_string()),
            },
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Foreign,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            _ => Self::BadCertificate(error.to_string()),
        }
    }
}

impl From<TlsFault> for Error {
    fn from(fault: TlsFault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(fault))))
    }
}
