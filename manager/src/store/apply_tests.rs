use std::sync::Arc;
use std::time::Duration;

use racimo_common::object::{Availability, Desired, NodeDescription, TaskState, parse_generics};

use super::testing::*;
use super::*;

/// What must hold of the next state and its events.
type Holds = fn(&State, &[Event]) -> bool;

/// `changes`, as one command on [`base`]: what holds of the result, or the refusal in words.
#[track_caller]
fn check(changes: Vec<Change>, want: Result<Holds, &str>) {
    check_on(&base(), changes, want);
}

#[track_caller]
fn check_on(state: &State, changes: Vec<Change>, want: Result<Holds, &str>) {
    match (apply(state, changes), want) {
        (Ok((next, events)), Ok(holds)) => {
            assert_eq!(next.index(), state.index() + 1);
            assert!(holds(&next, &events), "{next:#?}\n{events:#?}");
        }
        (Err(refusal), Err(words)) => assert!(refusal.to_string().contains(words), "{refusal}"),
        (got, want) => panic!("{:?}, not {want:?}", got.map(|(_, events)| events)),
    }
}

fn node_of(state: &State, number: u128) -> Node {
    (**state.node(node(number)).expect("a node")).clone()
}

fn task_of(state: &State, number: u128) -> Task {
    (**state.task(task(number)).expect("a task")).clone()
}

#[test]
fn cluster() {
    let update = |version| Change::ClusterUpdate {
        version,
        spec: ClusterSpec { task_history: Some(2), ..ClusterSpec::default() },
        worker_secret: Some([7; 16].into()),
        manager_secret: None,
    };
    check(vec![new_cluster()], Err("already part of a cluster"));
    check_on(&State::default(), vec![new_cluster()], Ok(|s, _| s.cluster().is_some_and(|c| c.meta.version == 1)));
    check_on(&State::default(), vec![update(1)], Err("not part of a cluster"));
    check_on(&State::default(), vec![Change::ClusterManagers(Vec::new())], Err("not part of a cluster"));
    check(vec![update(2)], Err("out of sequence"));
    let updated = |s: &State, events: &[Event]| {
        let cluster = s.cluster().expect("a cluster");
        cluster.spec.task_history() == 2
            && (&cluster.worker_secret, &cluster.manager_secret) == (&[7; 16].into(), &[2; 16].into())
            && (cluster.meta.version, cluster.meta.created, cluster.meta.updated) == (11, at(1), at(11))
            && matches!(events, [Event::Cluster])
    };
    check(vec![update(1)], Ok(updated));
    check(vec![update(1), update(1)], Err("out of sequence"));
    let managers = vec![Change::ClusterManagers(vec!["new:1".to_owned()])];
    check(managers, Ok(|s, _| s.cluster().is_some_and(|c| c.managers == ["new:1"])));
}

#[test]
fn nodes() {
    let update = |version| Change::NodeUpdate {
        node: node(1),
        version,
        spec: NodeSpec { availability: Availability::Drain, ..NodeSpec::default() },
    };
    let describe = |number| Change::NodeDescribe {
        node: node(number),
        description: NodeDescription { hostname: "new".to_owned(), ..NodeDescription::default() }.into(),
        addr: "198.51.100.1".to_owned(),
    };
    check(vec![new_node(3)], Ok(|s, e| node_of(s, 3).meta.created == at(11) && e.len() == 1));
    check(vec![new_node(1)], Err("already exists"));
    check(vec![update(1)], Err("out of sequence"));
    check(vec![update(2)], Ok(|s, _| node_of(s, 1).spec.availability == Availability::Drain));
    check(vec![describe(9)], Err("not found"));
    check(vec![describe(1)], Ok(|s, _| node_of(s, 1).addr == "198.51.100.1" && node_of(s, 1).meta.version == 11));
    check(vec![write_off(9)], Err("not found"));
    check(vec![write_off(1)], Ok(|s, _| node_of(s, 1).written_off.is_some_and(|w| w.at == at(11))));
    check(vec![Change::NodeReadmit { node: node(9) }], Err("not found"));
    let back = vec![write_off(1), Change::NodeReadmit { node: node(1) }];
    check(back, Ok(|s, e| node_of(s, 1).written_off.is_none() && e.len() == 2));
}

