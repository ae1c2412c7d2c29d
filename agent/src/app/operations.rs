//! Operations on a task, one future each: they ask containerd, the registry and the network, and say how it went.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use racimo_common::error::chain;
use racimo_common::id::{NodeId, TaskId};
use racimo_common::object::NodeDescription;
use racimo_common::registry::{Platform, Reference, Registry};
use racimo_common::signal;
use racimo_common::wire::Work;
use smol::Timer;

use super::images::Images;
use super::kill;
use crate::journal::Journal;
use crate::limits;
use crate::net::host::Host;
use crate::net::{Network, NoNetwork};
use crate::runtime::ctrd::Ctrd;
use crate::runtime::pull::{self, LocalImage, PullError};
use crate::runtime::{self, Job, Phase, Probed, Runtime, RuntimeError};
use crate::task::{Done, Found, Op};

pub(super) type Containers = Vec<(TaskId, Found, Option<Duration>)>;

/// What operations need; shared by their futures.
pub(super) struct Tools {
    pub(super) runtime: Runtime,
    pub(super) registry: Registry,
    pub(super) network: Network,
    pub(super) host: Host,
    pub(super) journal: Journal,
    /// Whether no manager is heard.
    pub(super) is_alone: Cell<bool>,
    pub(super) description: Rc<RefCell<NodeDescription>>,
    pub(super) node: RefCell<Option<NodeId>>,
    pub(super) images: Images,
}

impl Tools {
    /// The board's containers; `first`: after what is left half made is removed. Tries until it succeeds.
    pub(super) async fn list(&self, first: bool) -> Containers {
        if first {
            match self.runtime.sweep().await {
                Ok(0) => {}
                Ok(count) => log::info!("{count} half-made containers were removed"),
                Err(error) => log::warn!("remove half-made containers: {}", error.reason()),
            }
        }
        let mut pause = limits::LIST_PAUSE.0;
        loop {
            match self.runtime.list().await {
                Ok(found) => {
                    if first {
                        self.runtime.bodies().clean(&found.iter().map(|found| found.task).collect());
                    }
                    return found.into_iter().map(known).collect();
                }
                Err(error) => log::warn!("list containers, again in {pause:?}: {}", chain(&error)),
            }
            Timer::after(pause).await;
            pause = (pause * 2).min(limits::LIST_PAUSE.1);
        }
    }

    /// `pid`: its first process, if it runs.
    pub(super) async fn perform(&self, task: TaskId, op: Op, work: Option<Rc<Work>>, pid: u32) -> Done {
        let result = match op {
            Op::Prepare => return self.prepare(task, work).await,
            Op::Probe => return self.probe(task).await,
            Op::Start => match self.runtime.start(task).await {
                Err(error) if error.is_disk_full() && Box::pin(self.make_room(error.path())).await => {
                    self.runtime.start(task).await
                }
                started => started,
            }
            .map(Some),
            // Its time is over, whether containerd answers or not; of its end it tells later.
            Op::Signal(Some(signal::SIGKILL)) if kill::first_process(task, pid) => Ok(None),
            Op::Signal(Some(signal)) => self.runtime.kill(task, signal).await.map(|()| None),
            Op::Signal(None) => self.runtime.stop(task).await.map(|()| None),
            Op::Delete => {
                let deleted = self.runtime.delete(task).await;
                // In a box, as only some operations need it.
                Box::pin(self.network.detach(task)).await;
                deleted.map(|()| None)
            }
        };
        match result {
            Ok(pid) => Done::Ok(pid),
            Err(error) => self.failed(&error).await,
        }
    }

    async fn failed(&self, error: &RuntimeError) -> Done {
        if error.is_lost() {
            Done::Again(error.reason())
        } else if error.is_disk_full() {
            Done::Failed(Box::pin(self.no_space(error.path(), error.reason())).await)
        } else {
            Done::Failed(error.reason())
        }
    }

    async fn probe(&self, task: TaskId) -> Done {
        // In a box: there may be one for each task, and it is more than most operations need.
        match Box::pin(self.runtime.probe(task)).await {
            Ok(Probed::Passed) => Done::Ok(None),
            Ok(Probed::Failed(reason)) => Done::Failed(reason),
            // The board's fault, not the container's.
            Err(error) => Done::Again(error.reason()),
        }
    }

    async fn image(
        &self,
        ctrd: &Ctrd,
        image: &Reference,
        work: &Work,
        platforms: &[Platform],
    ) -> Result<LocalImage, PullError> {
        // Without a manager no registry is asked for what is here.
        if self.is_alone.get()
            && let Ok(Some(local)) = pull::lookup(ctrd, image, platforms).await
        {
            return Ok(local);
        }
        let mut has_pulled = false;
        let mut progress = |_| has_pulled = true;
        let login = work.credentials.as_ref();
        let pulled = pull::ensure(ctrd, &self.registry, image, login, platforms, &mut progress).await;
        if has_pulled {
            self.images.has_pulled();
        }
        pulled
    }

