//! What a session command may use: its core, its connection, and all other cores through questions.

use crate::commands::{Answer, Call, Gather};
use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::client::connection::{Connection, Hold};
use crate::core::client::session::Session;
use crate::core::cluster::relay::{AGAIN, UNSURE};
use crate::core::commands::{RunSession, table};
use crate::core::gather::{Findings, GatherState, Merge, Part};
use crate::core::mail::mailbox::Mail;
use crate::core::observe::command_log::Trait;
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use std::any::Any;

/// The place where a session command works.
pub struct SessionContext<'a> {
    /// The core.
    pub core: &'a mut Core,
    /// The connection's number on it.
    pub index: u32,
    /// Whom the reply is for.
    pub target: Target,
}

impl SessionContext<'_> {
    /// The connection.
    pub fn connection(&mut self) -> &mut Connection {
        self.core.answers.connections.at_mut(self.index)
    }

    /// Its session.
    pub fn session(&mut self) -> &mut Session {
        &mut self.connection().session
    }

    /// Sends the reply of the command under way although CLIENT REPLY had turned replies off.
    pub fn unmute(&mut self) {
        if let Target::Connection { sequence, .. } = self.target {
            self.connection().replies.unmute(sequence);
        }
    }

    /// Does not send the reply of the command under way.
    pub fn mute(&mut self) {
        if let Target::Connection { sequence, .. } = self.target {
            self.connection().replies.mute(sequence);
        }
    }

    /// Whom to answer, on whichever core, when what the command has begun is done: OK, or an error.
    /// Further requests of the connection wait.
    pub fn await_one(&mut self) -> Origin {
        let (target, protocol) = (self.target, self.session().protocol);
        self.connection().hold = Hold::Answer;
        let index = self.core.answers.gathers.insert(GatherState {
            target,
            protocol,
            merge: Merge::Shards(Gather::AllOk),
            parts: vec![Part::default()],
            missing: 1,
            arguments: OwnedArguments::default(),
            scanned_slot: None,
        });
        let target = Target::Gather { index, part: 0 };
        Origin::asks(self.core.id, target, protocol)
    }

    /// Lets the core with the links to other nodes begin something, which answers OK or an error.
    /// Further requests of the connection wait.
    pub fn at_links(
        &mut self,
        begin: impl FnOnce(&mut Core, Origin) + Send + 'static,
    ) -> Result<Answer, Refusal> {
        let origin = self.await_one();
        let core = self.core.shared.cluster.link_core();
        self.core.tell_core(core, move |core| begin(core, origin));
        Ok(Answer::Later)
    }

    /// Asks every core and answers when all have replied. Further requests of the connection wait.
    pub fn ask_cores<T: Send + 'static>(
        &mut self,
        ask: impl Fn(&mut Core) -> T + Clone + Send + 'static,
        conclude: impl FnOnce(&mut Core, Vec<T>, &mut Reply<'_>) + 'static,
    ) -> Result<Answer, Refusal> {
        let target = self.target;
        let protocol = self.session().protocol;
        self.connection().hold = Hold::Answer;
        self.core.ask_cores(target, protocol, ask, conclude);
        Ok(Answer::Later)
    }
}

