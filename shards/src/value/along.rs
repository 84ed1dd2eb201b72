//! Looking up members of one set after the other in another set: where both are large, and come in
//! the order of the same hashes, by walking along.

use super::body::Stored;
use super::kept::keep;
use super::members::number;
use super::set::Set;
use super::tree::TreeRecords;
use crate::keyspace::KeyHasher;

/// Walking past some members costs about what looking one up does, which waits for memory.
const PASSED_PER_LOOKUP: u64 = 8;

/// Looks up members that come in the order of another set.
pub struct Along<'a>(Way<'a>);

enum Way<'a> {
    Search(Set<'a>),
    Walk(Walk<'a>),
}

struct Walk<'a> {
    hasher: KeyHasher,
    records: TreeRecords<'a, 1>,
    /// The first member that is not passed yet, and its number.
    next: Option<(u64, &'a [u8])>,
}

impl<'a> Along<'a> {
    /// In `set`, along `lead`.
    pub fn new(set: Set<'a>, lead: Set<'_>) -> Along<'a> {
        let (Stored::Tree(body), Stored::Tree(leading)) = (set.stored, lead.stored) else {
            return Along(Way::Search(set));
        };
        let is_near = set.count() <= lead.count().saturating_mul(PASSED_PER_LOOKUP);
        if !is_near || !body.hasher.places_like(leading.hasher) {
            return Along(Way::Search(set));
        }
        let records = body.elements().records_from(0);
        let mut walk = Walk { hasher: body.hasher, records, next: None };
        walk.step();
        Along(Way::Walk(walk))
    }

    /// Is this one a member? It comes behind all that were asked for before in the order of the set
    /// that leads.
    pub fn has(&mut self, member: &[u8]) -> bool {
        match &mut self.0 {
            Way::Search(set) => set.contains(member),
            Way::Walk(walk) => walk.has(&keep(member)),
        }
    }
}

impl Walk<'_> {
    fn step(&mut self) {
        let number = number::<1>(self.hasher);
        self.next = self.records.next().map(|record| (number(&record), record[0]));
    }

    fn has(&mut self, member: &[u8]) -> bool {
        let wanted = (self.hasher.place(member), member);
        while self.next.is_some_and(|next| next < wanted) {
            self.step();
        }
        self.next == Some(wanted)
    }
}
