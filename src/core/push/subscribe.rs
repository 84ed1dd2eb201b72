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

/// What a connection has subscribed to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    names: [HashSet<Name>; 3],
}

impl Subscriptions {
    /// Topics of one kind.
    pub fn count(&self, kind: TopicKind) -> usize {
        self.names[kind as usize].len()
    }

    /// The names of one kind.
    pub fn names(&self, kind: TopicKind) -> impl Iterator<Item = &Name> {
        self.names[kind as usize].iter()
    }

    fn is_empty(&self) -> bool {
        self.names.iter().all(HashSet::is_empty)
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
            subscriptions
                .map_or_else(Vec::new, |all| all.names[kind as usize].iter().cloned().collect())
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
            subscriptions.names[kind as usize].insert(name.clone());
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
            subscriptions.names[kind as usize].remove(name);
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
        for (kind, names) in TopicKind::ALL.into_iter().zip(subscriptions.names) {
            names.iter().for_each(|name| self.unsubscribe_one(index, kind, name));
        }
    }
}
