//! A task's container, from nothing to nothing. Every operation may be repeated: it makes sure of
//! its result and finds what an earlier try left behind.
//!
//! ```text
//! create ─▶ Made ─ start ─▶ Running ─ kill, or by itself ─▶ Ended ─ delete ─▶ (gone)
//!             │                └─ board rebooted, or shim killed ─▶ Lost ─ delete ─▶ (gone)
//!             └─ board rebooted ─▶ Lost
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateRequest, DeleteContainerRequest, DeleteRequest, GetContainerRequest,
        ListContainersRequest, ListRequest, ListTasksRequest,
        container::Runtime as RuntimeHandler,
        containers_client::ContainersClient,
        leases_client::LeasesClient,
        snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, snapshots_client::SnapshotsClient},
        tasks_client::TasksClient,
    },
    types::Mount as RootMount,
};
use racimo_common::{
    id::{NodeId, TaskId},
    object::ISOLATE_SHIM_LABEL,
    wire::Work,
};
use smol::{Timer, lock::SemaphoreGuard};
use tonic::Code;

use super::{
    Runtime, RuntimeError, SNAPSHOTTER,
    ctrd::{Ctrd, CtrdError, request, unless, within},
    files::{self, FileError},
    image::Image,
    label::{self, Kept},
    mount, probe,
    process::Phase,
    resolver, rootfs, spec,
    streams::{self, Streams},
    user,
};
use crate::health::{self, Check, Watch};
use crate::{limits, weight};

const HANDLER: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const EXPIRE_LABEL: &str = "containerd.io/gc.expire";
const LEASE_PREFIX: &str = "task-";
/// A lease only bridges the moments of a creation and is deleted after it, or with the task.
/// A fixed far date, because a board's clock may be decades off and jump at any time.
const EXPIRE: &str = "2100-01-01T00:00:00Z";

/// Everything that is needed to make a container.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The task; its id becomes the container's.
    pub task: TaskId,
    /// What it shall run.
    pub work: &'a Work,
    /// The image, already on the board.
    pub image: &'a Image,
    /// This board.
    pub node: NodeId,
    /// This board's host name.
    pub hostname: &'a str,
}

/// A container that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its task.
    pub task: TaskId,
    /// How far it is.
    pub phase: Phase,
    /// What was noted when it was made; none if somebody else made it: delete it.
    pub kept: Option<Kept>,
    /// Its health, if that is checked.
    pub health: Option<Watch>,
    /// Its image's name in containerd.
    pub image: String,
}

impl Runtime {
    /// Makes the container and its root file system. Nothing runs yet.
    ///
    /// Whatever can be refused is refused before anything is touched; if a later step fails, what
    /// was made is removed again. Answers how its health is to be checked, if it is.
    pub async fn create(&self, job: &Job<'_>) -> Result<Option<Check>, RuntimeError> {
        let container = &job.work.container;
        let mounts = mount::plan(&container.mounts, self.data(), job.task)?;
        if mounts.iter().any(mount::Bound::is_bind) {
            self.check_sources(mounts.clone(), limits::SOURCES_MAX).await?;
        }
        let kept = Kept {
            group: self.group(job.task),
            stop_signal: spec::stop_signal(container, &job.image.run)?,
            stop_grace: container.stop_grace(),
            lease: job.work.offline.lease(),
        };
        spec::check(container, &job.work.resources, self.cgroups(), self.confine())?;
        resolver::check(&container.hosts, &container.dns)?;
        let init = container.init.unwrap_or_default();
        let init = init.then(|| self.init()).transpose().map_err(spec::BadSpec::from)?;
        let _heavy = self.heavy_turn(weight::of(job.work)).await;
        let turn = self.make_turn().await;
        let files = self.bodies().place(job.task, &job.work.files);
        let mounts = files.map_err(RuntimeError::from).and_then(|files| Ok(mount::with_files(mounts, files)?));
        let mounts = mounts.inspect_err(|_| self.bodies().remove(job.task))?;
        // In a box: whoever waits for the turn should not hold the memory for it.
        let made = Box::pin(self.make(job, &mounts, &kept, init.as_deref(), turn)).await;
        match &made {
            // With containerd away nothing can be undone; the task is tried again or deleted.
            Err(error) if !error.is_lost() => {
                if let Err(undo) = Box::pin(self.delete(job.task)).await {
                    log::warn!("task {}: cannot remove what a failed creation left: {undo}", job.task);
                }
            }
            Ok(_) | Err(_) => {}
        }
        made
    }

