//! Keyspace events as messages.

use super::topics::TopicKind;
use super::tracking::News;
use crate::commands::events::FLUSHED;
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::settings::events::class;
use ringraft_shards::ids::DatabaseIndex;
use ringraft_shards::keyspace::KeyEvent;

impl Core {
    /// Tells clients of changes that are done, as far as the settings want it.
    #[cold]
    pub(in crate::core) fn publish_events(&mut self, events: Vec<KeyEvent>) {
        let mut news = News { keys: Some(Vec::new()), writer: None };
        for KeyEvent { database, key, class, name, writer } in events {
            if class != class::CACHED {
                self.publish_event(database, &key, class, name);
                continue;
            }
            let is_flush = name == FLUSHED;
            let is_other = is_flush || news.writer != writer;
            if is_other && news.keys.as_ref().is_some_and(|keys| !keys.is_empty()) {
                let rest = News { keys: Some(Vec::new()), writer };
                self.spread_news(std::mem::replace(&mut news, rest));
            }
            if is_flush {
                self.spread_news(News { keys: None, writer });
                continue;
            }
            news.writer = writer;
            news.keys.get_or_insert_default().push(key);
        }
        if news.keys.as_ref().is_some_and(|keys| !keys.is_empty()) {
            self.spread_news(news);
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
