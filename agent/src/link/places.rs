//! Where a manager may be, and in which order to dial.
//!
//! In: what managers said, what the user joined with, where a session opened last. Out: addresses and names, the most
//! promising first. What managers say is kept with the identity; the rest in a file of its own, as it is a hint only:
//!
//! ```text
//! <data>/places.json    cluster, what the user joined with, where a session opened last
//! ```
//! A file that cannot be read is as good as none.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use racimo_common::durable;
use racimo_common::id::ClusterId;
use racimo_common::limits::{MANAGER_BYTES_MAX, MANAGERS_MAX};
use serde::{Deserialize, Serialize};

use super::dial;
use crate::limits::IDENTITY_FILE_MAX;

const FILE: &str = "places.json";

/// Where to dial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    managers: Vec<String>,
    joined: Option<String>,
    worked: Option<SocketAddr>,
}

/// `places.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    cluster: ClusterId,
    joined: Option<String>,
    worked: Option<SocketAddr>,
}

impl Places {
    /// Always these.
    pub fn fixed(managers: Vec<String>) -> Self {
        Self { managers, joined: None, worked: None }
    }

    /// What managers of this cluster said, and what is kept under `data`.
    pub fn load(data: &Path, cluster: ClusterId, managers: &[String]) -> Self {
        let kept = read(data).filter(|kept| kept.cluster == cluster);
        let (joined, worked) = kept.map(|kept| (kept.joined, kept.worked)).unwrap_or_default();
        Self { managers: managers.to_vec(), joined, worked }
    }

    /// Forgets where managers were: the board is in no cluster any more.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn erase(data: &Path) -> io::Result<()> {
        let path = data.join(FILE);
        durable::remove(&durable::beside(&path))?;
        durable::remove(&path).map(drop)
    }

    /// Keeps what the user joined with, in place of all that was kept.
    ///
    /// # Errors
    /// The disk says no.
    pub fn store_joined(data: &Path, cluster: ClusterId, address: &str) -> io::Result<()> {
        write(data, &Kept { cluster, joined: Some(address.to_owned()), worked: None })
    }

    /// What to dial in one round: addresses before names, and the one that worked last first.
    pub fn round(&self) -> Vec<String> {
        let mut all: Vec<String> = self.worked.iter().map(ToString::to_string).collect();
        let known: Vec<&String> = self.managers.iter().chain(&self.joined).collect();
        let (addresses, names): (Vec<&String>, Vec<&String>) = known.into_iter().partition(|text| is_address(text));
        for text in addresses.into_iter().chain(names) {
            let text = dial::with_port(text).unwrap_or_else(|| text.clone());
            if !all.contains(&text) {
                all.push(text);
            }
        }
        all
    }

    /// Takes over what a manager says; the list to keep, if it is another one.
    pub fn told(&mut self, mut managers: Vec<String>) -> Option<Vec<String>> {
        managers.retain(|text| text.len() <= MANAGER_BYTES_MAX && dial::with_port(text).is_some());
        managers.truncate(MANAGERS_MAX);
        if managers.is_empty() || managers == self.managers {
            return None;
        }
        self.managers.clone_from(&managers);
        Some(managers)
    }

    /// A session opened there; keeps it under `data` if it is another place than the last time.
    ///
    /// # Errors
    /// The disk says no; it counts until the next start.
    pub fn worked(&mut self, address: SocketAddr, data: &Path, cluster: ClusterId) -> io::Result<()> {
        if self.worked == Some(address) {
            return Ok(());
        }
        self.worked = Some(address);
        if read(data).is_some_and(|kept| kept.cluster != cluster) {
            // Somebody joined the board to another cluster meanwhile.
            return Ok(());
        }
        write(data, &Kept { cluster, joined: self.joined.clone(), worked: self.worked })
    }
}

/// Whether nothing has to be looked up for it.
fn is_address(text: &str) -> bool {
    text.starts_with("unix://") || dial::with_port(text).is_some_and(|text| text.parse::<SocketAddr>().is_ok())
}

