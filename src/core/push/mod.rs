//! Messages that clients get without having asked: channels, patterns, and who has subscribed to
//! them.
//!
//! Each core knows its own subscribers, and for every channel and pattern which other cores have
//! any, so that a message goes to those cores alone, to each once. A core tells the others when it
//! gets its first subscriber of a topic and when it loses its last; SUBSCRIBE is answered when all
//! have heard of it. Cores' mailboxes keep the order, so one publisher's messages arrive in order.
//!
//! - `topics.rs`: one core's knowledge of topics
//! - `subscribe.rs`: subscriptions of a connection
//! - `events.rs`: keyspace events as messages
//! - `publish.rs`: a message on its way to its subscribers
//! - `tracking.rs`: client-side caches; `read_key.rs`: a key that was read, small

mod events;
mod publish;
mod read_key;
mod subscribe;
mod topics;
mod tracking;

pub use publish::Message;
pub use subscribe::Subscriptions;
pub use topics::{Push, TopicKind};
pub use tracking::{News, Tracking, TrackingMode, TrackingTable, check_prefixes, writer_of};
