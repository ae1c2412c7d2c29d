//! Runs scripts on a board through the system's `ssh`.
//!
//! One connection is opened first, and every script goes through it, so that a person types a password or passphrase
//! once. Who the board is, and how we prove who we are, are ssh's own affair, with the user's configuration and
//! `known_hosts`. A script travels on the command line, so nothing secret may be in it; data goes by standard input.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt as _, future};
use zeroize::Zeroizing;

use super::super::limits::{
    PROVISION_CONNECT_MAX, PROVISION_OUTPUT_MAX, PROVISION_SHOWN_LINES_MAX, PROVISION_STEP_MAX,
};

/// ssh's own exit code; what runs on the board has others.
const SSH_FAILED: i32 = 255;
/// What a shell adds to the number of the signal that ended a process.
const BY_SIGNAL: i32 = 128;
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Whom to connect to, in ssh's terms.
#[derive(Clone, Debug, Default)]
pub(super) struct Destination {
    /// `[USER@]HOST`, an alias of ssh's configuration, or `ssh://…`.
    pub(super) name: String,
    /// Private key.
    pub(super) identity: Option<PathBuf>,
    /// TCP port.
    pub(super) port: Option<u16>,
    /// ssh's configuration file, in place of the user's.
    pub(super) config: Option<PathBuf>,
}

