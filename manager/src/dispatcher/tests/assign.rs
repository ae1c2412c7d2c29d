use std::collections::BTreeMap;

use racimo_common::limits::{BODIES_MAX, BODY_PART_BYTES_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::{Desired, FileRef, NetworkMode, TaskState, parse_generics};
use racimo_common::registry::Credentials;
use racimo_common::wire::{Assign, BodyKey, ToAgent, frame};

use crate::dispatcher::assign::{Sent, complete, delta};
use crate::store::testing::*;
use crate::store::{Change, DependencyKind, NewDependency, Seen, State, View};
use crate::vault::{Owner, Vault, testing};

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
        assert!(
            parts.len() == 1 || !part.bodies.is_empty() || !part.tasks.is_empty() || !part.removed.is_empty(),
            "an empty part"
        );
    }
    let tasks = parts.iter().flat_map(|p| &p.tasks).map(|a| (a.task.bits(), a.desired, a.work.is_some())).collect();
    (tasks, parts.iter().flat_map(|p| &p.removed).map(|id| id.bits()).collect())
}

/// From [`base`], of which node 1 knows all, to `changes`: what it is told.
#[track_caller]
fn check(changes: Vec<Change>, tasks: &[(u128, Desired, bool)], removed: &[u128]) {
    let before = view(base());
    let (_, mut sent) = complete(&before, &testing(), node(1));
    let after = view(applied(&before.state, changes));
    let parts = delta(&after, &testing(), node(1), &mut sent, before.version());
    if parts.is_empty() {
        assert!(tasks.is_empty() && removed.is_empty());
    } else {
        assert_eq!(told(&parts), (tasks.to_vec(), removed.to_vec()));
        assert_eq!((parts[0].complete, parts[0].from, parts[0].to), (false, before.version(), after.version()));
    }
    // Both ways lead to the same record, and there is nothing left to tell.
    assert_eq!(sent, complete(&after, &testing(), node(1)).1);
    assert_eq!(delta(&after, &testing(), node(1), &mut sent, after.version()), []);
}

