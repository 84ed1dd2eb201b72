//! What one core knows of channels and patterns.

use crate::glob::Glob;
use smallvec::SmallVec;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The name of a channel, or a pattern.
pub type Name = Arc<[u8]>;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicKind {
    /// A channel (SUBSCRIBE).
    Channel,
    /// A pattern of names of channels (PSUBSCRIBE).
    Pattern,
    /// A channel that belongs to a slot (SSUBSCRIBE).
    ShardChannel,
}

impl TopicKind {
    /// All of them.
    pub const ALL: [TopicKind; 3] =
        [TopicKind::Channel, TopicKind::Pattern, TopicKind::ShardChannel];
}

/// Connections with one subscription in common. Many channels have one subscriber.
#[derive(Debug, Default)]
pub enum Subscribers {
    /// Nobody.
    #[default]
    None,
    /// This one.
    One(u32),
    /// These.
    #[allow(clippy::box_collection)] // Few topics have many, and a topic is small.
    Many(Box<BTreeSet<u32>>),
}

impl Subscribers {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Subscribers::None => 0,
            Subscribers::One(_) => 1,
            Subscribers::Many(many) => many.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let (one, many) = match self {
            Subscribers::None => (None, None),
            Subscribers::One(one) => (Some(*one), None),
            Subscribers::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|many| many.iter().copied()))
    }

    fn insert(&mut self, index: u32) {
        match self {
            Subscribers::None => *self = Subscribers::One(index),
            Subscribers::One(one) if *one == index => (),
            Subscribers::One(one) => *self = Subscribers::Many(Box::new([*one, index].into())),
            Subscribers::Many(many) => drop(many.insert(index)),
        }
    }

    fn remove(&mut self, index: u32) {
        match self {
            Subscribers::One(one) if *one == index => *self = Subscribers::None,
            Subscribers::None | Subscribers::One(_) => (),
            Subscribers::Many(many) => drop(many.remove(&index)),
        }
    }
}

/// One channel or pattern.
#[derive(Debug, Default)]
pub struct Topic {
    /// Connections of this core.
    pub here: Subscribers,
    /// Subscriptions of this core that wait until all other cores know.
    expected: u32,
    /// Other cores with subscribers.
    pub cores: SmallVec<[u16; 4]>,
}

impl Topic {
    /// Do other cores know of this core's subscribers?
    fn is_announced(&self) -> bool {
        !self.here.is_empty() || self.expected > 0
    }

    fn is_unused(&self) -> bool {
        !self.is_announced() && self.cores.is_empty()
    }
}

/// Topics of one kind, by name.
pub type Topics = HashMap<Name, Topic>;

/// All topics that have subscribers on some core.
#[derive(Debug, Default)]
pub struct Push {
    topics: [Topics; 3],
}

impl Push {
    /// How many clients of this core get a message, and how many other cores have any.
    pub fn reach(&self, kind: TopicKind, channel: &[u8]) -> i64 {
        let count = |topic: &Topic| (topic.here.count() + topic.cores.len()) as i64;
        let own = self.topics(kind).get(channel).map_or(0, count);
        if kind != TopicKind::Channel {
            return own;
        }
        let patterns = self.topics(TopicKind::Pattern).iter();
        let matching = patterns.filter(|(pattern, _)| Glob::new(pattern).matches(channel));
        own + matching.map(|(_, topic)| count(topic)).sum::<i64>()
    }

    /// Those of one kind.
    pub fn topics(&self, kind: TopicKind) -> &Topics {
        &self.topics[kind as usize]
    }

    /// How many of a kind have subscribers anywhere.
    pub fn count(&self, kind: TopicKind) -> usize {
        self.topics(kind).len()
    }

    /// Must the other cores be told of a subscription to come? It is expected from now on.
    pub(super) fn expect(&mut self, kind: TopicKind, name: &Name) -> bool {
        let topic = self.topics[kind as usize].entry(name.clone()).or_default();
        let is_known = !topic.here.is_empty() && topic.expected == 0;
        topic.expected += u32::from(!is_known);
        !is_known
    }