impl Destination {
    /// What every call of ssh gets.
    fn options(&self) -> Vec<String> {
        let mut options: Vec<String> = ["-T", "-a", "-x"].map(str::to_owned).into();
        for option in [
            "ClearAllForwardings=yes".to_owned(),
            "RemoteCommand=none".to_owned(),
            "PermitLocalCommand=no".to_owned(),
            format!("ConnectTimeout={}", PROVISION_CONNECT_MAX.as_secs()),
            // A board that went away is noticed after a minute.
            "ServerAliveInterval=15".to_owned(),
            "ServerAliveCountMax=4".to_owned(),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        let path = |path: &Path| path.display().to_string();
        options.extend(self.config.iter().flat_map(|file| ["-F".to_owned(), path(file)]));
        options.extend(self.identity.iter().flat_map(|file| ["-i".to_owned(), path(file)]));
        options.extend(self.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        options
    }
}

/// Why something on the board did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum SshError {
    /// No `ssh` on this machine.
    #[error("cannot run ssh: {0}. Is OpenSSH's client installed?")]
    NoSsh(io::Error),
    /// ssh could not connect, or lost the connection; its own words.
    #[error("{0}")]
    Connection(String),
    /// The script failed; the last it said.
    #[error("{0}")]
    Script(String),
    /// It took too long.
    #[error("it took more than {} minutes\n{said}", .time.as_secs() / 60)]
    TooLong {
        /// How long it could have taken.
        time: Duration,
        /// The last it said.
        said: String,
    },
    /// This machine's own trouble.
    #[error("{0}")]
    Here(#[from] io::Error),
}

/// An open connection.
pub(super) struct Remote {
    destination: Destination,
    /// Has the connection's socket; nobody else may look into it.
    directory: PathBuf,
    master: Child,
    /// Whether scripts need sudo to be root's.
    by_sudo: bool,
}

impl Remote {
    /// Connects. ssh asks on the terminal what it has to ask.
    pub(super) fn connect(destination: Destination) -> Result<Remote, SshError> {
        let directory = std::env::temp_dir().join(format!("racimo-{:016x}", fastrand::u64(..)));
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        tidy_up_at_a_signal(directory.clone());
        let said = File::create(directory.join("said"));
        let master = said.and_then(|said| {
            Command::new("ssh")
                .args(destination.options())
                .args(["-o", "ControlPersist=no", "-M", "-S"])
                .arg(directory.join("s"))
                // It ends with its input, which is ours: however we end, the connection does not stay.
                .args(["--", &destination.name, "cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(said)
                .spawn()
        });
        let master = master.map_err(|error| {
            let _ = fs::remove_dir_all(&directory);
            SshError::NoSsh(error)
        })?;
        let mut remote = Remote { destination, directory, master, by_sudo: false };
        // As long as ssh waits for somebody to type, so do we.
        while !remote.directory.join("s").exists() {
            if remote.master.try_wait()?.is_some() {
                return Err(SshError::Connection(remote.complaint("said")));
            }
            thread::sleep(LOOK);
        }
        Ok(remote)
    }

    /// From now on scripts for root are run by sudo, which asks for no password.
    pub(super) fn by_sudo(&mut self, by_sudo: bool) {
        self.by_sudo = by_sudo;
    }

    /// Runs a script as the user who logs in; what it prints.
    pub(super) fn look(&self, script: &str, arguments: &[&str]) -> Result<String, SshError> {
        self.run(&command(false, script, arguments), Zeroizing::default())
    }

    /// Runs a script as root; what it prints. `input` is its standard input, and may be secret.
    pub(super) fn act(&self, script: &str, arguments: &[&str], input: Zeroizing<Vec<u8>>) -> Result<String, SshError> {
        self.run(&command(self.by_sudo, script, arguments), input)
    }

    fn run(&self, command: &str, input: Zeroizing<Vec<u8>>) -> Result<String, SshError> {
        let mut child = Command::new("ssh")
            .args(self.destination.options())
            .args(["-o", "ControlMaster=no", "-S"])
            .arg(self.directory.join("s"))
            .args(["--", &self.destination.name, command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(self.directory.join("complaint"))?)
            .spawn()
            .map_err(SshError::NoSsh)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let writer = thread::spawn(move || {
            // A script that fails before it has read all says itself why.
            let _ = stdin.map(|mut stdin| stdin.write_all(&input));
        });
        let reader = thread::spawn(move || stdout.map_or_else(Vec::new, |stdout| tail(stdout, PROVISION_OUTPUT_MAX)));
        let status = end(&mut child, PROVISION_STEP_MAX)?;
        let join = |_| io::Error::other("a thread ended early");
        let said = reader.join().map_err(join)?;
        writer.join().map_err(join)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let shown = || last_lines(&format!("{said}\n{}", self.complaint("complaint")));
        match status.map(|status| status.code()) {
            None => Err(SshError::TooLong { time: PROVISION_STEP_MAX, said: shown() }),
            Some(Some(0)) => Ok(said),
            Some(Some(SSH_FAILED)) => Err(SshError::Connection(shown())),
            Some(_) => Err(SshError::Script(shown())),
        }
    }

    /// What ssh complained about.
    fn complaint(&self, file: &str) -> String {
        let text =
            File::open(self.directory.join(file)).map(|file| tail(file, PROVISION_OUTPUT_MAX)).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&text))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.master.kill();
        let _ = self.master.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// `nohup` asks for that; a handler would take it back.
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Who is told to end leaves nothing here either. ssh ends with us.
fn tidy_up_at_a_signal(directory: PathBuf) {
    let ends = [Some(Signal::Int), Some(Signal::Term), (!ignores_hangups()).then_some(Signal::Hup)];
    let Ok(mut signals) = Signals::new(ends.into_iter().flatten()) else { return };
    // The thread ends with the process.
    thread::spawn(move || {
        if let Some(Ok(signal)) = future::block_on(signals.next()) {
            // It is gone already if the connection is.
            let _ = fs::remove_dir_all(directory);
            std::process::exit(BY_SIGNAL + signal as i32);
        }
    });
}

/// Waits for the end of a process; `None`: it was killed, as it took too long.
fn end(child: &mut Child, time_max: Duration) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > time_max {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// The line that the board's login shell gets.
fn command(by_sudo: bool, script: &str, arguments: &[&str]) -> String {
    let mut words = if by_sudo { vec!["sudo".to_owned(), "-n".to_owned()] } else { Vec::new() };
    words.extend(["sh".to_owned(), "-c".to_owned(), quote(script), "racimo".to_owned()]);
    words.extend(arguments.iter().map(|argument| quote(argument)));
    words.join(" ")
}

/// One word for any shell of the Bourne family, and fish.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Reads to the end, and keeps the last bytes.
fn tail(mut from: impl Read, bytes_max: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * bytes_max {
            kept.drain(..kept.len() - bytes_max);
        }
    }
    kept.drain(..kept.len().saturating_sub(bytes_max));
    kept
}

/// The end of what was said, fit to be shown: no empty lines, nothing that a terminal would obey.
fn last_lines(text: &str) -> String {
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(PROVISION_SHOWN_LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_reach_the_shell_as_they_are() {
        let script = "printf '%s|' \"$0\" \"$@\"; cat";
        let line = command(false, script, &["it's", "a  b", "$HOME", ""]);
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        child.stdin.take().expect("a pipe").write_all(b"data").expect("it reads");
        let output = child.wait_with_output().expect("its end");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "racimo|it's|a  b|$HOME||data");
        assert!(command(true, "x", &[]).starts_with("sudo -n sh -c 'x'"));
    }

    #[test]
    fn only_the_end_is_kept() {
        let long: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(tail(&*long, 100), long[long.len() - 100..]);
        assert_eq!(tail(&b"short"[..], 100), b"short");
        assert!(tail(&b""[..], 100).is_empty());
    }

    #[test]
    fn what_is_shown_is_harmless() {
        assert_eq!(last_lines("a\r\n\n  \n\u{1b}[2Jb\n"), "a\n[2Jb");
        let many = (0..50).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(last_lines(&many).lines().count(), PROVISION_SHOWN_LINES_MAX);
        assert!(last_lines(&many).ends_with("\n49"));
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let mut child = Command::new("sleep").arg("100").spawn().expect("sleep");
        assert!(end(&mut child, Duration::from_millis(50)).expect("it can be killed").is_none());
    }

    #[test]
    fn ssh_gets_what_was_asked_for() {
        let destination = Destination {
            name: "pi@board".to_owned(),
            identity: Some("/k".into()),
            port: Some(2222),
            config: Some("/c".into()),
        };
        let line = destination.options().join(" ");
        assert!(line.ends_with("-F /c -i /k -p 2222"), "{line}");
        assert!(!line.contains("StrictHostKeyChecking") && !line.contains("KnownHosts"), "{line}");
    }
}
