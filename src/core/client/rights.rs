//! What clients may do as their users say, and what a change of users does to those who are
//! connected.

use crate::acl::log::{AclLog, Event, Place, Reason};
use crate::acl::selector::Denied;
use crate::acl::user::{Denial, Shows, User};
use crate::commands::Command;
use crate::core::Core;
use crate::core::client::clients::client_line;
use crate::core::commands::key_access::Channels;
use crate::core::push::TopicKind;
use crate::core::wait::waiting::End;
use crate::refusal::Refusal;
use ringraft_shards::arguments::Arguments;
use std::sync::Arc;

impl Core {
    /// Does something with ACL LOG, which all cores share. Not on the path of requests that are
    /// allowed.
    pub fn with_acl_log<T>(&self, with: impl FnOnce(&mut AclLog) -> T) -> T {
        with(&mut self.shared.acl_log.lock().expect("nobody panics while it is locked"))
    }

    /// May this client send this request?
    /// Errors: what it is told; the denial is noted.
    #[cold]
    pub(in crate::core) fn check_rights(
        &self,
        index: u32,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) -> Result<(), Refusal> {
        let session = &self.answers.connections.at(index).session;
        let Err(denial) = session.user.check(command, arguments) else { return Ok(()) };
        let place = if session.transaction.is_some() { Place::Multi } else { Place::TopLevel };
        self.note_denial(index, &session.user, denial, place, command, arguments);
        Err(refusal(&session.user, denial, "NOPERM ", command, arguments))
    }

    /// Notes what was denied to a client.
    pub(in crate::core) fn note_denial(
        &self,
        index: u32,
        user: &User,
        denial: Denial,
        place: Place,
        command: &Command,
        arguments: Arguments<'_>,
    ) {
        let (reason, object) = match denial {
            Denial::By(Denied::Command) => {
                (Reason::Command, command.full_name().as_bytes().to_vec())
            }
            Denial::By(Denied::Key(position)) => (Reason::Key, arguments.at(position).to_vec()),
            Denial::By(Denied::Channel(position)) => {
                (Reason::Channel, arguments.at(position).to_vec())
            }
            // As in Redis it is an error of the command.
            Denial::Option(_) => return,
        };
        self.note_event(index, reason, place, object, &user.name);
    }

    /// Notes a login with a wrong name or password.
    pub fn note_failed_login(&self, index: u32, word: &[u8], name: &[u8]) {
        let connection = self.answers.connections.at(index);
        let is_multi = connection.session.transaction.is_some();
        let place = if is_multi { Place::Multi } else { Place::TopLevel };
        self.note_event(index, Reason::Login, place, word.to_vec(), name);
    }

    fn note_event(&self, index: u32, reason: Reason, place: Place, object: Vec<u8>, name: &[u8]) {
        let client = self.answers.connections.get(index);
        let client = client.map_or_else(String::new, |c| client_line(c, self.steady_ms()));
        let event = Event { reason, place, object, user: name.to_vec(), client };
        let (now_ms, count_max) = (self.now_ms(), self.settings.acllog_max_len as usize);
        self.with_acl_log(|log| log.note(event, now_ms, count_max));
    }

    /// Takes over the users that are in force. Connections of a user that is gone are closed, and
    /// those that listen to what their user may no longer; that of the client who has changed
    /// the users, when its replies are sent.
    pub fn adopt_users(&mut self) {
        let users = self.shared.users.current();
        if Arc::ptr_eq(&users, &self.users) {
            return;
        }
        self.users = users;
        let all: Vec<u32> = self.answers.connections.iter().map(|(index, _)| index).collect();
        all.into_iter().for_each(|index| self.renew_user(index));
    }

    /// Gives a connection the rights that its user has now. What it waits for and may not have any
    /// more is refused.
    pub(in crate::core) fn renew_user(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if !connection.kind.is_client() {
            // Of another node's client that node has asked.
            return;
        }
        let old = connection.session.user.clone();
        let is_same = |new: &&Arc<User>| new.id == old.id;
        let Some(new) = self.users.get(&old.name).filter(is_same) else {
            return self.expel(index);
        };
        if Arc::ptr_eq(new, &old) {
            return;
        }
        let is_lost = new.loses_channels(&old) && connection.session.overhears(new);
        connection.session.set_user(new.clone());
        if is_lost {
            self.expel(index);
        } else if let Some((command, arguments)) = self.awaited_by(index) {
            let denied = self.check_rights(index, command, arguments.borrow());
            if let Err(refusal) = denied {
                self.unblock(index, End::Denied(refusal.line().into()));
            }
        }
    }

    /// Closes a connection that has lost its rights. What runs for it still has those that it began
    /// with.
    fn expel(&mut self, index: u32) {
        let connection = self.answers.connections.at_mut(index);
        if Some(connection.id) == self.users.changed_by {
            connection.close_after_replies = true;
        } else {
            self.send_last(index);
            self.close(index);
        }
    }
}

impl crate::core::client::session::Session {
    /// May its user not do this? Looked at only of users who may not do everything.
    #[cold]
    #[inline(never)]
    pub(in crate::core) fn denies(&self, command: &Command, arguments: Arguments<'_>) -> bool {
        self.user.check(command, arguments).is_err()
    }

    /// Does it listen to what this user may not?
    fn overhears(&self, user: &User) -> bool {
        let Some(subscriptions) = &self.subscriptions else { return false };
        TopicKind::ALL.into_iter().any(|kind| {
            let named = match kind {
                TopicKind::Pattern => Channels::Patterns,
                TopicKind::Channel | TopicKind::ShardChannel => Channels::Names,
            };
            subscriptions.names(kind).any(|name| !user.may_listen(name, named))
        })
    }
}

/// What a client is told of a denial; `before`: a code word, and whatever leads to it.
pub fn refusal(
    user: &User,
    denial: Denial,
    before: &str,
    command: &Command,
    arguments: Arguments<'_>,
) -> Refusal {
    let text = user.refusal(denial, command, arguments, Shows::Nothing).line();
    let before = match denial {
        Denial::By(_) => before,
        Denial::Option(_) => "ERR ",
    };
    Refusal::Bytes([before.as_bytes(), &text].concat())
}