#[test]
fn a_node_is_its_key() {
    let Change::NodeCreate(mut twin) = new_node(1) else { panic!("a node") };
    twin.id = node(7);
    check(vec![Change::NodeCreate(twin.clone())], Err("already exists"));
    twin.key_digest = None;
    check(vec![Change::NodeCreate(twin)], Ok(|s, _| s.nodes().count() == 3));
}

#[test]
fn a_removed_node_orphans_its_tasks() {
    check(vec![Change::NodeRemove { node: node(9) }], Err("not found"));
    let removed = |s: &State, events: &[Event]| {
        let ends = |number, state| task_of(s, number).ended.is_some_and(|e| e.state == state);
        s.node(node(1)).is_none()
            && ends(2, TaskState::Orphaned)
            && ends(3, TaskState::Failed)
            && s.node_failures(service(1), node(1)).is_none()
            && matches!(events, [Event::Task { .. }, Event::Node { new: None, .. }])
    };
    check(vec![Change::NodeRemove { node: node(1) }], Ok(removed));
    // One that shall be forgotten with its end is.
    let state = applied(&base(), vec![desire(2, Desired::Remove)]);
    check_on(&state, vec![Change::NodeRemove { node: node(1) }], Ok(|s, _| s.task(task(2)).is_none()));
    // Nothing of a global service's slot stays.
    let restart = NewTask { slot: Slot::Node(node(1)), restart_of: Some(task(3)), ..new_task(4, 1, 4) };
    let state = applied(&base(), vec![create(restart)]);
    assert!(state.slot_history(service(1), Slot::Node(node(1))).is_some());
    let gone = |s: &State, _: &[Event]| s.slot_history(service(1), Slot::Node(node(1))).is_none();
    check_on(&state, vec![Change::NodeRemove { node: node(1) }], Ok(gone));
}

#[test]
fn services_are_created_and_updated() {
    let update = |version, spec| Change::ServiceUpdate { service: service(1), version, spec };
    let with = |edit: fn(&mut ServiceSpec)| {
        let mut spec = (*spec("web", "nginx", 40)).clone();
        edit(&mut spec);
        Arc::new(spec)
    };
    check(vec![new_service(2, spec("WEB", "nginx", 1))], Err("service WEB already exists"));
    check(vec![new_service(1, spec("other", "nginx", 1))], Err("already exists"));
    let created = |s: &State, _: &[Event]| s.service_named("Other").is_some_and(|s| s.revision == 11);
    check(vec![new_service(2, spec("other", "nginx", 1))], Ok(created));
    check(vec![update(3, with(|_| {}))], Err("out of sequence"));
    check(vec![update(4, spec("Web", "nginx", 40))], Err("renaming services is not supported"));
    check(vec![update(4, with(|s| s.mode = Mode::Global))], Err("mode change is not allowed"));
    // A new scale is no new revision, and the tasks go on sharing their spec.
    let scaled = |s: &State, _: &[Event]| {
        let service = s.service(service(1)).expect("a service");
        (service.revision, service.meta.version) == (4, 11)
            && service.previous.is_some()
            && Arc::ptr_eq(&service.spec.task, &task_of(s, 1).spec)
    };
    check(vec![update(4, with(|s| s.mode = Mode::Replicated { replicas: 9 }))], Ok(scaled));
    let changed = |s: &State, _: &[Event]| {
        let service = s.service(service(1)).expect("a service");
        service.revision == 11 && service.update.is_none() && task_of(s, 1).spec.container.image == "nginx"
    };
    check(vec![update(4, spec("web", "nginx:2", 40))], Ok(changed));
}

