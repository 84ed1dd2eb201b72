//! Where a search ended, kept so that the change behind it needs no second one.

use super::places::{Places, set_all};
use super::seek::Seek;
use super::{Child, Node, Tree, join_around};
use crate::value::index::Lead;
use crate::value::leaf::{Found, Leaf};
use crate::value::nodes::{LEVELS_MAX, Nodes};
use crate::value::pack::Record;
use triomphe::Arc;

/// Where a record is, or would be, in a tree that has not changed since it was looked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::value) struct Trace(Place);

#[derive(Clone, Copy, Debug)]
enum Place {
    Leaf(Steps, Found),
    /// Among several leaves that may have it: at a rank.
    Rank(Result<u64, u64>),
}

impl Trace {
    /// Is the record there?
    pub(in crate::value) fn is_there(&self) -> bool {
        match self.0 {
            Place::Leaf(_, found) => found.is_there,
            Place::Rank(rank) => rank.is_ok(),
        }
    }
}

/// Which child to go to on each level.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    places: [u8; LEVELS_MAX],
    count: u8,
}

impl Steps {
    /// One more, behind so many other children.
    fn push<const W: usize>(&mut self, passed: &[Child<W>]) {
        self.places[usize::from(self.count)] = passed.len() as u8;
        self.count += 1;
    }

    fn all(&self) -> &[u8] {
        &self.places[..self.count.into()]
    }
}

/// Goes where a trace leads.
struct Traced<'t, F> {
    steps: &'t [u8],
    found: Found,
    number: u64,
    number_of: &'t F,
}

impl<const W: usize, F: Fn(&Record<'_, W>) -> u64> Seek<W> for Traced<'_, F> {
    fn child(&mut self, _: &[Child<W>]) -> Option<usize> {
        let (&at, rest) = self.steps.split_first()?;
        self.steps = rest;
        Some(at.into())
    }

    fn find(&self, _: &Leaf<W>) -> Found {
        self.found
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn number_of(&self, record: &Record<'_, W>) -> u64 {
        (self.number_of)(record)
    }
}

impl<const W: usize> Tree<W> {
    /// Looks for a member, in an order as for [`Tree::rank_of`].
    pub(in crate::value) fn trace(
        &self,
        member: &[u8],
        number: u64,
        number_of: &impl Fn(&Record<'_, W>) -> u64,
    ) -> Trace {
        let mut steps = Steps::default();
        let found = self.find(member, number, number_of, |passed| steps.push(passed));
        Trace(match found {
            Some((_, found)) => Place::Leaf(steps, found),
            None => Place::Rank(self.rank_of(member, number, number_of)),
        })
    }

    /// Looks for a member in the leaf with a number.
    pub(in crate::value) fn trace_by(
        &self,
        nodes: &Nodes,
        lead: Lead,
        member: &[u8],
    ) -> Option<Trace> {
        let mut steps = Steps::default();
        let leaf = self.go_to_leaf(nodes, lead.leaf, |passed| steps.push(passed))?;
        let found = leaf.find_near(member, lead.eighth.into())?;
        Some(Trace(Place::Leaf(steps, found)))
    }

    /// Puts in a record of which a trace says where it would be.
    pub(in crate::value) fn put_traced(
        &mut self,
        trace: Trace,
        record: &Record<'_, W>,
        number: u64,
        number_of: &impl Fn(&Record<'_, W>) -> u64,
    ) {
        debug_assert!(!trace.is_there());
        match trace.0 {
            Place::Leaf(steps, found) => {
                let seek = Traced { steps: steps.all(), found, number, number_of };
                self.put(seek, record, &mut ()).expect("a trace leads to one leaf");
            }
            Place::Rank(Ok(rank) | Err(rank)) => self.insert(rank, record, number_of),
        }
    }

    /// Takes out the record to which a trace leads.
    pub(in crate::value) fn take_traced(&mut self, trace: Trace, places: &mut impl Places<W>) {
        debug_assert!(trace.is_there());
        match trace.0 {
            Place::Leaf(steps, found) => {
                self.bytes -= self.root.take(self.mark, steps.all(), found, places);
                self.count -= 1;
                self.shrink_root(places);
            }
            Place::Rank(Ok(rank) | Err(rank)) => self.remove(rank),
        }
    }
}

impl<const W: usize> Node<W> {
    /// Takes out the record to which these steps lead. Returns how many bytes it had. `mark` is the
    /// node's number.
    fn take(&mut self, mark: u32, steps: &[u8], found: Found, places: &mut impl Places<W>) -> u64 {
        match self {
            Node::Leaf(leaf) => {
                places.taken(&leaf.record_at(found.place), mark);
                leaf.remove(found.rank, 1) as u64
            }
            Node::Inner(children) => {
                let (&at, steps) = steps.split_first().expect("a step for each level");
                let at = usize::from(at);
                let child = &mut children[at];
                let bytes = Arc::make_mut(&mut child.node).take(child.mark, steps, found, places);
                child.count -= 1;
                child.bytes -= bytes;
                if child.count == 0 {
                    let child = children.remove(at);
                    places.gone(child.mark);
                    set_all(children, at, mark, places);
                }
                join_around(children, at, mark, places);
                bytes
            }
        }
    }
}
