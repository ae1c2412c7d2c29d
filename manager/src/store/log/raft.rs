//! Consensus without IO: raft-rs wrapped so that its traps are out of reach.
//!
//! In: proposals, messages, ticks. Out: [`Work`] to make durable; when that is done
//! ([`Core::persisted`]), committed commands have been applied to the [`Machine`].
//!
//! ```text
//! propose, step, tick, campaign ─▶ poll ─ Work ─▶ (write, sync) ─▶ persisted ─▶ poll …
//! ```
//!
//! The sole voter of a group elects itself at once and needs no ticks, so an idle one does
//! nothing. A larger group gets the same calls, ticks, and [`Work::messages`] to send.

use prost_raft::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeV2, ConfState, Entry, EntryType, HardState, Message, Snapshot, SnapshotMetadata,
};
use raft::{Config, RawNode, Ready, StateRole};

use super::error::RestoreError;
use super::memory::{Memory, names};
use crate::limits;

/// Ticks between a leader's heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader before a member stands for election: from this to twice this.
const ELECTION_TICKS: usize = 10;

/// What the log replicates. Pure: no clock, chance or IO.
pub trait Machine {
    /// Applies one committed command. Must come to the same state wherever it runs.
    fn apply(&mut self, index: u64, command: &[u8]);
    /// The whole state.
    fn snapshot(&self) -> Vec<u8>;
    /// Replaces the state by one that [`Machine::snapshot`] returned.
    ///
    /// # Errors
    /// If `bytes` are not such a state.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;
}

/// One member of a raft group and its copy of the state.
pub struct Core<M> {
    node: RawNode<Memory>,
    machine: M,
    /// Index and term of the last applied entry.
    applied: (u64, u64),
    timeouts: fastrand::Rng,
    timeout: usize,
    /// Term and role for which `timeout` was drawn.
    timeout_for: (u64, StateRole),
    /// Handed out by `poll` as `Work`, waiting for `persisted`.
    ready: Option<Ready>,
}

/// What a member finds on its disk at start.
#[derive(Debug, Clone)]
pub struct Stored {
    /// State, index, term and members. Never empty: a group begins with [`first_snapshot`].
    pub snapshot: Snapshot,
    /// Term, vote and a lower bound of the commit index.
    pub hard_state: HardState,
    /// Entries after the snapshot, without gaps.
    pub entries: Vec<Entry>,
}

/// What must be done before [`Core::persisted`].
#[derive(Debug, Default)]
pub struct Work {
    /// To be sent to other members, at once.
    pub messages: Vec<Message>,
    /// Replaces everything on disk before it (a member that was far behind).
    pub snapshot: Option<Snapshot>,
    /// To be written after `snapshot`. Entries from the first one's index on are replaced.
    pub entries: Vec<Entry>,
    /// Whether term or vote have changed.
    pub state_changed: bool,
    /// Whether all of this must be durable. If not, nothing needs to be written.
    pub must_sync: bool,
}

