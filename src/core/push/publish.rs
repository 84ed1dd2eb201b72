//! A message on its way to its subscribers.

use super::topics::{Name, Subscribers, TopicKind};
use crate::core::Core;
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::gather::{GatherState, Merge, Part};
use crate::core::mail::mailbox::Mail;
use crate::glob::Glob;
use crate::limits::CONNECTIONS_AHEAD;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use std::sync::Arc;

/// A message to the subscribers of another core.
pub struct Message {
    kind: TopicKind,
    channel: Vec<u8>,
    payload: Vec<u8>,
    /// Patterns that the channel's name matches.
    patterns: Vec<Name>,
}

impl Core {
    /// Publishes a message, here and at all other nodes. Of those nobody counts, as in Redis
    /// Cluster.
    pub fn publish(
        &mut self,
        target: Target,
        kind: TopicKind,
        channel: &[u8],
        payload: &[u8],
    ) -> Option<i64> {
        if self.shared.cluster.is_clustered() {
            self.publish_elsewhere(kind, channel, payload);
        }
        self.publish_here(target, kind, channel, payload)
    }

    /// Publishes a message to clients of this node. Returns how many got it, if no other core has
    /// any to tell of; else that is written to `target` when all have counted.
    pub(in crate::core) fn publish_here(
        &mut self,
        target: Target,
        kind: TopicKind,
        channel: &[u8],
        payload: &[u8],
    ) -> Option<i64> {
        let mut cores: Vec<u16> = Vec::new();
        if let Some(topic) = self.push.topics(kind).get(channel) {
            cores.extend_from_slice(&topic.cores);
        }
        let mut patterns: Vec<Name> = Vec::new();
        if kind == TopicKind::Channel {
            for (pattern, topic) in self.push.topics(TopicKind::Pattern) {
                if Glob::new(pattern).matches(channel) {
                    patterns.push(pattern.clone());
                    cores.extend_from_slice(&topic.cores);
                }
            }
        }
        if patterns.is_empty() && !self.push.topics(kind).contains_key(channel) {
            return Some(0);
        }
        let message =
            Message { kind, channel: channel.to_vec(), payload: payload.to_vec(), patterns };
        let count = self.deliver(&message);
        if cores.is_empty() {
            return Some(count);
        }
        cores.sort_unstable();
        cores.dedup();
        let gather = (target != Target::Nobody).then(|| {
            self.answers.gathers.insert(GatherState {
                target,
                protocol: Protocol::default(),
                merge: Merge::Shards(crate::commands::Gather::Sum),
                parts: (0..=cores.len()).map(|_| Part::default()).collect(),
                missing: cores.len() + 1,
                arguments: OwnedArguments::default(),
                scanned_slot: None,
            })
        });
        let origin = |part: usize| {
            let target =
                gather.map_or(Target::Nobody, |index| Target::Gather { index, part: part as u32 });
            let (core, protocol) = (self.id, Protocol::default());
            Origin { rides: false, ..Origin::asks(core, target, protocol) }
        };
        let message = Arc::new(message);
        let origins: Vec<Origin> = (0..=cores.len()).map(origin).collect();
        for (core, origin) in cores.iter().zip(&origins) {
            self.answers.post(*core, Mail::Message(message.clone(), *origin));
        }
        write_count(&mut self.answers, origins[cores.len()], count);
        None
    }

    /// Takes a message of another core.
    pub(in crate::core) fn take_message(&mut self, message: &Message, origin: Origin) {
        let count = self.deliver(message);
        write_count(&mut self.answers, origin, count);
    }

    /// Hands a message to all subscribers of this core. Returns how many there are.
    fn deliver(&mut self, message: &Message) -> i64 {
        let mut count = 0;
        if let Some(topic) = self.push.topics(message.kind).get(message.channel.as_slice()) {
            let mut shapes = Shapes { message, pattern: None, made: [None, None] };
            count += shapes.hand_to_all(&mut self.answers, &topic.here);
        }
        for pattern in &message.patterns {
            if let Some(topic) = self.push.topics(TopicKind::Pattern).get(pattern) {
                let mut shapes = Shapes { message, pattern: Some(pattern), made: [None, None] };
                count += shapes.hand_to_all(&mut self.answers, &topic.here);
            }
        }
        count
    }
}

fn write_count(answers: &mut Answers, origin: Origin, count: i64) {
    answers.write(origin, |out| Reply::new(out, origin.protocol).integer(count));
}

/// A message as it is sent, in either protocol, made once for all subscribers of a core.
struct Shapes<'a> {
    message: &'a Message,
    pattern: Option<&'a [u8]>,
    made: [Option<Arc<[u8]>>; 2],
}

impl Shapes<'_> {
    /// Returns how many they are.
    fn hand_to_all(&mut self, answers: &mut Answers, subscribers: &Subscribers) -> i64 {
        let mut next = subscribers.iter().skip(CONNECTIONS_AHEAD);
        for index in subscribers.iter() {
            answers.fetch(next.next());
            self.hand(answers, index);
        }
        subscribers.count() as i64
    }

    fn hand(&mut self, answers: &mut Answers, index: u32) {
        let connection = answers.connections.at_mut(index);
        let protocol = connection.session.protocol;
        let (message, pattern) = (self.message, self.pattern);
        let made = &mut self.made[usize::from(protocol == Protocol::Resp3)];
        let bytes = made.get_or_insert_with(|| shape(message, pattern, protocol));
        connection.replies.push_message(bytes);
        answers.mark_dirty(index);
    }
}

fn shape(message: &Message, pattern: Option<&[u8]>, protocol: Protocol) -> Arc<[u8]> {
    let mut out = Vec::with_capacity(message.channel.len() + message.payload.len() + 64);
    let mut reply = Reply::new(&mut out, protocol);
    reply.push(if pattern.is_some() { 4 } else { 3 });
    match (message.kind, pattern) {
        (_, Some(pattern)) => {
            reply.bulk(b"pmessage");
            reply.bulk(pattern);
        }
        (TopicKind::ShardChannel, None) => reply.bulk(b"smessage"),
        (_, None) => reply.bulk(b"message"),
    }
    reply.bulk(&message.channel);
    reply.bulk(&message.payload);
    out.into()
}
