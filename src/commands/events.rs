//! Which keyspace events a command makes of what it has changed: Redis' names, classes and order.

use super::expire::{EVICT_KEYS, EXPIRE_KEYS};
use super::hash_expire::EXPIRE_FIELDS;
use super::{Command, Run};
use crate::settings::events::class;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::{Change, Edit, Key, KeyEvent, What};

/// What becomes of a changed key's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It has this name; a key that is gone has `del` instead.
    Named(u16, &'static str),
    /// It has this name, and `del` behind it when the key is gone.
    Drained(u16, &'static str),
    /// A function below says.
    Special,
    /// No event.
    Silent,
}

use Rule::{Drained, Named, Silent, Special};

/// What the feed calls a change of a key that clients may have copies of.
pub const CHANGED: &str = "changed";

/// What it calls the end of all keys.
pub const FLUSHED: &str = "flushed";

/// The rule of a command that writes; `None` when it has none.
fn rule(name: &str) -> Option<Rule> {
    Some(match name {
        "set" | "setex" | "psetex" | "getex" | "rename" | "renamenx" | "move" | "lmove"
        | "rpoplpush" | "blmove" | "brpoplpush" | "smove" | "lmpop" | "blmpop" | "zmpop"
        | "bzmpop" | "zadd" | "hgetex" | "hsetex" => Special,
        "setnx" | "getset" | "mset" | "msetnx" | "bitop" => Named(class::STRING, "set"),
        "append" => Named(class::STRING, "append"),
        "setrange" => Named(class::STRING, "setrange"),
        "incr" | "decr" | "incrby" | "decrby" => Named(class::STRING, "incrby"),
        "incrbyfloat" => Named(class::STRING, "incrbyfloat"),
        "setbit" | "bitfield" => Named(class::STRING, "setbit"),
        "pfadd" | "pfmerge" => Named(class::STRING, "pfadd"),
        "del" | "unlink" | "delif" | "pdel" | "getdel" => Named(class::GENERIC, "del"),
        "expire" | "pexpire" | "expireat" | "pexpireat" => Named(class::GENERIC, "expire"),
        "persist" => Named(class::GENERIC, "persist"),
        "copy" => Named(class::GENERIC, "copy_to"),
        "restore" => Named(class::GENERIC, "restore"),
        "lpush" | "lpushx" => Named(class::LIST, "lpush"),
        "rpush" | "rpushx" => Named(class::LIST, "rpush"),
        "lpop" | "blpop" => Drained(class::LIST, "lpop"),
        "rpop" | "brpop" => Drained(class::LIST, "rpop"),
        "linsert" => Named(class::LIST, "linsert"),
        "lset" => Named(class::LIST, "lset"),
        "lrem" => Drained(class::LIST, "lrem"),
        "ltrim" => Drained(class::LIST, "ltrim"),
        "sort" => Named(class::LIST, "sortstore"),
        "sadd" => Named(class::SET, "sadd"),
        "srem" => Drained(class::SET, "srem"),
        "spop" => Drained(class::SET, "spop"),
        "sinterstore" => Named(class::SET, "sinterstore"),
        "sunionstore" => Named(class::SET, "sunionstore"),
        "sdiffstore" => Named(class::SET, "sdiffstore"),
        "hset" | "hmset" | "hsetnx" => Named(class::HASH, "hset"),
        "hincrby" => Named(class::HASH, "hincrby"),
        "hincrbyfloat" => Named(class::HASH, "hincrbyfloat"),
        "hdel" | "hgetdel" => Drained(class::HASH, "hdel"),
        "hexpire" | "hpexpire" | "hexpireat" | "hpexpireat" => Named(class::HASH, "hexpire"),
        "hpersist" => Named(class::HASH, "hpersist"),
        "zincrby" => Named(class::SORTED_SET, "zincr"),
        "geoadd" => Named(class::SORTED_SET, "zadd"),
        "zrem" => Drained(class::SORTED_SET, "zrem"),
        "zpopmin" | "bzpopmin" => Drained(class::SORTED_SET, "zpopmin"),
        "zpopmax" | "bzpopmax" => Drained(class::SORTED_SET, "zpopmax"),
        "zremrangebyrank" => Drained(class::SORTED_SET, "zremrangebyrank"),
        "zremrangebyscore" => Drained(class::SORTED_SET, "zremrangebyscore"),
        "zremrangebylex" => Drained(class::SORTED_SET, "zremrangebylex"),
        "zrangestore" => Named(class::SORTED_SET, "zrangestore"),
        "zunionstore" => Named(class::SORTED_SET, "zunionstore"),
        "zinterstore" => Named(class::SORTED_SET, "zinterstore"),
        "zdiffstore" => Named(class::SORTED_SET, "zdiffstore"),
        "geosearchstore" => Named(class::SORTED_SET, "geosearchstore"),
        "georadius" | "georadiusbymember" => Named(class::SORTED_SET, "georadiusstore"),
        "xadd" => Named(class::STREAM, "xadd"),
        "xdel" => Named(class::STREAM, "xdel"),
        "xtrim" => Named(class::STREAM, "xtrim"),
        "xsetid" => Named(class::STREAM, "xsetid"),
        "xgroup|create" => Named(class::STREAM, "xgroup-create"),
        "xgroup|setid" => Named(class::STREAM, "xgroup-setid"),
        "xgroup|destroy" => Named(class::STREAM, "xgroup-destroy"),
        "xgroup|createconsumer" => Named(class::STREAM, "xgroup-createconsumer"),
        "xgroup|delconsumer" => Named(class::STREAM, "xgroup-delconsumer"),
        "xack" | "xclaim" | "xautoclaim" | "xreadgroup" | "flushall" | "flushdb" | "swapdb"
        | "pfdebug" => Silent,
        EXPIRE_FIELDS => Drained(class::HASH, "hexpired"),
        EVICT_KEYS => Named(class::EVICTED, "evicted"),
        EXPIRE_KEYS => Silent,
        _ => return None,
    })
}

/// Turns what a command has just changed into events. To be called while somebody listens.
#[cold]
pub fn note_events(edit: &mut Edit<'_>, command: &Command, arguments: Arguments<'_>) {
    let changes = edit.take_changes();
    let name = command.full_name();
    let rule = rule(&name).unwrap_or(Silent);
    let mut events = Events { edit, arguments, changes: &changes, told: Vec::new() };
    for change in &changes {
        match change.what {
            // One that was removed and made again was there before; what is moved is new even where
            // it replaces.
            What::Created if events.has_told(change) || moves(&name) => {}
            What::Created => events.push(class::NEW, "new", change),
            What::Expired => {
                events.push(class::EXPIRED, "expired", change);
                events.note_for_caches(change);
            }
            What::Flushed => events.push(class::CACHED, FLUSHED, change),
            What::Trimmed => events.push(class::STREAM, "xtrim", change),
            What::Consumer => events.push(class::STREAM, "xgroup-createconsumer", change),
            What::Changed => {
                if !events.has_told(change) {
                    events.told.push((change.database, change.key.clone()));
                    events.note_for_caches(change);
                    events.changed(&name, rule, change);
                }
            }
        }
    }
}

/// Does Redis remove what is at the place where this command puts a key?
fn moves(name: &str) -> bool {
    matches!(name, "rename" | "renamenx" | "move" | "copy" | "restore")
}

struct Events<'a, 'e> {
    edit: &'a mut Edit<'e>,
    arguments: Arguments<'a>,
    /// All that the command has changed.
    changes: &'a [Change],
    /// Keys that have had their event.
    told: Vec<(DatabaseIndex, Box<[u8]>)>,
}

impl Events<'_, '_> {
    fn push(&mut self, class: u16, name: &'static str, change: &Change) {
        let (database, key) = (change.database, change.key.clone());
        self.edit.push_event(KeyEvent { database, key, class, name, writer: None });
    }

    fn note_for_caches(&mut self, change: &Change) {
        if self.edit.is_for_caches() {
            self.push(class::CACHED, CHANGED, change);
        }
    }

    fn has_told(&self, change: &Change) -> bool {
        let same = |(database, key): &(DatabaseIndex, Box<[u8]>)| {
            *database == change.database && *key == change.key
        };
        self.told.iter().any(same)
    }

    fn exists(&self, change: &Change) -> bool {
        let view = self.edit.view().of_database(change.database);
        view.peek(&Key::new(&change.key, view.hasher().hash(&change.key))).is_some()
    }

    fn has_deadline(&self, change: &Change) -> bool {
        let view = self.edit.view().of_database(change.database);
        let item = view.peek(&Key::new(&change.key, view.hasher().hash(&change.key)));
        item.is_some_and(|item| item.deadline().is_some())
    }

    fn is_argument(&self, i: usize, change: &Change) -> bool {
        self.arguments.get(i) == Some(&change.key)
    }

    fn any_word(&self, from: usize, words: &[&str]) -> bool {
        let mut places = from..self.arguments.count();
        places.any(|i| words.iter().any(|word| self.arguments.is(i, word)))
    }

    fn gone(&mut self, change: &Change) {
        if !self.exists(change) {
            self.push(class::GENERIC, "del", change);
        }
    }

    fn changed(&mut self, name: &str, rule: Rule, change: &Change) {
        match rule {
            Silent => {}
            Named(class::EVICTED, name) => self.push(class::EVICTED, name, change),
            Named(class, event) => match self.exists(change) {
                true => {
                    if moves(name) {
                        self.push(class::NEW, "new", change);
                    }
                    self.push(class, event, change);
                }
                false => self.push(class::GENERIC, "del", change),
            },
            Drained(class, name) => {
                self.push(class, name, change);
                self.gone(change);
            }
            Special => self.special(name, change),
        }
    }

    fn special(&mut self, name: &str, change: &Change) {
        match name {
            _ if name != "getex" && name.starts_with('h') => self.hash_fields(name, change),
            "set" | "setex" | "psetex" => {
                let ends = name != "set" || self.any_word(3, &["ex", "px", "exat", "pxat"]);
                if !self.exists(change) {
                    return self.push(class::GENERIC, "del", change);
                }
                self.push(class::STRING, "set", change);
                if ends {
                    self.push(class::GENERIC, "expire", change);
                }
            }
            "getex" if !self.exists(change) => self.push(class::GENERIC, "del", change),
            "getex" if self.has_deadline(change) => self.push(class::GENERIC, "expire", change),
            "getex" => self.push(class::GENERIC, "persist", change),
            "rename" | "renamenx" if self.is_argument(1, change) => {
                let to = Change { key: self.arguments.at(2).into(), ..change.clone() };
                self.push(class::NEW, "new", &to);
                self.push(class::GENERIC, "rename_from", change);
            }
            "rename" | "renamenx" => self.push(class::GENERIC, "rename_to", change),
            "move" if change.database == self.edit.view().database() => {
                let to = crate::numbers::parse_integer(self.arguments.at(2));
                let database = DatabaseIndex(to.and_then(|to| u8::try_from(to).ok()).unwrap_or(0));
                self.push(class::NEW, "new", &Change { database, ..change.clone() });
                self.push(class::GENERIC, "move_from", change);
            }
            "move" => self.push(class::GENERIC, "move_to", change),
            "smove" if self.is_argument(1, change) => {
                self.push(class::SET, "srem", change);
                self.gone(change);
            }
            "smove" => self.push(class::SET, "sadd", change),
            "lmpop" | "blmpop" | "zmpop" | "bzmpop" => self.popped_of_several(name, change),
            "zadd" => {
                let increments = self.any_word(2, &["incr"]);
                let name = if increments { "zincr" } else { "zadd" };
                self.push(class::SORTED_SET, name, change);
            }
            _ => self.moved_element(name, change),
        }
    }

    /// HGETEX and HSETEX: fields get values, deadlines, or lose them.
    fn hash_fields(&mut self, name: &str, change: &Change) {
        if name == "hsetex" {
            self.push(class::HASH, "hset", change);
        }
        if self.any_word(2, &["persist"]) {
            self.push(class::HASH, "hpersist", change);
        } else if self.any_word(2, &["ex", "px", "exat", "pxat"]) {
            self.push(class::HASH, "hexpire", change);
        }
        self.gone(change);
    }

    fn popped_of_several(&mut self, name: &str, change: &Change) {
        let counted_at = 1 + usize::from(name.starts_with('b'));
        let count = self.arguments.get(counted_at).and_then(crate::numbers::parse_integer);
        let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
        let end = counted_at + 1 + count;
        let (class, name) = match name.ends_with("zmpop") {
            true if self.arguments.is(end, "min") => (class::SORTED_SET, "zpopmin"),
            true => (class::SORTED_SET, "zpopmax"),
            false if self.arguments.is(end, "left") => (class::LIST, "lpop"),
            false => (class::LIST, "rpop"),
        };
        self.push(class, name, change);
        self.gone(change);
    }

    /// LMOVE and its kin: as in Redis the push comes first, whatever was changed first.
    fn moved_element(&mut self, name: &str, change: &Change) {
        let by_words = name.ends_with("lmove");
        let push = match by_words && self.arguments.is(4, "right") {
            true => "rpush",
            false => "lpush",
        };
        let pop = match by_words && self.arguments.is(3, "left") {
            true => "lpop",
            false => "rpop",
        };
        let at = |i: usize| Change {
            database: change.database,
            key: self.arguments.at(i).into(),
            what: What::Changed,
        };
        let (from, to) = (at(1), at(2));
        for change in [&from, &to] {
            self.told.push((change.database, change.key.clone()));
        }
        let created = Change { what: What::Created, ..to.clone() };
        if self.changes.contains(&created) {
            self.push(class::NEW, "new", &to);
        }
        self.push(class::LIST, push, &to);
        self.push(class::LIST, pop, &from);
        self.gone(&from);
    }
}

/// Does the row need a rule here?
pub fn may_change_keys(row: &Command) -> bool {
    let is_of_items = !matches!(row.run, Run::Record | Run::Serve | Run::Container | Run::Session);
    row.flags.write && is_of_items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::commands::table;

    /// Rows of the server's own that change no key of a client.
    const OWN: &[&str] =
        &["run-queued", "set-limits", "turn-back", "change-libraries", "meta-entry"];

    #[test]
    fn every_row_that_writes_has_its_event() {
        for row in table::rows().iter().filter(|row| may_change_keys(row)) {
            let name = row.full_name();
            let known = rule(&name).is_some() || OWN.contains(&name.as_ref());
            assert!(known, "{name}: what event do clients get?");
        }
    }
}
