use racimo_common::limits::FRAME_TO_AGENT_MAX;
use racimo_common::object::{Desired, TaskState, parse_generics};
use racimo_common::wire::{Assign, ToAgent, frame};

use crate::dispatcher::assign::{Sent, assignment, complete, delta};
use crate::store::testing::*;
use crate::store::{Change, Seen, State, View};

fn view(state: State) -> View {
    View { state, seen: Seen::default() }
}

/// What the parts say together: tasks with their desired state and whether work comes along, and removals.
#[track_caller]
fn told(parts: &[Assign]) -> (Vec<(u128, Desired, bool)>, Vec<u128>) {
    for (number, part) in parts.iter().enumerate() {
        assert_eq!(part.last, number + 1 == parts.len());
        assert_eq!((part.complete, part.from, part.to), (parts[0].complete, parts[0].from, parts[0].to));
        let bytes = frame::encode(&ToAgent::Assign(part.clone()), FRAME_TO_AGENT_MAX);
        assert!(bytes.is_ok(), "a part is over the limit");
        assert!(parts.len() == 1 || !part.tasks.is_empty() || !part.removed.is_empty(), "an empty part");
    }
    let tasks = parts.iter().flat_map(|p| &p.tasks).map(|a| (a.task.bits(), a.desired, a.work.is_some())).collect();
    (tasks, parts.iter().flat_map(|p| &p.removed).map(|id| id.bits()).collect())
}

/// From [`base`], of which node 1 knows all, to `changes`: what it is told.
#[track_caller]
fn check(changes: Vec<Change>, tasks: &[(u128, Desired, bool)], removed: &[u128]) {
    let before = view(base());
    let (_, mut sent) = complete(&before, node(1));
    let after = view(applied(&before.state, changes));
    let parts = delta(&after, node(1), &mut sent, before.version());
    if parts.is_empty() {
        assert!(tasks.is_empty() && removed.is_empty());
    } else {
        assert_eq!(told(&parts), (tasks.to_vec(), removed.to_vec()));
        assert_eq!((parts[0].complete, parts[0].from, parts[0].to), (false, before.version(), after.version()));
    }
    // Both ways lead to the same record, and there is nothing left to tell.
    assert_eq!(sent, complete(&after, node(1)).1);
    assert_eq!(delta(&after, node(1), &mut sent, after.version()), []);
}

#[test]
fn the_whole_set() {
    let view = view(base());
    let (parts, sent) = complete(&view, node(1));
    assert_eq!(told(&parts), (vec![(2, Desired::Running, true)], Vec::new()));
    assert_eq!((parts[0].complete, parts[0].from, parts[0].to), (true, 0, view.version()));
    assert_eq!(sent, Sent { tasks: [(task(2), Desired::Running)].into(), logs: vec![task(3)] });
    // The log of the one that ended stays.
    assert_eq!(parts[0].logs, Some(vec![task(3)]));
    let work = parts[0].tasks[0].work.as_ref().expect("work");
    assert_eq!((work.slot_name.as_str(), work.container.image.as_str()), ("web.2", "nginx"));
    // What it was granted is in its environment.
    let mut granted = (**view.state.task(task(2)).expect("a task")).clone();
    granted.generic = parse_generics(["gpio=2", "modem=/dev/b", "modem=/dev/a"]).expect("terms");
    let env = assignment(&granted, true).work.expect("work").container.env;
    assert_eq!(env, ["DOCKER_RESOURCE_GPIO=2", "DOCKER_RESOURCE_MODEM=/dev/a,/dev/b"]);
    // A board without tasks is told so.
    let (parts, sent) = complete(&view, node(2));
    assert_eq!((told(&parts), sent), ((Vec::new(), Vec::new()), Sent::default()));
}

