//! Where a member of a collection lies, about: fetched into the cache ahead of its use, beside
//! those of other requests.

use super::body::{Stored, Trees};
use super::kept::keep;
use super::scored::MemberWay;
use super::tree::Way;
use crate::keyspace::prefetch;
use smallvec::SmallVec;

/// Members of one command that are fetched together: who has more asks again after so many.
pub const MEMBERS_AHEAD: usize = 32;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a small collection that are fetched ahead: what is read from front to end, the machine
/// fetches by itself.
const SMALL_BYTES_FETCHED: usize = 512;

/// A way to a member that is gone step by step.
pub struct Spot<'a>(Kind<'a>);

enum Kind<'a> {
    Small(&'a [u8]),
    Members(Way<'a, 1>),
    Fields(Way<'a, 2>),
    Scored(MemberWay<'a>),
}

impl<'a> Spot<'a> {
    /// Of a member of a collection.
    pub(crate) fn of(stored: Stored<'a>, member: &[u8]) -> Option<Spot<'a>> {
        let body = match stored {
            Stored::Tree(body) => body,
            Stored::Pack(bytes) | Stored::Integers(bytes) => {
                return Some(Spot(Kind::Small(bytes)));
            }
        };
        let place = |member: &[u8]| body.hasher.place(member);
        Some(Spot(match &body.trees {
            Trees::Elements(tree) => Kind::Members(tree.way(place(&keep(member)))),
            Trees::Fields(tree) => Kind::Fields(tree.way(place(member))),
            Trees::Scored(scored) => Kind::Scored(scored.way(&body.hasher, member)),
            Trees::TimedFields(timed) => Kind::Fields(timed.fields.way(place(member))),
            Trees::Stream(_) => return None,
        }))
    }

    /// Fetches what is to be read next, and reads what the step before fetched. Is there more to
    /// do?
    pub fn step(&mut self) -> bool {
        match &mut self.0 {
            Kind::Small(bytes) => {
                // The first lines are there: they were fetched with the item.
                let rest = bytes.get(LINE..bytes.len().min(SMALL_BYTES_FETCHED));
                rest.into_iter().flat_map(|rest| rest.chunks(LINE)).for_each(|line| {
                    prefetch(line.as_ptr());
                });
                false
            }
            Kind::Members(way) => way.step(),
            Kind::Fields(way) => way.step(),
            Kind::Scored(way) => way.step(),
        }
    }
}

/// Goes all these ways side by side to their ends.
pub fn step_all(spots: &mut [Spot<'_>]) {
    let mut more = spots.len() > 1;
    while more {
        more = false;
        for spot in &mut *spots {
            more |= spot.step();
        }
    }
}

/// Fetches what searches for some members of one large collection will read; for one alone nothing.
#[inline]
pub(super) fn fetch_all<'m>(stored: Stored<'_>, members: impl ExactSizeIterator<Item = &'m [u8]>) {
    if members.len() > 1 && matches!(stored, Stored::Tree(_)) {
        let spots = members.take(MEMBERS_AHEAD).filter_map(|member| Spot::of(stored, member));
        let mut spots: SmallVec<[Spot<'_>; MEMBERS_AHEAD]> = spots.collect();
        step_all(&mut spots);
    }
}
