//! Where the manager is: `unix://PATH` or `tcp://HOST:PORT`.

use std::fmt;
use std::path::PathBuf;

/// The port of Docker's API without TLS, taken when `tcp://` names none.
const PORT_DEFAULT: u16 = 2375;

/// The port of Docker's API with TLS.
pub(crate) const PORT_TLS: u16 = 2376;

/// The manager's own socket.
pub(crate) const SOCKET_DEFAULT: &str = "/run/racimo/pi-mgr.sock";

/// One API endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A unix socket.
    Unix(PathBuf),
    /// Host (name or address, no brackets) and port.
    Tcp(String, u16),
}

impl Target {
    /// Flag before `RACIMO_HOST` before `PI_MGR_SOCKET` before the default socket.
    pub(crate) fn choose(
        flag: Option<&str>,
        env_host: Option<&str>,
        env_socket: Option<&str>,
    ) -> Result<Target, String> {
        let given = |text: &&str| !text.is_empty();
        match flag.or(env_host.filter(given)) {
            Some(host) => Target::parse(host),
            None => Ok(Target::Unix(env_socket.filter(given).unwrap_or(SOCKET_DEFAULT).into())),
        }
    }

    /// Reads `unix:///path`, `tcp://host[:port]`, `tcp://[::1]:2375`.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        Target::parse_with(text, PORT_DEFAULT)
    }

    /// The same with this port where none is named.
    pub(crate) fn parse_with(text: &str, port_default: u16) -> Result<Target, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Target::Unix(path.into()))
            } else {
                Err(format!("\"{text}\": the path after unix:// must be absolute"))
            };
        }
        let Some(rest) = text.strip_prefix("tcp://") else {
            return Err(format!("\"{text}\" is not a host; expected unix:///PATH or tcp://HOST:PORT"));
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, tail) = v6.split_once(']').ok_or(format!("\"{text}\": a ] is missing"))?;
                (host, tail.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if host.is_empty() || host.contains('/') {
            return Err(format!("\"{text}\" names no host; expected tcp://HOST:PORT"));
        }
        let port = port.map_or(Ok(port_default), str::parse);
        let port = port.map_err(|_| format!("\"{text}\": the port must be a number up to 65535"))?;
        Ok(Target::Tcp(host.to_owned(), port))
    }

    /// What goes into the `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self {
            Target::Unix(_) => "racimo.localhost".to_owned(),
            Target::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp(host, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix://{}", path.display()),
            Target::Tcp(..) => write!(f, "tcp://{}", self.authority()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        assert_eq!(Target::parse(text).ok().map(|t| t.to_string()).as_deref(), want);
    }

    #[test]
    fn spellings() {
        check("unix:///run/x.sock", Some("unix:///run/x.sock"));
        check("unix://x.sock", None);
        check("tcp://pi:1234/", Some("tcp://pi:1234"));
        check("tcp://pi", Some("tcp://pi:2375"));
        check("tcp://[::1]:99", Some("tcp://[::1]:99"));
        check("tcp://pi:99999", None);
        check("tcp://:1", None);
        check("/run/x.sock", None);
        check("http://pi", None);
    }

    #[test]
    fn the_flag_wins_then_the_host_then_the_socket() {
        let choose = |a, b, c| Target::choose(a, b, c).map(|t| t.to_string());
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(choose(Some("tcp://a:1"), Some("tcp://b:1"), Some("/c")), ok("tcp://a:1"));
        assert_eq!(choose(None, Some("tcp://b:1"), Some("/c")), ok("tcp://b:1"));
        assert_eq!(choose(None, Some(""), Some("/c")), ok("unix:///c"));
        assert_eq!(choose(None, None, None), ok("unix:///run/racimo/pi-mgr.sock"));
    }
}
