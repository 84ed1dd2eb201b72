//! Keyspace events as messages.

use super::topics::TopicKind;
use crate::core::Core;
use crate::core::answers::Target;
use crate::settings::events::class;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::KeyEvent;

impl Core {
    /// Tells clients of changes that are done, as far as the settings want it.
    #[cold]
    pub(in crate::core) fn publish_events(&mut self, events: Vec<KeyEvent>) {
        for KeyEvent { database, key, class, name } in events {
            self.publish_event(database, &key, class, name);
        }
    }

    fn publish_event(&mut self, database: DatabaseIndex, key: &[u8], class: u16, name: &str) {
        let wanted = self.settings.notify_keyspace_events;
        if !wanted.want(class) {
            return;
        }
        let database = database.0;
        if wanted.want(class::BY_KEY) {
            let mut channel = format!("__keyspace@{database}__:").into_bytes();
            channel.extend_from_slice(key);
            self.publish(Target::Nobody, TopicKind::Channel, &channel, name.as_bytes());
        }
        if wanted.want(class::BY_EVENT) {
            let channel = format!("__keyevent@{database}__:{name}");
            self.publish(Target::Nobody, TopicKind::Channel, channel.as_bytes(), key);
        }
    }

    /// Tells clients of keys that reads have not found since the last call.
    pub(in crate::core) fn publish_misses(&mut self) {
        for local in 0..self.shards.len() {
            if self.shards[local].keyspace.has_misses() {
                for (database, key) in self.shards[local].keyspace.take_misses() {
                    self.publish_event(database, &key, class::MISS, "keymiss");
                }
            }
        }
    }
}