    /// All cores know of a subscription that was expected.
    pub(super) fn announced(&mut self, kind: TopicKind, name: &Name) {
        let topic = self.topics[kind as usize].entry(name.clone()).or_default();
        topic.expected -= 1;
    }

    /// Adds a subscriber. Returns the name as it is kept.
    pub(super) fn add(&mut self, kind: TopicKind, name: &Name, index: u32) -> Name {
        let topics = &mut self.topics[kind as usize];
        let kept =
            topics.get_key_value(name).map_or_else(|| name.clone(), |(kept, _)| kept.clone());
        topics.entry(kept.clone()).or_default().here.insert(index);
        kept
    }

    /// Removes a subscriber, if it is one. True: nobody here is interested any more, and the other
    /// cores must be told.
    pub(super) fn remove(&mut self, kind: TopicKind, name: &[u8], index: u32) -> bool {
        let topics = &mut self.topics[kind as usize];
        let Some(topic) = topics.get_mut(name) else { return false };
        topic.here.remove(index);
        let is_last = !topic.is_announced();
        if topic.is_unused() {
            topics.remove(name);
        }
        is_last
    }

    /// Another core has subscribers.
    pub(super) fn note(&mut self, kind: TopicKind, name: &Name, core: u16) {
        let topic = self.topics[kind as usize].entry(name.clone()).or_default();
        if !topic.cores.contains(&core) {
            topic.cores.push(core);
        }
    }

    /// Another core has none any more.
    pub(super) fn forget(&mut self, kind: TopicKind, name: &[u8], core: u16) {
        let topics = &mut self.topics[kind as usize];
        let Some(topic) = topics.get_mut(name) else { return };
        topic.cores.retain(|other| *other != core);
        if topic.is_unused() {
            topics.remove(name);
        }
    }

    /// Subscribers of this core.
    pub fn subscribers(&self, kind: TopicKind, name: &[u8]) -> usize {
        self.topics(kind).get(name).map_or(0, |topic| topic.here.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_lives_while_somebody_is_interested() {
        let (kind, name): (_, Name) = (TopicKind::Channel, Arc::from(&b"news"[..]));
        let mut push = Push::default();
        assert!(push.expect(kind, &name) && push.expect(kind, &name), "not announced yet");
        push.add(kind, &name, 7);
        assert!(push.expect(kind, &name), "one is enlisted, and yet it is not announced");
        push.announced(kind, &name);
        push.announced(kind, &name);
        assert!(!push.remove(kind, b"news", 7), "another subscription is on its way");
        push.announced(kind, &name);
        push.add(kind, &name, 8);
        assert!(!push.expect(kind, &name), "all know");
        push.add(kind, &name, 9);
        assert_eq!(push.subscribers(kind, b"news"), 2);
        push.note(kind, &name, 3);
        push.note(kind, &name, 3);
        assert!(!push.remove(kind, b"news", 8));
        assert!(push.remove(kind, b"news", 9));
        assert_eq!((push.count(kind), push.subscribers(kind, b"news")), (1, 0));
        push.forget(kind, b"news", 3);
        assert_eq!(push.count(kind), 0);
        assert!(!push.remove(kind, b"news", 9), "nobody is left");
    }

    #[test]
    fn subscribers_are_told_once_each() {
        let mut some = Subscribers::default();
        for (index, told) in [(7, 1), (7, 1), (3, 2), (9, 3), (3, 3)] {
            some.insert(index);
            assert_eq!((some.count(), some.iter().count()), (told, told));
        }
        assert_eq!(some.iter().collect::<Vec<_>>(), [3, 7, 9]);
        for (index, left) in [(1, 3), (3, 2), (9, 1), (9, 1), (7, 0)] {
            some.remove(index);
            assert_eq!(some.count(), left);
        }
        assert!(some.is_empty() && some.iter().next().is_none());
        some.insert(4);
        some.remove(5);
        assert_eq!(some.iter().collect::<Vec<_>>(), [4]);
    }
}
