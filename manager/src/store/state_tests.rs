//! Random commands, valid and not: what must hold of every state they lead to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use racimo_common::id::TaskId;
use racimo_common::object::{Availability, Desired, TaskState};

use super::log::Machine;
use super::testing::*;
use super::*;

/// Draws changes about few objects, so that they meet.
struct Chance(fastrand::Rng);

impl Chance {
    fn node(&mut self) -> u128 {
        u128::from(self.0.u64(1..4))
    }

    fn service(&mut self) -> u128 {
        u128::from(self.0.u64(1..4))
    }

    fn task(&mut self) -> u128 {
        u128::from(self.0.u64(1..16))
    }

    fn spec(&mut self) -> Arc<ServiceSpec> {
        let mut spec = (*spec(["web", "db", "WEB"][self.0.usize(..3)], ["a", "b"][self.0.usize(..2)], 30)).clone();
        if self.0.bool() {
            let mut task = (*spec.task).clone();
            task.restart.attempts_max = Some(self.0.u64(0..4));
            task.restart.window = self.0.bool().then_some(Duration::from_secs(9));
            spec.task = task.into();
        }
        if self.0.u8(..8) == 0 {
            spec.mode = Mode::Global;
        }
        if self.0.u8(..3) == 0 {
            return attached(&spec, &[u128::from(self.0.u64(1..4))]);
        }
        if self.0.u8(..4) == 0 {
            return with_secrets(&spec, &[(u128::from(self.0.u64(1..6)), ["key", "KEY", "pem"][self.0.usize(..3)])]);
        }
        spec.into()
    }

    fn desired(&mut self) -> Desired {
        [Desired::Ready, Desired::Running, Desired::Shutdown, Desired::Remove][self.0.usize(..4)]
    }

    /// Mostly the right version, so that not everything is refused.
    fn version(&mut self, right: Option<u64>) -> u64 {
        if self.0.u8(..8) == 0 { self.0.u64(..20) } else { right.unwrap_or_default() }
    }

    fn new_task(&mut self, state: &State) -> NewTask {
        let of = self.service();
        let revision = self.version(state.service(service(of)).map(|s| s.revision));
        let slot = if self.0.bool() { Slot::Replica(self.0.u32(1..4)) } else { Slot::Node(node(self.node())) };
        NewTask {
            slot,
            desired: if self.0.bool() { Desired::Ready } else { Desired::Running },
            gate: self.0.bool().then(|| Gate { not_before: at(self.0.i64(0..99)), after: None }),
            restart_of: self.0.bool().then(|| task(u128::from(self.0.u64(1..16)))),
            node: (self.0.u8(..4) == 0).then(|| node(u128::from(self.0.u64(1..4)))),
            ..new_task(self.task(), of, revision)
        }
    }

