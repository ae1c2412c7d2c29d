//! Test: cores as members of larger groups, and raft-rs' traps.

use std::collections::VecDeque;

use raft::eraftpb::{HardState, Message};

use super::raft::{Core, CoreError, Machine, Stored, first_snapshot};
use super::{RestoreError, memory};

/// Remembers all commands.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Words(Vec<u8>);

impl Machine for Words {
    fn apply(&mut self, _: u64, command: &[u8]) {
        self.0.extend_from_slice(command);
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

fn new_member(voters: &[u64]) -> Stored {
    Stored {
        snapshot: first_snapshot(voters.to_vec(), &Words::default()),
        hard_state: HardState::default(),
        entries: Vec::new(),
    }
}

fn start(me: u64, stored: &Stored) -> Core<Words> {
    Core::new(me, stored.clone(), Words::default(), 5).unwrap()
}

struct Member {
    /// `None` while it is down.
    core: Option<Core<Words>>,
    stored: Stored,
}

impl Member {
    /// Does all work; returns what is to be sent.
    fn work(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        let Some(core) = &mut self.core else { return messages };
        while let Some(mut work) = core.poll() {
            messages.append(&mut work.messages);
            self.stored.hard_state = core.hard_state();
            if let Some(snapshot) = &work.snapshot {
                self.stored.snapshot = snapshot.clone();
                self.stored.entries.clear();
            }
            if let Some(first) = work.entries.first() {
                self.stored.entries.retain(|entry| entry.index < first.index);
            }
            self.stored.entries.extend(work.entries.iter().cloned());
            messages.extend(core.persisted(work).unwrap());
        }
        messages
    }

    fn compact(&mut self) {
        let core = self.core.as_mut().unwrap();
        self.stored.snapshot = core.snapshot();
        core.compact().unwrap();
        self.stored.entries.clear();
    }
}

/// Members 1, 2, 3 at places 0, 1, 2.
struct Group(Vec<Member>);

impl Group {
    fn new() -> Self {
        let stored = new_member(&[1, 2, 3]);
        let member = |me| Member { core: Some(start(me, &stored)), stored: stored.clone() };
        Group((1..=3).map(member).collect())
    }

    fn settle(&mut self) {
        let mut under_way: VecDeque<Message> = VecDeque::new();
        loop {
            for member in &mut self.0 {
                under_way.extend(member.work());
            }
            let Some(message) = under_way.pop_front() else { return };
            let to = usize::try_from(message.to).unwrap() - 1;
            if let Some(core) = &mut self.0[to].core {
                core.step(message).unwrap();
            }
        }
    }

    /// Lets time pass until there is a leader; returns its place.
    fn lead(&mut self) -> usize {
        for _ in 0..200 {
            for core in self.0.iter_mut().filter_map(|member| member.core.as_mut()) {
                core.tick().unwrap();
            }
            self.settle();
            let leads = |member: &Member| member.core.as_ref().is_some_and(Core::leads);
            if let Some(leader) = self.0.iter().position(leads) {
                return leader;
            }
        }
        panic!("no leader in 200 ticks");
    }

    fn commit(&mut self, at: usize, word: &str) {
        self.0[at].core.as_mut().unwrap().propose(word.into()).unwrap();
        self.settle();
    }

    #[track_caller]
    fn check(&mut self, words: &str) {
        for _ in 0..5 {
            self.lead();
        }
        for (place, member) in self.0.iter().enumerate() {
            if let Some(core) = &member.core {
                let found = String::from_utf8_lossy(&core.machine().0).into_owned();
                assert_eq!(found, words, "place {place}");
            }
        }
    }
}

#[test]
fn three_members_survive_any_one_and_catch_up_by_log_or_snapshot() {
    for compact in [false, true] {
        let mut group = Group::new();
        let leader = group.lead();
        group.commit(leader, "a");
        group.check("a");

        group.0[leader].core = None;
        let second = group.lead();
        assert_ne!(second, leader);
        group.commit(second, "b");
        if compact {
            group.0[second].compact();
        }
        group.commit(second, "c");
        group.check("abc");

        let me = leader as u64 + 1;
        group.0[leader].core = Some(start(me, &group.0[leader].stored));
        let third = group.lead();
        group.check("abc");
        let snapshot = group.0[leader].stored.snapshot.metadata.as_ref().unwrap();
        assert_eq!(snapshot.index > 1, compact, "it took the other way");
        group.commit(third, "d");
        group.check("abcd");
    }
}

#[test]
fn elections_follow_the_seed() {
    let history = || {
        let mut group = Group::new();
        let mut history = Vec::new();
        for _ in 0..5 {
            let leader = group.lead();
            history.push((leader, group.0[leader].core.as_ref().unwrap().term()));
            let stored = group.0[leader].stored.clone();
            group.0[leader].core = None;
            group.lead();
            group.0[leader].core = Some(start(leader as u64 + 1, &stored));
        }
        history
    };
    assert_eq!(history(), history());
}

#[test]
fn a_sole_voter_elects_itself_whatever_the_stored_commit_index() {
    for commit in [0, 1, 2, 3, 1000] {
        let mut member = Member { core: None, stored: new_member(&[4]) };
        for word in ["a", "b"] {
            let mut core = start(4, &member.stored);
            core.campaign().unwrap();
            member.core = Some(core);
            member.work();
            assert!(member.core.as_ref().unwrap().leads());
            member.core.as_mut().unwrap().propose(word.into()).unwrap();
            member.work();
            // Rides with later batches, so anything may be found.
            member.stored.hard_state.commit = commit;
        }
        assert_eq!(member.core.unwrap().machine().0, b"ab", "commit {commit}");
    }
}

#[test]
fn nothing_happens_between_poll_and_persisted() {
    let mut core = start(4, &new_member(&[4]));
    core.campaign().unwrap();
    let work = core.poll().unwrap();
    assert!(core.poll().is_none());
    for refused in [core.tick(), core.campaign(), core.step(Message::default()), core.compact()] {
        assert!(matches!(refused, Err(CoreError::Busy)));
    }
    core.persisted(work).unwrap();
    core.propose(b"a".to_vec()).unwrap();
    assert_eq!(core.poll().unwrap().entries.len(), 1);
    assert!(matches!(core.propose(b"b".to_vec()), Err(CoreError::Busy)));
}

#[test]
fn who_is_not_in_the_snapshot_does_not_start() {
    let stored = new_member(&[1, 2, 3]);
    let refused = Core::new(4, stored.clone(), Words::default(), 1).err().unwrap();
    assert!(matches!(refused, CoreError::NotMember));
    let mut core = start(1, &stored);
    core.campaign().unwrap();
    assert!(matches!(core.propose(b"a".to_vec()), Err(CoreError::NotLeader)));
}

#[test]
fn a_new_member_gets_a_snapshot_that_names_it() {
    let mut memory = memory::Memory::default();
    let old = first_snapshot(vec![1], &Words::default());
    memory.reset(old.metadata.clone().unwrap());
    memory.snapshot = Some(old);
    assert!(raft::Storage::snapshot(&memory, 0, 1).is_ok());
    assert!(!memory.take_snapshot_wanted());
    assert!(raft::Storage::snapshot(&memory, 0, 2).is_err());
    assert!(memory.take_snapshot_wanted() && !memory.take_snapshot_wanted());
}
