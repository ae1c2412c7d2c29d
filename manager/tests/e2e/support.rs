//! The docker CLI as a client, cases that run beside each other, and a look into containers.

use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{Row, SOON, get, live, picture, tasks, wait};
use crate::lab::Lab;

/// Cases at once: they mostly wait, for tasks and for docker's five seconds of proof.
const CASES_AT_ONCE: usize = 8;

/// One case: its name, and what it does. It uses services of its own.
pub(crate) type Case = (&'static str, fn(&Lab) -> Result<()>);

/// Runs cases beside each other on one lab.
#[track_caller]
pub(crate) fn all(lab: &Lab, cases: &[Case]) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..CASES_AT_ONCE.min(cases.len()) {
            scope.spawn(|| {
                while let Some((name, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let why = match catch_unwind(AssertUnwindSafe(|| case(lab))) {
                        Ok(Ok(())) => continue,
                        Ok(Err(error)) => format!("{name}: {error:#}"),
                        Err(_) => format!("{name}: panicked, see above"),
                    };
                    failed.lock().expect("no panic holds it").push(why);
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic holds it");
    assert!(
        failed.is_empty(),
        "{} of {} cases failed:\n{}\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n"),
        picture(lab)
    );
}

/// Fails unless a text has this in it.
#[track_caller]
pub(crate) fn has(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "expected {wanted:?} in:\n{text}");
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// What it printed, if it succeeded.
    pub(crate) fn good(self) -> Result<String> {
        ensure!(self.code == Some(0), "failed: {self:?}");
        Ok(self.out)
    }

    /// The exit code and what it complained about, if it did.
    pub(crate) fn bad(self) -> Result<(i32, String)> {
        let code = self.code.context("killed: no answer in time")?;
        ensure!(code != 0 && code != 124, "expected a refusal: {self:?}");
        Ok((code, format!("{}{}", self.err, self.out)))
    }
}

/// A tool with its arguments, and what is typed into it; for two minutes at most.
fn tool(lab: &Lab, program: &str, arguments: &[&str], typed: Option<&str>) -> Result<Said> {
    let socket = format!("unix://{}", lab.manager().socket().display());
    let mut child = Command::new("timeout")
        .args(["120", program])
        .args(arguments)
        .env("DOCKER_HOST", &socket)
        .env("RACIMO_HOST", &socket)
        .env("DOCKER_CONFIG", lab.directory.join("docker-config"))
        .stdin(if typed.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    if let (Some(mut stdin), Some(typed)) = (child.stdin.take(), typed) {
        // It may have no use for it.
        let _ = stdin.write_all(typed.as_bytes());
    }
    Ok(Said::of(&child.wait_with_output()?))
}

/// Runs a command to its end.
pub(crate) fn said(command: &mut Command) -> Result<Said> {
    Ok(Said::of(&command.output()?))
}

/// The real docker CLI.
pub(crate) fn docker(lab: &Lab, arguments: &[&str]) -> Result<Said> {
    tool(lab, "docker", arguments, None)
}

/// The real docker CLI, with something typed into it.
pub(crate) fn docker_typing(lab: &Lab, typed: &str, arguments: &[&str]) -> Result<Said> {
    tool(lab, "docker", arguments, Some(typed))
}

/// `pi-mgr`.
pub(crate) fn pi_mgr(lab: &Lab, arguments: &[&str]) -> Result<Said> {
    tool(lab, &pi_mgr_path()?, arguments, None)
}

/// `pi-mgr`, with one more `NAME=VALUE` in its environment.
pub(crate) fn pi_mgr_with(lab: &Lab, variable: &str, arguments: &[&str]) -> Result<Said> {
    tool(lab, "env", &[&[variable, &pi_mgr_path()?], arguments].concat(), None)
}

/// `pi-mgr`, with something typed into it.
pub(crate) fn pi_mgr_typing(lab: &Lab, typed: &str, arguments: &[&str]) -> Result<Said> {
    tool(lab, &pi_mgr_path()?, arguments, Some(typed))
}

pub(crate) fn pi_mgr_path() -> Result<String> {
    Ok(crate::lab::require::bin_dir()?.join("pi-mgr").to_string_lossy().into_owned())
}

/// The lab's busybox.
pub(crate) fn busybox(lab: &Lab) -> String {
    format!("{}/busybox:latest", lab.registry().host())
}

/// `docker service create` in the background: options of this case, then busybox with a command.
pub(crate) fn create(lab: &Lab, name: &str, options: &[&str], command: &[&str]) -> Result<()> {
    let image = busybox(lab);
    let line = [&["service", "create", "-d", "-q", "--name", name], options, &[&image], command].concat();
    docker(lab, &line)?.good().map(drop).with_context(|| format!("create {name} {options:?}"))
}

/// `docker service rm`.
pub(crate) fn remove(lab: &Lab, names: &[&str]) -> Result<()> {
    docker(lab, &[&["service", "rm"], names].concat())?.good().map(drop)
}

/// Waits until so many tasks of a service run.
#[track_caller]
pub(crate) fn running(lab: &Lab, service: &str, count: usize) -> Vec<Row> {
    wait(lab, &format!("{count} tasks of {service} to run"), SOON, || {
        Ok(Some(live(lab, service)?).filter(|rows| rows.len() == count))
    })
}

/// Waits until a task of a service is in a state, and gives it.
#[track_caller]
pub(crate) fn reached(lab: &Lab, service: &str, states: &[&str]) -> Row {
    wait(lab, &format!("a task of {service} to be {states:?}"), SOON, || {
        Ok(tasks(lab, service)?.into_iter().find(|row| states.contains(&row.state.as_str())))
    })
}

/// A container that runs, seen from outside.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) board: u8,
    pub(crate) task: String,
    pub(crate) pid: u64,
}

impl Inside {
    /// The container of a service's one task.
    #[track_caller]
    pub(crate) fn of(lab: &Lab, service: &str) -> Result<Self> {
        let rows = running(lab, service, 1);
        let row = rows.into_iter().next().context("one task")?;
        let task = get(lab, &format!("/tasks/{}", row.id))?;
        let pid = task["Status"]["ContainerStatus"]["PID"].as_u64().context("no PID in the task")?;
        let inside = Self { board: row.board, task: row.id, pid };
        // For a moment after the start it is still the runtime's own program.
        wait(lab, "the container's program", SOON, || {
            Ok((!inside.process("cmdline")?.ends_with("runc\ninit\n")).then_some(()))
        });
        Ok(inside)
    }

    fn proc(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.pid))
    }

    /// One of its process's files in `/proc`, lines for NULs.
    pub(crate) fn process(&self, what: &str) -> Result<String> {
        let path = self.proc(what);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.replace('\0', "\n"))
    }

    /// Its working directory.
    pub(crate) fn cwd(&self) -> Result<String> {
        Ok(fs::read_link(self.proc("cwd"))?.display().to_string())
    }

    /// A mount's line in `mountinfo`.
    pub(crate) fn mount(&self, target: &str) -> Result<String> {
        let all = self.process("mountinfo")?;
        let found = all.lines().find(|line| line.split(' ').nth(4) == Some(target));
        found.map(str::to_owned).with_context(|| format!("nothing is mounted at {target}:\n{all}"))
    }

    /// Runs a program of this machine in some of its namespaces.
    pub(crate) fn enter(&self, namespaces: &[&str], command: &[&str]) -> Result<String> {
        let pid = self.pid.to_string();
        crate::lab::process::run(&[&["nsenter", "-t", &pid], namespaces, command].concat())
    }

    /// A value of its cgroup: the controller and file of version 1, the file of version 2.
    pub(crate) fn cgroup(&self, controller: &str, v1: &str, v2: &str) -> Result<String> {
        let groups = self.process("cgroup")?;
        let own = |wanted: &str| {
            groups.lines().find_map(|line| {
                let (names, path) = line.split_once(':')?.1.split_once(':')?;
                names.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let file = match own(controller) {
            Some(path) => PathBuf::from("/sys/fs/cgroup").join(controller).join(path).join(v1),
            None => PathBuf::from("/sys/fs/cgroup").join(own("").context("no cgroup")?).join(v2),
        };
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }
}

/// What `docker service inspect` shows.
pub(crate) fn inspect(lab: &Lab, service: &str) -> Result<Value> {
    get(lab, &format!("/services/{service}"))
}