#[test]
fn a_rollback_by_a_user_toggles() {
    let update = |version, spec| Change::ServiceUpdate { service: service(1), version, spec };
    let back = |version| Change::ServiceRollback { service: service(1), by: RollbackBy::User { version } };
    let gone = Change::ServiceRollback { service: service(9), by: RollbackBy::User { version: 4 } };
    check(vec![gone], Err("service 0000000000000000000000009 not found"));
    check(vec![back(4)], Err("service 0000000000000000000000001 does not have a previous spec"));
    check(vec![back(3)], Err("out of sequence"));
    let state = applied(&base(), vec![update(4, spec("web", "nginx:2", 40))]);
    check_on(&state, vec![back(4)], Err("out of sequence"));
    // The first tasks are of the spec that is wanted again.
    let first = |s: &State, events: &[Event]| {
        let service = s.service(service(1)).expect("a service");
        let update = service.update.as_ref().expect("a rollback");
        (service.revision, service.meta.version) == (12, 12)
            && service.spec.task == task_of(s, 1).spec
            && service.previous.as_ref().is_some_and(|spec| spec.task.container.image == "nginx:2")
            && (update.state, update.started, update.failures) == (UpdateState::RollbackStarted, at(12), 0)
            && update.message == "manually requested rollback"
            && events.len() == 1
    };
    check_on(&state, vec![back(11)], Ok(first));
    let second = |s: &State, _: &[Event]| {
        let service = s.service(service(1)).expect("a service");
        service.spec.task.container.image == "nginx:2"
            && service.previous.as_ref().is_some_and(|spec| spec.task.container.image == "nginx")
    };
    check_on(&applied(&state, vec![back(11)]), vec![back(12)], Ok(second));
    // What changed the scale only is rolled back without a new revision.
    let mut large = (*spec("web", "nginx", 40)).clone();
    large.mode = Mode::Replicated { replicas: 9 };
    let scaled = applied(&base(), vec![update(4, large.into())]);
    let small = |s: &State, _: &[Event]| {
        let service = s.service(service(1)).expect("a service");
        service.revision == 4
            && service.spec.mode == Mode::Replicated { replicas: 2 }
            && Arc::ptr_eq(&service.spec.task, &task_of(s, 1).spec)
    };
    check_on(&scaled, vec![back(11)], Ok(small));
    // A job is run anew instead.
    let mut job = (*spec("job", "nginx", 0)).clone();
    job.mode = Mode::ReplicatedJob { concurrent_max: 1, completions: 2 };
    let update = Change::ServiceUpdate { service: service(2), version: 11, spec: job.clone().into() };
    let state = applied(&base(), vec![new_service(2, job.into()), update]);
    let back = Change::ServiceRollback { service: service(2), by: RollbackBy::User { version: 12 } };
    let again = |s: &State, _: &[Event]| {
        let service = s.service(service(2)).expect("a service");
        service.update.is_none() && service.job == Some(JobStatus { iteration: 13, started: at(13) })
    };
    check_on(&state, vec![back], Ok(again));
}

#[test]
fn a_rollback_by_the_updater_has_no_way_back() {
    let back =
        |revision| Change::ServiceRollback { service: service(1), by: RollbackBy::Updater { revision, task: task(2) } };
    let update = UpdateStatus {
        state: UpdateState::Updating,
        started: at(5),
        completed: None,
        message: "update in progress".to_owned(),
        failures: 3,
    };
    let changes = vec![
        Change::ServiceUpdate { service: service(1), version: 4, spec: spec("web", "nginx:2", 40) },
        Change::ServiceProgress { service: service(1), revision: 11, update },
    ];
    let state = applied(&base(), changes);
    check(vec![back(4)], Err("does not have a previous spec"));
    check_on(&state, vec![back(4)], Err("out of sequence"));
    let rolled = |s: &State, _: &[Event]| {
        let service = s.service(service(1)).expect("a service");
        let update = service.update.as_ref().expect("a rollback");
        let message = format!("update rolled back due to failure or early termination of task {}", task(2));
        (service.revision, service.previous.is_none()) == (13, true)
            && service.spec.task == task_of(s, 1).spec
            && (update.state, update.started, update.failures) == (UpdateState::RollbackStarted, at(5), 0)
            && update.message == message
    };
    check_on(&state, vec![back(11)], Ok(rolled));
}

