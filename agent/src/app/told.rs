//! What the link tells the main loop: sessions, and what the board shall run.

use std::collections::BTreeSet;

use racimo_common::object::NodeDescription;
use racimo_common::wire::{Assign, ToManager};

use super::App;
use super::offline::Offline;
use crate::alloc;
use crate::identity::removed;
use crate::link::session::Told;

impl App {
    pub(super) async fn told(&mut self, told: Told) {
        match told {
            // It wants nothing any more but to say goodbye.
            Told::Open { out, .. } if self.departure.is_some() => self.say_goodbye(out),
            Told::Net(_) | Told::Assign(_) | Told::Managers(_) if self.departure.is_some() => {}
            Told::Open { out, node } => {
                *self.tools.node.borrow_mut() = Some(node);
                self.board.session();
                self.is_heard();
                self.tools.network.session();
                (self.is_reported, self.has_set, self.is_removed) = (false, false, false);
                self.out = Some(out);
                if let Err(error) = removed::forget(&self.config.data) {
                    log::warn!("that this node was removed once stays noted: {error}");
                }
            }
            Told::Net(mut net) => {
                self.tools.network.fit(&mut net, alloc::used());
                let node = *self.tools.node.borrow();
                let table = self.tools.network.table();
                let is_ours = node.is_some_and(|node| table.borrow().is_news_of(node, &net));
                self.tools.network.take(net);
                self.tools.host.take(&self.tools.network.table().borrow());
                self.offline.net_changed(self.clock.now().mono, is_ours);
            }
            Told::Assign(part) => match self.assign(part) {
                Ok(whole) => {
                    self.has_set |= whole;
                    if self.has_set {
                        self.tools.images.want(self.board.wanted_images());
                    }
                    self.looks_at_logs = true;
                }
                Err(reason) => {
                    log::warn!("the session is opened anew: {reason}");
                    self.close();
                }
            },
            Told::Managers(managers) => self.keep_managers(managers).await,
            Told::Closed => {
                self.hears();
                self.close();
                self.board.closed();
                self.offline.closed(self.has_set);
                self.tools.is_alone.set(true);
            }
            Told::Removed(reason) => {
                if !self.is_removed {
                    log::error!("{reason} with `pi-agent join`; this board's tasks are stopped");
                    if let Some(Err(error)) = self.node().map(|node| removed::note(&self.config.data, node)) {
                        log::warn!("before it joins it must leave: {error}");
                    }
                }
                self.forget_all();
                // There is nobody to tell.
                self.said_goodbye(Ok(())).await;
            }
            Told::Copied { reason, again } => {
                if !again {
                    log::error!("{reason}");
                } else if !self.is_removed {
                    log::error!("{reason}; this board's tasks are stopped");
                }
                // The first time it may be a mistake: tasks run on until the manager has looked again.
                if again {
                    self.forget_all();
                }
                // What it was told last is for one of them.
                self.offline = Offline::default();
                self.said_goodbye(Err("another board with the same key is in the cluster".to_owned())).await;
            }
            Told::Left(told) => self.said_goodbye(told).await,
        }
    }

    /// Nothing of the cluster is wanted here any more.
    pub(super) fn forget_all(&mut self) {
        self.is_removed = true;
        self.board.forget_all();
        self.tools.images.want(self.board.wanted_images());
        self.tools.network.forget_all();
        self.tools.host.take(&self.tools.network.table().borrow());
        self.tools.runtime.bodies().keep(&BTreeSet::new());
        self.offline = Offline::default();
        self.tools.journal.erase();
    }

    /// Contents first, which the tasks of the set need; then the set; then what nobody needs any more.
    fn assign(&mut self, mut part: Assign) -> Result<bool, String> {
        let bodies = self.tools.runtime.bodies();
        for body in std::mem::take(&mut part.bodies) {
            bodies.take(&body).map_err(|error| error.to_string())?;
        }
        self.board.uses(alloc::used());
        let whole = self.board.assign(part, self.clock.now()).map_err(|gap| gap.to_string())?;
        if let Some(named) = self.board.named_bodies() {
            bodies.keep(&named);
        }
        Ok(whole)
    }

    /// Closing the queue ends the session's writer, and with it the session.
    pub(super) fn close(&mut self) {
        if let Some(out) = self.out.take() {
            out.close();
        }
    }

    async fn keep_managers(&self, managers: Vec<String>) {
        let Some(own) = &self.identity else { return };
        if let Err(error) = own.set_managers(managers).await {
            log::warn!("the managers' new addresses were not kept: {error}");
        }
    }

    pub(super) fn described(&mut self, description: NodeDescription) {
        if *self.tools.description.borrow() == description {
            return;
        }
        *self.tools.description.borrow_mut() = description.clone();
        if let Some(out) = &self.out {
            // A full queue: the next session's Hello carries it.
            let _ = out.try_send(ToManager::Describe(description));
        }
    }
}
