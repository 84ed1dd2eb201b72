//! Clients of a node that does not lead which keep copies of what they read (CLIENT TRACKING).
//!
//! They read at the node that leads, so their sessions there track, in the same mode. What changes
//! comes back over the relay behind the replies before it, as RESP3's `invalidate`, and is told
//! here as the client has chosen here: to itself, or to the client that reads for it. Whoever loses
//! the leader may have missed something: all that it keeps is gone then.

use super::relay::{Relay, put};
use super::wire::NodeMessage;
use crate::commands::Command;
use crate::core::Core;
use crate::core::client::connection::Kind;
use crate::core::commands::tracking::wanted;
use crate::core::gather::bulk_of;
use crate::core::push::{Tracking, TrackingMode};
use crate::resp::read::Elements;
use ringraft_shards::arguments::OwnedArguments;

/// How the news begins that a session sends back.
const NEWS: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// Keys that have changed; `None` when all may have.
pub(super) type Changed = Option<Vec<Box<[u8]>>>;

/// Is a reply news of changes, and of which?
pub(super) fn read_news(reply: &[u8]) -> Option<Changed> {
    let keys = reply.strip_prefix(NEWS)?;
    Some(
        keys.starts_with(b"*").then(|| Elements::of(keys).map(|key| bulk_of(key).into()).collect()),
    )
}

/// The request that has a session track in the manner of a client; nothing if it does not track.
pub(super) fn request_of(tracking: Option<&Tracking>) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(tracking) = tracking else { return out };
    let mut words: Vec<&[u8]> = vec![b"client", b"tracking", b"on"];
    match tracking.mode {
        TrackingMode::Default => {}
        TrackingMode::Broadcast => words.push(b"bcast"),
        TrackingMode::OptIn => words.push(b"optin"),
        TrackingMode::OptOut => words.push(b"optout"),
    }
    if tracking.no_loop {
        words.push(b"noloop");
    }
    for prefix in &tracking.prefixes {
        words.extend([&b"prefix"[..], prefix]);
    }
    put(&mut out, words.into_iter());
    out
}

/// What CLIENT CACHING has said for the next request, if it has.
pub(super) fn caching_of(tracking: Option<&mut Box<Tracking>>) -> Option<&'static [u8]> {
    let tracking = tracking?;
    if !std::mem::take(&mut tracking.caching) {
        return None;
    }
    Some(if tracking.mode == TrackingMode::OptIn { b"yes" } else { b"no" })
}

impl Core {
    /// A client wants to track: it is answered here, once its session with the leader does. Is it
    /// to wait for that?
    pub(super) fn waits_to_track(
        &mut self,
        index: u32,
        command: &'static Command,
        arguments: &OwnedArguments,
    ) -> bool {
        let before = self.answers.connections.at(index).session.tracking.as_deref();
        let call = self.keyless_call(command, arguments.borrow(), 0);
        let Ok(Some(tracking)) = wanted(&call, before) else { return false };
        let request = request_of(Some(&tracking));
        let Some(leader) = self.shared.cluster.route() else {
            self.wait_for_leader(index, arguments);
            return true;
        };
        self.open_relay(index, leader);
        let relay = self.answers.connections.at(index).relay.as_ref().expect("just opened");
        if relay.is_tracking(&request) {
            return false;
        }
        self.tell_session(index, request);
        self.wait_for_leader(index, arguments);
        true
    }

    /// Has a client's session with the leader track as it is to.
    fn tell_session(&mut self, index: u32, request: Vec<u8>) {
        let connection = self.answers.connections.at_mut(index);
        let relay = connection.relay.as_mut().expect("the caller has opened it");
        let mut out = Vec::new();
        relay.track(&mut out, request);
        if out.is_empty() {
            return;
        }
        let (client, leader, place) = (relay.key, relay.leader, relay.last_place());
        self.introduce(index);
        let message = NodeMessage::Requests { client, place, stamp: (0, 0), bytes: out.into() };
        self.send_message(leader, &message);
    }

    /// What a client keeps may have changed without its being told.
    pub(super) fn lose_track(&mut self, index: u32) {
        let Some(connection) = self.answers.connections.get(index) else { return };
        if connection.session.tracking.is_some() && connection.kind != Kind::Relayed {
            let reader = (index, connection.id);
            self.tell(&[reader], None, None);
        }
    }

    /// Another node leads, or this one: nobody who tracks knows what has changed meanwhile.
    pub(super) fn lose_all_track(&mut self) {
        let connections = self.answers.connections.iter();
        let trackers: Vec<u32> = connections
            .filter(|(_, connection)| connection.session.tracking.is_some())
            .map(|(index, _)| index)
            .collect();
        trackers.into_iter().for_each(|index| self.lose_track(index));
        self.tend_trackers();
    }

    /// Has those who track do so at the node that leads, unless another one still owes them
    /// replies.
    pub(super) fn tend_trackers(&mut self) {
        let route = self.shared.cluster.route().filter(|_| self.shared.cluster.is_elsewhere());
        let Some(leader) = route.filter(|_| self.tracker_count() > 0) else { return };
        let owes = |relay: &Relay| relay.leader != leader && !relay.is_settled();
        let connections = self.answers.connections.iter();
        let trackers: Vec<(u32, Vec<u8>)> = connections
            .filter(|(_, c)| c.kind != Kind::Relayed && !c.closed)
            .filter(|(_, c)| !c.relay.as_deref().is_some_and(owes))
            .filter_map(|(index, c)| {
                c.session.tracking.as_deref().map(|tracking| (index, request_of(Some(tracking))))
            })
            .collect();
        for (index, request) in trackers {
            self.open_relay(index, leader);
            self.tell_session(index, request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_told_from_messages() {
        let keys = |keys: &[&[u8]]| keys.iter().map(|key| Box::from(*key)).collect();
        let some = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n";
        assert_eq!(read_news(some), Some(Some(keys(&[b"a", b"bc"]))));
        assert_eq!(read_news(b">2\r\n$10\r\ninvalidate\r\n_\r\n"), Some(None));
        assert_eq!(read_news(b">2\r\n$10\r\ninvalidate\r\n$-1\r\n"), Some(None));
        assert_eq!(read_news(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n"), None);
    }

    #[test]
    fn a_session_is_told_the_manner_and_not_who_reads() {
        let mut tracking = Tracking::default();
        (tracking.mode, tracking.no_loop) = (TrackingMode::Broadcast, true);
        (tracking.redirect, tracking.prefixes) = (Some(7), vec![b"a:".to_vec(), b"b".to_vec()]);
        let text = String::from_utf8(request_of(Some(&tracking))).expect("words");
        let words: Vec<&str> = text.split("\r\n").skip(2).step_by(2).collect();
        assert_eq!(
            words,
            ["client", "tracking", "on", "bcast", "noloop", "prefix", "a:", "prefix", "b"]
        );
        assert!(request_of(None).is_empty());
    }
}
