//! The running side of a container: its first process, from the moment it is wanted until its
//! exit code has been read.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use containerd_client::{
    services::v1::{
        CreateTaskRequest, DeleteTaskRequest, GetContainerRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
        containers_client::ContainersClient,
        snapshots::{MountsRequest, snapshots_client::SnapshotsClient},
        tasks_client::TasksClient,
    },
    types::v1::{Process, Status as ProcessStatus},
};
use racimo_common::{id::TaskId, signal::SIGKILL, time::Wall};
use smol::Timer;
use tonic::{Code, Status};

use super::{
    Runtime, RuntimeError, SNAPSHOTTER, cgroup,
    ctrd::{Ctrd, CtrdError, any, request, unless, within},
    label, mount,
    streams::{self, Streams},
};
use crate::limits;

const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";
/// Pause before an operation is repeated that met a shim on its way out.
const SHIM_RETRY: Duration = Duration::from_millis(200);

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is a container that was never started, made since the board was.
    Made,
    /// There is a container but nothing runs: the board was rebooted, or its shim was killed and the container with it.
    Lost,
    /// Its first process runs.
    Running {
        /// On the board.
        pid: u32,
    },
    /// Its first process has ended.
    Ended {
        /// Exit code; 128 and the signal's number if a signal ended it.
        status: u32,
        /// By the board's clock; zero if containerd does not know.
        at: Wall,
        /// Whether the kernel killed a process in it for memory.
        oom: bool,
    },
    /// containerd cannot reach the shim. It will either answer again or be found dead.
    Unknown,
}

/// `containerd.runc.v1.Options`; containerd-client does not have it.
#[derive(Clone, PartialEq, prost::Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
}

impl Runtime {
    /// Starts a container that was made. Answers its process id; a running one is left alone.
    ///
    /// Fails with [`RuntimeError::Ended`] if it has run already: a task runs once.
    pub async fn start(&self, task: TaskId) -> Result<u32, RuntimeError> {
        let ctrd = self.connect().await?;
        let id = task.to_string();
        let pid = match self.process(&ctrd, &id).await? {
            None => self.make_process(&ctrd, task).await?,
            Some(process) => match process.status() {
                ProcessStatus::Created => process.pid,
                ProcessStatus::Stopped => return Err(RuntimeError::Ended { task }),
                ProcessStatus::Running | ProcessStatus::Paused | ProcessStatus::Pausing | ProcessStatus::Unknown => {
                    return Ok(process.pid);
                }
            },
        };
        // From here on it may have run. The disk need not have it at once: after a loss of power the boot is another.
        let mark = self.started_mark(task);
        std::fs::write(&mark, "").map_err(RuntimeError::io("write the mark", mark))?;
        let message = StartRequest { container_id: id, exec_id: String::new() };
        let mut tasks = TasksClient::new(ctrd);
        within(limits::CTRD_CALL_MAX, tasks.start(request(message, None)))
            .await
            .map_err(CtrdError::call("start the container"))?;
        Ok(pid)
    }

    /// Makes the runtime's side of a container: its namespaces, mounts and waiting first process.
    async fn make_process(&self, ctrd: &Ctrd, task: TaskId) -> Result<u32, RuntimeError> {
        let id = task.to_string();
        let message = MountsRequest { snapshotter: SNAPSHOTTER.into(), key: id.clone() };
        let mut snapshots = SnapshotsClient::new(ctrd.clone());
        let rootfs = within(limits::CTRD_CALL_MAX, snapshots.mounts(request(message, None)))
            .await
            .map_err(CtrdError::call("find the container's root file system"))?
            .into_inner()
            .mounts;
        let labels = labels(ctrd, &id).await?;
        if self.idle_phase(task, &labels) == Phase::Lost {
            return Err(RuntimeError::Ended { task });
        }
        let streams = label::read_streams(&labels);
        let stdout = self.output(task, label::read_log(&labels), streams);
        // Empty: the kernel's null device. A terminal has one output.
        let stderr = if streams == Streams::Terminal { String::new() } else { stdout.clone() };
        let message = CreateTaskRequest {
            container_id: id,
            rootfs,
            stdout,
            stderr,
            terminal: streams == Streams::Terminal,
            options: Some(self.runc_options(task, streams)),
            ..CreateTaskRequest::default()
        };
        let _turn = self.turn(task).await;
        let created = again_if_shim_left(async || {
            let mut tasks = TasksClient::new(ctrd.clone());
            within(limits::CTRD_CALL_MAX, tasks.create(request(message.clone(), None))).await
        })
        .await;
        Ok(created.map_err(CtrdError::call("create the container's process"))?.into_inner().pid)
    }

    /// Sends a signal to the container's first process; one that has ended gets none.
    ///
    /// Fails with [`RuntimeError::NotSignalled`] if containerd did not find one that it says runs.
    pub async fn kill(&self, task: TaskId, signal: u32) -> Result<(), RuntimeError> {
        let ctrd = self.connect().await?;
        let id = task.to_string();
        if kill(&ctrd, id.clone(), signal).await? {
            return Ok(());
        }
        let process = self.process(&ctrd, &id).await?;
        let runs = process.is_some_and(|process| matches!(self.phase(&process), Phase::Running { .. }));
        if runs { Err(RuntimeError::NotSignalled { task }) } else { Ok(()) }
    }

