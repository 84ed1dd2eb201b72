//! Bringing a group up from what is left of it: log, snapshot, settings.
//!
//! A new group begins as if a snapshot of an empty keyspace at index 1, term 1 had been installed
//! on every founder. So a node with nothing, which joins later, cannot be fed from the log's first
//! entry, which does not name the founders, but always gets a snapshot, which names the members.

use std::collections::VecDeque;

use raft::RawNode;
use raft::eraftpb::{ConfState, HardState};

use super::config::GroupConfig;
use super::group::Group;
use super::logger::logger;
use super::membership::SnapshotPoint;
use super::output::OpenError;
use super::store::{Begin, Store};
use crate::log::{Log, RecoverError, RecoveredLog};
use crate::random::Random;
use crate::snapshot::Membership;

/// Index and term that every founder begins after.
const FOUNDED_AT: (u64, u64) = (1, 1);

/// What is known before raft-rs sees it.
struct Start {
    log: Option<Log>,
    term: u64,
    vote: u64,
    commit: u64,
    base: (u64, u64),
    last: (u64, u64),
    terms: Vec<(u64, u64)>,
    entries: VecDeque<raft::eraftpb::Entry>,
    members: Membership,
    applied: u64,
    /// This node has never been a member: it has promised nothing to anybody.
    begins_anew: bool,
}

impl Start {
    /// Nothing but a point after which the log begins.
    fn at(log: Option<Log>, base: (u64, u64), members: Membership) -> Start {
        Start {
            log,
            term: base.1,
            vote: 0,
            commit: base.0,
            base,
            last: base,
            terms: vec![base],
            entries: VecDeque::new(),
            members,
            applied: base.0,
            begins_anew: false,
        }
    }
}

impl Group {
    /// Brings a group up.
    ///
    /// - `log`: what [`recover`](crate::log::recover) found, called with the snapshot's index;
    ///   `None` keeps everything in memory (cache mode).
    /// - `snapshot`: point of the snapshot that the driver has loaded.
    /// - `seed`: chance for election timeouts.
    ///
    /// Recovered entries that are known to be committed come out of the next polls. A group whose
    /// only voter this node is elects it as soon as these are applied. Errors: log and snapshot
    /// do not fit together.
    pub fn open(
        config: GroupConfig,
        log: Option<RecoveredLog>,
        snapshot: Option<SnapshotPoint>,
        seed: u64,
    ) -> Result<Group, OpenError> {
        let start = match (log, snapshot) {
            (None, None) => found(&config, None),
            (None, Some(point)) => Start::at(None, (point.index.0, point.term.0), point.membership),
            (Some(recovered), None) if recovered.is_empty() => found(&config, Some(recovered.log)),
            (Some(recovered), None) => resume(recovered)?,
            (Some(recovered), Some(point)) => resume_behind(recovered, point)?,
        };
        Group::start(config, start, seed)
    }

    fn start(config: GroupConfig, start: Start, seed: u64) -> Result<Group, OpenError> {
        let applied = start.applied;
        let mut hard_state = HardState { term: start.term, vote: start.vote, ..Default::default() };
        hard_state.commit = start.commit.max(applied).clamp(start.base.0, start.last.0);
        assert!(applied >= start.base.0, "entries from {applied} on must be in the log");
        let saved = (hard_state.term, hard_state.vote);
        let store = Store::new(Begin {
            log: start.log,
            base: start.base,
            last: start.last,
            terms: start.terms,
            entries: start.entries,
            hard_state,
            members: ConfState::from(&start.members),
        });
        let node = RawNode::new(&config.to_raft(applied), store, &logger(config.shard.0))
            .map_err(|error| OpenError::Settings(error.to_string()))?;
        let begins_anew = start.begins_anew;
        let chance = Random::new(seed);
        Ok(Group::assemble(config, node, start.members, applied, saved, begins_anew, chance))
    }
}

/// A new group, or a node that waits to be invited into one.
fn found(config: &GroupConfig, mut log: Option<Log>) -> Start {
    let (voters, learners) = (config.voters.clone(), config.learners.clone());
    // In memory nobody knows whether this node was here before.
    let begins_anew = log.is_some();
    if voters.is_empty() {
        return Start { begins_anew, ..Start::at(log, (0, 0), Membership::default()) };
    }
    if let Some(log) = &mut log {
        log.found(&voters, &learners);
        log.set_state(FOUNDED_AT.1, 0);
    }
    let members = Membership { voters, learners, ..Membership::default() };
    Start { begins_anew, ..Start::at(log, FOUNDED_AT, members) }
}

/// A log that reaches back to the founding.
fn resume(recovered: RecoveredLog) -> Result<Start, OpenError> {
    let members = match &recovered.founding {
        Some(founding) if recovered.base == FOUNDED_AT => Membership {
            voters: founding.voters.clone(),
            learners: founding.learners.clone(),
            ..Membership::default()
        },
        // It has heard of terms and never got a snapshot.
        None if recovered.base == (0, 0) && recovered.last == (0, 0) => Membership::default(),
        _ => return Err(uncovered(&recovered, 0)),
    };
    let applied = recovered.base.0;
    Ok(begin(recovered, members, applied))
}

/// A log and a snapshot.
fn resume_behind(recovered: RecoveredLog, point: SnapshotPoint) -> Result<Start, OpenError> {
    if !recovered.is_empty() && recovered.base.0 > point.index.0 {
        return Err(uncovered(&recovered, point.index.0));
    }
    let run = recovered.terms.iter().rev().find(|run| run.0 <= point.index.0);
    let fits = point.index.0 <= recovered.last.0 && run.is_some_and(|run| run.1 == point.term.0);
    if fits {
        return Ok(begin(recovered, point.membership, point.index.0));
    }
    // The node stopped between receiving the snapshot and saying so in the log, or the end of the
    // log was never synced. What the snapshot holds is committed; what the log holds beyond it
    // does not fit.
    let (term, vote) = (recovered.term, recovered.vote);
    let mut log = recovered.log;
    let base = (point.index.0, point.term.0);
    log.reset(base.0, base.1);
    let mut start = Start::at(Some(log), base, point.membership);
    if term >= start.term {
        (start.term, start.vote) = (term, vote);
    } else if let Some(log) = &mut start.log {
        log.set_state(start.term, 0);
    }
    Ok(start)
}

fn begin(recovered: RecoveredLog, members: Membership, applied: u64) -> Start {
    let RecoveredLog { log, term, vote, commit, base, last, terms, mut entries, .. } = recovered;
    while entries.front().is_some_and(|entry| entry.index <= applied) {
        entries.pop_front();
    }
    assert_eq!(
        entries.len() as u64,
        last.0 - applied,
        "recover was asked to keep all entries behind the snapshot"
    );
    let terms = if terms.is_empty() { vec![base] } else { terms };
    let (log, begins_anew) = (Some(log), false);
    Start { log, term, vote, commit, base, last, terms, entries, members, applied, begins_anew }
}

fn uncovered(recovered: &RecoveredLog, snapshot: u64) -> OpenError {
    OpenError::Log(RecoverError::Uncovered {
        directory: recovered.log.place(),
        log_begins_after: recovered.base.0,
        snapshot,
    })
}