fn read(data: &Path) -> Option<Kept> {
    let path = data.join(FILE);
    let is_small = fs::metadata(&path).is_ok_and(|about| about.len() <= IDENTITY_FILE_MAX);
    if is_small { serde_json::from_slice(&fs::read(path).ok()?).ok() } else { None }
}

fn write(data: &Path, kept: &Kept) -> io::Result<()> {
    durable::replace(&data.join(FILE), &serde_json::to_vec(kept)?)
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;

    use super::*;

    fn places(managers: &[&str], joined: Option<&str>, worked: Option<&str>) -> Places {
        Places {
            managers: managers.iter().map(|&text| text.to_owned()).collect(),
            joined: joined.map(str::to_owned),
            worked: worked.map(|text| text.parse().expect("an address")),
        }
    }

    #[track_caller]
    fn check(managers: &[&str], joined: Option<&str>, worked: Option<&str>, want: &[&str]) {
        assert_eq!(places(managers, joined, worked).round(), want);
    }

    #[test]
    fn the_order() {
        check(&["10.0.0.1:2377"], None, None, &["10.0.0.1:2377"]);
        check(&["unix:///m"], None, None, &["unix:///m"]);
        check(
            &["pi.lan:2377", "10.0.0.1:2377"],
            Some("pi.local"),
            None,
            &["10.0.0.1:2377", "pi.lan:2377", "pi.local:2377"],
        );
        check(
            &["10.0.0.1:2377", "10.0.0.2:2377"],
            Some("10.0.0.2"),
            Some("10.0.0.2:2377"),
            &["10.0.0.2:2377", "10.0.0.1:2377"],
        );
        // Found on the network, where no manager said that it is.
        check(
            &["10.0.0.1:2377"],
            Some("pi.local:99"),
            Some("[fd00::1]:2377"),
            &["[fd00::1]:2377", "10.0.0.1:2377", "pi.local:99"],
        );
        check(&[], None, None, &[]);
    }

    #[test]
    fn what_managers_say_is_bounded() {
        let mut places = places(&["10.0.0.1:2377"], None, None);
        assert_eq!(places.told(vec!["10.0.0.1:2377".to_owned()]), None);
        assert_eq!(places.told(Vec::new()), None, "one must be left");
        let mut many: Vec<String> = (1..100).map(|n| format!("10.0.0.{n}:2377")).collect();
        many.insert(0, "x".repeat(MANAGER_BYTES_MAX + 1));
        many.insert(1, "no address".to_owned());
        let kept = places.told(many.clone()).expect("another list");
        assert_eq!(kept, many[2..2 + MANAGERS_MAX]);
        assert_eq!(places.told(many), None);
    }

    #[test]
    fn what_is_kept_comes_back_for_the_same_cluster() {
        let data = tempfile::tempdir().unwrap();
        let (one, other) = (ClusterId::from_bits(1), ClusterId::from_bits(2));
        let managers = ["10.0.0.1:2377".to_owned()];
        let load = |cluster| Places::load(data.path(), cluster, &managers);
        assert_eq!(load(one), places(&["10.0.0.1:2377"], None, None));
        Places::store_joined(data.path(), one, "pi.local").unwrap();
        let mut own = load(one);
        own.worked("10.0.0.9:2377".parse().unwrap(), data.path(), one).unwrap();
        assert_eq!(load(one), places(&["10.0.0.1:2377"], Some("pi.local"), Some("10.0.0.9:2377")));
        assert_eq!(load(other), places(&["10.0.0.1:2377"], None, None));
        // Joined elsewhere while it ran: not overwritten.
        Places::store_joined(data.path(), other, "b.local").unwrap();
        own.worked("10.0.0.8:2377".parse().unwrap(), data.path(), one).unwrap();
        assert_eq!(load(other), places(&["10.0.0.1:2377"], Some("b.local"), None));
        fs::write(data.path().join(FILE), "{").unwrap();
        assert_eq!(load(other), places(&["10.0.0.1:2377"], None, None));
    }
}