    fn change(&mut self, state: &State) -> Change {
        let (n, s, t) = (self.node(), self.service(), self.task());
        match self.0.u8(..35) {
            0 => new_cluster(),
            1 => Change::ClusterUpdate {
                version: self.version(state.cluster().map(|c| c.meta.version)),
                spec: ClusterSpec { task_history: Some(self.0.i64(0..9)), ..ClusterSpec::default() },
                worker_secret: self.0.bool().then_some([8; 16].into()),
                manager_secret: None,
            },
            2 => Change::ClusterManagers(vec![format!("m{}:1", self.0.u8(..9))]),
            3 | 4 => new_node(n),
            5 => Change::NodeUpdate {
                node: node(n),
                version: self.version(state.node(node(n)).map(|n| n.meta.version)),
                spec: NodeSpec {
                    availability: if self.0.bool() { Availability::Active } else { Availability::Drain },
                    ..NodeSpec::default()
                },
            },
            6 => write_off(n),
            7 | 8 => Change::NodeReadmit { node: node(n) },
            9 => Change::NodeRemove { node: node(n) },
            10 | 11 => new_service(s, self.spec()),
            12 | 13 => Change::ServiceUpdate {
                service: service(s),
                version: self.version(state.service(service(s)).map(|s| s.meta.version)),
                spec: self.spec(),
            },
            26 => Change::ServiceRollback {
                service: service(s),
                by: RollbackBy::User { version: self.version(state.service(service(s)).map(|s| s.meta.version)) },
            },
            27 => Change::ServiceRollback {
                service: service(s),
                by: RollbackBy::Updater {
                    revision: self.version(state.service(service(s)).map(|s| s.revision)),
                    task: task(t),
                },
            },
            14 => Change::ServiceRemove { service: service(s) },
            15..=18 => create(self.new_task(state)),
            19..=21 => assign(t, n),
            22 => desire(t, self.desired()),
            23 => end(t, TaskState::ALL[self.0.usize(..TaskState::ALL.len())]),
            28 | 30 => {
                let number = u128::from(self.0.u64(1..4));
                // An id is never drawn again while somebody has an address there.
                let held =
                    state.tasks().any(|task| task.addresses.networks.iter().any(|(id, _)| *id == network(number)));
                new_network(if held { number + 100 } else { number }, ["front", "back"][self.0.usize(..2)])
            }
            29 => Change::NetworkRemove { network: network(u128::from(self.0.u64(1..4))) },
            31 | 32 => {
                let kind = if self.0.bool() { DependencyKind::Secret } else { DependencyKind::Config };
                new_dependency(u128::from(self.0.u64(1..6)), kind, ["key", "KEY", "pem"][self.0.usize(..3)])
            }
            33 => {
                let id = dependency(u128::from(self.0.u64(1..6)));
                let version = self.version(state.dependency(id).map(|d| d.meta.version));
                Change::DependencyLabel { dependency: id, version, labels: [("l".to_owned(), String::new())].into() }
            }
            34 => Change::DependencyRemove { dependency: dependency(u128::from(self.0.u64(1..6))) },
            24 => Change::TaskRemove { task: task(t) },
            _ => Change::TaskGate { task: task(t), gate: Gate { not_before: at(1), after: Some(task(t)) } },
        }
    }

    fn command(&mut self, state: &State) -> Command {
        let count = if self.0.u8(..4) == 0 { self.0.usize(2..5) } else { 1 };
        let changes = (0..count).map(|_| self.change(state)).collect();
        Command { at: at(self.0.i64(0..1000)), changes }
    }
}

/// What a watcher that only follows events would know of the tasks.
fn follow(known: &mut BTreeMap<TaskId, Arc<Task>>, events: &[Event]) {
    for event in events {
        if let Event::Task { id, old, new } = event {
            assert_eq!(known.get(id), old.as_ref(), "an event about a task that was otherwise before");
            match new {
                Some(task) => drop(known.insert(*id, task.clone())),
                None => drop(known.remove(id)),
            }
        }
    }
}

fn check_objects(state: &State) {
    for task in state.tasks() {
        assert!(task.meta.version <= state.index());
        assert!(task.gate.is_none() || task.desired == Desired::Ready, "{task:?}");
        assert!(task.ended.as_ref().is_none_or(|ended| ended.state.is_terminal()), "{task:?}");
        // A task that runs nowhere known would never end.
        let lost = task.ended.is_none() && task.node.is_some_and(|node| state.node(node).is_none());
        assert!(!lost, "{task:?}");
        let orphan = state.service(task.service).is_none() && task.desired != Desired::Remove;
        assert!(!orphan, "{task:?}");
    }
    for dependency in state.dependencies() {
        let named = state.dependency_named(dependency.kind, &dependency.name);
        assert_eq!(named.map(|d| d.id), Some(dependency.id));
    }
    let mut names: Vec<&str> = state.networks().map(|network| &*network.spec.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), state.networks().count(), "two networks with one name");
    for service in state.services() {
        // The updater's rollback is never refused; only an update that really runs holds networks for it.
        for attachment in service.spec.task.networks.iter().filter(|_| service.update.is_none()) {
            assert!(state.network(attachment.network).is_some(), "{service:?}");
        }
        for secret in service.spec.task.container.secrets.iter().filter(|_| service.update.is_none()) {
            assert!(state.dependency(secret.id).is_some_and(|d| d.kind == DependencyKind::Secret), "{service:?}");
        }
        assert_eq!(state.service_named(&service.spec.name).map(|s| s.id), Some(service.id));
        assert!(service.revision <= service.meta.version);
    }
}

