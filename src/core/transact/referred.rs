//! Commands of a transaction that need keys which they do not name: SORT with patterns.
//!
//! Which keys these are depends on values, those of the transaction's own commands included. So all
//! shards are locked whole against writers; when the command's turn has come, it says what it needs
//! (`Refers::keys`), the shards are asked for what is not on the overlay yet, and it is asked
//! again, until it has everything.

use crate::commands::{Call, Refers};
use crate::core::Core;
use crate::core::gather::Part;
use crate::core::transact::copies::copies;
use crate::core::transact::steps::{Progress, Step, Steps};
use crate::resp::reply::Protocol;
use ringraft_shards::ids::ShardId;
use ringraft_shards::transaction::install;
use std::collections::{BTreeMap, BTreeSet, HashSet};

impl Step {
    /// Which keys it may need beside those that it names.
    pub(in crate::core) fn refers(&self) -> Option<&'static Refers> {
        let refers = self.command.refers.as_ref();
        refers.filter(|refers| (refers.may)(self.arguments.borrow()))
    }
}

impl Core {
    /// Asks the shards for what the present step refers to and the overlay does not have. Done: it
    /// has everything.
    pub(in crate::core) fn ask_referred(&mut self, steps: &mut Steps, refers: &Refers) -> Progress {
        let wanted = self.unknown_keys(steps, refers);
        let database = steps.current().database;
        let mut asked: BTreeMap<ShardId, Vec<Vec<u8>>> = BTreeMap::new();
        let overlay = steps.overlay.as_mut().expect("it is there while steps are locked");
        let mut any = false;
        for key in wanted {
            any = true;
            if steps.sights.hides(database, &key) {
                overlay.install(database, install(&key, None).borrow(), self.turn.now_ms);
            } else {
                asked.entry(self.router.shard(self.router.hash(&key))).or_default().push(key);
            }
        }
        if asked.is_empty() {
            // What became known only now may lead to more.
            return if any { self.ask_referred(steps, refers) } else { Progress::Done };
        }
        let origin_database = steps.sights.origin(database).expect("else all keys are hidden");
        let gather = self.step_gather(Protocol::default(), asked.len());
        for (part, (shard, keys)) in asked.into_iter().enumerate() {
            let keys = keys.into_iter().map(|key| (origin_database, key)).collect();
            self.ask_copies((gather, part), shard, keys);
        }
        Progress::Waits
    }

    /// Puts what the shards have answered on the overlay.
    pub(in crate::core) fn load_referred(&mut self, steps: &mut Steps, parts: &[Part]) {
        let database = steps.current().database;
        let overlay = steps.overlay.as_mut().expect("it is there while steps are locked");
        // A SWAPDB of the transaction's own may have brought it here from another database.
        for (_, copy) in copies(parts) {
            overlay.install(database, copy.borrow(), self.turn.now_ms);
        }
    }

    fn unknown_keys(&self, steps: &Steps, refers: &Refers) -> BTreeSet<Vec<u8>> {
        let Step { command, database, arguments, .. } = steps.current();
        let overlay = steps.overlay.as_ref().expect("it is there while steps are locked");
        let known: HashSet<&[u8]> = overlay.loaded(*database).collect();
        let hasher = self.router.hasher();
        let call = Call {
            command,
            arguments: arguments.borrow(),
            first_key: command.first_key(arguments.borrow(), hasher),
            hasher,
            seed: 0,
            string_bytes_max: self.settings.proto_max_bulk_len as usize,
        };
        let view = overlay.view(*database, self.turn.now_ms);
        let keys = (refers.keys)(&call, &view, &|key| known.contains(key)).into_iter();
        keys.filter(|key| !known.contains(key.as_slice())).collect()
    }
}
