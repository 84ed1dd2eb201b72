//! The subscriptions of a connection.

use super::topics::{Name, TopicKind};
use crate::commands::Answer;
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::session::Session;
use crate::core::gather::context::SessionContext;
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use std::collections::HashSet;
use std::sync::Arc;

/// Names of a connection that are compared one after the other; more are hashed.
const FEW_NAMES_MAX: usize = 8;

/// What a connection has subscribed to. Most have one name, and there are many such connections.
#[derive(Debug, Default)]
pub struct Subscriptions {
    few: Vec<(TopicKind, Name)>,
    /// All of them, once they are not few.
    many: Option<Box<[HashSet<Name>; 3]>>,
}

impl Subscriptions {
    /// Topics of one kind.
    pub fn count(&self, kind: TopicKind) -> usize {
        match &self.many {
            Some(many) => many[kind as usize].len(),
            None => self.names(kind).count(),
        }
    }

    /// The names of one kind.
    pub fn names(&self, kind: TopicKind) -> impl Iterator<Item = &Name> {
        let few = self.few.iter().filter(move |(other, _)| *other == kind);
        let many = self.many.iter().flat_map(move |many| &many[kind as usize]);
        few.map(|(_, name)| name).chain(many)
    }

    fn is_empty(&self) -> bool {
        let none = |many: &[HashSet<Name>; 3]| many.iter().all(HashSet::is_empty);
        self.few.is_empty() && self.many.as_deref().is_none_or(none)
    }

    fn insert(&mut self, kind: TopicKind, name: &Name) {
        if self.many.is_none() && self.few.len() >= FEW_NAMES_MAX {
            let mut many: Box<[HashSet<Name>; 3]> = Box::default();
            for (kind, name) in std::mem::take(&mut self.few) {
                many[kind as usize].insert(name);
            }
            self.many = Some(many);
        }
        if let Some(many) = &mut self.many {
            many[kind as usize].insert(name.clone());
        } else if !self.names(kind).any(|other| other == name) {
            self.few.reserve_exact(1);
            self.few.push((kind, name.clone()));
        }
    }

    fn remove(&mut self, kind: TopicKind, name: &[u8]) {
        match &mut self.many {
            Some(many) => drop(many[kind as usize].remove(name)),
            None => self.few.retain(|(other, kept)| (*other, &**kept) != (kind, name)),
        }
    }
}

impl Session {
    /// Topics of one kind that it has subscribed to.
    pub fn subscription_count(&self, kind: TopicKind) -> usize {
        self.subscriptions.as_ref().map_or(0, |subscriptions| subscriptions.count(kind))
    }

    /// What SUBSCRIBE and its kin answer: channels and patterns count together.
    fn told_count(&self, kind: TopicKind) -> i64 {
        let count = |kind| self.subscription_count(kind) as i64;
        match kind {
            TopicKind::ShardChannel => count(kind),
            _ => count(TopicKind::Channel) + count(TopicKind::Pattern),
        }
    }

    /// May it send little else than subscriptions? A client that has subscribed and speaks RESP2
    /// could not tell a reply from a message.
    pub fn note_subscriptions(&mut self) {
        self.subscriptions = self.subscriptions.take().filter(|some| !some.is_empty());
        self.note_manner();
    }

    /// What it has subscribed to, tracks or speaks is another than before.
    pub fn note_manner(&mut self) {
        self.only_listens = self.subscriptions.is_some() && self.protocol == Protocol::Resp2;
        self.is_special = self.only_listens || self.tracking.is_some();
    }
}

