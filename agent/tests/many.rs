//! As many tasks as a board holds, all at once, on the heap that an agent has.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use racimo_agent::runtime::{Job, pull};
use racimo_agent::{alloc, limits};
use racimo_common::id::{IdSource, NodeId, TaskId};
use racimo_common::object::{ContainerSpec, LogConfig, Resources};
use racimo_common::registry::Platform;
use racimo_common::wire::Work;
use support::on_a_board;

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

/// Beside what the test itself holds; the rest of the agent needs less than half of its heap.
const BUDGET: usize = limits::HEAP_MAX / 2;

#[test]
fn a_board_full_of_tasks_is_made_at_once() {
    on_a_board(async |board, executor| {
        let runtime = board.runtime(executor);
        let ctrd = runtime.connect().await.unwrap();
        let platforms: Vec<Platform> = vec![format!("linux/{}", std::env::consts::ARCH).parse().unwrap()];
        let mut ids = IdSource::seeded(1);
        let node: NodeId = ids.draw();
        let tasks: Vec<TaskId> = (0..limits::TASKS_MAX).map(|_| ids.draw()).collect();
        let container = ContainerSpec {
            image: support::IMAGE.into(),
            env: (0..40).map(|number| format!("VARIABLE_{number}=some value of some length")).collect(),
            ..ContainerSpec::default()
        };
        let resources = Resources::default();
        let service = ids.draw();
        let work = &Work {
            net: None,
            service,
            service_name: "web".into(),
            slot_name: "web.1".into(),
            container,
            resources,
            log: LogConfig::default(),
            files: Vec::new(),
            credentials: None,
            fault: None,
            offline: racimo_common::wire::Offline::default(),
        };
        // The first ones have as much as a frame can bring.
        let mut heavy = work.clone();
        heavy.container.env = (0..200).map(|number| format!("VARIABLE_{number}={}", "x".repeat(1000))).collect();
        let heavy = &heavy;
        let (runtime, ctrd, platforms) = (&runtime, &ctrd, &platforms);
        // Beyond it the test aborts, as an agent would.
        alloc::set_limit(alloc::used() + BUDGET);
        let many = smol::LocalExecutor::new();
        let made: Vec<_> = tasks
            .iter()
            .enumerate()
            .map(|(number, &task)| {
                let work = if number < 16 { heavy } else { work };
                many.spawn(async move {
                    let name = support::IMAGE.parse().unwrap();
                    let image = pull::lookup(ctrd, &name, platforms).await.unwrap().unwrap().image;
                    runtime.create(&Job { task, work, image: &image, node, hostname: "berry" }).await.unwrap();
                })
            })
            .collect();
        many.run(async {
            for made in made {
                made.await;
            }
        })
        .await;
        alloc::set_limit(usize::MAX);
        assert_eq!(runtime.list().await.unwrap().len(), tasks.len());
        for task in tasks {
            runtime.delete(task).await.unwrap();
        }
    });
}
