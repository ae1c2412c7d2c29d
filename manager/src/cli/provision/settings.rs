//! What a board is told about itself: `racimo.toml`, as images read it. Pure.
//!
//! The words allowed are those that `images/files/usr/lib/racimo/join-file` takes; here they are refused before anything
//! is sent.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::super::limits::PROVISION_FILE_BYTES_MAX;
use super::super::parse;

/// Longest host name.
const HOSTNAME_CHARS_MAX: usize = 63;

/// Settings of a board.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Settings {
    /// Its name.
    pub(super) hostname: Option<String>,
    /// Its engine labels.
    pub(super) labels: Vec<(String, String)>,
}

impl Settings {
    /// Checks what no single flag shows.
    pub(super) fn new(hostname: Option<String>, labels: Vec<(String, String)>) -> Result<Settings, String> {
        let mut keys = BTreeSet::new();
        match labels.iter().find(|(key, _)| !keys.insert(key.clone())) {
            Some((key, _)) => Err(format!("--label {key}: it is there twice")),
            None => Ok(Settings { hostname, labels }),
        }
    }

    /// Refuses what is too much for a board, which joins by this address and token.
    pub(super) fn check_size(&self, manager: &str, token: &str) -> Result<(), String> {
        if self.file(Some((manager, token))).len() <= PROVISION_FILE_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "--label: all of them are more than {} KiB (/etc/racimo/agent.toml on the board takes them)",
            PROVISION_FILE_BYTES_MAX >> 10
        ))
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.hostname.is_none() && self.labels.is_empty()
    }

    /// The file; `join`: the manager's address and the token.
    pub(in super::super) fn file(&self, join: Option<(&str, &str)>) -> Zeroizing<String> {
        // Its room is taken at once, so that no copy stays behind when it grows.
        let mut text = Zeroizing::new(String::with_capacity(PROVISION_FILE_BYTES_MAX));
        if let Some((manager, token)) = join {
            let _ = writeln!(text, "manager = \"{manager}\"\ntoken = \"{token}\"");
        }
        if let Some(name) = &self.hostname {
            let _ = writeln!(text, "hostname = \"{name}\"");
        }
        if !self.labels.is_empty() {
            text.push_str("[labels]\n");
        }
        for (key, value) in &self.labels {
            let _ = writeln!(text, "{key} = \"{value}\"");
        }
        text
    }
}

/// `--hostname`.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
    let is_name = text.len() <= HOSTNAME_CHARS_MAX && text.chars().all(is_word);
    if is_name && edge(text.chars().next()) && edge(text.chars().last()) {
        return Ok(text.to_owned());
    }
    Err(format!("expected small letters, digits and hyphens, {HOSTNAME_CHARS_MAX} at most"))
}

/// `--label`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = parse::label(text)?;
    if !key.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c)) {
        return Err(format!("the key {key:?}: expected letters, digits and _ . / -"));
    }
    if value.chars().any(|c| ",\"\\$`".contains(c) || c.is_control()) {
        return Err(format!(
            "the value of {key}: none of , \" \\ $ ` here (/etc/racimo/agent.toml on the board takes them)"
        ));
    }
    Ok((key, value))
}

/// `--manager`.
pub(super) fn manager(text: &str) -> Result<String, String> {
    let is_address = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:/@%[]-".contains(c));
    if is_address { Ok(text.to_owned()) } else { Err("expected HOST[:PORT]".to_owned()) }
}

/// Whether a board can dial what the manager says of itself.
pub(super) fn is_reachable(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    !matches!(host, "" | "0.0.0.0" | "[::]" | "::" | "[::1]" | "localhost") && !host.starts_with("127.")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_file_is_what_boards_read() {
        let settings = Settings {
            hostname: Some("kitchen".to_owned()),
            labels: vec![("room".to_owned(), "kitchen north".to_owned()), ("io.x/y".to_owned(), "a=b".to_owned())],
        };
        let token = format!("SWMTKN-1-{}-{}", "5a".repeat(25), "k7".repeat(12));
        let reads = |text: &str| {
            let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/../images/files/usr/lib/racimo/join-file");
            let mut child = Command::new("awk")
                .args(["-f", reader])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("awk");
            child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
            let output = child.wait_with_output().expect("its end");
            assert!(output.status.success(), "{text}");
            String::from_utf8(output.stdout).expect("text")
        };
        let want = "hostname\tkitchen\nlabel\troom=kitchen north\nlabel\tio.x/y=a=b\n";
        assert_eq!(reads(&settings.file(None)), want);
        let joins = reads(&settings.file(Some(("[fd00::1]:2377", &token))));
        assert_eq!(joins, format!("manager\t[fd00::1]:2377\ntoken\t{token}\n{want}"));
        assert_eq!(reads(&Settings::default().file(None)), "");
    }

    #[test]
    fn what_boards_do_not_take_is_refused() {
        for bad in ["", "Kitchen", "-a", "a-", "a.b", "a\"b", &"a".repeat(64)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
        assert_eq!(hostname("rpi-4").as_deref(), Ok("rpi-4"));
        for bad in ["=x", "a b=c", "a=b,c", "a=\"", "a=$(x)", "a=`x`", "a=b\nc"] {
            assert!(label(bad).is_err(), "{bad}");
        }
        assert_eq!(label("room=kitchen north"), Ok(("room".to_owned(), "kitchen north".to_owned())));
        for bad in ["", "a b", "a\"", "a\nb"] {
            assert!(manager(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_that_boards_do_not_take_together() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let twice = Settings::new(None, vec![label("a", "1"), label("b", "1"), label("a", "1")]);
        assert_eq!(twice.expect_err("twice"), "--label a: it is there twice");
        // A line is `a = "…"` and its end; before it are the table's, the manager's and the token's.
        let room = PROVISION_FILE_BYTES_MAX - "manager = \"m\"\ntoken = \"t\"\n[labels]\na = \"\"\n".len();
        let size = |bytes: usize| Settings::new(None, vec![label("a", &"x".repeat(bytes))])?.check_size("m", "t");
        assert_eq!(size(room), Ok(()));
        assert!(size(room + 1).is_err_and(|fault| fault.contains("more than 16 KiB")));
        let board = include_str!("../../../../images/files/usr/lib/racimo/board.sh");
        assert!(board.contains(&format!("\nfile_max={PROVISION_FILE_BYTES_MAX}\n")));
    }

    #[test]
    fn addresses_that_no_board_can_dial() {
        for address in ["", "0.0.0.0:2377", "127.0.0.1:2377", "[::]:2377", "[::1]:2377", "localhost:2377"] {
            assert!(!is_reachable(address), "{address}");
        }
        for address in ["192.168.1.10:2377", "pi.local", "[fd00::1]:2377", "pi.local:2377"] {
            assert!(is_reachable(address), "{address}");
        }
    }
}
