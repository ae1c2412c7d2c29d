//! Tasks come to the network and go.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::rc::Rc;

use racimo_common::id::TaskId;
use racimo_common::object::HostPort;
use smol::future::yield_now;

use super::dns::Own;
use super::kernel::{self, Fault, Kernel};
use super::plan::rule::Backends;
use super::plan::task::Attach;
use super::plan::{Attached, Op, View};
use super::{Network, NoNetwork};
use crate::limits;

impl Network {
    /// Whether a task has its place in the network.
    pub fn has(&self, task: TaskId) -> bool {
        self.0.tasks.borrow().contains_key(&task)
    }

    /// The ports that a task has on the board. One that another program took while there was no agent is not its.
    pub fn ports(&self, task: TaskId) -> Vec<HostPort> {
        let tasks = self.0.tasks.borrow();
        let ports = tasks.get(&task).map(|attached| &attached.ports).into_iter().flatten();
        ports.filter(|port| self.0.ports.has(task, (port.protocol, port.published))).copied().collect()
    }

    /// Makes sure of a task's place in the network; answers the ports it has on the board. It may be asked again.
    ///
    /// # Errors
    /// It has none: nothing of it is left.
    pub async fn attach(&self, task: TaskId, attached: Attached) -> Result<Vec<HostPort>, NoNetwork> {
        // It is here again.
        self.0.gone.borrow_mut().remove(&task);
        if !self.is_known() {
            return Err(NoNetwork::Again("the manager has not told this board of its networks yet".to_owned()));
        }
        let mut kernel = self.kernel().await.map_err(|fault| NoNetwork::Again(fault.reason()))?;
        let Some(kernel) = kernel.as_mut() else { return Ok(Vec::new()) };
        if self.0.unfinished.replace(true) {
            // What was given up midway may not have told what others rely on.
            self.0.anew.set(true);
            self.wake();
        }
        // First of all: whoever gives this up midway finds that there is something to detach.
        self.0.tasks.borrow_mut().insert(task, attached.clone());
        let done = self.attach_all(kernel, task, attached).await;
        if let Err(why) = &done {
            log::debug!("task {task}: no network: {why:?}");
            self.remove(Ok(kernel), task);
        }
        self.0.unfinished.set(false);
        done
    }

    async fn attach_all(
        &self,
        kernel: &mut Kernel,
        task: TaskId,
        mut attached: Attached,
    ) -> Result<Vec<HostPort>, NoNetwork> {
        if let Some(mesh) = attached.net.mesh {
            let ports = self.0.ports.reserve(task, mesh.0, &attached.net.ports);
            attached.ports = ports.map_err(NoNetwork::Never)?;
        }
        attached.vnis = {
            let table = self.0.table.borrow();
            let networks = attached.net.networks.iter();
            networks.filter_map(|(id, _)| table.networks.get(id)).map(|network| network.vni).collect()
        };
        let kept = self.write_task(task, &attached);
        kept.map_err(|error| NoNetwork::Again(format!("keep the task's place in the network: {error}")))?;
        self.0.tasks.borrow_mut().insert(task, attached.clone());
        self.place(kernel, task, &attached, false).await?;
        Ok(attached.ports)
    }

    /// There is a table whenever there is a task: an agent that starts goes by both.
    fn write_task(&self, task: TaskId, attached: &Attached) -> std::io::Result<()> {
        if !self.0.has_file.get() {
            self.write_table()?;
        }
        self.0.files.write_task(task, attached)
    }

    /// Tells the kernel of one task, and everything that it needs. `present`: its networks are known to be there.
    pub(super) async fn place(
        &self,
        kernel: &mut Kernel,
        task: TaskId,
        attached: &Attached,
        present: bool,
    ) -> Result<(), NoNetwork> {
        let fault = |fault: Fault| NoNetwork::Again(fault.reason());
        // What was told before goes first; and the board may have to encrypt now.
        self.tell(kernel).await;
        let (attach, ops, virtuals) = {
            let (table, tasks) = (self.0.table.borrow(), self.0.tasks.borrow());
            let view = View { table: &table, tasks: &tasks };
            let attach = Attach::new(view, task, &attached.net).map_err(|why| NoNetwork::Again(why.to_string()))?;
            let ops = if present { Vec::new() } else { view.arrival(attached) };
            let virtuals: Vec<(Ipv4Addr, Rc<Backends>)> =
                view.virtuals(&attached.net).map(|(address, to)| (address, Rc::new(to))).collect();
            (attach, ops, virtuals)
        };
        let (networks, ports): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(|op| !matches!(op, Op::Publish { .. }));
        for portion in networks.chunks(limits::NET_PORTION) {
            if let Some((_, why)) = kernel.apply(portion.to_vec()).into_iter().next() {
                return Err(fault(why));
            }
            yield_now().await;
        }
        kernel.attach(&attach).map_err(fault)?;
        for portion in virtuals.chunks(limits::NET_PORTION / 4) {
            kernel.virtuals(task, portion).map_err(fault)?;
            yield_now().await;
        }
        if present {
            let wanted: BTreeSet<Ipv4Addr> = virtuals.iter().map(|(address, _)| *address).collect();
            kernel.sweep_virtuals(task, &wanted).map_err(fault)?;
        }
        self.serve_names(task, attached)?;
        kernel.apply(ports).into_iter().next().map_or(Ok(()), |(_, why)| Err(fault(why)))
    }

