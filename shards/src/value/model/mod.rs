//! Collections beside plain vectors and maps that say what they are: any changes of both, small and
//! large, with limits crossed both ways.
//!
//! What is changed comes from a seed, in the tests here, or from bytes that a fuzzer has chosen
//! ([`follow`]). Whoever looks at a collection looks at all of it, in every way in which it can be
//! read, and at its account: what it takes is a function of what is in it.

mod hash;
mod list;
mod set;
mod sorted_set;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::each_seed;

use super::body::{BODY_BYTES, Body, Place, Stored};
use super::stream::model::Streams;
use super::{Form, Limits, Room, Value, ValueType, Version};
use crate::keyspace::KeyHasher;

/// A collection that lies in no item.
pub(super) struct Alone {
    form: Form,
    bytes: Vec<u8>,
    body: Option<Body>,
    limits: Limits,
}

impl Alone {
    pub(super) fn new(limits: Limits) -> Alone {
        Alone { form: Form::Pack, bytes: Vec::new(), body: None, limits }
    }
}

impl Room for Alone {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn resize(&mut self, length: usize) {
        self.bytes.resize(length, 0);
    }
}

impl Place for Alone {
    fn stored(&self) -> Stored<'_> {
        match (self.form, &self.body) {
            (Form::Pack, _) => Stored::Pack(&self.bytes),
            (Form::Integers, _) => Stored::Integers(&self.bytes),
            (Form::Tree, body) => Stored::Tree(body.as_ref().expect("it is a tree")),
        }
    }

    fn body_mut(&mut self) -> &mut Body {
        self.body.as_mut().expect("it is a tree")
    }

    fn grow(&mut self, body: Body) {
        (self.form, self.body) = (Form::Tree, Some(body));
    }

    fn set(&mut self, form: Form, bytes: &[u8]) {
        (self.form, self.body) = (form, None);
        self.bytes = bytes.to_vec();
    }

    fn discard(&mut self, body: Body) {
        shed(body);
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn member_hasher(&self) -> KeyHasher {
        KeyHasher::new(77)
    }
}

/// Sheds all of a body, whose account falls to that of nothing.
fn shed(mut body: Body) {
    let mut bytes = body.bytes();
    let mut more = true;
    while more {
        more = body.shed(1);
        assert!(body.bytes() <= bytes, "{} bytes, before {bytes}", body.bytes());
        bytes = body.bytes();
    }
    assert_eq!(bytes, BODY_BYTES);
    assert!(!body.has_leftovers());
}

/// Where choices come from.
#[derive(Clone, Debug)]
pub(super) enum Chance<'b> {
    /// A seed, which whoever makes it prints.
    Seeded(u64),
    /// Bytes; zeros when they are used up.
    Given(&'b [u8]),
}

impl Chance<'_> {
    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        match self {
            Chance::Seeded(state) => {
                *state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (*state >> 33) % end
            }
            Chance::Given(bytes) => {
                let wanted = if end <= 1 << 8 { 1 } else { size_of::<u16>() };
                let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
                *bytes = rest;
                taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) % end
            }
        }
    }

    /// Are all bytes used up?
    fn is_over(&self) -> bool {
        matches!(self, Chance::Given([]))
    }

    /// Mostly short, now and then beyond a leaf.
    pub(super) fn element(&mut self, names: u64) -> Vec<u8> {
        let n = self.below(names);
        match n % 50 {
            0 => vec![b'x'; (n % 7) as usize * 700],
            1 => format!("a longer name, number {n}, of more than sixty-four bytes, to be sure")
                .into(),
            // As integers of large sets begin.
            2 => vec![0x80 + (n % 0x28) as u8; (n % 10) as usize + 1],
            _ if n.is_multiple_of(3) => n.to_string().into_bytes(),
            _ => format!("name:{n}").into_bytes(),
        }
    }
}

/// What becomes of a collection in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tendency {
    Grows,
    Shrinks,
}

impl Tendency {
    /// Does a change add something?
    fn adds(self, chance: &mut Chance<'_>) -> bool {
        chance.below(10) < if self == Tendency::Grows { 7 } else { 2 }
    }
}

/// A collection beside its model.
pub(super) trait Modelled {
    /// What it is.
    const TYPE: ValueType;
    /// What the collection is, said plainly.
    type Model: Clone;

