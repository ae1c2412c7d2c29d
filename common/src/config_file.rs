//! The configuration file of a daemon.

use std::path::Path;

use serde::de::DeserializeOwned;

/// Reads the TOML file at `given`; else at `usual`, which need not be there.
///
/// # Errors
/// For the user: which file, and what is wrong with it where.
pub fn read<T: DeserializeOwned + Default>(given: Option<&Path>, usual: &str) -> Result<T, String> {
    let path = given.unwrap_or(Path::new(usual));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() => return Ok(T::default()),
        Err(error) => return Err(format!("read {}: {error}", path.display())),
    };
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}