    /// Kills and removes the process; the container and its files stay.
    pub(super) async fn delete_process(&self, ctrd: &Ctrd, task: TaskId, id: &str) -> Result<(), RuntimeError> {
        let Some(process) = self.process(ctrd, id).await? else { return Ok(()) };
        let mut tasks = TasksClient::new(ctrd.clone());
        if process.status() != ProcessStatus::Stopped {
            kill(ctrd, id.to_owned(), SIGKILL).await?;
            let message = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
            let call = within(limits::KILL_WAIT_MAX, tasks.wait(request(message, None)));
            unless(Code::NotFound, call.await).map_err(CtrdError::call("see the killed process end"))?;
        }
        let _turn = self.turn(task).await;
        let deleted = again_if_shim_left(async || {
            let message = DeleteTaskRequest { container_id: id.to_owned() };
            let mut tasks = TasksClient::new(ctrd.clone());
            within(limits::CTRD_CALL_MAX, tasks.delete(request(message, None))).await
        })
        .await;
        unless(Code::NotFound, deleted).map_err(CtrdError::call("delete the container's process"))?;
        Ok(())
    }

    pub(super) async fn process(&self, ctrd: &Ctrd, id: &str) -> Result<Option<Process>, CtrdError> {
        let message = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        let mut tasks = TasksClient::new(ctrd.clone());
        let got = within(limits::CTRD_CALL_MAX, tasks.get(request(message, None))).await;
        let got = unless(Code::NotFound, got).map_err(CtrdError::call("find the container's process"))?;
        Ok(got.and_then(|response| response.into_inner().process))
    }

    /// How far a container is that has no process.
    pub(super) fn idle_phase(&self, task: TaskId, labels: &HashMap<String, String>) -> Phase {
        let is_fresh = label::is_of_boot(labels, self.boot()) && !self.started_mark(task).exists();
        if is_fresh { Phase::Made } else { Phase::Lost }
    }

    /// A file that is there once a task's container may have been started.
    fn started_mark(&self, task: TaskId) -> PathBuf {
        mount::task_dir(self.data(), task).join("started")
    }

    pub(super) fn phase(&self, process: &Process) -> Phase {
        match process.status() {
            ProcessStatus::Created => Phase::Made,
            ProcessStatus::Running | ProcessStatus::Paused | ProcessStatus::Pausing => {
                Phase::Running { pid: process.pid }
            }
            ProcessStatus::Stopped => Phase::Ended {
                status: process.exit_status,
                at: process.exited_at.map_or(Wall::default(), wall),
                oom: cgroup::oom_killed(self.root(), &process.id),
            },
            ProcessStatus::Unknown => Phase::Unknown,
        }
    }

    /// Whether the kernel has killed a process of this task's container for memory.
    pub(super) fn oom_killed(&self, task: TaskId) -> bool {
        cgroup::oom_killed(self.root(), &task.to_string())
    }

    /// containerd's options: the OCI runtime, or what stands for it.
    pub(super) fn runc_options(&self, task: TaskId, streams: Streams) -> prost_types::Any {
        let binary = match streams {
            Streams::OpenInput => streams::runtime_in(&mount::task_dir(self.data(), task)),
            Streams::Plain | Streams::Terminal => self.binary().to_owned(),
        };
        any(OPTIONS_TYPE, &RuncOptions { binary_name: binary.to_string_lossy().into_owned() })
    }
}

/// The container's labels.
async fn labels(ctrd: &Ctrd, id: &str) -> Result<HashMap<String, String>, CtrdError> {
    let message = GetContainerRequest { id: id.to_owned() };
    let mut containers = ContainersClient::new(ctrd.clone());
    let got = within(limits::CTRD_CALL_MAX, containers.get(request(message, None))).await;
    let got = got.map_err(CtrdError::call("find the container"))?.into_inner();
    Ok(got.container.map(|container| container.labels).unwrap_or_default())
}

/// containerd's time as ours; out of range saturates.
pub(super) fn wall(stamp: prost_types::Timestamp) -> Wall {
    let nanos = stamp.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(stamp.nanos));
    Wall::from_nanos(nanos)
}

/// Answers whether there was a process to signal.
async fn kill(ctrd: &Ctrd, id: String, signal: u32) -> Result<bool, CtrdError> {
    let message = KillRequest { container_id: id, signal, ..KillRequest::default() };
    let mut tasks = TasksClient::new(ctrd.clone());
    let call = within(limits::CTRD_CALL_MAX, tasks.kill(request(message, None)));
    let answer = unless(Code::NotFound, call.await).map_err(CtrdError::call("signal the container"))?;
    Ok(answer.is_some())
}

/// The last container of a group takes the shim with it; who comes just then meets a closed
/// connection and gets a new shim on the second try.
async fn again_if_shim_left<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    match call().await {
        Err(status) if status.message().contains("ttrpc: closed") => {
            Timer::after(SHIM_RETRY).await;
            call().await
        }
        first => first,
    }
}