    async fn prepare(&self, task: TaskId, work: Option<Rc<Work>>) -> Done {
        let Some(work) = work else { return Done::Failed("nothing to run".to_owned()) };
        if let Some(fault) = &work.fault {
            return Done::Failed(fault.clone());
        }
        let Some(node) = *self.node.borrow() else { return Done::Again("no session yet".to_owned()) };
        let reference: Reference = match work.container.image.parse() {
            Ok(reference) => reference,
            Err(error) => return Done::Failed(format!("image {:?}: {error}", work.container.image)),
        };
        let ctrd = match self.runtime.connect().await {
            Ok(ctrd) => ctrd,
            Err(error) => return Done::Again(error.to_string()),
        };
        let (platforms, hostname) = {
            let description = self.description.borrow();
            (description.platforms.clone(), description.hostname.clone())
        };
        let ensure = || self.image(&ctrd, &reference, &work, &platforms);
        // Not while one is being removed that it needs.
        self.images.settled().await;
        let pulled = match ensure().await {
            Err(PullError::DiskFull { .. }) if Box::pin(self.make_room(None)).await => ensure().await,
            pulled => pulled,
        };
        let local = match pulled {
            Ok(local) => local,
            Err(error) => return self.not_pulled(&error).await,
        };
        Box::pin(self.note_use(&ctrd, &local.image.name, &work)).await;
        if let Some(attached) = runtime::network_of(&work, task, &hostname) {
            if let Some(why) = self.host.refuses(&attached.net, &self.network.table().borrow()) {
                return Done::Failed(why);
            }
            match Box::pin(self.network.attach(task, attached)).await {
                Ok(_) => {}
                Err(NoNetwork::Again(why)) => return Done::Again(why),
                Err(NoNetwork::Never(why)) => return Done::Failed(why),
            }
        }
        let job = Job { task, work: &work, image: &local.image, node, hostname: &hostname };
        let mut created = self.runtime.create(&job).await;
        if let Err(RuntimeError::Damaged { path }) = &created {
            log::warn!("{}: {} is not on the disk, pulling it again", local.image.name, path.display());
            // In a box, as it hardly ever happens.
            let again = Box::pin(async {
                self.runtime.uncover(&local.image.name).await?;
                pull::discard(&ctrd, &reference, &platforms).await?;
                ensure().await
            });
            created = match again.await {
                Ok(_) => self.runtime.create(&job).await,
                Err(error) => return self.not_pulled(&error).await,
            };
        }
        if let Err(error) = &created
            && error.is_disk_full()
            && Box::pin(self.make_room(error.path())).await
        {
            created = self.runtime.create(&job).await;
        }
        match created {
            Ok(None) => Done::Ok(None),
            Ok(Some(check)) => Done::Made(check),
            Err(error) => self.failed(&error).await,
        }
    }

    async fn not_pulled(&self, error: &PullError) -> Done {
        if let PullError::Containerd(error) = error {
            if error.is_lost() {
                return Done::Again(error.to_string());
            }
        }
        if matches!(error, PullError::DiskFull { .. }) {
            return Done::Failed(Box::pin(self.no_space(None, chain(error))).await);
        }
        Done::Failed(chain(error))
    }
}

fn known(found: runtime::Found) -> (TaskId, Found, Option<Duration>) {
    let lease = found.kept.as_ref().and_then(|kept| kept.lease);
    let grace = found.kept.map(|kept| kept.stop_grace);
    let state = match found.phase {
        Phase::Made => Found::Made,
        Phase::Lost => Found::Lost,
        Phase::Running { pid } => Found::Running { pid, health: found.health, lease },
        Phase::Ended { status, at: _, oom } => Found::Ended { status, oom },
        // It will answer again or be found dead; its end is an event.
        Phase::Unknown => Found::Running { pid: 0, health: found.health, lease },
    };
    (found.task, state, grace)
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;
    use smol::LocalExecutor;

    use super::*;
    use crate::app::RESOLV_CONF;
    use crate::images;
    use crate::journal::Look;
    use crate::runtime::ctrd::Executor;

    /// There may be one operation per task: together they must leave room on the heap.
    #[test]
    fn an_operation_takes_little_while_it_waits() {
        let executor = Executor(Rc::new(LocalExecutor::new()));
        let dir = tempfile::tempdir().expect("a directory");
        let network = Network::open(executor.0.clone(), dir.path(), RESOLV_CONF.into()).expect("a network");
        let tools = Tools {
            runtime: Runtime::new(executor, runtime::Config::default()).expect("cgroups"),
            network,
            host: Host::new(dir.path().to_owned(), dir.path().to_owned()),
            journal: Journal::new(dir.path(), [0; 32], None, Look::default()),
            is_alone: Cell::new(false),
            registry: Registry::new(racimo_common::registry::Config::default()),
            description: Rc::default(),
            node: RefCell::default(),
            images: Images::new(images::Settings { keep_hours: None, high: 85, low: 80 }),
        };
        let bytes = size_of_val(&tools.perform(TaskId::from_bits(1), Op::Prepare, None, 0));
        assert!(bytes * limits::TASKS_MAX < limits::HEAP_MAX / 4, "{bytes} bytes");
    }
}