impl Core {
    /// Asks every core; the conclusion is written to `target` when all have replied. Each shard is
    /// met once, moving or not.
    pub fn ask_cores<T: Send + 'static>(
        &mut self,
        target: Target,
        protocol: Protocol,
        ask: impl Fn(&mut Core) -> T + Clone + Send + 'static,
        conclude: impl FnOnce(&mut Core, Vec<T>, &mut Reply<'_>) + 'static,
    ) {
        if self.moves.is_withholding() {
            let question = move |core: &mut Core| core.ask_cores(target, protocol, ask, conclude);
            return self.moves.ask_later(question);
        }
        let conclude = move |core: &mut Core, findings: Findings, reply: &mut Reply<'_>| {
            let findings = findings.into_iter().map(|finding| {
                *finding.downcast::<T>().expect("every core was asked the same question")
            });
            let findings = findings.collect();
            conclude(core, findings, reply);
        };
        let core_count = self.core_count();
        let gather = self.answers.gathers.insert(GatherState {
            target,
            protocol,
            merge: Merge::Cores {
                findings: (0..core_count).map(|_| None).collect(),
                conclude: Box::new(conclude),
            },
            parts: Vec::new(),
            missing: core_count,
            arguments: OwnedArguments::default(),
            scanned_slot: None,
        });
        let asker = self.id;
        for core in 0..core_count as u16 {
            if core == self.id {
                let finding = ask(self);
                self.find(gather, core, Box::new(finding));
            } else {
                let ask = ask.clone();
                let task = move |there: &mut Core| {
                    let finding: Box<dyn Any + Send> = Box::new(ask(there));
                    let reply = move |here: &mut Core| here.find(gather, core, finding);
                    there.answers.post(asker, Mail::Task(Box::new(reply)));
                };
                self.answers.post(core, Mail::Task(Box::new(task)));
            }
        }
    }

    fn find(&mut self, gather: u32, core: u16, finding: Box<dyn Any + Send>) {
        let state = self.answers.gathers.at_mut(gather);
        if let Merge::Cores { findings, .. } = &mut state.merge {
            findings[usize::from(core)] = Some(finding);
        }
        state.missing -= 1;
        if state.missing == 0 {
            self.answers.complete.push(gather);
        }
    }

    /// Merges the parts of commands whose last part has come.
    pub(in crate::core) fn complete_gathers(&mut self) {
        while let Some(index) = self.answers.complete.pop() {
            let gather = self.answers.gathers.remove(index);
            self.conclude(gather);
        }
    }

    fn conclude(&mut self, mut gather: GatherState) {
        if let Merge::Step(suspension) = gather.merge {
            return self.resume_steps(suspension, gather.parts);
        }
        if matches!(gather.merge, Merge::Libraries { .. }) {
            return self.conclude_libraries(gather);
        }
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, gather.protocol);
        let refusal = gather.refusal().map(<[u8]>::to_vec);
        if let (Merge::Transaction { .. }, Some(text @ (AGAIN | UNSURE))) =
            (&gather.merge, refusal.as_deref())
        {
            self.release_hold(gather.target);
            return self.goes_on_elsewhere(gather.target, text == AGAIN);
        }
        match (gather.merge, refusal) {
            (
                Merge::Transaction { .. } | Merge::Shards(_) | Merge::Scan { .. } | Merge::Known(_),
                Some(refusal),
            ) => reply.raw(&refusal),
            (Merge::Known(known), None) => reply.raw(&known),
            (Merge::Shards(rule), None) => {
                let seed = self.chance.bits();
                crate::core::gather::merge_shards(
                    rule,
                    &gather.parts,
                    &gather.arguments,
                    seed,
                    &mut reply,
                );
            }
            (Merge::Scan { count, database }, None) => {
                gather.merge = Merge::Scan { count, database };
                return self.continue_scan(gather, count, database);
            }
            (Merge::Transaction { replies }, None) => {
                let part = gather.parts.first().map_or(&b"*0\r\n"[..], |p| &p.reply);
                crate::core::gather::merge_transaction(&replies, part, &mut reply);
            }
            (Merge::Step(_) | Merge::Libraries { .. }, _) => unreachable!("they go on elsewhere"),
            (Merge::Watch(watched), refusal) => {
                self.conclude_watch(gather.target, watched, &gather.parts, refusal, &mut reply);
            }
            (Merge::Cores { findings, conclude }, _) => {
                let findings = findings.into_iter().map(|f| f.expect("none is missing")).collect();
                conclude(self, findings, &mut reply);
            }
        }
        self.answers.write_here(gather.target, |to| to.extend_from_slice(&out));
        if self.stats.noted.is_large_reply(out.len())
            && let Target::Connection { index, .. } = gather.target
            && gather.arguments.borrow().count() > 0
            && let Some(command) = table::resolve(gather.arguments.borrow())
        {
            let (kind, size) = (Trait::LargeReply, out.len() as u64);
            self.note_command(kind, command, size, index, gather.arguments.borrow());
        }
        self.release_hold(gather.target);
    }

    /// Lets a connection go on that waited for an answer.
    pub fn release_hold(&mut self, target: Target) {
        if let Target::Connection { index, .. } = target {
            let connection = self.answers.connections.at_mut(index);
            connection.replies.release_withheld();
            if connection.hold == Hold::Answer {
                connection.hold = Hold::None;
                self.go_on(index);
            }
        }
    }
}

/// The reply of a session command: now, or from elsewhere later.
pub fn run_session(
    run: RunSession,
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    out: &mut Vec<u8>,
    protocol: Protocol,
) -> Result<Answer, Refusal> {
    run(context, call, &mut Reply::new(out, protocol))
}
