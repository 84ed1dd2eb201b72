//! What a connection has agreed with the server: database, protocol, password, transaction.

use crate::acl::user::User;
use crate::commands::Command;
use crate::core::push::{Subscriptions, Tracking};
use crate::resp::reply::Protocol;
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use std::sync::Arc;

/// Which replies the client wants to see (CLIENT REPLY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None until CLIENT REPLY ON.
    Off,
    /// Not that of the next request.
    SkipNext,
}

/// What a client calls itself and its library.
#[derive(Debug, Default)]
pub struct ClientNames {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub library_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: Vec<u8>,
}

/// State of one connection that commands read and change.
#[derive(Debug)]
pub struct Session {
    /// Chosen by SELECT.
    pub database: DatabaseIndex,
    /// Chosen by HELLO.
    pub protocol: Protocol,
    /// Has the client logged in, or need it not?
    pub authenticated: bool,
    /// Whose rights it has.
    pub user: Arc<User>,
    /// Must each of its requests be looked at for what its user may do?
    pub is_limited: bool,
    /// What the client calls itself, if it has said so.
    names: Option<Box<ClientNames>>,
    /// CLIENT REPLY.
    pub reply_mode: ReplyMode,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// READONLY: it may be answered by a replica.
    pub reads_replicas: bool,
    /// SCRIPT DEBUG was asked for, and refused: its scripts must not run as if nothing had been
    /// said.
    pub wants_debugger: bool,
    /// MONITOR.
    pub monitor: bool,
    /// What it has subscribed to, if anything.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// How it tracks keys for a cache, if it does.
    pub tracking: Option<Box<Tracking>>,
    /// Is there something about it that only the slow path looks at?
    pub is_special: bool,
    /// May it send little else than subscriptions? True when it has some and speaks RESP2.
    pub only_listens: bool,
    /// The commands queued since MULTI.
    pub transaction: Option<Box<Transaction>>,
    /// Keys under WATCH.
    pub watched: Vec<Watched>,
}

impl Session {
    /// Of a client that has just come, as the default user.
    pub fn new(default: Arc<User>) -> Session {
        let authenticated = default.is_on && default.needs_no_password;
        let is_limited = !default.is_unlimited();
        Session {
            database: DatabaseIndex::default(),
            protocol: Protocol::default(),
            authenticated,
            user: default,
            is_limited,
            names: None,
            reply_mode: ReplyMode::default(),
            no_evict: false,
            no_touch: false,
            reads_replicas: false,
            wants_debugger: false,
            monitor: false,
            subscriptions: None,
            tracking: None,
            is_special: false,
            only_listens: false,
            transaction: None,
            watched: Vec::new(),
        }
    }

    /// What the client calls itself.
    pub fn names(&self) -> &ClientNames {
        static NONE: ClientNames =
            ClientNames { name: Vec::new(), library_name: Vec::new(), library_version: Vec::new() };
        self.names.as_deref().unwrap_or(&NONE)
    }

    /// The same, to be changed.
    pub fn names_mut(&mut self) -> &mut ClientNames {
        self.names.get_or_insert_default()
    }

    /// Has this user's rights from now on.
    pub fn set_user(&mut self, user: Arc<User>) {
        self.is_limited = !user.is_unlimited();
        self.user = user;
    }
}

/// Commands queued between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Transaction {
    /// In the order they came.
    pub queued: Vec<Queued>,
    /// Bytes of them together.
    pub bytes: usize,
    /// Was one of them refused when it was queued? Then EXEC aborts.
    pub refused: bool,
}

/// One queued command.
pub struct Queued {
    /// Its row.
    pub command: &'static Command,
    /// Its arguments.
    pub arguments: OwnedArguments,
    /// Whose rights it has at EXEC, unless they are all.
    pub user: Option<Arc<User>>,
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.command.name)
    }
}

/// One key under WATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The shard that owns it.
    pub shard: ShardId,
    /// The database it was watched in.
    pub database: DatabaseIndex,
    /// The key.
    pub key: Vec<u8>,
    /// Its version when WATCH was called, as the shard counts.
    pub version: u64,
}
