//! Contexts: directories with what it takes to reach a manager far away.
//!
//! ```text
//! ca.pem            who the manager is
//! cert.pem key.pem  who we are
//! host              where it is: tcp://HOST:PORT
//! ```
//! The first three are what docker's `DOCKER_CERT_PATH` wants. A name stands for `~/.config/racimo/contexts/NAME`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use racimo_common::tls::{self, BUILT, ClientConfig, Credentials, TrustClock};

use super::error::CliError;
use super::target::{PORT_TLS, Target};

/// Who the manager is.
pub(crate) const CA: &str = "ca.pem";
/// Who we are.
pub(crate) const CERTIFICATE: &str = "cert.pem";
/// Our private key.
pub(crate) const KEY: &str = "key.pem";
/// Where the manager is.
pub(crate) const HOST: &str = "host";

/// The directory that a name or path stands for; `env` is the environment.
pub(crate) fn directory(text: &str, env: fn(&str) -> Option<String>) -> Result<PathBuf, CliError> {
    if text.is_empty() {
        return Err(CliError::Usage("--context: expected a name or a directory, and this is empty".to_owned()));
    }
    if text.contains('/') || text == "." || text == ".." {
        return Ok(text.into());
    }
    let given = |key| env(key).filter(|text| !text.is_empty()).map(PathBuf::from);
    let config = given("XDG_CONFIG_HOME").or_else(|| Some(given("HOME")?.join(".config")));
    let config = config.ok_or_else(|| {
        CliError::Refused("neither HOME nor XDG_CONFIG_HOME is set: give the context as a path".to_owned())
    })?;
    Ok(config.join("racimo/contexts").join(text))
}

/// Where a context leads, and how to get in. `host` comes before the context's own.
pub(crate) fn open(directory: &Path, host: Option<&str>) -> Result<(Target, Arc<ClientConfig>), CliError> {
    if fs::metadata(directory).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        let path = directory.display();
        return Err(CliError::Refused(format!(
            "there is no such context: {path} is not there. `pi-mgr access create NAME`, on the manager's board or with another \
             access, writes such a directory: copy it there"
        )));
    }
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|source| CliError::File { path: path.display().to_string(), source })
    };
    let bad = |name: &str, why: &dyn std::fmt::Display| {
        CliError::Refused(format!("{} cannot be used: {why}", directory.join(name).display()))
    };
    let roots = tls::certificates_from_pem(&read(CA)?).map_err(|error| bad(CA, &error))?;
    let own = Credentials::from_pem(&read(CERTIFICATE)?, &read(KEY)?).map_err(|error| bad(CERTIFICATE, &error))?;
    let config = tls::api_client(&roots, &own, TrustClock::system(BUILT)).map_err(|error| bad(CA, &error))?;
    let target = match host {
        Some(host) => Target::parse_with(host.trim(), PORT_TLS).map_err(CliError::Usage)?,
        None => Target::parse_with(read(HOST)?.trim(), PORT_TLS).map_err(|why| bad(HOST, &why))?,
    };
    match target {
        target @ Target::Tcp(..) => Ok((target, config)),
        Target::Unix(_) => Err(bad(HOST, &"a context leads to tcp://HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn home(key: &str) -> Option<String> {
        (key == "HOME").then(|| "/home/ann".to_owned())
    }

    #[test]
    fn names_and_paths() {
        let at = |text, env| directory(text, env).ok().map(|path| path.display().to_string());
        assert_eq!(at("prod", home).as_deref(), Some("/home/ann/.config/racimo/contexts/prod"));
        assert_eq!(at("./prod", home).as_deref(), Some("./prod"));
        assert_eq!(at("..", home).as_deref(), Some(".."));
        assert_eq!(at("/srv/prod", none).as_deref(), Some("/srv/prod"));
        assert_eq!((at("prod", none), at("", home)), (None, None));
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = open(dir.path(), None).expect_err("nothing is there").to_string();
        assert!(error.contains("ca.pem"), "{error}");
        let error = open(&dir.path().join("x"), None).expect_err("nothing is there").to_string();
        assert!(error.contains("no such context") && error.contains("pi-mgr access create"), "{error}");
        fs::write(dir.path().join(CA), "rubbish").expect("written");
        let error = open(dir.path(), None).expect_err("no certificate").to_string();
        assert!(error.contains("ca.pem cannot be used: the certificate is no PEM"), "{error}");
    }
}
