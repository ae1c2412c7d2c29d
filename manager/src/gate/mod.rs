//! Who may connect: limits against peers that nobody knows yet, and against members that come too often.
//!
//! In: addresses, whether a member was last seen there, what became of a connection, the time. Out: [`Verdict`]s.
//! Keeps the connections and, per [`Source`], what was taken of its [`Rate`]; all of it bounded by [`Limits`].
//!
//! ```text
//! knock ─▶ half-open ─ member ──────▶ open ─ left ─▶ gone
//!   │          ├─ joined, failed, left ─────────────▶ gone
//!   │          └─ somebody else needs its place ─▶ out ─ left ─▶ gone
//!   └─ Turned
//! ```
//! Half-open connections are what an attacker gets for nothing, so their room is shared out:
//! - When it is full, whoever holds most of it gives way to one who holds less, oldest first: one address never locks
//!   out others.
//! - A part is kept for addresses where members are known to be, and those displace others: many unknown addresses
//!   never lock out boards that are where they were.
//! - Equals do not displace each other within [`Limits::grace`]: when a whole cluster comes back from a power cut,
//!   those that are inside finish first, and the others come again.
//!
//! A source pays only for connections that lead to nothing: what a member or a board that joins took is given back, so
//! thousands of boards may come back through one router's address.

mod bucket;
pub mod door;
pub mod files;
pub mod notes;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use racimo_common::time::Mono;

use crate::limits;

pub use bucket::{Bucket, Rate};
pub use source::Source;

/// How much a [`Gate`] lets through.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections, of all kinds.
    pub connections: usize,
    /// Connections of which it is not known yet who is there.
    pub half_open: usize,
    /// How many of those are kept for known addresses.
    pub reserve: usize,
    /// How long a half-open connection is left alone by those who hold as many.
    pub grace: Duration,
    /// Connections of one unknown source that lead to nothing.
    pub source: Rate,
    /// How many times as many a known source may make.
    pub known_times: u32,
    /// Connections of all unknown sources that lead to nothing.
    pub strangers: Rate,
    /// Connections that a refused request to join costs.
    pub failure_cost: u32,
    /// Sources that are remembered.
    pub sources: usize,
    /// Connections of one member at once.
    pub member_connections: usize,
    /// Connections of one member.
    pub member: Rate,
}

impl Limits {
    /// Those of the port for agents, for a process that may have so many files open.
    pub fn agents(files: usize) -> Self {
        let connections = files.saturating_sub(files::API_FILES + limits::FILES_RESERVE);
        Self {
            connections: connections.clamp(1, limits::CONNECTIONS_MAX),
            half_open: limits::HANDSHAKES_MAX,
            reserve: limits::HANDSHAKES_KNOWN_MIN,
            grace: limits::HANDSHAKE_GRACE,
            source: Rate::per_second(limits::SOURCE_CONNECTIONS_MAX, limits::SOURCE_CONNECTIONS_PER_SECOND),
            known_times: limits::SOURCE_KNOWN_TIMES,
            strangers: Rate::per_second(limits::STRANGERS_CONNECTIONS_MAX, limits::STRANGERS_CONNECTIONS_PER_SECOND),
            failure_cost: limits::JOIN_FAILURE_COST,
            sources: limits::SOURCES_MAX,
            member_connections: limits::NODE_CONNECTIONS_MAX,
            member: Rate::per_second(limits::NODE_CONNECTIONS_BURST, limits::NODE_CONNECTIONS_PER_SECOND),
        }
    }
}

impl Limits {
    /// Those of the API's port for clients with certificates; an access is a member.
    pub fn api() -> Self {
        Self {
            connections: limits::API_REMOTE_CONNECTIONS_MAX + limits::API_HANDSHAKES_MAX,
            half_open: limits::API_HANDSHAKES_MAX,
            reserve: 0,
            member_connections: limits::API_ACCESS_CONNECTIONS_MAX,
            member: Rate::per_second(limits::API_ACCESS_BURST, limits::API_ACCESS_PER_SECOND),
            ..Self::agents(usize::MAX)
        }
    }
}

/// Names a connection.
pub type Id = u64;

