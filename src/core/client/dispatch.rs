//! The slow path of a request: every gate, every kind of command.
//!
//! Its arguments are copied once, so that commands may use the core and the connection freely. The
//! gates are asked in Redis' order: is there such a command, does its arity fit, may the client, is
//! a transaction open, is the server paused.

use crate::commands::options::timeout_of;
use crate::commands::pattern::wants_order;
use crate::commands::scan::{Cursor, ScanOptions};
use crate::commands::{Answer, Call, Command, Gather, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::client::connection::{self, Hold};
use crate::core::client::intake::{OUT_OF_MEMORY, forward};
use crate::core::client::session::{Queued, ReplyMode};
use crate::core::commands::table;
use crate::core::gather::context::{SessionContext, run_session};
use crate::core::gather::{GatherState, Merge, Part};
use crate::core::mail::mailbox::Mail;
use crate::core::observe::command_log::Trait;
use crate::core::shard::Request;
use crate::core::transact::coalesce::joins;
use crate::core::transact::spread::Member;
use crate::limits::REQUEST_BYTES_MAX;
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use crate::script::library::{Kind, Library};
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::{DatabaseIndex, ShardId};
use ringraft_shards::keyspace::KeyHash;
use std::time::{Duration, Instant};

/// What an unauthenticated client is told.
const NO_AUTH: &str = "NOAUTH Authentication required.";

/// What a script answers that was to be debugged.
const NO_DEBUGGER: &str = "ERR the script was not run: this connection has asked for SCRIPT DEBUG, and there is no debugger";

/// One piece of a command for one shard.
pub(in crate::core) struct Piece {
    /// Where it goes.
    pub(in crate::core) shard: ShardId,
    /// Hash of its first key.
    pub(in crate::core) first_key: KeyHash,
}

impl Core {
    /// Takes a request of any kind.
    pub(in crate::core) fn dispatch(&mut self, index: u32, arguments: OwnedArguments) {
        if self.coalesced.has(self.answers.connections.at(index).membership) {
            self.begin_joined();
        }
        let connection = self.answers.connections.at_mut(index);
        let looked_up = match connection.last_command {
            Some(last) if last.is_script() && table::is_named(last, arguments.borrow().at(0)) => {
                last.check_arity(arguments.borrow().count()).map(|()| last)
            }
            _ => find_row(arguments.borrow()),
        };
        // Who runs one script runs others.
        connection.last_command = looked_up.as_ref().ok().copied().filter(|row| row.is_script());
        connection.last_row = looked_up.as_ref().ok().copied();
        let checked =
            looked_up.and_then(|command| self.check_gates(index, command, arguments.borrow()));
        // Only what would run is held back: what is refused is refused at once, as in Redis.
        if checked.as_ref().is_ok_and(|command| self.is_paused_for(index, command)) {
            return self.hold_back(index, &arguments);
        }
        if checked.as_ref().is_ok_and(|command| self.comes_too_early(index, command)) {
            self.hold_back(index, &arguments);
            self.answers.connections.at_mut(index).hold = Hold::Order;
            return;
        }
        if let Ok(command) = checked
            && self.shared.cluster.is_elsewhere()
            && self.is_relayed(index, command, &arguments)
        {
            return;
        }
        if self.stop_sent && self.answers.connections.at(index).kind == connection::Kind::Relayed {
            // Another node leads soon.
            return self.send_back(index);
        }
        let sequence = self.expect_reply(index);
        let target = Target::Connection { index, sequence };
        match checked {
            Ok(command) => {
                if self.answers.connections.at(index).session.transaction.is_some()
                    && !command.flags.unqueued
                {
                    return self.queue(index, target, command, arguments);
                }
                self.show_to_monitors(index, command, arguments.borrow());
                if command.name == "ping" && self.answers.connections.at(index).session.only_listens
                {
                    return self.pong_listener(target, arguments.borrow());
                }
                self.track_reads(index, command, arguments.borrow());
                self.keep_for_again(index, target, command, arguments.borrow());
                self.start(index, target, command, arguments);
                self.end_caching(index, command);
            }
            Err(_) if is_http(arguments.borrow().at(0)) => {
                tracing::warn!(
                    client = self.answers.connections.at(index).id,
                    "closing a client that speaks HTTP"
                );
                self.answers.connections.at_mut(index).close_after_replies = true;
                self.answers.write_here(target, |_| {});
            }
            Err(refusal) => {
                let command = table::resolve(arguments.borrow());
                if let Some(command) = command {
                    self.stats.commands[usize::from(command.number)].rejected += 1;
                }
                if command.is_some_and(|command| command.name == "exec") {
                    return self.abort_exec(index, target, &refusal);
                }
                if let Some(transaction) =
                    &mut self.answers.connections.at_mut(index).session.transaction
                {
                    transaction.refused = true;
                }
                self.refuse(index, target, &refusal, arguments.borrow());
            }
        }
    }

    /// A refused EXEC ends the transaction, if there is one.
    #[cold]
    fn abort_exec(&mut self, index: u32, target: Target, refusal: &Refusal) {
        self.answers.connections.at_mut(index).session.transaction = None;
        self.forget_watched(index);
        self.forget_relayed_watch(index);
        let line = refusal.line();
        let cause = line.strip_prefix(b"ERR ").unwrap_or(&line);
        let refusal = Refusal::repeating("EXECABORT Transaction discarded because of: ", cause, "");
        self.refuse(index, target, &refusal, Arguments::new(&[], &[]));
    }

    /// PING by a client that gets messages and speaks RESP2 is answered like one.
    fn pong_listener(&mut self, target: Target, arguments: Arguments<'_>) {
        self.answers.write_here(target, |out| {
            let mut reply = Reply::new(out, Default::default());
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(arguments.get(1).unwrap_or_default());
        });
    }

    /// Takes the sequence number of a request whose reply is sent or not, as CLIENT REPLY says.
    pub(in crate::core) fn expect_reply(&mut self, index: u32) -> u32 {
        let connection = self.answers.connections.at_mut(index);
        match connection.session.reply_mode {
            ReplyMode::On => connection.replies.expect(),
            ReplyMode::Off => connection.replies.expect_muted(),
            ReplyMode::SkipNext => {
                connection.session.reply_mode = ReplyMode::On;
                connection.replies.expect_muted()
            }
        }
    }

    /// May this client run this command now?
    fn check_gates(
        &self,
        index: u32,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) -> Result<&'static Command, Refusal> {
        let session = &self.answers.connections.at(index).session;
        let may_enter = session.authenticated || command.flags.no_auth;
        if !may_enter && self.users.ask_for_password() {
            return Err(Refusal::text(NO_AUTH));
        }
        if self.stop_sent && command.name != "shutdown" {
            return Err(Refusal::text("ERR the server is shutting down"));
        }
        if session.wants_debugger && command.is_script() {
            return Err(Refusal::text(NO_DEBUGGER));
        }
        if session.transaction.is_some() && command.flags.no_multi {
            return Err(Refusal::text("ERR Command not allowed inside a transaction"));
        }
        if session.is_limited {
            self.check_rights(index, command, arguments)?;
        }
        if !command.flags.allows_busy && self.shared.scripts.is_busy() {
            return Err(busy(&self.shared.scripts));
        }
        if session.monitor && (command.flags.write || matches!(command.run, Run::Read(_))) {
            return Err(Refusal::text("ERR Replica can't interact with the keyspace"));
        }
        if session.only_listens && !command.flags.listens && !command.flags.serves_listeners {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
                 context",
                command.full_name()
            );
            return Err(Refusal::Text(text.into()));
        }
        Ok(command)
    }

    /// Must a request wait until earlier ones of its connection are answered? Messages are written
    /// when they come: none may overtake a reply that was asked for before its subscription,
    /// nor be sent before a write that stands before it is done.
    fn comes_too_early(&self, index: u32, command: &Command) -> bool {
        let connection = self.answers.connections.at(index);
        let transaction = &connection.session.transaction;
        let sends = match transaction {
            None => command.flags.sends,
            Some(transaction) => {
                let sends = |queued: &Queued| queued.command.flags.sends;
                command.name == "exec" && transaction.queued.iter().any(sends)
            }
        };
        let listens = command.flags.listens && transaction.is_none();
        sends && connection.must_ride() || listens && connection.replies.unfinished() > 0
    }

    /// Does CLIENT PAUSE hold this command back? A pause of writes holds what may change something
    /// on a replica, and EXEC when it has queued such a command; a pause of all holds
    /// everything, CLIENT UNPAUSE too, as in Redis.
    fn is_paused_for(&self, index: u32, command: &Command) -> bool {
        if self.pause.until_ms <= self.turn.steady_ms {
            return false;
        }
        let changes = |command: &Command| command.flags.write || command.flags.may_replicate;
        let transaction = &self.answers.connections.at(index).session.transaction;
        self.pause.all
            || changes(command)
            || command.name == "exec"
                && transaction.as_ref().is_some_and(|transaction| {
                    transaction.queued.iter().any(|queued| changes(queued.command))
                })
    }

    /// Puts a request back into the connection's input until the pause is over.
    pub(in crate::core) fn hold_back(&mut self, index: u32, arguments: &OwnedArguments) {
        let mut request = Vec::new();
        let mut reply = Reply::new(&mut request, Default::default());
        reply.array(arguments.borrow().count());
        for argument in arguments.borrow().iter_from(0) {
            reply.bulk(argument);
        }
        let connection = self.answers.connections.at_mut(index);
        connection.hold = Hold::Pause;
        connection.held_back = request.into();
    }

    pub(in crate::core) fn refuse(
        &mut self,
        index: u32,
        target: Target,
        refusal: &Refusal,
        arguments: Arguments<'_>,
    ) {
        let protocol = self.answers.connections.at(index).session.protocol;
        let stats = &mut self.stats;
        let unknown = *refusal == UNKNOWN;
        self.answers.write_here(target, |out| {
            let start = out.len();
            let mut reply = Reply::new(out, protocol);
            if unknown {
                *stats.errors.entry("ERR".to_string()).or_default() += 1;
                table::refuse_unknown(arguments, &mut reply);
            } else {
                stats.refuse(refusal.line(), start, &mut reply);
            }
        });
    }

    fn queue(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: OwnedArguments,
    ) {
        // What is queued takes memory, whatever it is.
        let lacks_memory = self.lacks_memory(command, arguments.borrow());
        let transaction = &mut self.answers.connections.at_mut(index).session.transaction;
        let transaction = transaction.as_mut().expect("the caller looked");
        if lacks_memory {
            transaction.refused = true;
            let refusal = Refusal::text(OUT_OF_MEMORY);
            return self.refuse(index, target, &refusal, Arguments::new(&[], &[]));
        }
        if transaction.bytes + arguments.size() > REQUEST_BYTES_MAX {
            transaction.refused = true;
            let refusal = Refusal::text(crate::core::transact::spread::TOO_LARGE);
            return self.refuse(index, target, &refusal, Arguments::new(&[], &[]));
        }
        transaction.bytes += arguments.size();
        transaction.queued.push(Queued { command, arguments, user: None });
        self.answers.write_here(target, |out| out.extend_from_slice(b"+QUEUED\r\n"));
    }

    /// Starts a command that passed the gates.
    pub(in crate::core) fn start(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: OwnedArguments,
    ) {
        match command.run {
            Run::Session | Run::Plain(_) | Run::Container => {
                let clock = Instant::now();
                let mut out = Vec::new();
                let outcome = self.run_here(index, target, command, arguments.borrow(), &mut out);
                if outcome == Ok(Answer::Now) {
                    self.answers.write_here(target, |to| to.extend_from_slice(&out));
                    if self.stats.noted.is_large_reply(out.len()) {
                        let (kind, size) = (Trait::LargeReply, out.len() as u64);
                        self.note_command(kind, command, size, index, arguments.borrow());
                    }
                } else if let Err(refusal) = &outcome {
                    self.stats.commands[usize::from(command.number)].failed += 1;
                    self.refuse(index, target, refusal, arguments.borrow());
                }
                if outcome != Ok(Answer::LaterCounted) {
                    self.count_one(command, clock, index, arguments.borrow());
                }
            }
            // A timeout that is none, or keys that are not there, are the function's to refuse.
            Run::Block(_) | Run::Read(_)
                if command.wait.is_some()
                    && command.keys.positions(arguments.borrow()).next().is_some()
                    && let Ok(timeout) = timeout_of(command, arguments.borrow()) =>
            {
                self.block(index, target, command, arguments, timeout);
            }
            Run::Script(_) => self.start_script(index, target, command, arguments),
            Run::Read(_)
            | Run::Write(_)
            | Run::Block(_)
            | Run::Shard
            | Run::Record
            | Run::Serve => {
                let database = self.answers.connections.at(index).session.database;
                if let Err(refusal) =
                    self.send_to_shards(index, target, database, command, arguments)
                {
                    self.refuse(index, target, &refusal, Arguments::new(&[], &[]));
                }
            }
        }
    }

    /// Runs a command of the session or of nothing, writing its reply to `out`.
    pub(in crate::core) fn run_here(
        &mut self,
        index: u32,
        target: Target,
        command: &'static Command,
        arguments: Arguments<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Answer, Refusal> {
        let protocol = self.answers.connections.at(index).session.protocol;
        let seed = self.chance.bits();
        let call = self.keyless_call(command, arguments, seed);
        match command.run {
            Run::Session => run_session(
                table::session_work(command),
                &mut SessionContext { core: self, index, target },
                &call,
                out,
                protocol,
            ),
            Run::Plain(run) => run(&call, &mut Reply::new(out, protocol)).map(|()| Answer::Now),
            Run::Container => {
                let run = command.alone.expect("the arity demands a second word of others");
                run(&call, &mut Reply::new(out, protocol)).map(|()| Answer::Now)
            }
            _ => unreachable!("the caller looked"),
        }
    }

    fn count_one(
        &mut self,
        command: &'static Command,
        clock: Instant,
        index: u32,
        arguments: Arguments<'_>,
    ) {
        let took = self.stats.count(command, 1, clock).duration_since(clock);
        self.note_slow(command, took, index, arguments);
    }

    /// Keeps a command that took long.
    pub(in crate::core) fn note_slow(
        &mut self,
        command: &'static Command,
        took: Duration,
        index: u32,
        arguments: Arguments<'_>,
    ) {
        if self.stats.noted.is_slow(took) {
            self.stats.noted.note_latency(command, took, self.turn.now_ms);
            self.note_command(Trait::Slow, command, took.as_micros() as u64, index, arguments);
        }
    }

    /// Keeps a command of a client of this core if it has so much of a trait that it is wanted.
    #[cold]
    pub(in crate::core) fn note_command(
        &mut self,
        kind: Trait,
        command: &'static Command,
        amount: u64,
        index: u32,
        arguments: Arguments<'_>,
    ) {
        let log = self.stats.noted.log(kind);
        if amount >= log.threshold() && !command.flags.no_slowlog {
            let client = self.answers.connections.get(index).map(|c| c.identity());
            log.add(command, self.turn.now_ms, amount, arguments, client);
        }
    }

    /// Sends a command to the shards that it concerns.
    /// Errors: a pair is incomplete, or a cursor is none.
    fn send_to_shards(
        &mut self,
        index: u32,
        target: Target,
        database: DatabaseIndex,
        command: &'static Command,
        arguments: OwnedArguments,
    ) -> Result<(), Refusal> {
        let connection = self.answers.connections.at(index);
        let mut origin = Origin {
            core: self.id,
            target,
            protocol: connection.session.protocol,
            rides: true,
            no_touch: connection.session.no_touch,
            is_relayed: connection.owner.is_some(),
            stamp: self.stamp_of(target),
        };
        let view = arguments.borrow();
        if command.spread == Spread::Everywhere(Gather::Cursor) {
            return self.start_scan(origin, database, command, arguments);
        }
        self.check_arguments(command, view)?;
        let pieces = self.pieces(command, view)?;
        if let Target::Connection { sequence, .. } = target
            && (pieces.len() > 1 || command.run.writes())
        {
            self.answers.connections.at_mut(index).last_ordered = Some(sequence);
        }
        let side_by_side = matches!(command.spread, Spread::Everywhere(_)) && !command.run.writes()
            || matches!(command.run, Run::Shard);
        if pieces.len() > 1 && joins(command) {
            let manner = (origin.protocol, origin.no_touch);
            let member = Member::new(target, origin.protocol, Some(command));
            let coalesced = &mut self.coalesced;
            let membership = coalesced.add(&self.router, member, manner, database, command, view);
            self.answers.connections.at_mut(index).membership = membership;
            return Ok(());
        }
        if pieces.len() > 1 && !side_by_side {
            self.spread(target, origin.protocol, database, command, arguments);
            return Ok(());
        }
        let merge = match command.spread {
            Spread::Split(gather) | Spread::Everywhere(gather) => gather,
            Spread::One | Spread::Referring => Gather::AllOk,
        };
        if merge == Gather::SortedKeys && wants_order(view) {
            for piece in &pieces {
                self.order_shard(piece.shard, database);
            }
        }
        let gather = (pieces.len() > 1).then(|| {
            self.answers.gathers.insert(GatherState {
                target,
                protocol: origin.protocol,
                merge: Merge::Shards(merge),
                parts: pieces.iter().map(|_| Part::default()).collect(),
                missing: pieces.len(),
                arguments: arguments.clone(),
                scanned_slot: None,
            })
        });
        for (part, piece) in pieces.into_iter().enumerate() {
            if let Some(index) = gather {
                origin.target = Target::Gather { index, part: part as u32 };
            }
            let first_key = piece.first_key;
            let request = Request { command, origin, database, first_key, arguments: view };
            self.forward(piece.shard, &request);
        }
        Ok(())
    }

    /// Looks at the arguments of a command before any shard sees it.
    /// Errors: what its row's check says.
    pub(in crate::core) fn check_arguments(
        &self,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) -> Result<(), Refusal> {
        let Some(check) = command.check else { return Ok(()) };
        check(&self.keyless_call(command, arguments, 0))
    }

    /// A call of a command that is run, or looked at, where no key is at hand.
    pub(in crate::core) fn keyless_call<'a>(
        &self,
        command: &'static Command,
        arguments: Arguments<'a>,
        seed: u64,
    ) -> Call<'a> {
        Call {
            command,
            arguments,
            first_key: KeyHash::default(),
            hasher: self.router.hasher(),
            seed,
            string_bytes_max: self.settings.proto_max_bulk_len as usize,
        }
    }

    /// The database's ordered index must be there before a page of KEYS is read from it.
    fn order_shard(&mut self, shard: ShardId, database: DatabaseIndex) {
        let now_ms = self.turn.now_ms;
        self.at_shard(shard, move |core, local| core.shards[local].keep_order(database, now_ms));
    }

    /// Does something at a shard, here or on the core where it lives, behind the requests that were
    /// sent there before.
    pub fn at_shard(
        &mut self,
        shard: ShardId,
        task: impl FnOnce(&mut Core, usize) + Send + 'static,
    ) {
        let place = self.router.place(shard);
        if place.core == self.id {
            self.turn.has_new_work = true;
            task(self, usize::from(place.local));
        } else {
            let there = move |core: &mut Core| {
                let local = core.router.local(shard).expect("mail for a shard finds it");
                task(core, local);
            };
            self.answers.post(place.core, Mail::Task(Box::new(there)));
        }
    }

    /// Sends a request to its shard, here or elsewhere.
    pub(in crate::core) fn forward(&mut self, shard: ShardId, request: &Request<'_>) {
        let mut refused = None;
        self.turn.has_new_work = true;
        forward(
            &self.router,
            self.id,
            &mut self.shards,
            &mut self.answers.outboxes,
            &mut self.stats,
            shard,
            request,
            &mut refused,
        );
        if let Some(origin) = refused {
            self.answer_error(origin, OUT_OF_MEMORY);
        }
    }

    /// Which shards a command concerns.
    /// Errors: a pair is incomplete.
    pub(in crate::core) fn pieces(
        &self,
        command: &'static Command,
        arguments: Arguments<'_>,
    ) -> Result<Vec<Piece>, Refusal> {
        let all = |shard| Piece { shard, first_key: KeyHash::default() };
        if let Spread::Everywhere(_) = command.spread {
            return Ok((0..self.router.shard_count()).map(|n| all(ShardId(n as u16))).collect());
        }
        if let Some(refers) = &command.refers
            && (refers.may)(arguments)
        {
            return Ok((0..self.router.shard_count()).map(|n| all(ShardId(n as u16))).collect());
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for i in command.keys.positions(arguments) {
            if i + command.keys.step > arguments.count() {
                return Err(Refusal::Arity(command.full_name()));
            }
            let first_key = self.router.hash(arguments.at(i));
            let shard = self.router.shard(first_key);
            if !pieces.iter().any(|piece| piece.shard == shard) {
                pieces.push(Piece { shard, first_key });
            }
        }
        if pieces.is_empty() {
            // A command that names no key here (OBJECT HELP) is any shard's.
            pieces.push(all(ShardId(0)));
        }
        Ok(pieces)
    }

    fn start_scan(
        &mut self,
        origin: Origin,
        database: DatabaseIndex,
        command: &'static Command,
        arguments: OwnedArguments,
    ) -> Result<(), Refusal> {
        let cursor = Cursor::of(arguments.borrow())?;
        let count = ScanOptions::of(arguments.borrow())?.count;
        let shard = cursor.position().map_or(ShardId(0), |p| self.router.shard_of_slot(p.slot));
        let index = self.answers.gathers.insert(GatherState {
            target: origin.target,
            protocol: origin.protocol,
            merge: Merge::Scan { count, database: database.0 },
            parts: vec![Part::default()],
            missing: 1,
            arguments: arguments.clone(),
            scanned_slot: None,
        });
        let origin = Origin { target: Target::Gather { index, part: 0 }, ..origin };
        let first_key = KeyHash::default();
        let arguments = arguments.borrow();
        self.forward(shard, &Request { command, origin, database, first_key, arguments });
        Ok(())
    }

    /// A shard's part of a SCAN has come: answers, or goes on with the next shard.
    pub(in crate::core) fn continue_scan(
        &mut self,
        mut gather: GatherState,
        count: usize,
        database: u8,
    ) {
        let mut found = Vec::new();
        let mut next = Cursor::END;
        for part in &gather.parts {
            next = crate::core::gather::read_page(&part.reply, &mut found);
        }
        let asked = Cursor::of(gather.arguments.borrow()).unwrap_or(Cursor::END);
        let slot = gather.scanned_slot.unwrap_or(asked.position().map_or(0, |p| p.slot));
        let shard = self.router.shard_of_slot(slot);
        let following = ShardId(shard.0 + 1);
        if next == Cursor::END && usize::from(following.0) < self.router.shard_count() {
            let slot = self.router.first_slot(following);
            next = Cursor::new(Some(ringraft_shards::keyspace::ScanPosition { slot, hash: 0 }));
            if found.len() < count {
                let arguments = crate::core::gather::scan_from(next, gather.arguments.borrow());
                let command = table::find(b"scan").expect("the row that was run");
                gather.scanned_slot = Some(slot);
                gather.parts.push(Part::default());
                gather.missing = 1;
                gather.merge = Merge::Scan { count, database };
                let (protocol, part) = (gather.protocol, gather.parts.len() as u32 - 1);
                let index = self.answers.gathers.insert(gather);
                let origin = Origin::asks(self.id, Target::Gather { index, part }, protocol);
                let (database, first_key) = (DatabaseIndex(database), KeyHash::default());
                let arguments = arguments.borrow();
                let request = Request { command, origin, database, first_key, arguments };
                return self.forward(following, &request);
            }
        }
        self.answers.write_here(gather.target, |out| {
            crate::core::gather::write_page(next, &found, &mut Reply::new(out, gather.protocol));
        });
    }
}

/// What clients are told while a script runs for long.
pub fn busy(library: &Library) -> Refusal {
    Refusal::text(match library.busy().map(|busy| busy.kind) {
        Some(Kind::Function) => {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
        _ => {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
    })
}

/// Is this the first word of a line that a web browser sends? Whatever follows may be a page's
/// doing, and none of it is to be run.
fn is_http(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:")
}

/// Stands for the text that lists the arguments of an unknown command.
const UNKNOWN: Refusal = Refusal::text("ERR unknown command");

/// The row of a request, its subcommand's where it has one.
/// Errors: no such command or subcommand, or the wrong number of arguments.
pub fn find_row(arguments: Arguments<'_>) -> Result<&'static Command, Refusal> {
    let command = match table::resolve(arguments) {
        Some(command) if !command.flags.internal => command,
        _ => return Err(UNKNOWN),
    };
    command.check_arity(arguments.count())?;
    Ok(command)
}