fn check_step(old: &State, new: &State) {
    for (before, after) in old.tasks().filter_map(|task| Some((task, new.task(task.id)?))) {
        // An id that is drawn again after its task is forgotten is another task.
        if before.meta.created != after.meta.created || before.service != after.service {
            continue;
        }
        assert!(before.desired <= after.desired, "{before:?} {after:?}");
        assert!(before.node.is_none() || before.node == after.node, "{before:?} {after:?}");
        assert!(before.ended.is_none() || before.ended == after.ended, "{before:?} {after:?}");
    }
}

fn run(seed: u64) {
    let mut chance = Chance(fastrand::Rng::with_seed(seed));
    let (mut state, mut replayed) = (State::default(), State::default());
    let mut known = BTreeMap::new();
    let mut index = 0;
    for _ in 0..120 {
        let command = chance.command(&state);
        // Not every index is a command's.
        index += chance.0.u64(1..3);
        let Ok((next, events)) = state.apply(index, &command) else { continue };
        follow(&mut known, &events);
        assert!(next.tasks().eq(known.values()));
        if command.changes.len() == 1 {
            check_step(&state, &next);
        }
        state = next;
        check_objects(&state);
        super::allocation_tests::check_given(&state);
        Machine::apply(&mut replayed, index, &rmp_serde::to_vec_named(&command).unwrap());
        assert_eq!(replayed, state, "the log gives another state");
    }
    // Equality includes the indexes, which are rebuilt.
    let mut restored = State::default();
    restored.restore(&state.snapshot()).unwrap();
    assert_eq!(restored, state);
    assert_eq!(restored.snapshot(), state.snapshot());
    for (a, b) in state.tasks().zip(state.tasks().skip(1)) {
        let (c, d) = (restored.task(a.id).unwrap(), restored.task(b.id).unwrap());
        assert_eq!(Arc::ptr_eq(&a.spec, &b.spec), Arc::ptr_eq(&c.spec, &d.spec), "specs are shared otherwise");
    }
    for index in index + 1..index + 40 {
        let command = chance.command(&state);
        let after = state.apply(index, &command);
        let again = restored.apply(index, &command);
        match (after, again) {
            (Ok((after, _)), Ok((again, _))) => {
                assert_eq!(after, again);
                (state, restored) = (after, again);
            }
            (Err(after), Err(again)) => assert_eq!(after, again),
            (after, again) => panic!("{:?} {:?}", after.map(drop), again.map(drop)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn random_commands_replay_and_survive_a_snapshot(seed in any::<u64>()) {
        run(seed);
    }
}

#[test]
fn damaged_snapshots_and_entries_are_refused() {
    let mut state = base();
    assert!(state.restore(b"\xc1").is_err());
    assert_eq!(state, base(), "a refused snapshot changed the state");
    Machine::apply(&mut state, 70, b"\xc1");
    assert_eq!(state.index(), 70, "an entry without effect still counts");
    // A task that names a spec the snapshot does not hold.
    let bytes = rmp_serde::to_vec_named(&serde_json::json!({
        "index": 1, "cluster": null, "nodes": [], "services": [], "specs": [], "tasks": [], "slots": [], "failures": [],
    }));
    assert!(State::default().restore(&bytes.unwrap()).is_ok());
    let mut stored = base().to_stored();
    stored.forget_specs();
    assert!(State::from_stored(stored).is_none());
}