#[test]
fn changes() {
    check(Vec::new(), &[], &[]);
    check(vec![assign(1, 2), new_node(3)], &[], &[]);
    check(vec![assign(1, 1)], &[(1, Desired::Running, true)], &[]);
    check(vec![desire(2, Desired::Shutdown)], &[(2, Desired::Shutdown, false)], &[]);
    check(vec![assign(1, 1), desire(1, Desired::Remove)], &[(1, Desired::Remove, true)], &[]);
    check(vec![end(2, TaskState::Complete)], &[], &[2]);
    check(vec![desire(2, Desired::Remove), end(2, TaskState::Complete)], &[], &[2]);
    check(vec![assign(1, 1), end(1, TaskState::Failed)], &[], &[]);
    check(vec![assign(1, 1), end(2, TaskState::Failed)], &[(1, Desired::Running, true)], &[2]);
    check(vec![Change::ServiceRemove { service: service(1) }], &[(2, Desired::Remove, false)], &[]);
}

/// From [`base`], where task 3 has ended: the logs that the change tells of.
#[track_caller]
fn check_logs(changes: Vec<Change>, want: Option<&[u128]>) {
    let before = view(base());
    let (_, mut sent) = complete(&before, node(1));
    let after = view(applied(&before.state, changes));
    let parts = delta(&after, node(1), &mut sent, before.version());
    let logs = parts.first().and_then(|part| part.logs.clone());
    assert_eq!(logs, want.map(|logs| logs.iter().map(|number| task(*number)).collect()));
}

#[test]
fn logs_stay_while_their_tasks_are_in_the_history() {
    check_logs(vec![assign(1, 1)], None);
    check_logs(vec![end(2, TaskState::Complete)], Some(&[2, 3]));
    check_logs(vec![Change::TaskRemove { task: task(3) }], Some(&[]));
}

#[test]
fn large_sets_come_in_parts() {
    let mut heavy = (*spec("heavy", "nginx", 0)).clone();
    let mut task_spec = (*heavy.task).clone();
    task_spec.container.env = vec!["x".repeat(60_000)];
    heavy.task = task_spec.into();
    let state = applied(&State::default(), vec![new_cluster(), new_node(1), new_service(1, heavy.into())]);
    let mut changes = Vec::new();
    for number in 1..=30 {
        changes.extend([create(new_task(number, 1, 3)), assign(number, 1)]);
    }
    let state = apply(&state, changes).expect("allowed").0;
    let (parts, mut sent) = complete(&view(state.clone()), node(1));
    assert!(parts.len() > 7, "{} parts", parts.len());
    assert_eq!(told(&parts).0.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    // The same as a change.
    let parts = delta(&view(state.clone()), node(1), &mut Sent::default(), 3);
    assert_eq!(told(&parts).0.len(), 30);
    // Their removal is small again.
    let state = applied(&state, (1..=30).map(|number| end(number, TaskState::Complete)).collect());
    let parts = delta(&view(state), node(1), &mut sent, 4);
    assert_eq!((parts.len(), told(&parts).1.len()), (1, 30));
    // Very many removals.
    let tasks = (0..40_000).map(|number| (task(number), Desired::Running)).collect();
    let mut sent = Sent { tasks, logs: Vec::new() };
    let parts = delta(&view(base()), node(2), &mut sent, 4);
    assert!(parts.len() > 2);
    assert_eq!((told(&parts).1.len(), sent.tasks.len()), (40_000, 0));
}

#[test]
fn the_largest_task_takes_a_part_of_its_own() {
    let bytes = FRAME_TO_AGENT_MAX - 700;
    let mut heavy = (*spec("heavy", "nginx", 0)).clone();
    let mut task_spec = (*heavy.task).clone();
    task_spec.container.env = vec!["x".repeat(bytes)];
    heavy.task = task_spec.into();
    let mut state = applied(&State::default(), vec![new_cluster(), new_node(1), new_service(1, heavy.into())]);
    for number in 1..=2 {
        state = applied(&state, vec![create(new_task(number, 1, 3)), assign(number, 1)]);
    }
    let (parts, _) = complete(&view(state), node(1));
    assert_eq!((parts.len(), told(&parts).0.len()), (2, 2));
}