    /// Checks that what is bound is there. On another thread, because a network disk that is away lets nobody
    /// look; and one at a time, because such a look keeps its thread, of which there are few.
    async fn check_sources(&self, mounts: Vec<mount::Bound>, limit: Duration) -> Result<(), mount::BadMount> {
        let checked = async {
            let turn = self.source_turn().await;
            let check = move || {
                let _turn = turn;
                files::check_sources(&mounts)
            };
            smol::unblock(check).await
        };
        let late = async {
            Timer::after(limit).await;
            Err(mount::BadMount::SilentSource)
        };
        smol::future::or(checked, late).await
    }

    async fn make(
        &self,
        job: &Job<'_>,
        mounts: &[mount::Bound],
        kept: &Kept,
        init: Option<&Path>,
        turn: SemaphoreGuard<'_>,
    ) -> Result<Option<Check>, RuntimeError> {
        let ctrd = self.connect().await?;
        let (id, streams) = (job.task.to_string(), Streams::of(&job.work.container));
        let lease = lease_id(job.task);
        add_lease(&ctrd, &lease).await?;
        let prepared = prepare(&ctrd, &id, &job.image.chain, &lease).await;
        if prepared.as_ref().is_err_and(CtrdError::is_not_there) {
            return Err(RuntimeError::Damaged { path: job.image.chain.clone().into() });
        }
        let layers = rootfs::layers(&prepared?);
        if let Some(path) = layers.iter().find(|layer| !layer.exists()) {
            return Err(RuntimeError::Damaged { path: path.clone() });
        }
        let spec = self.write_board(job, mounts, &layers, kept, init)?;
        // It may take long, and others need none.
        drop(turn);
        self.make_volumes(mounts, layers).await?;
        let _turn = self.make_turn().await;
        let run = &job.image.run;
        let probe = health::probe(job.work.container.health.as_ref(), run.health.as_ref(), &run.shell);
        let request_body = CreateContainerRequest {
            container: Some(Container {
                id: id.clone(),
                labels: label::write(job.work, job.task, job.node, self.boot(), kept),
                image: job.image.name.clone(),
                runtime: Some(RuntimeHandler {
                    name: HANDLER.into(),
                    options: Some(self.runc_options(job.task, streams)),
                }),
                spec: Some(prost_types::Any { type_url: SPEC_TYPE.into(), value: spec }),
                snapshotter: SNAPSHOTTER.into(),
                snapshot_key: id,
                extensions: probe.iter().map(probe::keep).collect(),
                ..Container::default()
            }),
        };
        let mut containers = ContainersClient::new(ctrd.clone());
        let call = within(limits::CTRD_CALL_MAX, containers.create(request(request_body, Some(&lease))));
        unless(Code::AlreadyExists, call.await).map_err(CtrdError::call("create the container"))?;
        remove_lease(&ctrd, &lease).await?;
        Ok(probe.map(|probe| probe.check))
    }

    /// Makes the volumes that are missing. On another thread, because filling one may take a while
    /// on an SD card, and the agent must not be silent meanwhile.
    async fn make_volumes(&self, mounts: &[mount::Bound], layers: Vec<PathBuf>) -> Result<(), RuntimeError> {
        let layers = Arc::new(layers);
        let _turn = self.volume_turn().await;
        for (path, target, fill) in files::missing_volumes(mounts) {
            let (place, layers) = (path.clone(), Arc::clone(&layers));
            let made = smol::unblock(move || files::make_volume(&place, &target, fill, &layers)).await;
            made.map_err(RuntimeError::io("make the volume", path))?;
        }
        Ok(())
    }