#[test]
fn the_whole_set() {
    let view = view(base());
    let (parts, sent) = complete(&view, &testing(), node(1));
    assert_eq!(told(&parts), (vec![(2, Desired::Running, true)], Vec::new()));
    assert_eq!((parts[0].complete, parts[0].from, parts[0].to), (true, 0, view.version()));
    assert_eq!(sent, Sent::of([(task(2), Desired::Running)], vec![task(3)]));
    // The log of the one that ended stays.
    assert_eq!(parts[0].logs, Some(vec![task(3)]));
    let work = parts[0].tasks[0].work.as_ref().expect("work");
    assert_eq!((work.slot_name.as_str(), work.container.image.as_str()), ("web.2", "nginx"));
    // What it was granted is in its environment.
    let mut granted = (**view.state.task(task(2)).expect("a task")).clone();
    granted.generic = parse_generics(["gpio=2", "modem=/dev/b", "modem=/dev/a"]).expect("terms");
    let env = crate::dispatcher::work::work(&view, &testing(), &granted).container.env;
    assert_eq!(env, ["DOCKER_RESOURCE_GPIO=2", "DOCKER_RESOURCE_MODEM=/dev/a,/dev/b"]);
    // A board without tasks is told so.
    let (parts, sent) = complete(&view, &testing(), node(2));
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
    let (_, mut sent) = complete(&before, &testing(), node(1));
    let after = view(applied(&before.state, changes));
    let parts = delta(&after, &testing(), node(1), &mut sent, before.version());
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
    let (parts, mut sent) = complete(&view(state.clone()), &testing(), node(1));
    assert!(parts.len() > 7, "{} parts", parts.len());
    assert_eq!(told(&parts).0.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    // The same as a change.
    let parts = delta(&view(state.clone()), &testing(), node(1), &mut Sent::default(), 3);
    assert_eq!(told(&parts).0.len(), 30);
    // Their removal is small again.
    let state = applied(&state, (1..=30).map(|number| end(number, TaskState::Complete)).collect());
    let parts = delta(&view(state), &testing(), node(1), &mut sent, 4);
    assert_eq!((parts.len(), told(&parts).1.len()), (1, 30));
    // Very many removals.
    let mut sent = Sent::of((0..40_000).map(|number| (task(number), Desired::Running)), Vec::new());
    let parts = delta(&view(base()), &testing(), node(2), &mut sent, 4);
    assert!(parts.len() > 2);
    assert_eq!((told(&parts).1.len(), sent.len()), (40_000, 0));
}

#[test]
fn the_largest_task_takes_a_part_of_its_own() {
    let bytes = FRAME_TO_AGENT_MAX - 2 * crate::dispatcher::work::MARGIN - 700;
    let mut heavy = (*spec("heavy", "nginx", 0)).clone();
    let mut task_spec = (*heavy.task).clone();
    task_spec.container.env = vec!["x".repeat(bytes)];
    heavy.task = task_spec.into();
    let mut state = applied(&State::default(), vec![new_cluster(), new_node(1), new_service(1, heavy.into())]);
    for number in 1..=2 {
        state = applied(&state, vec![create(new_task(number, 1, 3)), assign(number, 1)]);
    }
    let (parts, _) = complete(&view(state), &testing(), node(1));
    assert_eq!((parts.len(), told(&parts).0.len()), (2, 2));
}

/// Node 1 with secret 1 (2,000,000 bits), config 2 (a template) and a service that names both.
fn with_files(template: &[u8]) -> State {
    let vault = testing();
    let made = |number, kind, name: &str, template, plain: &[u8]| {
        let id = dependency(number);
        let body = vault.seal(Owner::Dependency(kind, id), plain).expect("sealed");
        let new = NewDependency { id, kind, name: name.into(), labels: Default::default(), template, body };
        Change::DependencyCreate(Box::new(new))
    };
    let mut spec = (*spec("web", "nginx", 0)).clone();
    let mut task_spec = (*spec.task).clone();
    let file = |number, name: &str, target: &str| FileRef {
        id: dependency(number),
        name: name.into(),
        target: target.into(),
        uid: 3,
        gid: 4,
        mode: 0o400,
    };
    task_spec.container.secrets = vec![file(1, "key", "key")];
    task_spec.container.configs = vec![file(2, "conf", "/etc/app.conf")];
    task_spec.container.env = vec!["WHERE={{.Node.Hostname}}".into()];
    // A board has no more than 253 addresses.
    task_spec.container.network = NetworkMode::None;
    spec.task = task_spec.into();
    spec.credentials = Some(vault.seal(Owner::Credentials(service(1)), &credentials()).expect("sealed"));
    let changes = vec![
        new_cluster(),
        new_node(1),
        made(1, DependencyKind::Secret, "key", false, &[7; 250_000]),
        made(2, DependencyKind::Config, "conf", true, template),
        new_service(1, spec.into()),
        create(new_task(1, 1, 5)),
        assign(1, 1),
    ];
    applied(&State::default(), changes)
}

fn credentials() -> Vec<u8> {
    rmp_serde::to_vec_named(&Credentials::IdentityToken("tok".into())).expect("encodes")
}

/// The contents that the parts bring, whole.
fn bodies(parts: &[Assign]) -> BTreeMap<BodyKey, Vec<u8>> {
    let mut bodies: BTreeMap<BodyKey, Vec<u8>> = BTreeMap::new();
    let mut seen_task = false;
    for part in parts {
        assert!(part.bodies.iter().map(|body| body.bytes.len()).sum::<usize>() <= BODY_PART_BYTES_MAX);
        assert!(!seen_task || part.bodies.is_empty(), "a content after the tasks");
        seen_task |= !part.tasks.is_empty();
        for body in &part.bodies {
            let whole = bodies.entry(body.key).or_default();
            assert_eq!(usize::try_from(body.offset).expect("small"), whole.len());
            whole.extend(&body.bytes);
        }
    }
    for body in parts.iter().flat_map(|part| &part.bodies) {
        assert_eq!(usize::try_from(body.total).expect("small"), bodies[&body.key].len());
    }
    bodies
}

#[test]
fn contents_come_before_the_tasks_that_need_them() {
    let state = with_files(b"{{.Service.Name}} {{.Task.Slot}} {{env \"WHERE\"}} {{secret \"key\" | len}}");
    let (parts, mut sent) = complete(&view(state.clone()), &testing(), node(1));
    told(&parts);
    let secret = BodyKey { id: dependency(1), task: None };
    let config = |number| BodyKey { id: dependency(2), task: Some(task(number)) };
    let got = bodies(&parts);
    assert_eq!(got.keys().copied().collect::<Vec<_>>(), [secret, config(1)]);
    assert_eq!(
        (got[&secret].len(), String::from_utf8_lossy(&got[&config(1)])),
        (250_000, "web 1 board1 250000".into())
    );
    let work = parts.last().and_then(|part| part.tasks[0].work.clone()).expect("work");
    assert_eq!((&work.fault, work.container.env[0].as_str()), (&None, "WHERE=board1"));
    assert_eq!(work.credentials, Some(Credentials::IdentityToken("tok".into())));
    assert!(work.container.secrets.is_empty() && work.container.configs.is_empty());
    let files: Vec<_> = work.files.iter().map(|f| (f.body, f.target.as_str(), f.uid, f.gid, f.mode)).collect();
    assert_eq!(files, [(secret, "/run/secrets/key", 3, 4, 0o400), (config(1), "/etc/app.conf", 3, 4, 0o400)]);

    // The next task gets its own text; the board has the secret.
    let state = applied(&state, vec![create(new_task(2, 1, 5)), assign(2, 1)]);
    let parts = delta(&view(state.clone()), &testing(), node(1), &mut sent, 7);
    assert_eq!(bodies(&parts).into_keys().collect::<Vec<_>>(), [config(2)]);
    // It is there as long as one of them is.
    let state = applied(&state, vec![end(1, TaskState::Failed), create(new_task(3, 1, 5)), assign(3, 1)]);
    let parts = delta(&view(state.clone()), &testing(), node(1), &mut sent, 9);
    assert_eq!(bodies(&parts).into_keys().collect::<Vec<_>>(), [config(3)]);
    let state = applied(&state, vec![end(2, TaskState::Failed), end(3, TaskState::Failed)]);
    assert_eq!(bodies(&delta(&view(state.clone()), &testing(), node(1), &mut sent, 12)).len(), 0);
    let state = applied(&state, vec![create(new_task(4, 1, 5)), assign(4, 1)]);
    let parts = delta(&view(state.clone()), &testing(), node(1), &mut sent, 14);
    assert_eq!(bodies(&parts).into_keys().collect::<Vec<_>>(), [secret, config(4)]);
    // One that shall stop needs none, but the board still has it; a new session starts over.
    let state = applied(&state, vec![desire(4, Desired::Shutdown)]);
    let parts = delta(&view(state.clone()), &testing(), node(1), &mut sent, 16);
    assert_eq!((bodies(&parts).len(), told(&parts).0), (0, vec![(4, Desired::Shutdown, false)]));
    assert_eq!(bodies(&complete(&view(state), &testing(), node(1)).0).len(), 0);
}

#[track_caller]
fn faulty(state: State, vault: &Vault, want: &str) {
    let (parts, sent) = complete(&view(state), vault, node(1));
    assert!(bodies(&parts).is_empty());
    let work = parts[0].tasks[0].work.as_ref().expect("work");
    assert_eq!((work.fault.as_deref(), work.files.len(), &work.credentials), (Some(want), 0, &None));
    assert_eq!(sent.len(), 1);
}

#[test]
fn what_cannot_be_made_ready_is_said() {
    let no_label = "expanding config 'conf' failed: template: 1:1: map has no entry for key";
    faulty(with_files(b"{{.Service.Labels.none}}"), &testing(), no_label);
    let no_text = "expanding config 'conf' failed: it is not UTF-8 text";
    faulty(with_files(b"\xff{{"), &testing(), no_text);
    let no_target =
        "expanding config 'conf' failed: template: 1:1: the service has no secret with the target it asks for";
    faulty(with_files(b"{{secret \"nope\"}}"), &testing(), no_target);
    let locked = "the registry credentials of the service: the vault is locked: its key is not loaded";
    faulty(with_files(b"x"), &Vault::default(), locked);
    // The secret was taken from the service and removed; a task of before is still to be sent.
    let state = with_files(b"x");
    let version = state.service(service(1)).expect("it is there").meta.version;
    let update = Change::ServiceUpdate { service: service(1), version, spec: spec("web", "nginx", 0) };
    let state = applied(&state, vec![update, Change::DependencyRemove { dependency: dependency(1) }]);
    faulty(state, &testing(), "secret 'key' was removed");
}

#[test]
fn a_board_gets_no_more_contents_than_it_holds() {
    // A template: each task has a content of its own.
    let many = u128::try_from(BODIES_MAX).expect("small");
    let more = (2..=many).flat_map(|number| [create(new_task(number, 1, 5)), assign(number, 1)]).collect();
    let state = applied(&with_files(b"{{.Task.Slot}}"), more);
    let (parts, mut sent) = complete(&view(state.clone()), &testing(), node(1));
    assert_eq!(bodies(&parts).len(), BODIES_MAX, "the secret and all but one of the configs");
    let faults = |parts: &[Assign]| -> Vec<(u128, String)> {
        let tasks = parts.iter().flat_map(|part| &part.tasks);
        tasks.filter_map(|t| Some((t.task.bits(), t.work.as_ref()?.fault.clone()?))).collect()
    };
    let reason = "its board holds at most 512 secrets and configs".to_owned();
    assert_eq!(faults(&parts), [(many, reason.clone())]);
    // A change makes room for as many as it takes away.
    let more = (many + 1..many + 4).flat_map(|number| [create(new_task(number, 1, 5)), assign(number, 1)]);
    let state =
        applied(&state, [end(1, TaskState::Failed), end(2, TaskState::Failed)].into_iter().chain(more).collect());
    let parts = delta(&view(state), &testing(), node(1), &mut sent, 9);
    assert_eq!(bodies(&parts).len(), 2, "the secret is there");
    assert_eq!(faults(&parts), [(many + 3, reason)]);
}

#[test]
fn a_task_that_grows_too_large_is_refused_alone() {
    let mut heavy = (*spec("heavy", "nginx", 0)).clone();
    heavy.labels.insert("l".into(), "x".repeat(30_000));
    let mut task_spec = (*heavy.task).clone();
    task_spec.container.env = (0..9).map(|n| format!("E{n}={{{{.Service.Labels.l}}}}")).collect();
    heavy.task = task_spec.into();
    let changes =
        vec![new_cluster(), new_node(1), new_service(1, heavy.into()), create(new_task(1, 1, 3)), assign(1, 1)];
    let (parts, _) = complete(&view(applied(&State::default(), changes)), &testing(), node(1));
    told(&parts);
    let fault = parts[0].tasks[0].work.as_ref().and_then(|work| work.fault.clone()).expect("a fault");
    assert_eq!(fault, "with its templates filled in the task takes more than 262144 bytes to send");
}
