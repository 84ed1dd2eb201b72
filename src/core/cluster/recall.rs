//! What became of requests whose answers were lost: one core asks for all of its clients at once,
//! and the node that leads asks its shards.
//!
//! A shard's answer is certain once this node serves it: what is not in its items by then was never
//! done, and never will be, because entries of earlier leaders that are not there are lost. Two
//! things can still be under way and are waited for: a transaction that is prepared and not
//! decided, and what this node itself has begun for a session that has ended since.

use super::wire::{NodeMessage, QuestionKey};
use crate::core::Core;
use crate::limits::{RECALL_STAMPS_MAX, RECALL_TICKS};
use ringraft_shards::ids::{NodeId, ShardId};
use ringraft_shards::remembered::Recollection;
use ringraft_shards::stamp::{Lane, Stamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A core's question that is not answered yet.
pub(super) struct Question {
    number: u64,
    /// Who is asked, and in which term.
    leader: (NodeId, u64),
    asked_at: u64,
    asked: BTreeSet<(u64, u64)>,
}

/// Another node's question, while shards look.
pub(super) struct Asked {
    key: QuestionKey,
    node: NodeId,
    stamps: Arc<BTreeSet<Stamp>>,
    /// Shards that are still to be asked: all of them while something is under way here.
    waiting: Vec<ShardId>,
    /// Shards that have not answered.
    missing: usize,
    known: BTreeMap<Stamp, Recollection>,
    asked_at: u64,
}

/// Questions of other nodes, by numbers of this core's own.
pub(super) type Questions = BTreeMap<u64, Asked>;

impl Core {
    /// Random bits of this process.
    pub(super) fn process(&self) -> u64 {
        self.shared.peer.as_ref().map_or(0, |peer| peer.identity.process)
    }

    /// Asks whoever leads what became of the requests whose fate is not known, unless that is being
    /// asked.
    pub(super) fn ask_what_became(&mut self) {
        let Some(leader) = self.shared.cluster.route() else { return };
        let leader = (leader, self.shared.cluster.route_term());
        let ticks = self.cluster.ticks;
        let is_asking = |question: &Question| {
            question.leader == leader && ticks < question.asked_at + RECALL_TICKS
        };
        if self.cluster.question.as_ref().is_some_and(is_asking) {
            return;
        }
        let asked: BTreeSet<(u64, u64)> = self.unsure().take(RECALL_STAMPS_MAX).collect();
        self.cluster.question = None;
        if asked.is_empty() {
            return;
        }
        self.cluster.last_question += 1;
        let number = self.cluster.last_question;
        let message = NodeMessage::Recall {
            question: QuestionKey { core: self.id, number },
            term: leader.1,
            process: self.process(),
            asked: asked.iter().copied().collect(),
        };
        self.cluster.question = Some(Question { number, leader, asked_at: ticks, asked });
        self.send_message(leader.0, &message);
    }

    /// A node is not reached any more: it will not answer.
    pub(super) fn forget_question(&mut self, node: NodeId) {
        self.cluster.question.take_if(|question| question.leader.0 == node);
    }

    /// The answer has come.
    pub(super) fn recalled(&mut self, number: u64, known: Vec<(u64, u64, Recollection)>) {
        let Some(question) = self.cluster.question.take_if(|asked| asked.number == number) else {
            return;
        };
        let known = known.into_iter().map(|(lane, sequence, what)| ((lane, sequence), what));
        self.became_known(&question.asked, known.collect());
    }

    /// Another node asks. On the core that has the links.
    pub(super) fn recall(
        &mut self,
        node: NodeId,
        key: QuestionKey,
        term: u64,
        process: u64,
        asked: Vec<(u64, u64)>,
    ) {
        if !self.leads_in(term) {
            // It hears who leads, and asks there.
            return;
        }
        let stamp = |(number, sequence)| Stamp { lane: Lane { node, process, number }, sequence };
        let shards = (0..self.router.shard_count()).map(|shard| ShardId(shard as u16));
        let question = Asked {
            key,
            node,
            stamps: Arc::new(asked.into_iter().map(stamp).collect()),
            waiting: shards.collect(),
            missing: self.router.shard_count(),
            known: BTreeMap::new(),
            asked_at: self.cluster.ticks,
        };
        self.cluster.last_asked += 1;
        let number = self.cluster.last_asked;
        self.cluster.questions.insert(number, question);
        self.ask_shards(number);
    }

    /// Asks the shards that are still to be asked, unless what the question is of is under way
    /// here.
    fn ask_shards(&mut self, number: u64) {
        let Some(question) = self.cluster.questions.get(&number) else { return };
        let (node, stamps) = (question.node, question.stamps.clone());
        if self.is_under_way(node, &stamps) {
            return;
        }
        let question = self.cluster.questions.get_mut(&number).expect("just seen");
        let asker = self.id;
        for shard in std::mem::take(&mut question.waiting) {
            let stamps = stamps.clone();
            self.at_shard(shard, move |core, local| {
                let known = core.shards[local].recall(&stamps);
                core.tell_core(asker, move |core| core.shard_recalled(number, shard, known));
            });
        }
    }

    /// A shard has answered, or cannot yet.
    fn shard_recalled(
        &mut self,
        number: u64,
        shard: ShardId,
        known: Option<Vec<(Stamp, Recollection)>>,
    ) {
        let Some(question) = self.cluster.questions.get_mut(&number) else { return };
        let Some(known) = known else { return question.waiting.push(shard) };
        for (stamp, recollection) in known {
            // One shard may have forgotten what another one knows.
            match recollection {
                Recollection::Forgotten => {
                    question.known.entry(stamp).or_insert(recollection);
                }
                _ => {
                    question.known.insert(stamp, recollection);
                }
            }
        }
        question.missing -= 1;
        if question.missing > 0 {
            return;
        }
        let Asked { key, node, known, .. } =
            self.cluster.questions.remove(&number).expect("just seen");
        let known =
            known.into_iter().map(|(stamp, what)| (stamp.lane.number, stamp.sequence, what));
        let answer = NodeMessage::Recalled { question: key, known: known.collect() };
        self.send_message(node, &answer);
    }

    /// Asks again those shards that could not answer. What nobody waits for any more is dropped.
    pub(super) fn tend_questions(&mut self) {
        let leads = !self.shared.cluster.is_elsewhere();
        let ticks = self.cluster.ticks;
        self.cluster.questions.retain(|_, asked| leads && ticks < asked.asked_at + RECALL_TICKS);
        for number in self.cluster.questions.keys().copied().collect::<Vec<u64>>() {
            self.ask_shards(number);
        }
    }
}
