//! Reports of tasks, in parts that fit a frame.

use racimo_common::object::TaskReport;
use racimo_common::wire::Status;

use crate::limits::{REPORT_BYTES_MAX, REPORT_PORT_BYTES_MAX, STATUS_BYTES_MAX};

/// The messages that carry these reports, in order; one without any if there are none.
pub fn messages(reports: Vec<TaskReport>, complete: bool, index: u64) -> Vec<Status> {
    let status = |tasks| Status { complete, last: false, index, tasks };
    let (mut messages, mut part, mut held) = (Vec::new(), Vec::new(), 0);
    for report in reports {
        let bytes = REPORT_BYTES_MAX + report.ports.len() * REPORT_PORT_BYTES_MAX;
        if held + bytes > STATUS_BYTES_MAX && !part.is_empty() {
            messages.push(status(std::mem::take(&mut part)));
            held = 0;
        }
        held += bytes;
        part.push(report);
    }
    messages.push(Status { last: true, ..status(part) });
    messages
}

#[cfg(test)]
mod tests {
    use racimo_common::id::{RandomId, TaskId};
    use racimo_common::limits::{FRAME_FROM_AGENT_MAX, SERVICE_PORTS_MAX};
    use racimo_common::object::{ContainerStatus, HostPort, Protocol, TaskState};
    use racimo_common::time::Wall;
    use racimo_common::wire::{ToManager, frame};

    use super::*;
    use crate::limits::{OUT_QUEUE_MAX, REASON_BYTES_MAX, SET_TASKS_MAX, TASKS_MAX};

    fn longest(number: usize, ports: usize) -> TaskReport {
        let id = TaskId::from_bits(u128::MAX - u128::try_from(number).expect("a number"));
        let port = HostPort { protocol: Protocol::Sctp, published: u16::MAX, target: u16::MAX };
        TaskReport {
            unhealthy: true,
            restarts: 0,
            task: id,
            state: TaskState::Preparing,
            at: Wall::from_nanos(i64::MAX),
            message: "waiting for its health check".to_owned(),
            err: Some("x".repeat(REASON_BYTES_MAX)),
            container: Some(ContainerStatus { id: id.to_string(), pid: u32::MAX, exit_code: Some(i32::MIN) }),
            ports: vec![port; ports],
        }
    }

    #[test]
    fn the_longest_reports_fit_their_frames_and_an_empty_queue() {
        let turned_away = (0..SET_TASKS_MAX).map(|number| longest(number, 0));
        let reports: Vec<_> =
            (0..TASKS_MAX).map(|number| longest(number, SERVICE_PORTS_MAX)).chain(turned_away).collect();
        let messages = messages(reports.clone(), true, u64::MAX);
        assert!(messages.len() <= OUT_QUEUE_MAX, "{} messages", messages.len());
        for status in &messages {
            frame::encode(&ToManager::Status(status.clone()), FRAME_FROM_AGENT_MAX).expect("it fits");
        }
        assert_eq!(messages.iter().filter(|status| status.last).count(), 1);
        assert!(messages.last().is_some_and(|status| status.last && status.complete));
        let all: Vec<_> = messages.into_iter().flat_map(|status| status.tasks).collect();
        assert_eq!(all, reports);
    }

    #[test]
    fn nothing_to_report_is_a_message_too() {
        let none = messages(Vec::new(), true, 7);
        assert_eq!(none, [Status { complete: true, last: true, index: 7, tasks: Vec::new() }]);
    }
}
