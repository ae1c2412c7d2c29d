//! Where the API listens: unix sockets, TCP on this machine only, and TLS for clients with certificates anywhere.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use smol::Async;

use crate::tcp;

/// Permissions of the socket: its owner's and its group's.
const SOCKET_MODE: u32 = 0o660;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP: this machine only.
    Tcp(SocketAddr),
    /// TLS, for clients with certificates.
    Tls(SocketAddr),
}

/// Why one cannot listen there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address.
    #[error(
        "{0:?} is no address to listen on: expected unix:///path, tcp://127.0.0.1:2375 (this machine only), tcp://ADDRESS:2376 or tls://ADDRESS:2376 (with certificates)"
    )]
    Address(String),
    /// Whoever reaches the API is root on every board.
    #[error("refusing to listen on {0} without client certificates")]
    NotLoopback(SocketAddr),
    /// A unix socket's directory is not there.
    #[error(
        "there is no directory {} for the socket {}: make it first",
        .0.parent().unwrap_or(Path::new("/")).display(),
        .0.display()
    )]
    NoDirectory(PathBuf),
    /// Somebody else answers there.
    #[error("another process already listens on {}", .0.display())]
    InUse(PathBuf),
    /// The system says no.
    #[error("listen on {address}")]
    Io {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Tls(address) => write!(f, "tls://{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let bad = || ListenError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(bad()) };
        }
        let (address, is_tls) = match text.strip_prefix("tls://") {
            Some(address) => (address, true),
            None => (text.strip_prefix("tcp://").ok_or_else(bad)?, false),
        };
        let local = address.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address: SocketAddr = local.as_deref().unwrap_or(address).parse().map_err(|_| bad())?;
        Ok(if is_tls || !is_loopback(address.ip()) { Self::Tls(address) } else { Self::Tcp(address) })
    }
}

impl Address {
    /// Looks whether the directory of a unix socket is there, as dockerd does: a path with a slip in it shall leave
    /// nothing behind. Only `own` is made: `/run` is empty after a boot.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn prepare(&self, own: &Path) -> Result<(), ListenError> {
        let Self::Unix(path) = self else { return Ok(()) };
        let Some(directory) = path.parent() else { return Ok(()) };
        if directory == own {
            return fs::create_dir_all(own).map_err(|source| ListenError::Io { address: self.clone(), source });
        }
        if directory.is_dir() { Ok(()) } else { Err(ListenError::NoDirectory(path.clone())) }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// A socket that is listened on.
pub enum Listener {
    /// A unix socket; its file is removed at the end.
    Unix(Async<std::os::unix::net::UnixListener>, SocketFile),
    /// TCP.
    Tcp(Async<std::net::TcpListener>),
    /// TLS.
    Tls(Async<std::net::TcpListener>),
}

/// The file of a unix socket; removed when dropped.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; a new manager replaces it anyway.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens. `group` gets access to a unix socket, if the machine has such a group.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn open(address: &Address, group: Option<&str>) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { address: address.clone(), source };
        match address {
            Address::Unix(path) => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(ListenError::InUse(path.clone()));
                }
                let listener = bind_unix(path, group.and_then(group_id)).map_err(io)?;
                Ok(Self::Unix(Async::new(listener).map_err(io)?, SocketFile(path.clone())))
            }
            // Again, for addresses that were not read from text.
            Address::Tcp(address) if !is_loopback(address.ip()) => Err(ListenError::NotLoopback(*address)),
            Address::Tcp(address) => Ok(Self::Tcp(Async::<std::net::TcpListener>::bind(*address).map_err(io)?)),
            // It may come later: Wi-Fi and DHCP take their time.
            Address::Tls(address) => Ok(Self::Tls(tcp::listen(*address).map_err(io)?)),
        }
    }

    /// Where a TCP socket listens (the port that 0 stood for).
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(..) => None,
            Self::Tcp(listener) | Self::Tls(listener) => listener.get_ref().local_addr().ok(),
        }
    }

    /// Where clients with certificates are served, if they are.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(..) | Self::Tcp(_) => None,
            Self::Tls(_) => self.tcp_address(),
        }
    }
}