#[test]
fn progress_belongs_to_a_revision() {
    let progress = |number, revision| Change::ServiceProgress {
        service: service(number),
        revision,
        update: UpdateStatus {
            state: UpdateState::Updating,
            started: at(5),
            completed: None,
            message: "update in progress".to_owned(),
            failures: 0,
        },
    };
    check(vec![progress(9, 4)], Err("not found"));
    check(vec![progress(1, 3)], Err("out of sequence"));
    let stored = |s: &State, _: &[Event]| s.service(service(1)).is_some_and(|s| s.update.is_some() && s.revision == 4);
    check(vec![progress(1, 4)], Ok(stored));
    // Any new spec ends it.
    let scale = Change::ServiceUpdate { service: service(1), version: 11, spec: spec("web", "nginx", 40) };
    let state = applied(&base(), vec![progress(1, 4)]);
    check_on(&state, vec![scale], Ok(|s, _| s.service(service(1)).is_some_and(|s| s.update.is_none())));
}

#[test]
fn a_removed_service_leaves_only_what_runs() {
    check(vec![Change::ServiceRemove { service: service(9) }], Err("not found"));
    let removed = |s: &State, events: &[Event]| {
        s.service(service(1)).is_none()
            && s.service_named("web").is_none()
            && s.tasks().map(|t| t.id).eq([task(2)])
            && task_of(s, 2).desired == Desired::Remove
            && s.node_failures(service(1), node(1)).is_none()
            && matches!(events.last(), Some(Event::Service { new: None, .. }))
    };
    check(vec![Change::ServiceRemove { service: service(1) }], Ok(removed));
    // The name is free, the rest of it goes with its end, and its failure counts nowhere.
    let state = applied(&base(), vec![Change::ServiceRemove { service: service(1) }]);
    check_on(&state, vec![new_service(2, spec("web", "nginx", 1))], Ok(|_, _| true));
    let gone = |s: &State, events: &[Event]| {
        s.task_count() == 0 && events.len() == 2 && s.failures_of_service(service(1)).count() == 0
    };
    check_on(&state, vec![end(2, TaskState::Failed)], Ok(gone));
}

#[test]
fn a_removed_service_takes_its_restarts_along() {
    let restart = |number, of, revision, slot| {
        create(NewTask { restart_of: Some(task(3)), slot, ..new_task(number, of, revision) })
    };
    let changes = vec![
        new_service(2, spec("other", "nginx", 1)),
        restart(4, 1, 4, Slot::Replica(0)),
        restart(5, 1, 4, Slot::Node(node(1))),
        restart(6, 2, 11, Slot::Replica(4)),
    ];
    let state = applied(&base(), changes);
    assert_eq!(state.slots_of_service(service(1)).count(), 2);
    let gone = |s: &State, _: &[Event]| {
        s.slots_of_service(service(1)).count() == 0
            && s.slots_of_service(service(2)).map(|(slot, _)| slot).eq([Slot::Replica(4)])
    };
    check_on(&state, vec![Change::ServiceRemove { service: service(1) }], Ok(gone));
}

