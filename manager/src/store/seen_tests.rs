use racimo_common::object::{BoardHealth, ContainerStatus, TaskReport, TaskState};

use super::testing::*;
use super::*;

fn report(number: u128, state: TaskState) -> TaskReport {
    let container = Some(ContainerStatus { id: "c".to_owned(), pid: 7, exit_code: None });
    TaskReport {
        unhealthy: false,
        restarts: 0,
        ports: Vec::new(),
        task: task(number),
        state,
        at: at(100),
        message: "started".to_owned(),
        err: None,
        container,
    }
}

fn says(by: u128, number: u128, state: TaskState) -> Observation {
    Observation::Task { node: node(by), report: report(number, state) }
}

fn ready(number: u128, ready: bool) -> Observation {
    Observation::Node { node: node(number), seen: SeenNode { ready, at: at(100) } }
}

fn waits(number: u128, reason: Option<&str>) -> Observation {
    Observation::Waits { task: task(number), at: at(100), reason: reason.map(str::to_owned) }
}

/// Which of the observations change anything, and what is seen of tasks 1 and 2 then.
#[track_caller]
fn check(observations: &[Observation], takes: &[bool], states: [TaskState; 2]) {
    let mut view = View { state: base(), seen: Seen::default() };
    let taken: Vec<bool> = observations.iter().map(|o| view.seen.observe(&view.state, o.clone()).is_some()).collect();
    assert_eq!(taken, takes);
    assert_eq!([1, 2].map(|number| view.state_of(task(number)).expect("a task")), states);
}

#[test]
fn observations() {
    use TaskState::*;
    check(&[], &[], [Pending, Assigned]);
    check(&[says(1, 2, Running)], &[true], [Pending, Running]);
    // The same again is no news.
    check(&[says(1, 2, Running), says(1, 2, Running)], &[true, false], [Pending, Running]);
    // Its board makes it anew, which it began without a manager.
    check(&[says(1, 2, Running), says(1, 2, Preparing)], &[true, true], [Pending, Preparing]);
    // What becomes unhealthy is in the same state.
    let unhealthy = Observation::Task { node: node(1), report: TaskReport { unhealthy: true, ..report(2, Running) } };
    check(&[says(1, 2, Running), unhealthy.clone(), unhealthy], &[true, true, false], [Pending, Running]);
    // Other nodes' tasks, tasks without a node, ended and unknown ones.
    check(&[says(2, 2, Running), says(1, 1, Running)], &[false, false], [Pending, Assigned]);
    check(&[says(1, 3, Running), says(1, 9, Running)], &[false, false], [Pending, Assigned]);
    // A state below what the store knows shows what the store knows.
    check(&[says(1, 2, New)], &[true], [Pending, Assigned]);
    // An end is a decision: it never comes this way.
    check(&[says(1, 2, Failed)], &[false], [Pending, Assigned]);
    check(&[ready(1, true), ready(1, true), ready(9, true)], &[true, false, false], [Pending, Assigned]);
    check(
        &[waits(1, Some("no room")), waits(1, Some("no room")), waits(1, None)],
        &[true, false, true],
        [Pending, Assigned],
    );
    check(&[waits(3, Some("x")), waits(9, Some("x"))], &[false, false], [Pending, Assigned]);
    check(&[says(1, 2, Running), waits(2, Some("x"))], &[true, false], [Pending, Running]);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut view = View { state: base(), seen: Seen::default() };
    for observation in [ready(1, true), ready(2, true), says(1, 2, TaskState::Running), waits(1, Some("no room"))] {
        view.seen.observe(&view.state, observation).expect("news");
    }
    assert!(view.is_ready(node(1)));
    for (change, node_seen, task_seen) in [
        (Change::TaskRemove { task: task(3) }, true, [true, true]),
        (end(2, TaskState::Complete), true, [true, false]),
        (Change::NodeRemove { node: node(1) }, false, [true, false]),
        (Change::ServiceRemove { service: service(1) }, false, [false, false]),
    ] {
        let (state, events) = apply(&view.state, vec![change]).expect("allowed");
        view.state = state;
        view.seen.follow(&events);
        assert_eq!(view.seen.node(node(1)).is_some(), node_seen);
        assert_eq!([1, 2].map(|number| view.seen.task(task(number)).is_some()), task_seen);
    }
    assert!(view.seen.node(node(2)).is_some());
}

#[test]
fn a_view_says_how_nodes_and_tasks_are() {
    let mut view = View { state: base(), seen: Seen::default() };
    let status = |view: &View| view.node_status(view.state.node(node(1)).expect("a node"));
    assert_eq!(status(&view), NodeStatus::Unknown);
    view.seen.observe(&view.state, ready(1, true)).expect("news");
    assert_eq!(status(&view), NodeStatus::Ready);
    // Written off counts, whatever is seen.
    view.state = applied(&view.state, vec![write_off(1)]);
    assert_eq!(status(&view), NodeStatus::Down);
    assert!(!view.is_ready(node(1)) && !view.is_ready(node(9)));
    let status = |view: &View, number| view.task_status(view.state.task(task(number)).expect("a task"));
    assert_eq!(status(&view, 1).message, "pending task scheduling");
    assert_eq!(status(&view, 2).message, "scheduler assigned task to node");
    assert_eq!((status(&view, 3).state, status(&view, 3).message.as_str()), (TaskState::Failed, "over"));
    view.seen.observe(&view.state, waits(1, Some("no room"))).expect("news");
    assert_eq!(status(&view, 1).err.as_deref(), Some("no room"));
    // Why it waited is past once it has a node.
    view.state = applied(&view.state, vec![assign(1, 2)]);
    assert_eq!((status(&view, 1).state, status(&view, 1).err), (TaskState::Assigned, None));
    view.seen.observe(&view.state, says(1, 2, TaskState::Running)).expect("news");
    assert_eq!(status(&view, 2).container.map(|c| c.pid), Some(7));
    // Why it is to leave is said of one that has waited, and of one that runs, which goes on to.
    for (number, state, pid) in [(1, TaskState::Assigned, None), (2, TaskState::Running, Some(7))] {
        let (message, err) = ("goes".to_owned(), "no room any more".to_owned());
        let evicted = Observation::Evicted { task: task(number), at: at(200), message, err };
        view.seen.observe(&view.state, evicted).expect("news");
        let found = status(&view, number);
        assert_eq!((found.state, found.container.map(|c| c.pid)), (state, pid));
        assert_eq!((found.message.as_str(), found.err.as_deref()), ("goes", Some("no room any more")));
    }
}

#[test]
fn health_is_no_news_and_goes_with_its_node() {
    let mut view = View { state: base(), seen: Seen::default() };
    let says = |number, temperature: Option<i16>| Observation::Health {
        node: node(number),
        health: temperature.map(|degrees| BoardHealth { temperature: Some(degrees), ..BoardHealth::default() }.into()),
    };
    let temperature = |view: &View, number| view.seen.health(node(number)).and_then(|health| health.temperature);
    for (number, said, want) in [(1, Some(50), Some(50)), (1, Some(60), Some(60)), (1, None, None), (9, Some(1), None)]
    {
        assert!(view.seen.observe(&view.state, says(number, said)).is_none());
        assert_eq!(temperature(&view, number), want);
    }
    view.seen.observe(&view.state, says(1, Some(50)));
    let (_, events) = apply(&view.state, vec![Change::NodeRemove { node: node(1) }]).expect("allowed");
    view.seen.follow(&events);
    assert_eq!(temperature(&view, 1), None);
}