/// Made under another name, so that nobody connects before the permissions are right.
fn bind_unix(path: &Path, group: Option<u32>) -> io::Result<std::os::unix::net::UnixListener> {
    let mut making = path.as_os_str().to_owned();
    making.push(".new");
    let making = PathBuf::from(making);
    match fs::remove_file(&making) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = std::os::unix::net::UnixListener::bind(&making)?;
    if group.is_some() {
        chown(&making, None, group)?;
    }
    fs::set_permissions(&making, fs::Permissions::from_mode(SOCKET_MODE))?;
    fs::rename(&making, path)?;
    Ok(listener)
}

/// A group's number.
fn group_id(name: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    groups(&text).find_map(|(found, id)| (found == name).then_some(id))
}

/// The groups of a text as `/etc/group` (`NAME:x:ID:…`) with their numbers.
pub(crate) fn groups(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut parts = line.split(':');
        Some((parts.next()?, parts.nth(1)?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<&str, &str>) {
        match (text.parse::<Address>(), want) {
            (Ok(address), Ok(want)) => assert_eq!(address.to_string(), want),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
            (got, want) => panic!("{text}: {got:?} instead of {want:?}"),
        }
    }

    #[test]
    fn addresses() {
        check("unix:///run/x.sock", Ok("unix:///run/x.sock"));
        check("tcp://127.0.0.1:2375", Ok("tcp://127.0.0.1:2375"));
        check("tcp://localhost:2375", Ok("tcp://127.0.0.1:2375"));
        check("tcp://[::1]:2375", Ok("tcp://[::1]:2375"));
        check("tcp://0.0.0.0:2376", Ok("tls://0.0.0.0:2376"));
        check("tcp://10.0.0.1:2375", Ok("tls://10.0.0.1:2375"));
        check("tcp://[::]:2376", Ok("tls://[::]:2376"));
        check("tls://127.0.0.1:2376", Ok("tls://127.0.0.1:2376"));
        check("tls://localhost:2376", Ok("tls://127.0.0.1:2376"));
        for bad in ["", "x", "tcp://", "tcp://127.0.0.1", "unix://x", "http://127.0.0.1:1", "tls://", "tls://pi:1"] {
            check(bad, Err("expected unix:///path"));
        }
    }

    #[test]
    fn groups_of_a_text() {
        let found: Vec<_> = groups("root:x:0:\nracimo:x:998:ann\nbad\n").collect();
        assert_eq!(found, [("root", 0), ("racimo", 998)]);
    }

    #[test]
    fn nothing_is_open_to_others_without_certificates() {
        let open = |address| Listener::open(&address, None);
        let address = Address::Tcp("0.0.0.0:0".parse().expect("an address"));
        assert!(matches!(open(address), Err(ListenError::NotLoopback(_))));
    }

    #[test]
    fn only_the_own_directory_is_made() {
        let dir = tempfile::tempdir().expect("dir");
        let own = dir.path().join("run/racimo");
        let address = |path: &str| Address::Unix(dir.path().join(path));
        let error = address("run/racimo/new/x.sock").prepare(&own).expect_err("no directory").to_string();
        let want = format!("there is no directory {0}/new for the socket {0}/new/x.sock: make it first", own.display());
        assert_eq!(error, want);
        assert!(!dir.path().join("run").exists(), "it left something");
        assert!(address("run/racimo/x.sock").prepare(&own).is_ok() && own.is_dir());
        assert!(address("x.sock").prepare(&own).is_ok(), "it was there");
        fs::write(dir.path().join("file"), "").expect("written");
        assert!(matches!(address("file/x.sock").prepare(&own), Err(ListenError::NoDirectory(_))));
    }

    #[test]
    fn sockets_have_modes_and_owners() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("api.sock");
        let address = Address::Unix(path.clone());
        let listener = Listener::open(&address, Some("no-such-group")).expect("listens");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, SOCKET_MODE);
        assert!(matches!(Listener::open(&address, None), Err(ListenError::InUse(_))));
        drop(listener);
        assert!(!path.exists());
        // What a killed manager leaves behind is replaced.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("stale"));
        assert!(path.exists() && Listener::open(&address, None).is_ok());
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("no-such-group"), None);
    }
}