#[test]
fn tasks_are_created() {
    check(vec![create(new_task(1, 1, 4))], Err("the id is taken"));
    check(vec![create(new_task(4, 9, 4))], Err("service 0000000000000000000000009 not found"));
    check(vec![create(new_task(4, 1, 3))], Err("out of sequence"));
    check(vec![create(NewTask { node: Some(node(9)), ..new_task(4, 1, 4) })], Err("node 0000000000000000000000009"));
    check(vec![create(NewTask { desired: Desired::Shutdown, ..new_task(4, 1, 4) })], Err("must be wanted"));
    let gate = Some(Gate { not_before: at(99), after: None });
    let held = NewTask { desired: Desired::Ready, gate, ..new_task(4, 1, 4) };
    check(vec![create(held)], Ok(|s, _| task_of(s, 4).gate.is_some() && task_of(s, 4).meta.version == 11));
    // A gate holds only what is `Ready`.
    check(vec![create(NewTask { gate, ..new_task(4, 1, 4) })], Ok(|s, _| task_of(s, 4).gate.is_none()));
    let placed = NewTask { node: Some(node(2)), ..new_task(4, 1, 4) };
    check(vec![create(placed)], Ok(|s, _| s.tasks_on_node(node(2)).map(|t| t.id).eq([task(4)])));
}

#[test]
fn restarts_are_counted_by_revision() {
    let restart =
        |number| create(NewTask { restart_of: Some(task(3)), slot: Slot::Replica(3), ..new_task(number, 1, 4) });
    let once = |s: &State, _: &[Event]| {
        s.slot_history(service(1), Slot::Replica(3)).is_some_and(|h| (h.restarts, &h.times[..]) == (1, &[at(11)]))
    };
    check(vec![restart(4)], Ok(once));
    // Without a window only the last time is kept.
    let twice = |s: &State, _: &[Event]| {
        s.slot_history(service(1), Slot::Replica(3)).is_some_and(|h| (h.restarts, h.times.len()) == (2, 1))
    };
    check(vec![restart(4), restart(5)], Ok(twice));
    // A new revision starts over; with a window as many times are kept as attempts are allowed.
    let mut windowed = (*spec("web", "nginx:2", 40)).clone();
    windowed.task = Arc::new(TaskSpec {
        restart: RestartPolicy {
            attempts_max: Some(2),
            window: Some(Duration::from_secs(60)),
            ..RestartPolicy::default()
        },
        ..(*windowed.task).clone()
    });
    let update = Change::ServiceUpdate { service: service(1), version: 4, spec: windowed.into() };
    let state = applied(&base(), vec![restart(4), update]);
    let again =
        |number| create(NewTask { restart_of: Some(task(3)), slot: Slot::Replica(3), ..new_task(number, 1, 12) });
    let over = |s: &State, _: &[Event]| {
        let history = s.slot_history(service(1), Slot::Replica(3)).expect("a history");
        (history.revision, history.restarts, history.times.len()) == (12, 3, 2)
    };
    check_on(&state, vec![again(5), again(6), again(7)], Ok(over));
}

#[test]
fn desired_only_grows() {
    check(vec![desire(9, Desired::Shutdown)], Err("not found"));
    check(vec![desire(2, Desired::Ready)], Err("does not go back"));
    check(vec![desire(2, Desired::Shutdown)], Ok(|s, _| task_of(s, 2).desired == Desired::Shutdown));
    check(vec![desire(2, Desired::Shutdown), desire(2, Desired::Running)], Err("does not go back"));
    check(vec![desire(2, Desired::Remove)], Ok(|s, _| task_of(s, 2).desired == Desired::Remove));
    let shut_down = |s: &State, events: &[Event]| {
        task_of(s, 1).ended.is_some_and(|e| (e.state, e.at) == (TaskState::Shutdown, at(11))) && events.len() == 1
    };
    check(vec![desire(1, Desired::Shutdown)], Ok(shut_down));
    // It has a node by now: only its agent knows when it has stopped.
    check(vec![assign(1, 1), desire(1, Desired::Shutdown)], Ok(|s, _| task_of(s, 1).ended.is_none()));
    check(vec![desire(1, Desired::Remove)], Ok(|s, _| s.task(task(1)).is_none()));
    check(vec![desire(3, Desired::Remove)], Ok(|s, e| s.task(task(3)).is_none() && e.len() == 1));
}