/// A connection may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// Its name.
    pub id: Id,
    /// The connection that must go for it: say [`Gate::left`] once it has.
    pub out: Option<Id>,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    /// [`Limits::connections`].
    #[error("too many connections")]
    Full,
    /// [`Limits::half_open`].
    #[error("too many connections that have not shown who they are")]
    Crowded,
    /// [`Limits::source`].
    #[error("too many connections from its address that led to nothing")]
    Often,
    /// [`Limits::strangers`].
    #[error("too many connections from unknown addresses that led to nothing")]
    Strangers,
    /// [`Limits::member_connections`].
    #[error("too many connections of one member at once")]
    MemberMany,
    /// [`Limits::member`].
    #[error("too many connections of one member in a short time")]
    MemberOften,
    /// Its place went to another.
    #[error("it had not shown who it is when others needed its place")]
    Out,
}

/// What a decision about a connection is.
pub type Verdict<T> = Result<T, Turned>;

#[derive(Debug)]
struct Connection<M> {
    source: Source,
    is_known: bool,
    since: Mono,
    state: State<M>,
}

#[derive(Debug)]
enum State<M> {
    Half,
    Member(M),
    Out,
}

#[derive(Debug, Default)]
struct Member {
    open: usize,
    bucket: Bucket,
}

/// See the module. `M` names a member.
#[derive(Debug)]
pub struct Gate<M> {
    limits: Limits,
    last: Id,
    connections: BTreeMap<Id, Connection<M>>,
    /// Who holds the half-open ones, oldest first; whether the source was known when they came.
    holders: BTreeMap<(Source, bool), BTreeSet<Id>>,
    half_known: usize,
    half_unknown: usize,
    sources: BTreeMap<Source, Bucket>,
    strangers: Bucket,
    members: BTreeMap<M, Member>,
}