    /// An empty one.
    fn new(limits: Limits) -> Self;
    /// A change of both.
    fn change(&mut self, chance: &mut Chance<'_>, tendency: Tendency);
    /// A look at a part of it.
    fn glance(&self, chance: &mut Chance<'_>);
    /// What is said.
    fn model(&self) -> &Self::Model;
    /// What is there.
    fn value(&self) -> Value<'_>;
    /// Where it lies.
    fn place(self) -> Alone;
    /// A value is what a model says.
    fn check(value: Value<'_>, model: &Self::Model, chance: &mut Chance<'_>);

    /// A version is what its collection was.
    fn check_version(version: &Version, model: &Self::Model, chance: &mut Chance<'_>) {
        Self::check(version.value(), model, chance);
    }
}

pub(super) fn limits_of(seed: u64) -> Limits {
    match seed % 3 {
        0 => Limits::default(),
        1 => Limits {
            hash_entries: 8,
            set_entries: 8,
            sorted_set_entries: 8,
            list_size: 6,
            ..Limits::default()
        },
        _ => Limits {
            hash_entries: 0,
            set_entries: 0,
            set_integers: 4,
            sorted_set_entries: 0,
            list_size: -1,
            ..Limits::default()
        },
    }
}

/// Trees with so many bytes of records each take what they should.
fn check_account(stored: Stored<'_>, trees: &[usize]) {
    if let Stored::Tree(body) = stored {
        let expected: usize = trees.iter().map(|bytes| bytes + bytes / 16).sum();
        assert_eq!(body.bytes(), BODY_BYTES + expected, "trees of {trees:?} bytes");
    }
}

/// How far the bytes of an input have led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// What was changed.
    pub value_type: ValueType,
    /// Most elements that it had when it was looked at.
    pub most: u64,
    /// Was it large then, and small at another time?
    pub forms: [bool; 2],
    /// Versions that were taken.
    pub versions: usize,
    /// Groups that it had in the end.
    pub groups: usize,
}

/// Changes a collection as bytes say: the first ones choose the limits and the type. Panics when it
/// is not what its model says, or a version of it not what it was.
pub fn follow(bytes: &[u8]) -> Reached {
    let mut chance = Chance::Given(bytes);
    let limits = limits_of(chance.below(3));
    match chance.below(5) {
        0 => Course::<list::Lists>::follow(limits, &mut chance),
        1 => Course::<set::Sets>::follow(limits, &mut chance),
        2 => Course::<hash::Hashes>::follow(limits, &mut chance),
        3 => Course::<sorted_set::SortedSets>::follow(limits, &mut chance),
        _ => Course::<Streams>::follow(limits, &mut chance),
    }
}

/// Versions that are there at a time.
const VERSIONS_MAX: usize = 4;
/// Changes that are not told one by one: work per input is bounded.
const CHANGES_MAX: u64 = 8 << 10;
/// Looks at all of a collection.
const LOOKS_MAX: usize = 32;

/// What becomes of a collection and of its versions.
struct Course<M: Modelled> {
    one: M,
    versions: Vec<(Version, M::Model)>,
    changes_left: u64,
    looks_left: usize,
    reached: Reached,
}

impl<M: Modelled> Course<M> {
    fn follow(limits: Limits, chance: &mut Chance<'_>) -> Reached {
        let one = M::new(limits);
        let (value_type, most, forms, versions, groups) = (M::TYPE, 0, [false; 2], 0, 0);
        let reached = Reached { value_type, most, forms, versions, groups };
        let (changes_left, looks_left) = (CHANGES_MAX, LOOKS_MAX);
        let mut course = Course { one, versions: Vec::new(), changes_left, looks_left, reached };
        while !chance.is_over() {
            course.step(chance);
        }
        course.end(chance)
    }

    fn step(&mut self, chance: &mut Chance<'_>) {
        let may_look = self.looks_left > 0;
        match chance.below(16) {
            0 => self.change_much(chance),
            1 if may_look && self.versions.len() < VERSIONS_MAX => self.take_version(),
            2 if may_look && !self.versions.is_empty() => {
                let at = chance.below(self.versions.len() as u64) as usize;
                let (version, model) = self.versions.swap_remove(at);
                self.end_version(version, &model, chance);
            }
            3 if may_look => self.look(chance),
            4..11 => self.one.change(chance, Tendency::Grows),
            _ => self.one.change(chance, Tendency::Shrinks),
        }
        self.one.glance(chance);
    }

    /// Many changes at once, from a seed.
    fn change_much(&mut self, chance: &mut Chance<'_>) {
        let mut seeded = Chance::Seeded(chance.below(1 << 16));
        let tendency = if chance.below(4) > 0 { Tendency::Grows } else { Tendency::Shrinks };
        let count = (4 * chance.below(1 << 8)).min(self.changes_left);
        self.changes_left -= count;
        (0..count).for_each(|_| self.one.change(&mut seeded, tendency));
    }

    fn look(&mut self, chance: &mut Chance<'_>) {
        self.looks_left = self.looks_left.saturating_sub(1);
        let value = self.one.value();
        self.reached.most = self.reached.most.max(value.count());
        self.reached.forms[usize::from(Version::of(value).is_some())] = true;
        M::check(value, self.one.model(), chance);
    }

    fn take_version(&mut self) {
        if let Some(version) = Version::of(self.one.value()) {
            self.looks_left -= 1;
            self.versions.push((version, self.one.model().clone()));
            self.reached.versions += 1;
        }
    }

    fn end_version(&mut self, mut version: Version, model: &M::Model, chance: &mut Chance<'_>) {
        self.looks_left = self.looks_left.saturating_sub(1);
        M::check_version(&version, model, chance);
        while version.shed(1) {}
    }

    /// Looks at all that is left, frees the collection, and then each version.
    fn end(mut self, chance: &mut Chance<'_>) -> Reached {
        self.look(chance);
        if let Value::Stream(stream) = self.one.value() {
            self.reached.groups = stream.group_count();
        }
        for (version, model) in &self.versions {
            M::check_version(version, model, chance);
        }
        let Course { one, versions, reached, .. } = self;
        one.place().body.into_iter().for_each(shed);
        for (mut version, model) in versions {
            M::check_version(&version, &model, chance);
            while version.shed(1) {}
        }
        reached
    }
}