impl SessionContext<'_> {
    /// Subscribes the connection. The reply comes when a message of any core would reach it.
    pub fn subscribe(
        &mut self,
        kind: TopicKind,
        names: Vec<Name>,
        reply: &mut Reply<'_>,
    ) -> Result<Answer, Refusal> {
        self.unmute();
        let mut announced: Vec<Name> = Vec::new();
        for name in &names {
            if !announced.contains(name) && self.core.push.expect(kind, name) {
                announced.push(name.clone());
            }
        }
        let index = self.index;
        if announced.is_empty() || self.core.core_count() == 1 {
            let told = self.core.enlist(index, kind, &names);
            self.core.subscribed(index, kind, told, &announced, reply);
            return Ok(Answer::Now);
        }
        // Clients often publish on another connection before they read this reply: what comes from
        // now on is for this one too, behind the reply. The reply of EXEC comes later than
        // the subscription's.
        let early = matches!(self.target, Target::Connection { .. }).then(|| {
            self.connection().replies.withhold();
            self.core.enlist(index, kind, &names)
        });
        let (from, known) = (self.core.id, announced.clone());
        let note = move |core: &mut Core| {
            if core.id != from {
                known.iter().for_each(|name| core.push.note(kind, name, from));
            }
        };
        self.ask_cores(note, move |core, _, reply| {
            let told = early.unwrap_or_else(|| core.enlist(index, kind, &names));
            core.subscribed(index, kind, told, &announced, reply);
        })
    }

    /// Ends subscriptions to these topics; `None`: to all of this kind.
    pub fn unsubscribe(
        &mut self,
        kind: TopicKind,
        names: Option<Vec<Name>>,
        reply: &mut Reply<'_>,
    ) {
        self.unmute();
        let word = match kind {
            TopicKind::Channel => "unsubscribe",
            TopicKind::Pattern => "punsubscribe",
            TopicKind::ShardChannel => "sunsubscribe",
        };
        let names = names.unwrap_or_else(|| {
            let subscriptions = self.session().subscriptions.as_ref();
            subscriptions.map_or_else(Vec::new, |all| all.names(kind).cloned().collect())
        });
        if names.is_empty() {
            reply.push(3);
            reply.bulk(word.as_bytes());
            reply.null();
            reply.integer(self.session().told_count(kind));
        }
        for name in names {
            self.core.unsubscribe_one(self.index, kind, &name);
            reply.push(3);
            reply.bulk(word.as_bytes());
            reply.bulk(&name);
            reply.integer(self.session().told_count(kind));
        }
        self.session().note_subscriptions();
    }
}

impl Core {
    /// Has messages go to a connection, unless it is closed. Returns each name with how many it has
    /// subscribed to then.
    fn enlist(&mut self, index: u32, kind: TopicKind, names: &[Name]) -> Vec<(Name, i64)> {
        if self.answers.connections.at(index).closed {
            return Vec::new();
        }
        let enlisted = names.iter().map(|name| {
            let name = self.push.add(kind, name, index);
            let session = &mut self.answers.connections.at_mut(index).session;
            let subscriptions = session.subscriptions.get_or_insert_default();
            subscriptions.insert(kind, &name);
            (name, session.told_count(kind))
        });
        enlisted.collect()
    }

    /// All cores know that this one has subscribers of these.
    fn subscribed(
        &mut self,
        index: u32,
        kind: TopicKind,
        told: Vec<(Name, i64)>,
        announced: &[Name],
        reply: &mut Reply<'_>,
    ) {
        announced.iter().for_each(|name| self.push.announced(kind, name));
        if self.answers.connections.at(index).closed {
            announced.iter().for_each(|name| self.unsubscribe_one(index, kind, name));
            return;
        }
        let word = match kind {
            TopicKind::Channel => "subscribe",
            TopicKind::Pattern => "psubscribe",
            TopicKind::ShardChannel => "ssubscribe",
        };
        for (name, count) in told {
            reply.push(3);
            reply.bulk(word.as_bytes());
            reply.bulk(&name);
            reply.integer(count);
        }
        self.answers.connections.at_mut(index).session.note_subscriptions();
    }

    fn unsubscribe_one(&mut self, index: u32, kind: TopicKind, name: &[u8]) {
        let session = &mut self.answers.connections.at_mut(index).session;
        if let Some(subscriptions) = &mut session.subscriptions {
            subscriptions.remove(kind, name);
        }
        if self.push.remove(kind, name, index) && self.core_count() > 1 {
            let (from, name): (u16, Name) = (self.id, Arc::from(name));
            self.everywhere(move |core| {
                if core.id != from {
                    core.push.forget(kind, &name, from);
                }
            });
        }
    }

    /// Ends all subscriptions of a connection.
    pub fn unsubscribe_all(&mut self, index: u32) {
        let session = &mut self.answers.connections.at_mut(index).session;
        let Some(subscriptions) = session.subscriptions.take() else { return };
        session.note_manner();
        for kind in TopicKind::ALL {
            subscriptions.names(kind).for_each(|name| self.unsubscribe_one(index, kind, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_and_many_are_kept_alike() {
        let name = |number: usize| -> Name { Arc::from(format!("name {number}").as_bytes()) };
        for count in [1, FEW_NAMES_MAX, FEW_NAMES_MAX + 1, 100] {
            let mut all = Subscriptions::default();
            for number in (0..count).chain(0..count) {
                all.insert(TopicKind::ALL[number % 2], &name(number));
            }
            let counts = TopicKind::ALL.map(|kind| all.count(kind));
            assert_eq!(counts, [count.div_ceil(2), count / 2, 0]);
            all.remove(TopicKind::ShardChannel, &name(0));
            for number in 0..count {
                assert!(!all.is_empty());
                let kind = TopicKind::ALL[number % 2];
                assert!(all.names(kind).any(|other| *other == name(number)));
                all.remove(kind, &name(number));
                assert!(!all.names(kind).any(|other| *other == name(number)));
            }
            assert!(all.is_empty());
        }
    }
}
