//! More than one plan holds.

use racimo_common::object::{Desired, TaskState};
use racimo_manager::store::{Change, NewTask, Slot};

use super::script;
use super::world::World;

#[test]
fn a_slot_with_a_long_history_is_emptied() {
    let mut world = World::new(1);
    for line in ["node a", "history -1", "service web replicas=1"] {
        script::run(&mut world, line);
    }
    world.settle();
    let service = world.view.state.service_named("web").unwrap().clone();
    for _ in 0..1500 {
        let (id, slot) = (world.ids.draw(), Slot::Replica(1));
        let (service, revision, desired) = (service.id, service.revision, Desired::Running);
        let new = NewTask { id, service, revision, slot, desired, gate: None, restart_of: None, node: None };
        let shut = Change::TaskDesire { task: id, desired: Desired::Shutdown };
        world.apply(vec![Change::TaskCreate(Box::new(new)), shut]);
        assert_eq!(world.view.state_of(id), Some(TaskState::Shutdown));
    }
    world.edit_service("web", |spec| spec.mode = racimo_manager::store::Mode::Replicated { replicas: 0 });
    world.settle();
    assert_eq!(world.view.state.task_count(), 0);
}
