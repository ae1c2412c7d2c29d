//! Processes of a lab: started detached, known by pid and start time.
//!
//! A pid alone may belong to somebody else after a while; pid and start time
//! together name one process for as long as the machine runs, so that we only
//! ever signal what we started.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a started program may take to write its pid.
const START_MAX: Duration = Duration::from_secs(10);

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its pid in this machine's pid namespace.
    pub(crate) pid: u32,
    /// Its start in clock ticks since boot.
    start: u64,
}

impl Process {
    /// This process itself.
    pub(crate) fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The living process with this pid.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat).map(|start| Self { pid, start })
    }

    /// Reads a pid file written by [`start`]; `None` when there is none or its
    /// process has ended.
    pub(crate) fn from_file(path: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    /// The living process of `PID START`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pid, start) = text.trim().split_once(' ')?;
        let process = Self { pid: pid.parse().ok()?, start: start.parse().ok()? };
        process.alive().then_some(process)
    }

    /// Is it still this process, and running?
    pub(crate) fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// SIGKILL, then waits until it is gone.
    pub(crate) fn kill(self) -> Result<()> {
        if self.alive() {
            signal(self.pid, Signal::KILL)?;
        }
        wait_for("a killed process to end", Duration::from_secs(10), || Ok((!self.alive()).then_some(())))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start)
    }
}

/// The start time in `/proc/PID/stat`; `None` for a zombie, which is dead for
/// every purpose here.
fn parse_stat(stat: &str) -> Option<u64> {
    // The name in parentheses may hold spaces and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Sends a signal; a process that has ended meanwhile is no error.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        bail!("pid {pid} is out of range");
    };
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("signal process {}", pid.as_raw_nonzero())),
    }
}

/// A program to start.
pub(crate) struct Start<'a> {
    /// Directory of the cgroup it belongs to; its children inherit it.
    pub(crate) group: &'a Path,
    /// Network namespace it runs in.
    pub(crate) netns: &'a str,
    /// Gets `PID START`.
    pub(crate) pid_file: &'a Path,
    /// Gets both output streams, appended.
    pub(crate) log: &'a Path,
    /// The program and its arguments.
    pub(crate) argv: &'a [String],
}

/// Starts a program in the background and returns once it runs.
///
/// The program is nobody's child here (`setsid --fork`), so that it outlives
/// the tool and leaves no zombie. Only its network namespace is changed:
/// `ip netns exec` would also hide the cgroups from it by a fresh `/sys`.
/// Mounts stay visible to this machine on purpose; [`super::disk`] undoes them.
pub(crate) fn start(start: &Start<'_>) -> Result<Process> {
    const SCRIPT: &str = r#"
        echo $$ >"$LAB_GROUP/cgroup.procs" &&
        echo $$ >"$LAB_PID_FILE.new" && mv "$LAB_PID_FILE.new" "$LAB_PID_FILE" &&
        exec nsenter --net="/run/netns/$LAB_NETNS" -- env -u LAB_GROUP -u LAB_PID_FILE -u LAB_NETNS -u LAB_LOG "$@" \
            >>"$LAB_LOG" 2>&1
    "#;
    // Assignments for `env` may come before it.
    let program = start.argv.iter().find(|word| !word.contains('=')).context("no program to start")?;
    let _ = fs::remove_file(start.pid_file);
    let mut command = Command::new("setsid");
    command
        .args(["--fork", "sh", "-c", SCRIPT, "sh"])
        .args(start.argv)
        .env_clear()
        .envs(environment())
        .env("LAB_GROUP", start.group)
        .env("LAB_PID_FILE", start.pid_file)
        .env("LAB_NETNS", start.netns)
        .env("LAB_LOG", start.log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = command.status().context("run setsid (package util-linux)")?;
    ensure!(status.success(), "setsid {program}: {status}");

    let what = format!("{program} to start (its output: {})", start.log.display());
    let pid: u32 = wait_for(&what, START_MAX, || {
        let text = fs::read_to_string(start.pid_file).unwrap_or_default();
        Ok(text.trim().parse().ok())
    })?;
    let Some(process) = Process::of(pid) else {
        bail!("{program} ended at once\n{}", log_tail(start.log));
    };
    fs::write(start.pid_file, format!("{process}\n")).with_context(|| format!("write {}", start.pid_file.display()))?;
    Ok(process)
}

/// What a board's programs see: nothing of the user's own Racimo settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    const KEPT: [&str; 4] = ["HOME", "RUST_BACKTRACE", "RUST_LOG", "RACIMO_LOG"];
    let path = std::env::var("PATH").unwrap_or_default();
    KEPT.iter()
        .filter_map(|&name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .chain([("PATH".to_owned(), format!("{path}:/usr/sbin:/sbin"))])
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// Names the command and what it said when it fails.
pub(crate) fn run(argv: &[&str]) -> Result<String> {
    let (program, arguments) = argv.split_first().context("no program to run")?;
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", argv.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks `ready` until it gives something.
///
/// # Errors
/// After `limit`, with `what` was waited for; or the first error of `ready`.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = ready()? {
            return Ok(found);
        }
        ensure!(begin.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a log, for error messages.
pub(crate) fn log_tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or(&[]);
    format!("--- end of {}\n{}", log.display(), tail.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stat: &str, expected: Option<u64>) {
        assert_eq!(parse_stat(stat), expected, "{stat}");
    }

    #[test]
    fn stat_lines() {
        let rest = "1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        check(&format!("5 (sh) S {rest}"), Some(777));
        check(&format!("5 (a) b (c) R {rest}"), Some(777));
        check(&format!("5 (sh) Z {rest}"), None);
        check("5 (sh) S 1", None);
        check("", None);
    }

    #[test]
    fn this_process_is_alive_and_no_other_is_taken_for_it() {
        let me = Process::of(std::process::id()).expect("we run");
        assert!(me.alive());
        let other = Process { start: me.start + 1, ..me };
        assert!(!other.alive());
    }
}