    /// Writes what the container will see of the board, and its specification.
    fn write_board(
        &self,
        job: &Job<'_>,
        mounts: &[mount::Bound],
        layers: &[PathBuf],
        kept: &Kept,
        init: Option<&Path>,
    ) -> Result<Vec<u8>, RuntimeError> {
        let (container, run) = (&job.work.container, &job.image.run);
        let text = spec::user_text(container, run);
        let image_file = |path: &'static str, wanted: bool| {
            let read = if wanted { rootfs::read(layers, path) } else { Ok(String::new()) };
            read.map_err(RuntimeError::io("read the image's", path))
        };
        let named = user::needs_files(text);
        let group_file = image_file("/etc/group", named || user::groups_need_files(&container.groups))?;
        let mut user = user::resolve(text, &image_file("/etc/passwd", named)?, &group_file)?;
        user::add_groups(&mut user, &container.groups, &group_file)?;
        let hostname = spec::hostname(container, job.task, job.hostname);
        let dir = mount::task_dir(self.data(), job.task);
        let mut hosts = resolver::hosts(&container.hosts)?;
        let net = job.work.net.as_ref();
        hosts.extend(net.map(|net| resolver::own_hosts(net, &hostname)));
        let names = files::Names { hostname: &hostname, hosts, dns: &container.dns, asks_agent: net.is_some() };
        files::write_files(&dir, &names, container.network, self.root()).map_err(|error| match error {
            FileError::Resolver(error) => error.into(),
            FileError::Io(error) => RuntimeError::io("write the task's files in", &dir)(error),
        })?;
        match Streams::of(container) {
            Streams::OpenInput => streams::write_open_input(&dir, self.binary())
                .map_err(RuntimeError::io("make the task's input in", &dir))?,
            Streams::Plain | Streams::Terminal => {}
        }
        let netns = super::network_of(job.work, job.task, job.hostname);
        let netns = netns.map(|_| crate::net::kernel::namespace(self.run(), job.task));
        let isolated = container.labels.get(ISOLATE_SHIM_LABEL).is_some_and(|value| value == "true");
        let facts = spec::Facts {
            task: job.task,
            netns: netns.as_deref(),
            user: &user,
            mounts,
            files: &dir,
            hostname: &hostname,
            group: &if isolated { job.task.to_string() } else { group_name(kept.group) },
            cgroups: self.cgroups(),
            confine: self.confine(),
            init,
            architecture: std::env::consts::ARCH,
        };
        Ok(spec::build(container, run, &job.work.resources, &facts)?)
    }

    /// Removes everything of a task, running or not: process, container, root file system, files
    /// and anonymous volumes. What is already gone is fine.
    pub async fn delete(&self, task: TaskId) -> Result<(), RuntimeError> {
        let ctrd = self.connect().await?;
        let id = task.to_string();
        self.delete_process(&ctrd, task, &id).await?;
        let mut containers = ContainersClient::new(ctrd.clone());
        let message = DeleteContainerRequest { id: id.clone() };
        let call = within(limits::CTRD_CALL_MAX, containers.delete(request(message, None)));
        unless(Code::NotFound, call.await).map_err(CtrdError::call("delete the container"))?;
        remove_root(&ctrd, id).await?;
        remove_lease(&ctrd, &lease_id(task)).await?;
        self.forget_health(task);
        self.bodies().remove(task);
        let dir = mount::task_dir(self.data(), task);
        let place = dir.clone();
        // On another thread: anonymous volumes may be large.
        match smol::unblock(move || std::fs::remove_dir_all(place)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RuntimeError::io("remove the task's files in", dir)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the root file systems of containers of `image` in which nothing runs: its layers shall be made anew, and
    /// nobody starts these containers again.
    pub async fn uncover(&self, image: &str) -> Result<(), CtrdError> {
        let ctrd = self.connect().await?;
        for found in self.list().await? {
            if found.image == image && matches!(found.phase, Phase::Lost | Phase::Ended { .. }) {
                remove_root(&ctrd, found.task.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Every container of ours on this board, whoever made it; the way to find them again after
    /// the agent, containerd or the board was restarted.
    pub async fn list(&self) -> Result<Vec<Found>, CtrdError> {
        let ctrd = self.connect().await?;
        // Containers first: one made in between is then missing rather than falsely idle.
        let mut found = Vec::new();
        let mut containers = ContainersClient::new(ctrd.clone());
        let failed = || CtrdError::call("list containers");
        let call = containers.list_stream(request(ListContainersRequest::default(), None));
        // A stream, because each comes with its whole specification.
        let mut stream = within(limits::CTRD_CALL_MAX, call).await.map_err(failed())?.into_inner();
        while let Some(message) = within(limits::CTRD_CALL_MAX, stream.message()).await.map_err(failed())? {
            let Some(container) = message.container else { continue };
            match container.id.parse() {
                Ok(task) => found.push(Found {
                    task,
                    phase: self.idle_phase(task, &container.labels),
                    kept: label::read(&container.labels),
                    health: probe::kept(&container.extensions).map(|probe| self.watch(task, probe.check)),
                    image: container.image,
                }),
                Err(_) => log::warn!("container {:?} in our namespace is not ours: left alone", container.id),
            }
        }
        let mut tasks = TasksClient::new(ctrd);
        let call = tasks.list(request(ListTasksRequest::default(), None));
        let listed = within(limits::CTRD_CALL_MAX, call).await.map_err(CtrdError::call("list tasks"))?.into_inner();
        let phases: HashMap<String, Phase> =
            listed.tasks.iter().map(|process| (process.id.clone(), self.phase(process))).collect();
        for container in &mut found {
            if let Some(phase) = phases.get(&container.task.to_string()) {
                container.phase = *phase;
            }
        }
        found.sort_by_key(|container| container.task);
        Ok(found)
    }

    /// Removes what the agent left half made when it died: everything of a task that has no
    /// container. Answers how many there were.
    ///
    /// Only right after a start, while nothing is being created.
    pub async fn sweep(&self) -> Result<usize, RuntimeError> {
        let ctrd = self.connect().await?;
        let mut leases = LeasesClient::new(ctrd.clone());
        let call = within(limits::CTRD_CALL_MAX, leases.list(request(ListRequest::default(), None)));
        let listed = call.await.map_err(CtrdError::call("list leases"))?.into_inner().leases;
        let mut tasks: BTreeSet<TaskId> = listed.iter().filter_map(|lease| task_of_lease(&lease.id)).collect();
        let mut processes = TasksClient::new(ctrd);
        let call = within(limits::CTRD_CALL_MAX, processes.list(request(ListTasksRequest::default(), None)));
        let listed = call.await.map_err(CtrdError::call("list tasks"))?.into_inner().tasks;
        tasks.extend(listed.iter().filter_map(|process| process.id.parse::<TaskId>().ok()));
        if let Ok(dirs) = std::fs::read_dir(self.data().join("tasks")) {
            tasks.extend(dirs.flatten().filter_map(|dir| dir.file_name().to_str()?.parse::<TaskId>().ok()));
        }
        tasks.extend(self.tasks_with_health());
        for container in self.list().await? {
            tasks.remove(&container.task);
        }
        for task in &tasks {
            log::warn!("task {task}: removing what a creation that never ended left");
            self.delete(*task).await?;
        }
        Ok(tasks.len())
    }

    /// How far one task's container is; none if there is no container.
    pub async fn inspect(&self, task: TaskId) -> Result<Option<Phase>, RuntimeError> {
        let ctrd = self.connect().await?;
        let id = task.to_string();
        if let Some(process) = self.process(&ctrd, &id).await? {
            return Ok(Some(self.phase(&process)));
        }
        let message = GetContainerRequest { id };
        let mut containers = ContainersClient::new(ctrd);
        let got = within(limits::CTRD_CALL_MAX, containers.get(request(message, None))).await;
        let got = unless(Code::NotFound, got).map_err(CtrdError::call("find the container"))?;
        let container = got.and_then(|got| got.into_inner().container);
        Ok(container.map(|container| self.idle_phase(task, &container.labels)))
    }
}

/// The shim group's name in a specification.
fn group_name(group: u8) -> String {
    format!("racimo-{group}")
}

fn lease_id(task: TaskId) -> String {
    format!("{LEASE_PREFIX}{task}")
}

fn task_of_lease(lease: &str) -> Option<TaskId> {
    lease.strip_prefix(LEASE_PREFIX)?.parse().ok()
}

async fn remove_root(ctrd: &Ctrd, key: String) -> Result<(), CtrdError> {
    let message = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key };
    let mut snapshots = SnapshotsClient::new(ctrd.clone());
    let call = within(limits::CTRD_CALL_MAX, snapshots.remove(request(message, None)));
    // containerd's own garbage collection may have been faster.
    unless(Code::NotFound, call.await).map_err(CtrdError::call("remove the root file system")).map(drop)
}

async fn add_lease(ctrd: &Ctrd, lease: &str) -> Result<(), CtrdError> {
    let labels = [(EXPIRE_LABEL.to_owned(), EXPIRE.to_owned())].into();
    let mut leases = LeasesClient::new(ctrd.clone());
    let message = CreateRequest { id: lease.to_owned(), labels };
    let call = within(limits::CTRD_CALL_MAX, leases.create(request(message, None)));
    unless(Code::AlreadyExists, call.await).map_err(CtrdError::call("create a lease")).map(drop)
}

async fn remove_lease(ctrd: &Ctrd, lease: &str) -> Result<(), CtrdError> {
    let mut leases = LeasesClient::new(ctrd.clone());
    let message = DeleteRequest { id: lease.to_owned(), sync: false };
    let call = within(limits::CTRD_CALL_MAX, leases.delete(request(message, None)));
    unless(Code::NotFound, call.await).map_err(CtrdError::call("delete a lease")).map(drop)
}

/// Makes sure of the task's own writable layer on top of the image.
async fn prepare(ctrd: &Ctrd, id: &str, parent: &str, lease: &str) -> Result<Vec<RootMount>, CtrdError> {
    let mut snapshots = SnapshotsClient::new(ctrd.clone());
    let message = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: id.to_owned(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let call = within(limits::CTRD_CALL_MAX, snapshots.prepare(request(message, Some(lease))));
    let failed = || CtrdError::call("prepare a root file system");
    if let Some(prepared) = unless(Code::AlreadyExists, call.await).map_err(failed())? {
        return Ok(prepared.into_inner().mounts);
    }
    let message = MountsRequest { snapshotter: SNAPSHOTTER.into(), key: id.to_owned() };
    let call = within(limits::CTRD_CALL_MAX, snapshots.mounts(request(message, None)));
    Ok(call.await.map_err(failed())?.into_inner().mounts)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use racimo_common::object::Propagation;

    use super::*;
    use crate::runtime::{Config, ctrd::Executor, mount::Source};

    #[test]
    fn a_disk_that_does_not_answer_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data: dir.path().join("data"), ..Config::default() };
        let runtime = Runtime::new(Executor(Rc::new(smol::LocalExecutor::new())), config).unwrap();
        let source =
            |path: &str| Source::Bind { path: path.into(), propagation: Propagation::Rprivate, non_recursive: false };
        let bound = |path: &str| vec![mount::Bound { target: "/x".into(), source: source(path), read_only: true }];
        let limit = Duration::from_millis(300);
        assert!(bound("/")[0].is_bind());
        assert_eq!(smol::block_on(runtime.check_sources(bound("/"), limit)), Ok(()));
        let missing = smol::block_on(runtime.check_sources(bound("/no/such"), limit));
        assert_eq!(missing, Err(mount::BadMount::NoSource("/no/such".into())));
        // An earlier look hangs.
        let hangs = smol::block_on(runtime.source_turn());
        assert_eq!(smol::block_on(runtime.check_sources(bound("/"), limit)), Err(mount::BadMount::SilentSource));
        drop(hangs);
        assert_eq!(smol::block_on(runtime.check_sources(bound("/"), limit)), Ok(()));
    }
}