impl<M: Ord + Clone> Gate<M> {
    /// Nobody is there.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: 0,
            connections: BTreeMap::new(),
            holders: BTreeMap::new(),
            half_known: 0,
            half_unknown: 0,
            sources: BTreeMap::new(),
            strangers: Bucket::default(),
            members: BTreeMap::new(),
        }
    }

    /// How many connections there are, and how many of them are half-open.
    pub fn count(&self) -> (usize, usize) {
        (self.connections.len(), self.half_known + self.half_unknown)
    }

    /// A connection came from `source`, where a member is known to be (`is_known`) or not.
    ///
    /// # Errors
    /// It is to be closed at once; it costs its source nothing.
    pub fn knock(&mut self, source: Source, is_known: bool, now: Mono) -> Verdict<Entered> {
        if self.connections.len() >= self.limits.connections {
            return Err(Turned::Full);
        }
        let out = self.place(source, is_known, now)?;
        self.pay(source, is_known, now)?;
        if let Some(id) = out {
            self.leave_half(id);
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.state = State::Out;
            }
        }
        self.last += 1;
        let id = self.last;
        self.connections.insert(id, Connection { source, is_known, since: now, state: State::Half });
        self.holders.entry((source, is_known)).or_default().insert(id);
        *(if is_known { &mut self.half_known } else { &mut self.half_unknown }) += 1;
        Ok(Entered { id, out })
    }

    /// The half-open connection that must go, if one must.
    fn place(&self, source: Source, is_known: bool, now: Mono) -> Verdict<Option<Id>> {
        let for_unknown = self.limits.half_open - self.limits.reserve;
        let is_full = self.half_known + self.half_unknown >= self.limits.half_open
            || !is_known && self.half_unknown >= for_unknown;
        if !is_full {
            return Ok(None);
        }
        let displaces = is_known && self.half_unknown > 0;
        let rank = |ids: &BTreeSet<Id>| {
            // The most, and of those who hold as many the one whose first is the oldest.
            (ids.len(), ids.first().map(|id| std::cmp::Reverse(*id)))
        };
        let rivals = self.holders.iter().filter(|((_, known), _)| *known == (is_known && !displaces));
        let Some((_, most)) = rivals.max_by_key(|(_, ids)| rank(ids)) else { return Err(Turned::Crowded) };
        let mine = self.holders.get(&(source, is_known));
        let oldest_of = |ids: &BTreeSet<Id>| ids.first().copied().ok_or(Turned::Crowded);
        if displaces || most.len() > mine.map_or(0, BTreeSet::len) + 1 {
            return oldest_of(most).map(Some);
        }
        // Among equals one's own goes first, if any.
        let oldest = oldest_of(mine.unwrap_or(most))?;
        let since = self.connections.get(&oldest).map_or(now, |connection| connection.since);
        if now.since(since) >= self.limits.grace { Ok(Some(oldest)) } else { Err(Turned::Crowded) }
    }

    fn rate(&self, is_known: bool) -> Rate {
        if is_known { self.limits.source.times(self.limits.known_times) } else { self.limits.source }
    }

    fn pay(&mut self, source: Source, is_known: bool, now: Mono) -> Verdict<()> {
        let rate = self.rate(is_known);
        self.make_room(source, now);
        let bucket = self.sources.entry(source).or_default();
        bucket.take(rate, 1, now).map_err(|_| Turned::Often)?;
        if !is_known && self.strangers.take(self.limits.strangers, 1, now).is_err() {
            bucket.refund(rate, 1);
            return Err(Turned::Strangers);
        }
        Ok(())
    }

    /// Forgets sources that owe nothing; if there are none, the one that will first.
    fn make_room(&mut self, source: Source, now: Mono) {
        if self.sources.len() < self.limits.sources || self.sources.contains_key(&source) {
            return;
        }
        self.sources.retain(|_, bucket| !bucket.is_full(now));
        if self.sources.len() >= self.limits.sources {
            let first = self.sources.iter().min_by_key(|(_, bucket)| bucket.full_at()).map(|(source, _)| *source);
            first.map(|source| self.sources.remove(&source));
        }
    }

    fn give_back(&mut self, source: Source, is_known: bool) {
        let rate = self.rate(is_known);
        if let Some(bucket) = self.sources.get_mut(&source) {
            bucket.refund(rate, 1);
        }
        if !is_known {
            self.strangers.refund(self.limits.strangers, 1);
        }
    }

    fn leave_half(&mut self, id: Id) {
        let Some(connection) = self.connections.get(&id).filter(|one| matches!(one.state, State::Half)) else { return };
        let (source, is_known) = (connection.source, connection.is_known);
        *(if is_known { &mut self.half_known } else { &mut self.half_unknown }) -= 1;
        if let Some(ids) = self.holders.get_mut(&(source, is_known)) {
            ids.remove(&id);
            if ids.is_empty() {
                self.holders.remove(&(source, is_known));
            }
        }
    }

    /// A half-open connection has shown that it is a member's.
    ///
    /// # Errors
    /// It is to be closed all the same.
    pub fn member(&mut self, id: Id, member: M, now: Mono) -> Verdict<()> {
        let Some(connection) = self.connections.get(&id).filter(|one| matches!(one.state, State::Half)) else {
            return Err(Turned::Out);
        };
        let (source, is_known) = (connection.source, connection.is_known);
        if self.members.len() > self.limits.connections {
            self.members.retain(|_, member| member.open > 0 || !member.bucket.is_full(now));
        }
        let entry = self.members.entry(member.clone()).or_default();
        if entry.open >= self.limits.member_connections {
            return Err(Turned::MemberMany);
        }
        entry.bucket.take(self.limits.member, 1, now).map_err(|_| Turned::MemberOften)?;
        entry.open += 1;
        self.leave_half(id);
        self.give_back(source, is_known);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = State::Member(member);
        }
        Ok(())
    }

    /// What was asked of a half-open connection was granted (a board joined): it costs its source nothing.
    pub fn joined(&mut self, id: Id) {
        if let Some((source, is_known)) = self.half(id) {
            self.give_back(source, is_known);
        }
    }

    /// A half-open connection showed a token that is none: it costs its source more than one that says nothing.
    pub fn failed(&mut self, id: Id, now: Mono) {
        let Some((source, is_known)) = self.half(id) else { return };
        let (rate, cost) = (self.rate(is_known), self.limits.failure_cost.saturating_sub(1));
        if let Some(bucket) = self.sources.get_mut(&source) {
            bucket.drain(rate, cost, now);
        }
    }

    fn half(&self, id: Id) -> Option<(Source, bool)> {
        let connection = self.connections.get(&id).filter(|one| matches!(one.state, State::Half))?;
        Some((connection.source, connection.is_known))
    }

    /// A connection has ended.
    pub fn left(&mut self, id: Id, now: Mono) {
        self.leave_half(id);
        let Some(connection) = self.connections.remove(&id) else { return };
        if let State::Member(name) = connection.state {
            if let Some(member) = self.members.get_mut(&name) {
                member.open -= 1;
                if member.open == 0 && member.bucket.is_full(now) {
                    self.members.remove(&name);
                }
            }
        }
    }
}
