//! Keys with a deadline under clocks that jump: they end when they should, and what has ended is
//! not there again.
//!
//! Two checks on every replica. At each entry: a key that was hidden at an earlier one, or that
//! this replica, as the leader of the entry's term, has seen end, is there again only when it was
//! set. And a leader whose own clock has not jumped since it gave a deadline looks whether the key
//! is there so long, by that clock, and no longer.

use ringraft_shards::ids::{Index, Term};
use ringraft_shards::keyspace::Key;
use ringraft_shards::limits::CLOCK_STANDS_MS_MAX;

use crate::counts::Count;
use crate::machine::DATABASE;
use crate::plan::Flaw;
use crate::replica::Running;
use crate::schedule::Core;

/// How many such keys a shard has.
pub const KEYS: usize = 4;

/// The name of one of them.
fn name(key: usize) -> [u8; 2] {
    [b'f', b'0' + key as u8]
}

/// Which one has this name?
pub fn number(name: &[u8]) -> usize {
    usize::from(name[1] - b'0')
}

/// A deadline that this replica has given.
#[derive(Clone, Copy, Debug)]
struct Given {
    index: Index,
    term: Term,
    key: usize,
    lifetime_ms: i64,
    /// What its clock showed, and how often that had jumped.
    wall_ms: i64,
    jumps: u64,
}

/// What a replica knows of the keys with a deadline.
#[derive(Default)]
pub struct Fleeting {
    /// Deadlines on their way.
    given: Vec<Given>,
    /// Those that are in force.
    current: [Option<Given>; KEYS],
    /// Was it hidden at the last entry?
    hidden: [bool; KEYS],
    /// Has this replica, as leader in this term, seen it end since?
    seen_to_end: [bool; KEYS],
    leading: Option<Term>,
    /// Keys that the entry being applied has set.
    set: [bool; KEYS],
}

impl Fleeting {
    /// An operation sets a key.
    pub fn set(&mut self, key: usize) {
        self.set[key] = true;
    }
}

impl Running {
    /// A deadline was proposed with this entry.
    pub(super) fn note_given(&mut self, key: usize, lifetime: u8, index: Index, term: Term) {
        // While time could not be turned back nobody promises when anything ends.
        if !self.turn_refused {
            let (wall_ms, jumps) = (self.wall_ms, self.jumps);
            let lifetime_ms = i64::from(lifetime);
            self.fleeting.given.push(Given { index, term, key, lifetime_ms, wall_ms, jumps });
        }
    }

    /// An entry of this time was applied.
    pub(super) fn check_applied(
        &mut self,
        index: Index,
        term: Term,
        time_ms: i64,
        core: &mut Core,
    ) {
        let view = self.server.keyspace.view(DATABASE, time_ms);
        let fleeting = &mut self.fleeting;
        let set_keys = std::mem::take(&mut fleeting.set);
        if fleeting.leading != Some(term) {
            (fleeting.seen_to_end, fleeting.leading) = ([false; KEYS], None);
        }
        for (key, set) in set_keys.into_iter().enumerate() {
            let name = name(key);
            let is_there = view.peek(&Key::new(&name, view.hasher().hash(&name))).is_some();
            let had_ended = fleeting.hidden[key] || fleeting.seen_to_end[key];
            if is_there && had_ended && !set {
                core.audit.fail(|| {
                    format!("shard {}: f{key} had ended and is there again at {index}", self.shard)
                });
            }
            fleeting.hidden[key] = !is_there;
            if set {
                let ours =
                    |given: &&Given| (given.index, given.term, given.key) == (index, term, key);
                // Of several in one entry the last one stays.
                fleeting.current[key] = fleeting.given.iter().rfind(ours).copied();
                fleeting.seen_to_end[key] = false;
            }
        }
        fleeting.given.retain(|given| given.index > index);
    }

    /// A leader looks at the keys, when nothing is on its way that could change them.
    pub(super) fn check_deadlines(&mut self, core: &mut Core) {
        let Some(leading) = self.server.leading().filter(|_| self.server.is_settled()) else {
            return;
        };
        if self.server.clock.is_turning()
            || self.server.group.applied_index() < self.server.group.last_index()
        {
            return;
        }
        let time_ms = match core.plan.flaw {
            Flaw::FallingTime => self.wall_ms,
            _ => self.server.clock.read_ms(self.wall_ms),
        };
        let view = self.server.keyspace.view(DATABASE, time_ms);
        let fleeting = &mut self.fleeting;
        if fleeting.leading != Some(leading) {
            (fleeting.seen_to_end, fleeting.leading) = ([false; KEYS], Some(leading));
        }
        for key in 0..KEYS {
            let name = name(key);
            let is_there = view.peek(&Key::new(&name, view.hasher().hash(&name))).is_some();
            fleeting.seen_to_end[key] |= !is_there;
            let Some(given) = fleeting.current[key] else { continue };
            if given.term != leading || given.jumps != self.jumps {
                continue;
            }
            let passed_ms = self.wall_ms - given.wall_ms;
            core.count(Count::DeadlinesChecked);
            if is_there && passed_ms > given.lifetime_ms + CLOCK_STANDS_MS_MAX {
                core.audit.fail(|| format!("shard {}: f{key} does not end: {given:?}", self.shard));
            }
            if !is_there && passed_ms + CLOCK_STANDS_MS_MAX < given.lifetime_ms {
                core.audit.fail(|| format!("shard {}: f{key} has ended: {given:?}", self.shard));
            }
        }
    }
}