    fn serve_names(&self, task: TaskId, attached: &Attached) -> Result<(), NoNetwork> {
        if self.0.dns.is_open(task) {
            return Ok(());
        }
        let (hostname, slot_name) = (attached.hostname.clone(), attached.slot_name.clone());
        let own = Own { task, net: attached.net.clone(), hostname, slot_name };
        let served = self.0.dns.open(own, &kernel::namespace(&self.0.run, task), &attached.servers);
        served.map_err(|error| NoNetwork::Again(format!("open the task's name server: {error}")))
    }

    /// Removes a task from the network, with everything it had. What fails is told, and removed later.
    pub async fn detach(&self, task: TaskId) {
        let mut kernel = self.0.kernel.lock().await;
        // One that never had a network needs no kernel.
        if self.has(task) {
            self.remove(self.opened(&mut kernel), task);
        }
    }

    fn remove(&self, kernel: Result<&mut Kernel, Fault>, task: TaskId) {
        let Some(attached) = self.0.tasks.borrow_mut().remove(&task) else { return };
        // Its sockets would keep the namespace.
        self.0.dns.close(task);
        match kernel {
            Ok(kernel) => self.depart(kernel, task, &attached),
            Err(fault) => self.fault(format!("remove task {task}"), &fault),
        }
        self.0.ports.release(task);
        self.unkeep(task);
        self.wake();
    }

    fn depart(&self, kernel: &mut Kernel, task: TaskId, attached: &Attached) {
        let ops = {
            let (table, tasks) = (self.0.table.borrow(), self.0.tasks.borrow());
            View { table: &table, tasks: &tasks }.departure(attached)
        };
        let (ports, networks): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(|op| matches!(op, Op::Publish { .. }));
        for (op, fault) in kernel.apply(ports) {
            self.fault(op.to_string(), &fault);
        }
        let mesh = attached.net.mesh.map(|address| address.0);
        if let Err(fault) = kernel.detach(task, mesh, attached.net.networks.len()) {
            self.fault(format!("remove task {task}"), &fault);
        }
        for (op, fault) in kernel.apply(networks) {
            self.fault(op.to_string(), &fault);
        }
    }

    /// The tasks that are here: all others are removed from the network.
    pub async fn keep(&self, tasks: &BTreeSet<TaskId>) {
        let gone = self.0.tasks.borrow().keys().filter(|task| !tasks.contains(task)).copied().collect();
        self.0.gone.replace(gone);
        loop {
            let mut kernel = self.0.kernel.lock().await;
            // One of them may have come again while this waited.
            let Some(task) = self.0.gone.borrow_mut().pop_first() else { return };
            log::info!("task {task} is not here any more: its network is removed");
            self.remove(self.opened(&mut kernel), task);
        }
    }

    /// Those of before a restart of the board have nothing any more. One of which that is not certain stays.
    pub(super) fn forget_gone(&self, kernel: &Kernel) {
        let tasks: Vec<TaskId> = self.0.tasks.borrow().keys().copied().collect();
        for task in tasks {
            match kernel.has(task) {
                Ok(true) => {}
                Ok(false) => {
                    self.0.tasks.borrow_mut().remove(&task);
                    self.0.dns.close(task);
                    self.0.ports.release(task);
                    self.unkeep(task);
                }
                Err(fault) => self.fault(format!("task {task}"), &fault),
            }
        }
    }

    /// Tasks have the ports they had; one that another program took meanwhile is told of, and tried again.
    pub(super) fn hold_tasks_ports(&self) {
        let mut lost = Vec::new();
        for (task, attached) in &*self.0.tasks.borrow() {
            let Some(mesh) = attached.net.mesh else { continue };
            for port in &attached.ports {
                if let Err(why) = self.0.ports.reserve(*task, mesh.0, &[*port]) {
                    lost.push((format!("port {}/{} of task {task}", port.published, port.protocol), why));
                }
            }
        }
        lost.into_iter().for_each(|(what, why)| self.failed(what, why));
    }

    fn unkeep(&self, task: TaskId) {
        if let Err(error) = self.0.files.remove_task(task) {
            log::warn!("task {task}: forget its place in the network: {error}");
        }
    }
}
