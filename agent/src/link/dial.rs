//! One connection to a manager: its name looked up, TCP, then TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use racimo_common::mdns;
use racimo_common::tls::{ClientConfig, TlsFault, manager_name};
use racimo_common::wire::PORT;
use smol::Timer;
use smol::net::TcpStream;

use super::discover;
use crate::limits::{
    DIAL_MAX, DIAL_NEXT_MAX, HANDSHAKE_MAX, HINT_DIAL_MAX, HINT_HANDSHAKE_MAX, RESOLVE_MAX, RESOLVED_MAX,
};

/// How long a connection may take to come about.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// TCP.
    pub dial: Duration,
    /// TLS.
    pub handshake: Duration,
}

impl Patience {
    /// With a manager.
    pub const KNOWN: Self = Self { dial: DIAL_MAX, handshake: HANDSHAKE_MAX };
    /// With a manager that has other addresses too.
    pub const ONE_OF_SEVERAL: Self = Self { dial: DIAL_NEXT_MAX, handshake: HANDSHAKE_MAX };
    /// With an address that somebody announced.
    pub const HINT: Self = Self { dial: HINT_DIAL_MAX, handshake: HINT_HANDSHAKE_MAX };
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address has no such form.
    #[error("{0:?} is no manager's address: expected HOST or HOST:PORT")]
    Address(String),
    /// The network said no.
    #[error("cannot reach a manager at {address}")]
    Network {
        /// What was dialled.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The network said nothing.
    #[error("no answer from {address} within {waited:?}")]
    Silent {
        /// What was dialled.
        address: String,
        /// How long we waited.
        waited: Duration,
    },
    /// We must not talk to what answered, or it not to us.
    #[error("{address}: {fault}")]
    Tls {
        /// What was dialled.
        address: String,
        /// Why.
        fault: TlsFault,
    },
}

impl DialError {
    /// Whether another try may end better.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Silent { .. } => true,
            Self::Address(_) | Self::Tls { .. } => false,
        }
    }

    /// What an error of a connection to `address` means.
    pub fn of(address: &str, source: io::Error) -> Self {
        let address = address.to_owned();
        match TlsFault::of(&source) {
            Some(fault) => Self::Tls { address, fault },
            None => Self::Network { address, source },
        }
    }
}

/// Connects to a manager at `HOST` or `HOST:PORT`.
///
/// # Errors
/// As [`dial_within`].
pub async fn dial(address: &str, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, DialError> {
    dial_within(address, config, Patience::KNOWN).await
}

/// Connects to `HOST` or `HOST:PORT`; a name is looked up each time, and its addresses are tried one after another.
///
/// # Errors
/// It came to nothing in time, or what answered is not to be talked to: the last address's reason.
pub async fn dial_within(
    address: &str,
    config: Arc<ClientConfig>,
    patience: Patience,
) -> Result<TlsStream<TcpStream>, DialError> {
    let address = with_port(address).ok_or_else(|| DialError::Address(address.to_owned()))?;
    let mut end = None;
    for place in within(&address, RESOLVE_MAX, resolve(&address)).await? {
        // The name stays in what is said, the address is added.
        let said = if address == place.to_string() { address.clone() } else { format!("{address} ({place})") };
        match connect(&said, place, config.clone(), patience).await {
            Ok(stream) => return Ok(stream),
            Err(error) => end = Some(error),
        }
    }
    Err(end
        .unwrap_or_else(|| DialError::of(&address, io::Error::new(io::ErrorKind::NotFound, "the name has no address"))))
}

async fn connect(
    said: &str,
    place: SocketAddr,
    config: Arc<ClientConfig>,
    patience: Patience,
) -> Result<TlsStream<TcpStream>, DialError> {
    let tcp = within(said, patience.dial, TcpStream::connect(place)).await?;
    tcp.set_nodelay(true).map_err(|e| DialError::of(said, e))?;
    within(said, patience.handshake, TlsConnector::from(config).connect(manager_name(), tcp)).await
}

/// The addresses of `HOST:PORT`. A `.local` name is asked for on the local network first: not every board's libc can.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let local = address.rsplit_once(':').filter(|(host, _)| mdns::is_local(host));
    if let Some((host, port)) = local.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
        let found: Vec<IpAddr> = discover::host(host).await;
        if !found.is_empty() {
            return Ok(found.into_iter().take(RESOLVED_MAX).map(|ip| SocketAddr::new(ip, port)).collect());
        }
    }
    Ok(smol::net::resolve(address).await?.into_iter().take(RESOLVED_MAX).collect())
}

async fn within<T>(address: &str, limit: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, DialError> {
    let late = async {
        Timer::after(limit).await;
        Err(DialError::Silent { address: address.to_owned(), waited: limit })
    };
    future::or(async { work.await.map_err(|e| DialError::of(address, e)) }, late).await
}

/// `address` with a port: its own or [`PORT`].
pub(super) fn with_port(address: &str) -> Option<String> {
    let bare_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_v6 {
        return Some(format!("[{address}]:{PORT}"));
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (address, PORT),
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let sound = match inner {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']),
    };
    (sound && port != 0).then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, want: Option<&str>) {
        assert_eq!(with_port(address).as_deref(), want, "{address}");
    }

    #[test]
    fn addresses() {
        check("10.0.0.1", Some("10.0.0.1:2377"));
        check("10.0.0.1:99", Some("10.0.0.1:99"));
        check("pi.local", Some("pi.local:2377"));
        check("pi.local:7", Some("pi.local:7"));
        check("fe80::1", Some("[fe80::1]:2377"));
        check("[fe80::1]", Some("[fe80::1]:2377"));
        check("[fe80::1]:5", Some("[fe80::1]:5"));
        for bad in ["", ":2377", "a:b", "a:0", "a:99999", "a:1:2", "[x]:1", "http://a", "a b", "[::1", "::1]"] {
            check(bad, None);
        }
    }
}
