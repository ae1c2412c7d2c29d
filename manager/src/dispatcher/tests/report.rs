use racimo_common::object::{Desired, HostPort, Port, PortMode, Protocol, TaskReport, TaskState};

use super::board::report;
use crate::dispatcher::report::{Meaning, is_clean, read};
use crate::store::testing::*;
use crate::store::{Change, Ended, Observation, Seen, View};

/// What node 1's `reports` mean when `changes` were made to [`base`].
#[track_caller]
fn check(changes: Vec<Change>, reports: Vec<TaskReport>, want: Meaning) {
    let view = View { state: applied(&base(), changes), seen: Seen::default() };
    let got = read(&view, node(1), reports, at(70));
    assert_eq!(got, want);
    if !got.changes.is_empty() {
        apply(&view.state, got.changes).expect("the store takes it");
    }
}

fn ends(state: TaskState, message: &str, err: Option<&str>) -> Meaning {
    let ended = Ended {
        state,
        at: at(70),
        message: message.to_owned(),
        err: err.map(str::to_owned),
        container: Some("c".to_owned()),
        exit_code: Some(3),
    };
    Meaning { changes: vec![Change::TaskEnd { task: task(2), ended }], ..Meaning::default() }
}

#[test]
fn reports() {
    use TaskState::*;
    let stopping = || vec![desire(2, Desired::Shutdown)];
    let running = || Observation::Task { node: node(1), report: report(2, Running) };
    check(vec![], vec![], Meaning::default());
    check(vec![], vec![report(2, Running)], Meaning { observations: vec![running()], ..Meaning::default() });
    check(vec![], vec![report(2, Failed)], ends(Failed, "said", Some("e")));
    check(vec![], vec![report(2, Rejected)], ends(Rejected, "said", Some("e")));
    // What was asked to stop and fails is stopped; what ends well in spite of it ended well.
    check(stopping(), vec![report(2, Failed)], ends(Shutdown, "shutdown", None));
    check(stopping(), vec![report(2, Complete)], ends(Complete, "said", Some("e")));
    check(vec![desire(2, Desired::Remove)], vec![report(2, Failed)], ends(Shutdown, "shutdown", None));
    // Ended, unknown and other nodes' tasks.
    check(vec![], vec![report(3, Running), report(9, Failed)], Meaning::default());
    let foreign = vec![report(1, Failed), report(1, Running)];
    check(vec![assign(1, 2)], foreign, Meaning { foreign: 2, ..Meaning::default() });
    // Told twice: the first end counts.
    check(vec![], vec![report(2, Failed), report(2, Complete)], ends(Failed, "said", Some("e")));
    // Longer than anything an agent says.
    let mut long = report(2, Failed);
    (long.message, long.err) = ("é".repeat(9000), Some(format!("x{}", "é".repeat(9000))));
    let (message, err) = ("é".repeat(512), format!("x{}", "é".repeat(511)));
    check(vec![], vec![long], ends(Failed, &message, Some(&err)));
    let mut both = ends(Complete, "said", Some("e"));
    both.observations.push(running());
    check(vec![], vec![report(2, Running), report(2, Complete)], both);
}

#[test]
fn a_board_tells_how_often_it_restarted_a_task() {
    let told = |restarts: u32, message: &str| {
        let mut want = report(2, TaskState::Running);
        (want.restarts, want.message) = (restarts, message.to_owned());
        let observations = vec![Observation::Task { node: node(1), report: want }];
        let said = TaskReport { restarts, ..report(2, TaskState::Running) };
        check(vec![], vec![said], Meaning { observations, ..Meaning::default() });
    };
    told(0, "said");
    told(1, "said (restarted once while the manager was away)");
    told(2, "said (restarted 2 times while the manager was away)");
    // Its end says what ended it.
    check(
        vec![],
        vec![TaskReport { restarts: 2, ..report(2, TaskState::Failed) }],
        ends(TaskState::Failed, "said", Some("e")),
    );
}

/// Whether node 1 may come back when `changes` were made to [`base`].
#[track_caller]
fn check_clean(changes: Vec<Change>, want: bool) {
    let view = View { state: applied(&base(), changes), seen: Seen::default() };
    assert_eq!(is_clean(&view, node(1)), want);
}

#[test]
fn a_node_is_clean_when_all_that_was_replaced_has_stopped() {
    let ended = || {
        let ended = Ended {
            state: TaskState::Shutdown,
            at: at(70),
            message: "shutdown".to_owned(),
            err: None,
            container: None,
            exit_code: None,
        };
        Change::TaskEnd { task: task(2), ended }
    };
    check_clean(vec![], true);
    check_clean(vec![desire(2, Desired::Shutdown)], false);
    check_clean(vec![desire(2, Desired::Remove)], false);
    check_clean(vec![desire(2, Desired::Shutdown), ended()], true);
}

#[test]
fn ports_of_boards() {
    let mut state = base();
    edit_task(&mut state, 2, |task| {
        let port = |mode, published, target| Port { mode, published, target, ..Port::default() };
        let ports =
            vec![port(PortMode::Host, 0, 53), port(PortMode::Host, 81, 8081), port(PortMode::Ingress, 80, 8080)];
        let mut spec = (*task.spec).clone();
        spec.endpoint.ports = ports;
        task.spec = spec.into();
    });
    let view = View { state, seen: Seen::default() };
    let tcp = |published, target| HostPort { protocol: Protocol::Tcp, published, target };
    let taken = |ports: Vec<HostPort>| {
        let said = TaskReport { ports, ..report(2, TaskState::Running) };
        let meaning = read(&view, node(1), vec![said], at(70));
        let [Observation::Task { report, .. }] = &meaning.observations[..] else { panic!("{meaning:?}") };
        report.ports.clone()
    };
    assert_eq!(taken(vec![tcp(32768, 53), tcp(81, 8081)]), [tcp(32768, 53), tcp(81, 8081)]);
    // Not asked for, another one than asked for, another protocol, very many.
    let udp = HostPort { protocol: Protocol::Udp, ..tcp(81, 8081) };
    assert_eq!(taken(vec![tcp(80, 8080), tcp(82, 8081), udp, tcp(9, 53)]), [tcp(9, 53)]);
    assert_eq!(taken((1..9000).map(|published| tcp(published, 53)).collect()).len(), 2);
}