#[test]
fn gates() {
    let gate =
        |number| Change::TaskGate { task: task(number), gate: Gate { not_before: at(50), after: Some(task(2)) } };
    let held = || {
        let first = Some(Gate { not_before: at(99), after: None });
        create(NewTask { desired: Desired::Ready, gate: first, ..new_task(4, 1, 4) })
    };
    check(vec![gate(9)], Err("not found"));
    check(vec![gate(1)], Err("not waiting"));
    check(vec![held(), gate(4)], Ok(|s, _| task_of(s, 4).gate.is_some_and(|g| g.not_before == at(50))));
    check(vec![held(), desire(4, Desired::Running)], Ok(|s, _| task_of(s, 4).gate.is_none()));
    check(vec![held(), desire(4, Desired::Running), gate(4)], Err("not waiting"));
    // Also one that ended while it waited is not replaced before its delay has passed.
    check(vec![held(), end(4, TaskState::Rejected), gate(4)], Ok(|s, _| task_of(s, 4).gate.is_some()));
}

#[test]
fn generic_resources_are_granted_once() {
    let terms = |text: &str| parse_generics(text.split_whitespace()).expect("terms");
    let describe = |text: &str| {
        let description = NodeDescription { generic: terms(text), ..(*node_of(&base(), 1).description).clone() };
        Change::NodeDescribe { node: node(1), description: description.into(), addr: "192.0.2.1".to_owned() }
    };
    let mut heavy = (*spec("radio", "nginx", 0)).clone();
    let mut inner = (*heavy.task).clone();
    inner.resources.generic = [("gpio".to_owned(), 2), ("modem".to_owned(), 1)].into();
    heavy.task = inner.into();
    let begin = vec![describe("gpio=4 modem=a modem=b"), new_service(2, heavy.into())];
    let state = applied(&base(), begin);
    let revision = state.service(service(2)).unwrap().revision;
    let tasks = [5, 6, 7].map(|number| create(new_task(number, 2, revision)));
    let state = applied(&state, tasks.to_vec());
    let grant =
        |number: u128, text: &str| Change::TaskAssign { task: task(number), node: node(1), generic: terms(text) };
    #[track_caller]
    fn check(state: &State, changes: Vec<Change>, want: Option<&str>) {
        let got = apply(state, changes).err().map(|refusal| refusal.to_string());
        match (&got, want) {
            (None, None) => {}
            (Some(got), Some(want)) => assert!(got.contains(want), "{got}"),
            _ => panic!("{got:?}, expected {want:?}"),
        }
    }
    let other = Some("not those it asks for");
    for wrong in ["", "gpio=2", "gpio=3 modem=a", "gpio=2 modem=a modem=b", "gpio=2 modem=a pin=p"] {
        check(&state, vec![grant(5, wrong)], other);
    }
    check(&state, vec![assign(5, 1)], other);
    let taken = Some("its generic resources are taken");
    check(&state, vec![grant(5, "gpio=2 modem=z")], taken);
    check(&state, vec![grant(5, "gpio=2 modem=a"), grant(6, "gpio=2 modem=b")], None);
    check(&state, vec![grant(5, "gpio=2 modem=a"), grant(6, "gpio=2 modem=a")], taken);
    check(
        &state,
        vec![grant(5, "gpio=2 modem=a"), describe("gpio=3 modem=a modem=b"), grant(6, "gpio=2 modem=b")],
        taken,
    );
    // It is held until the task has ended, not only until it shall.
    let held = [grant(5, "gpio=2 modem=a"), desire(5, Desired::Shutdown), grant(6, "gpio=2 modem=a")];
    check(&state, held.to_vec(), taken);
    let freed = [grant(5, "gpio=2 modem=a"), end(5, TaskState::Failed), grant(6, "gpio=2 modem=a")];
    check(&state, freed.to_vec(), None);
    // It is in the task, and another word about the same node does not change it.
    let on = applied(&state, vec![grant(5, "gpio=2 modem=a"), grant(5, "gpio=2 modem=b")]);
    assert_eq!(task_of(&on, 5).generic, terms("gpio=2 modem=a"));
    let again = State::from_stored(on.to_stored()).expect("whole");
    assert_eq!(task_of(&again, 5).generic, terms("gpio=2 modem=a"));
}