/// Why a core cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// [`Work`] is under way: call [`Core::persisted`] first.
    #[error("the last work is not done")]
    Busy,
    /// Only a leader takes proposals.
    #[error("this member does not lead")]
    NotLeader,
    /// The snapshot does not name this member: it has left, and may come back under a new
    /// id only.
    #[error("this is not a member of the group")]
    NotMember,
    /// The snapshot's state is of no use.
    #[error("restore the state")]
    Restore(#[source] RestoreError),
    /// Raft refused.
    #[error("consensus")]
    Raft(#[source] raft::Error),
}

/// The beginning of a new group with these voters: index 1, so that every member starts from
/// the same snapshot and none from nothing.
pub fn first_snapshot(voters: Vec<u64>, machine: &impl Machine) -> Snapshot {
    first_snapshot_at(1, voters, machine)
}

/// [`first_snapshot`] of a group that begins at a later index.
pub(super) fn first_snapshot_at(index: u64, voters: Vec<u64>, machine: &impl Machine) -> Snapshot {
    let members = ConfState { voters, ..ConfState::default() };
    snapshot_of(machine, (index, 1), members)
}

fn snapshot_of(machine: &impl Machine, applied: (u64, u64), members: ConfState) -> Snapshot {
    Snapshot {
        data: machine.snapshot(),
        metadata: Some(SnapshotMetadata { conf_state: Some(members), index: applied.0, term: applied.1 }),
    }
}

impl<M: Machine> Core<M> {
    /// Member `me`, from what it had stored. `machine` is replaced by the snapshot's state.
    ///
    /// # Errors
    /// `NotMember`, `Restore`.
    pub fn new(me: u64, stored: Stored, mut machine: M, seed: u64) -> Result<Self, CoreError> {
        let restored = machine.restore(&stored.snapshot.data);
        restored.map_err(CoreError::Restore)?;
        let mut memory = Memory::default();
        let applied = memory.reset(stored.snapshot.metadata.unwrap_or_default());
        if !names(&memory.members, me) {
            return Err(CoreError::NotMember);
        }
        memory.append(&stored.entries);
        // The commit index rides with later batches, so it may lag behind the snapshot, or
        // lead a log whose tail was torn; raft-rs panics on both.
        memory.hard_state = stored.hard_state;
        memory.hard_state.commit = memory.hard_state.commit.clamp(applied.0, memory.last());
        memory.hard_state.term = memory.hard_state.term.max(applied.1);

        let config = Config {
            id: me,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            check_quorum: true,
            pre_vote: true,
            applied: applied.0,
            max_size_per_msg: limits::RAFT_MESSAGE_BYTES_MAX,
            max_inflight_msgs: limits::RAFT_MESSAGES_IN_FLIGHT_MAX,
            max_committed_size_per_ready: limits::RAFT_APPLY_BYTES_MAX,
            ..Config::default()
        };
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, memory, &silent).map_err(CoreError::Raft)?;
        let mut core = Core {
            timeout_for: (node.raft.term, node.raft.state),
            node,
            machine,
            applied,
            timeouts: fastrand::Rng::with_seed(seed ^ me.rotate_left(32)),
            timeout: ELECTION_TICKS,
            ready: None,
        };
        core.draw_timeout();
        Ok(core)
    }

    /// The state so far.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The state, to take out what [`Machine::apply`] left beside it.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Index of the last applied entry.
    pub fn applied(&self) -> u64 {
        self.applied.0
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether this member leads and has applied an entry of its own term, so that its state
    /// has all that was ever acknowledged.
    pub fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader && self.applied.1 == self.term()
    }

    /// The group as of the last applied entry.
    pub fn members(&self) -> &ConfState {
        &self.node.store().members
    }

    /// Term, vote and commit index, as they must be on disk with the current work.
    pub fn hard_state(&self) -> HardState {
        self.node.raft.hard_state()
    }

    /// Stands for election. A sole voter wins at once.
    ///
    /// # Errors
    /// `Busy`, `Raft`.
    pub fn campaign(&mut self) -> Result<(), CoreError> {
        self.change(|node| node.campaign())
    }

    /// Time passes. Not needed for a sole voter.
    ///
    /// # Errors
    /// `Busy`.
    pub fn tick(&mut self) -> Result<(), CoreError> {
        self.change(|node| {
            node.tick();
            Ok(())
        })
    }

    /// Takes a message from another member.
    ///
    /// # Errors
    /// `Busy`; `Raft` for a message that makes no sense, which is then dropped.
    pub fn step(&mut self, message: Message) -> Result<(), CoreError> {
        self.change(|node| node.step(message))
    }

    /// Proposes a command, which must not be empty. Returns the index it gets if it is
    /// committed in this term.
    ///
    /// # Errors
    /// `Busy`, `NotLeader`; `Raft` while leadership is handed over.
    pub fn propose(&mut self, command: Vec<u8>) -> Result<u64, CoreError> {
        if self.node.raft.state != StateRole::Leader {
            return Err(CoreError::NotLeader);
        }
        self.change(|node| node.propose(Vec::new(), command))?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// The next work, if there is any.
    pub fn poll(&mut self) -> Option<Work> {
        if self.ready.is_some() {
            return None;
        }
        if self.node.mut_store().take_snapshot_wanted() {
            // Only to be sent: it need not be durable here.
            self.node.mut_store().snapshot = Some(self.snapshot());
        }
        if !self.node.has_ready() {
            return None;
        }
        let written = self.node.store().hard_state.clone();
        let mut ready = self.node.ready();
        let state = ready.hs().cloned().unwrap_or_else(|| written.clone());
        let work = Work {
            messages: ready.take_messages(),
            snapshot: (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone()),
            entries: ready.take_entries(),
            state_changed: (state.term, state.vote) != (written.term, written.vote),
            must_sync: ready.must_sync(),
        };
        self.node.mut_store().hard_state = state;
        self.ready = Some(ready);
        Some(work)
    }

    /// The work is done: all of it is durable if it had to be. Applies what is committed by
    /// that. Returns messages to send.
    ///
    /// # Errors
    /// `Restore` if the leader's snapshot is of no use; the member must stop.
    pub fn persisted(&mut self, work: Work) -> Result<Vec<Message>, CoreError> {
        let Some(mut ready) = self.ready.take() else {
            return Ok(Vec::new());
        };
        if let Some(snapshot) = work.snapshot {
            let restored = self.machine.restore(&snapshot.data);
            restored.map_err(CoreError::Restore)?;
            let metadata = snapshot.metadata.unwrap_or_default();
            self.applied = self.node.mut_store().reset(metadata);
        }
        self.node.mut_store().append(&work.entries);
        let mut messages = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        self.apply(committed);
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().hard_state.commit = commit;
        }
        messages.extend(light.take_messages());
        self.apply(light.take_committed_entries());
        self.node.advance_apply();
        self.draw_timeout();
        Ok(messages)
    }

    /// The state so far, as a snapshot.
    pub fn snapshot(&self) -> Snapshot {
        snapshot_of(&self.machine, self.applied, self.members().clone())
    }

    /// A snapshot of everything applied is durable: forgets the entries it covers.
    ///
    /// # Errors
    /// `Busy`.
    pub fn compact(&mut self) -> Result<(), CoreError> {
        if self.ready.is_some() {
            return Err(CoreError::Busy);
        }
        self.node.mut_store().compact(self.applied);
        Ok(())
    }

    fn change(&mut self, act: impl FnOnce(&mut RawNode<Memory>) -> raft::Result<()>) -> Result<(), CoreError> {
        // raft-rs panics if anything happens between `ready` and `advance`.
        if self.ready.is_some() {
            return Err(CoreError::Busy);
        }
        let result = act(&mut self.node);
        self.draw_timeout();
        result.map_err(CoreError::Raft)
    }

    /// raft-rs draws election timeouts from the thread's generator; ours replace each of
    /// them, so that a run is a function of its seed.
    fn draw_timeout(&mut self) {
        let now = (self.node.raft.term, self.node.raft.state);
        if now != self.timeout_for {
            self.timeout_for = now;
            self.timeout = self.timeouts.usize(ELECTION_TICKS..2 * ELECTION_TICKS);
        }
        let raft = &mut self.node.raft;
        raft.set_randomized_election_timeout(self.timeout);
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            match entry.entry_type() {
                // A new leader's first entry is empty.
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => self.machine.apply(entry.index, &entry.data),
                EntryType::EntryConfChange => {
                    let change = ConfChange::decode(&*entry.data);
                    let change = change.expect("raft encoded the change it committed");
                    let members = self.node.apply_conf_change(&change);
                    self.set_members(members);
                }
                EntryType::EntryConfChangeV2 => {
                    let change = ConfChangeV2::decode(&*entry.data);
                    let change = change.expect("raft encoded the change it committed");
                    let members = self.node.apply_conf_change(&change);
                    self.set_members(members);
                }
            }
            self.applied = (entry.index, entry.term);
        }
    }

    fn set_members(&mut self, members: raft::Result<ConfState>) {
        let members = members.expect("the leader checked the change before it was proposed");
        self.node.mut_store().members = members;
    }
}
