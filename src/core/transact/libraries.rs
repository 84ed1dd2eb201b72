//! Changes of the libraries of functions (decision 0015): they are state of the first shard, in its
//! log and its snapshots, and known to all cores before anybody hears that they are made.
//!
//! A change is judged on the connection's core by the libraries that it knows, and names their
//! state. When another change came first, the shard does nothing, and it is judged anew.

use crate::commands::{Answer, Arity, Call, Group, Keys};
use crate::core::client::answers::{Origin, Target};
use crate::core::client::connection::Hold;
use crate::core::commands::{Row, table, write};
use crate::core::gather::{GatherState, Merge, Part, integer_of};
use crate::core::shard::Request;
use crate::core::{Core, SessionContext};
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::{Edit, KeyHash, LibraryChange};

/// Rows of this file.
pub const COMMANDS: &[Row] = &[write(CHANGE, Arity::AtLeast(3), Keys::NONE, change)
    .internal()
    .about(Group::Scripting, "7.2.0", "Changes the libraries of functions.")];

const CHANGE: &str = "change-libraries";

/// The shard that keeps the libraries.
const KEEPER: ShardId = ShardId(0);

/// What a command changes, and its reply once that is done. Errors: it must not.
pub type Judge = fn(&mut Core, Arguments<'_>) -> Result<(LibraryChange, Vec<u8>), Refusal>;

fn change(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let change = LibraryChange::of_words(call.arguments.iter_from(1));
    let changed = edit.change_libraries(&change.expect("a core encoded it"));
    reply.integer(changed.into());
    Ok(())
}

impl SessionContext<'_> {
    /// Changes the libraries of functions; the connection's next request sees them changed.
    pub fn change_libraries(&mut self, call: &Call<'_>, judge: Judge) -> Result<Answer, Refusal> {
        let protocol = self.session().protocol;
        let arguments = OwnedArguments::copy(call.arguments);
        self.core.change_libraries(self.target, protocol, arguments, judge)?;
        self.connection().hold = Hold::Answer;
        Ok(Answer::Later)
    }
}

impl Core {
    fn change_libraries(
        &mut self,
        target: Target,
        protocol: Protocol,
        arguments: OwnedArguments,
        judge: Judge,
    ) -> Result<(), Refusal> {
        let (change, reply) = judge(self, arguments.borrow())?;
        let index = self.answers.gathers.insert(GatherState {
            target,
            protocol,
            merge: Merge::Libraries { judge, reply },
            parts: vec![Part::default()],
            missing: 1,
            arguments,
            scanned_slot: None,
        });
        let target = Target::Gather { index, part: 0 };
        let origin = Origin::asks(self.id, target, protocol);
        let mut words: OwnedArguments = [CHANGE.as_bytes()].into_iter().collect();
        change.words().iter().for_each(|word| words.push(word));
        self.at_shard(KEEPER, move |core, local| {
            let (command, database) = (table::internal(CHANGE), DatabaseIndex(0));
            let (first_key, arguments) = (KeyHash::default(), words.borrow());
            // No key is locked for it: the libraries are no items.
            let request = Request { command, origin, database, first_key, arguments };
            core.shards[local].gather_write(&request);
        });
        Ok(())
    }

    /// The shard has answered: the change was made, or another one came first.
    pub(in crate::core) fn conclude_libraries(&mut self, mut gather: GatherState) {
        let Merge::Libraries { judge, reply } = gather.merge else {
            unreachable!("the caller looked");
        };
        let (target, protocol) = (gather.target, gather.protocol);
        let found = std::mem::take(&mut gather.parts[0].reply);
        let out = match integer_of(&found) {
            Some(0) => match self.change_libraries(target, protocol, gather.arguments, judge) {
                Ok(()) => return,
                Err(refusal) => {
                    let mut out = Vec::new();
                    let mut reply = Reply::new(&mut out, protocol);
                    self.stats.refuse(refusal.line(), 0, &mut reply);
                    out
                }
            },
            Some(_) => reply,
            None => found,
        };
        self.answers.write_here(target, |to| to.extend_from_slice(&out));
        self.release_hold(target);
    }
}