#[test]
fn assignment_needs_a_fit_node_with_room() {
    let availability = |availability| Change::NodeUpdate {
        node: node(1),
        version: 2,
        spec: NodeSpec { availability, ..NodeSpec::default() },
    };
    check(vec![assign(9, 1)], Err("not found"));
    check(vec![assign(1, 9)], Err("node 0000000000000000000000009 not found"));
    check(vec![assign(1, 1)], Ok(|s, _| s.tasks_on_node(node(1)).count() == 3));
    check(vec![assign(2, 1)], Ok(|s, _| task_of(s, 2).node == Some(node(1))));
    check(vec![assign(2, 2)], Err("it has a node already"));
    check(vec![assign(3, 1)], Err("not wanted any more"));
    check(vec![desire(1, Desired::Shutdown), assign(1, 1)], Err("not wanted any more"));
    check(vec![write_off(1), assign(1, 1)], Err("it is down"));
    check(vec![availability(Availability::Pause), assign(1, 1)], Err("takes no new tasks"));
    check(vec![availability(Availability::Drain), assign(1, 1)], Err("takes no new tasks"));
    // 100 MiB hold two tasks of 40; what ended holds nothing.
    let third = vec![assign(1, 1), create(new_task(4, 1, 4)), assign(4, 1)];
    check(third, Err("its resources are taken"));
    let freed = vec![assign(1, 1), end(2, TaskState::Complete), create(new_task(4, 1, 4)), assign(4, 1)];
    check(freed, Ok(|s, _| s.reserved(node(1)) == s.reserved(node(1))));
    // What reserves nothing fits everywhere.
    let light = vec![assign(1, 1), new_service(2, spec("light", "nginx", 0)), create(new_task(5, 2, 11)), assign(5, 1)];
    check(light, Ok(|_, _| true));
}

#[test]
fn ends() {
    check(vec![end(9, TaskState::Failed)], Err("not found"));
    check(vec![end(3, TaskState::Failed)], Err("ended already"));
    check(vec![end(2, TaskState::Running)], Err("not an end"));
    let failed = |s: &State, _: &[Event]| {
        let ended = task_of(s, 2).ended.expect("an end");
        let times = s.node_failures(service(1), node(1)).map(|f| f.times.clone());
        (ended.at, ended.exit_code) == (at(11), Some(3)) && times == Some(vec![at(10), at(11)])
    };
    check(vec![end(2, TaskState::Failed)], Ok(failed));
    let not_counted = |s: &State, _: &[Event]| s.node_failures(service(1), node(1)).is_some_and(|f| f.times.len() == 1);
    check(vec![end(2, TaskState::Shutdown)], Ok(not_counted));
    // Without a node nobody is to blame.
    check(vec![end(1, TaskState::Rejected)], Ok(not_counted));
    let mut many = Vec::new();
    let enough = 15 + u128::try_from(crate::limits::FAILURE_TIMES_MAX).expect("a small number");
    for number in 10..enough {
        let placed = NewTask { node: Some(node(1)), ..new_task(number, 1, 4) };
        many.extend([create(placed), end(number, TaskState::Failed)]);
    }
    let bounded = |s: &State, _: &[Event]| {
        s.node_failures(service(1), node(1)).is_some_and(|f| f.times.len() == crate::limits::FAILURE_TIMES_MAX)
    };
    check(many, Ok(bounded));
}

#[test]
fn removal_needs_an_end() {
    let remove = |number| Change::TaskRemove { task: task(number) };
    check(vec![remove(9)], Err("not found"));
    check(vec![remove(1)], Err("it has not ended"));
    check(vec![remove(2)], Err("it has not ended"));
    check(vec![desire(2, Desired::Shutdown), remove(2)], Err("it has not ended"));
    check(vec![remove(3)], Ok(|s, _| s.task(task(3)).is_none() && s.tasks_on_node(node(1)).count() == 1));
    check(vec![desire(1, Desired::Shutdown), remove(1)], Ok(|s, _| s.task(task(1)).is_none()));
}

