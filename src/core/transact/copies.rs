//! Copies of items that a transaction finds itself to need while its locks are held: asked of the
//! shards, side by side.

use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::gather::{Part, bulk_of};
use crate::resp::read::Elements;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::Key;
use ringraft_shards::transaction::install;

impl Core {
    /// Asks a shard for copies of items, as part `part` of a gather of steps.
    pub(in crate::core) fn ask_copies(
        &mut self,
        (gather, part): (u32, usize),
        shard: ShardId,
        keys: Vec<(DatabaseIndex, Vec<u8>)>,
    ) {
        let protocol = Protocol::default();
        let target = Target::Gather { index: gather, part: part as u32 };
        let origin = Origin::asks(self.id, target, protocol);
        self.at_shard(shard, move |core, local| {
            let shard = &core.shards[local];
            let mut found = Vec::new();
            let mut reply = Reply::new(&mut found, protocol);
            reply.array(keys.len());
            for (database, key) in &keys {
                let view = shard.keyspace.view(*database, shard.time(core.turn.now_ms));
                let item = view.get(&Key::new(key, view.hasher().hash(key)));
                let copy = install(key, item);
                reply.array(copy.borrow().count() + 1);
                reply.bulk(&[database.0]);
                copy.borrow().iter_from(0).for_each(|argument| reply.bulk(argument));
            }
            core.answers.write(origin, |out| out.extend_from_slice(&found));
        });
    }
}

/// The copies in the answers of shards: each with its database, as the arguments of an operation
/// that puts it there.
pub(in crate::core) fn copies(
    parts: &[Part],
) -> impl Iterator<Item = (DatabaseIndex, OwnedArguments)> {
    parts.iter().flat_map(|part| Elements::of(&part.reply)).map(|copy| {
        let mut words = Elements::of(copy).map(bulk_of);
        let database = words.next().and_then(|word| word.first()).copied().unwrap_or(0);
        (DatabaseIndex(database), words.collect())
    })
}