#[test]
fn a_refused_change_takes_the_whole_command_with_it() {
    let before = base();
    let changes = vec![new_node(3), end(2, TaskState::Complete), assign(1, 9)];
    apply(&before, changes).expect_err("there is no node 9");
    assert_eq!(before, base());
}

#[test]
fn networks_have_names_of_their_own_and_stay_while_they_are_used() {
    let net = |number| Change::NetworkRemove { network: network(number) };
    check(vec![new_network(1, "front"), new_network(1, "other")], Err("network with name other already exists"));
    check(vec![new_network(1, "front"), new_network(2, "front")], Err("network with name front already exists"));
    check(vec![net(1)], Err("network 0000000000000000000000001 not found"));
    let web = |networks: &[u128]| attached(&spec("web", "nginx", 40), networks);
    let update = |version, spec| Change::ServiceUpdate { service: service(1), version, spec };
    check(vec![update(4, web(&[1]))], Err("network 0000000000000000000000001 not found"));
    check(
        vec![new_service(2, attached(&spec("db", "pg", 1), &[1]))],
        Err("network 0000000000000000000000001 not found"),
    );
    let gone: Holds = |s, events| {
        s.networks().count() == 1
            && matches!(events, [Event::Network { old: None, .. }, Event::Network { new: None, .. }])
    };
    check(vec![new_network(1, "front"), net(1)], Ok(gone));

    // A service, then its tasks, hold the network.
    let on = applied(&base(), vec![new_network(1, "front"), update(4, web(&[1]))]);
    let in_use = "network 0000000000000000000000001 is in use by service 0000000000000000000000001";
    check_on(&on, vec![net(1)], Err(in_use));
    let revision = on.service(service(1)).expect("web").revision;
    let on = applied(&on, vec![create(new_task(7, 1, revision))]);
    let version = on.service(service(1)).expect("web").meta.version;
    let off = applied(&on, vec![update(version, web(&[]))]);
    check_on(&off, vec![net(1)], Err("is in use by task 0000000000000000000000007"));
    let free: Holds = |s, _| s.network(network(1)).is_none();
    check_on(&off, vec![desire(7, Desired::Shutdown), net(1)], Ok(free));
    // An update that runs may go back; one that is over only by hand.
    let status = |state| UpdateStatus { state, started: at(5), completed: None, message: String::new(), failures: 0 };
    let revision = off.service(service(1)).expect("web").revision;
    let progress = |state| Change::ServiceProgress { service: service(1), revision, update: status(state) };
    let quiet = desire(7, Desired::Shutdown);
    check_on(&off, vec![progress(UpdateState::Updating), quiet.clone(), net(1)], Err(in_use));
    check_on(&off, vec![progress(UpdateState::Completed), quiet.clone(), net(1)], Ok(free));
    let off_and_gone = applied(&off, vec![quiet, net(1)]);
    let version = off.service(service(1)).expect("web").meta.version;
    let back = Change::ServiceRollback { service: service(1), by: RollbackBy::User { version } };
    check_on(&off_and_gone, vec![back], Err("network 0000000000000000000000001 not found"));
    // A service that is removed lets go at once, though its tasks still run.
    let on = applied(&on, vec![assign(7, 1)]);
    let still_there: Holds = |s, _| s.network(network(1)).is_none() && s.task(task(7)).is_some();
    check_on(&on, vec![Change::ServiceRemove { service: service(1) }, net(1)], Ok(still_there));
}

#[test]
fn networks_end() {
    // The mesh is one of them.
    let many = (1..u128::try_from(crate::limits::NETWORKS_MAX).expect("a small number"))
        .map(|number| new_network(number + 1, &format!("n{number}")))
        .collect();
    let full = apply(&base(), many).expect("as many as there may be").0;
    check_on(&full, vec![new_network(9999, "more")], Err("there are 1024 networks already"));
}
