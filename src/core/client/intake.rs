//! From received bytes to requests under way.
//!
//! The hot path: a request with one key, of a connection in its ordinary state, goes from the
//! parser to its shard without being copied (a local read), or copied once (a write, or a request
//! for another core). Everything else takes the slow path in `dispatch.rs`.

use crate::commands::{Keys, Run, Spread};
use crate::core::Core;
use crate::core::client::answers::{Origin, StampKey, Target};
use crate::core::client::connection::{Hold, Kind};
use crate::core::client::session::ReplyMode;
use crate::core::commands::table;
use crate::core::mail::mailbox::Outbox;
use crate::core::mail::router::Router;
use crate::core::observe::stats::Stats;
use crate::core::shard::{LocalShard, Request, Seeking, fetch_members, numbered, run_read};
use crate::core::transact::coalesce::joins;
use crate::core::transact::spread::Member;
use crate::core::turn::{Source, StagedRead};
use crate::limits::{
    ARGUMENTS_PER_CONNECTION_TURN_MAX, BATCH_BYTES_MAX, OUTPUT_PAUSE_BYTES, READS_PER_STAGE,
    UNFINISHED_REQUESTS_MAX,
};
use crate::resp::parse::{Bounds, Step, decode_inline};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::batch::Operation;
use ringraft_shards::ids::ShardId;
use ringraft_shards::keyspace::KeyHash;
use std::time::{Duration, Instant};

/// What became of a request on the hot path.
enum Taken {
    /// It is under way; its spans are still needed.
    Staged,
    /// It is under way; everything was copied.
    Copied,
    /// It needs the slow path.
    No,
}

impl Core {
    /// Takes bytes that a connection received into a provided buffer.
    pub(in crate::core) fn received(&mut self, index: u32, buffer: u16, length: usize) {
        self.turn.used_buffers.push(buffer);
        let connection = self.answers.connections.at_mut(index);
        if connection.closed || connection.close_after_replies {
            return;
        }
        if connection.tls.is_some() {
            return self.received_records(index, buffer, length);
        }
        connection.active_ms = self.turn.steady_ms;
        connection.received_bytes += length as u64;
        self.stats.input_bytes += length as u64;
        if connection.request_count == 0 && self.is_of_a_node(index, buffer, length) {
            return;
        }
        let connection = self.answers.connections.at_mut(index);
        if connection.unparsed() == 0 && self.may_parse(index) {
            self.parse(index, Source::Buffer(buffer, length as u16));
        } else {
            let bytes = self.doors.ring.buffer(buffer, length);
            let connection = self.answers.connections.at_mut(index);
            let missing = connection.parser.needed().saturating_sub(connection.unparsed());
            connection.input.reserve(missing.max(bytes.len()));
            connection.input.extend_from_slice(bytes);
            // As in Redis: neither whole arguments count, nor requests that wait.
            let unfinished = connection.parser.unfinished(connection.unparsed());
            if unfinished as u64 > self.settings.client_query_buffer_limit {
                return self.close_for_query_limit(index);
            }
            self.parse(index, Source::Input(index));
        }
    }

    /// Does another node speak? What it says begins as no request can.
    #[cold]
    fn is_of_a_node(&mut self, index: u32, buffer: u16, length: usize) -> bool {
        let bytes = self.doors.ring.buffer(buffer, length);
        let connection = self.answers.connections.at_mut(index);
        match connection.kind {
            Kind::Peer if connection.hold == Hold::Moving => {
                connection.input.extend_from_slice(bytes);
            }
            Kind::Peer => {
                let bytes = bytes.to_vec();
                self.peer_received(index, &bytes);
            }
            Kind::Client if connection.unparsed() == 0 && bytes.first() == Some(&0) => {
                connection.input.extend_from_slice(bytes);
                self.peer_has_dialled(index);
            }
            Kind::Client | Kind::Tls | Kind::Metrics | Kind::Relayed => return false,
        }
        true
    }

    /// May requests of this connection be taken now?
    pub(in crate::core) fn may_parse(&self, index: u32) -> bool {
        let connection = self.answers.connections.at(index);
        !connection.closed
            && !connection.close_after_replies
            && connection.hold == Hold::None
            && connection.replies.waiting_bytes() <= OUTPUT_PAUSE_BYTES
            && !connection.replies.has_rest()
            && connection.replies.unfinished() < UNFINISHED_REQUESTS_MAX
    }

    /// Parses what a connection has, as far as its share of the turn goes. Cost per request: no
    /// system call, no allocation; see `docs/request.md` for the rest.
    pub(in crate::core) fn parse(&mut self, index: u32, mut source: Source) {
        if self.answers.connections.at(index).kind == crate::core::client::connection::Kind::Metrics
        {
            return self.take_metrics_request(index, source);
        }
        let mut position = match source {
            Source::Input(_) => self.answers.connections.at(index).input_start,
            _ => 0,
        };
        let mut budget = ARGUMENTS_PER_CONNECTION_TURN_MAX;
        while budget > 0 && self.may_parse(index) {
            if self.turn.reads.len() >= READS_PER_STAGE {
                self.run_stage();
            }
            if self.coalesced.is_full() {
                self.begin_joined();
            }
            let connection = &mut **self.answers.connections.at_mut(index);
            let bounds = Bounds {
                bulk_bytes_max: self.settings.proto_max_bulk_len as usize,
                unauthenticated: !connection.session.authenticated && self.users.ask_for_password(),
            };
            let input = match source {
                Source::Buffer(buffer, length) => {
                    self.doors.ring.buffer(buffer, usize::from(length))
                }
                _ => &connection.input[..],
            };
            let first = self.turn.spans.len();
            match connection.parser.next(input, position, bounds, &mut self.turn.spans) {
                Ok(Step::Request(end)) => {
                    if (end - position) as u64 >= self.stats.noted.large_requests.threshold() {
                        self.note_large_request(index, source, first, end - position);
                    }
                    position = end;
                    budget = budget.saturating_sub(self.turn.spans.len() - first);
                    match self.take_request(index, source, first) {
                        Taken::Staged => {}
                        Taken::Copied => self.turn.spans.truncate(first),
                        Taken::No => {
                            let spare = std::mem::take(&mut self.spares.run.arguments);
                            let arguments =
                                spare.replaced_by(self.arguments_at(index, source, first));
                            self.turn.spans.truncate(first);
                            self.dispatch(index, arguments);
                        }
                    }
                }
                Ok(Step::Nothing(end)) => position = end,
                Ok(Step::QuotedInline(end)) => match decode_inline(&input[position..end]) {
                    Ok(request) => {
                        self.run_stage();
                        position = self.put_before_rest(index, source, end, &request);
                        source = Source::Input(index);
                    }
                    Err(error) => return self.refuse_protocol(index, &error),
                },
                Ok(Step::Incomplete) => break,
                Err(error) => return self.refuse_protocol(index, &error),
            }
        }
        self.keep_rest(index, source, position, budget == 0);
    }

    /// Puts a decoded inline request in front of the input's rest, over what is parsed already
    /// where that has the room, so that a long input of such requests is not copied for each of
    /// them. Returns where it starts.
    fn put_before_rest(&mut self, index: u32, source: Source, end: usize, request: &[u8]) -> usize {
        let connection = self.answers.connections.at_mut(index);
        if let Source::Buffer(buffer, length) = source {
            let rest = &self.doors.ring.buffer(buffer, usize::from(length))[end..];
            connection.input = [request, rest].concat();
            connection.input_start = 0;
        } else if let Some(start) = end.checked_sub(request.len()) {
            connection.input[start..end].copy_from_slice(request);
            connection.input_start = start;
        } else {
            connection.input.splice(..end, request.iter().copied());
            connection.input_start = 0;
        }
        connection.input_start
    }

    /// Keeps what was not parsed.
    fn keep_rest(&mut self, index: u32, source: Source, position: usize, more: bool) {
        let Some(connection) = self.answers.connections.get_mut(index) else { return };
        match source {
            Source::Buffer(buffer, length) => {
                let rest = &self.doors.ring.buffer(buffer, usize::from(length))[position..];
                if !rest.is_empty() {
                    // Earlier requests of this turn may lie in the input: what comes is appended.
                    connection.input.reserve(connection.parser.needed().max(rest.len()));
                    connection.input.extend_from_slice(rest);
                }
            }
            _ => connection.input_start = position,
        }
        if !connection.input.is_empty() {
            self.turn.consumed.push(index);
        }
        if more && !connection.runnable && connection.unparsed() > 0 {
            connection.runnable = true;
            self.runnable.push(index);
        }
    }

    /// Keeps a request for COMMANDLOG that is large and known.
    #[cold]
    fn note_large_request(&mut self, index: u32, source: Source, first: usize, size: usize) {
        let arguments = OwnedArguments::copy(self.arguments_at(index, source, first));
        let Some(command) = table::resolve(arguments.borrow()).filter(|c| !c.flags.no_slowlog)
        else {
            return;
        };
        let connection = self.answers.connections.at(index);
        let client = Some((connection.peer.clone(), connection.session.names().name.clone()));
        let (log, now_ms) = (&mut self.stats.noted.large_requests, self.turn.now_ms);
        log.add(command, now_ms, size as u64, arguments.borrow(), client);
    }

    fn arguments_at(&self, index: u32, source: Source, first: usize) -> Arguments<'_> {
        let bytes = match source {
            Source::Buffer(buffer, length) => self.doors.ring.buffer(buffer, usize::from(length)),
            _ => &self.answers.connections.at(index).input[..],
        };
        Arguments::new(bytes, &self.turn.spans[first..])
    }

    /// Takes a request on the hot path, if it is of the kind for it.
    #[inline(always)]
    fn take_request(&mut self, index: u32, source: Source, first: usize) -> Taken {
        let connection = &mut **self.answers.connections.at_mut(index);
        connection.request_count += 1;
        let input = match source {
            Source::Buffer(buffer, length) => self.doors.ring.buffer(buffer, usize::from(length)),
            _ => &connection.input[..],
        };
        let arguments = Arguments::new(input, &self.turn.spans[first..]);
        let name = arguments.at(0);
        let command = match connection.last_command {
            Some(last) if table::is_named(last, name) => last,
            _ => match table::find(name) {
                Some(command) if !command.flags.internal => command,
                _ => return Taken::No,
            },
        };
        let session = &connection.session;
        let ordinary = session.authenticated
            && session.transaction.is_none()
            && session.reply_mode == ReplyMode::On
            && !session.is_special
            && !self.gate_closed
            && command.arity.fits(arguments.count());
        if !ordinary || session.is_limited && session.denies(command, arguments) {
            return Taken::No;
        }
        connection.last_command = Some(command);
        let mut origin = Origin {
            core: self.id,
            target: Target::Nobody,
            protocol: session.protocol,
            rides: connection.must_ride(),
            no_touch: session.no_touch,
            is_relayed: connection.owner.is_some(),
            stamp: StampKey::NONE,
        };
        let database = session.database;
        if let Run::Plain(run) = command.run {
            let sequence = connection.replies.expect();
            let call = crate::commands::Call {
                command,
                arguments,
                first_key: KeyHash::default(),
                hasher: self.router.hasher(),
                seed: 0,
                string_bytes_max: self.settings.proto_max_bulk_len as usize,
            };
            let clock = Instant::now();
            let (stats, protocol) = (&mut self.stats, origin.protocol);
            let mut size = 0;
            connection.replies.write(sequence, |out| {
                let start = out.len();
                let mut reply = Reply::new(out, protocol);
                let outcome = run(&call, &mut reply);
                stats.finish(outcome, command, start, &mut reply);
                size = out.len() - start;
            });
            if stats.noted.is_large_reply(size) {
                let client = Some(connection.identity());
                let (log, now_ms) = (&mut stats.noted.large_replies, self.turn.now_ms);
                log.add(command, now_ms, size as u64, arguments, client);
            }
            self.stats.count(command, 1, clock);
            self.answers.mark_dirty(index);
            return Taken::Copied;
        }
        let is_write = match command.run {
            Run::Read(_) => false,
            Run::Write(_) => true,
            _ => return Taken::No,
        };
        let one_shard = match command.spread {
            Spread::One if command.keys == Keys::FIRST => true,
            Spread::Split(_) | Spread::One => {
                command.keys.first > 0
                    && (self.router.shard_count() == 1 || self.router.is_one(command, arguments))
            }
            Spread::Referring => self.router.shard_count() == 1,
            Spread::Everywhere(_) => false,
        };
        if self.coalesced.must_begin_before(connection.membership, command, one_shard)
            || !one_shard && !joins(command)
        {
            return Taken::No;
        }
        let sequence = connection.replies.expect();
        origin.target = Target::Connection { index, sequence };
        if is_write || !one_shard {
            connection.last_ordered = Some(sequence);
            if origin.is_relayed {
                origin.stamp = connection.stamp_at(sequence);
            }
        }
        if !one_shard {
            if is_write && self.shared.cluster.is_clustered() && connection.kind.is_client() {
                let again = connection.again.get_or_insert_default();
                again.keep(&connection.replies, sequence, arguments);
            }
            let manner = (origin.protocol, origin.no_touch);
            let member = Member::new(origin.target, origin.protocol, Some(command));
            let coalesced = &mut self.coalesced;
            connection.membership =
                coalesced.add(&self.router, member, manner, database, command, arguments);
            return Taken::Copied;
        }
        let first_key = self.router.hash(arguments.at(command.keys.first));
        let shard = self.router.shard(first_key);
        let place = self.router.place(shard);
        vote(&mut connection.votes, &mut connection.favourite, place.core);
        if place.core == self.id
            && !is_write
            && !origin.rides
            && self.shards[usize::from(place.local)].lets_read(command, arguments, first_key)
        {
            let count = (self.turn.spans.len() - first) as u32;
            self.stats.local_requests += 1;
            self.turn.reads.push(StagedRead {
                command,
                origin,
                source,
                spans: (first as u32, count),
                first_key,
                database,
                shard: place.local,
            });
            return Taken::Staged;
        }
        let request = Request { command, origin, database, first_key, arguments };
        let mut refused = None;
        forward(
            &self.router,
            self.id,
            &mut self.shards,
            &mut self.answers.outboxes,
            &mut self.stats,
            shard,
            &request,
            &mut refused,
        );
        if let Some(origin) = refused {
            self.answer_error(origin, OUT_OF_MEMORY);
        }
        Taken::Copied
    }

    /// Takes requests from another core.
    pub(in crate::core) fn take_requests(
        &mut self,
        mut requests: Box<crate::core::mail::mailbox::Requests>,
    ) {
        let message = self.turn.mail.len() as u32;
        let mut transactions = std::mem::take(&mut requests.transactions).into_iter().peekable();
        self.turn.mail.push(requests);
        let mut refused = Vec::new();
        for i in 0..self.turn.mail[message as usize].routes.len() {
            while let Some((_, message)) =
                transactions.next_if(|(position, _)| *position as usize <= i)
            {
                self.take_transaction(message);
            }
            if self.turn.reads.len() >= READS_PER_STAGE {
                self.run_stage();
            }
            let requests = &self.turn.mail[message as usize];
            let (shard, origin) = requests.routes[i];
            let (operation, arguments) = requests.batch.operation(i);
            let request = request_of(operation, arguments, origin);
            let place = self.router.place(shard);
            let local = &mut self.shards[usize::from(place.local)];
            if matches!(request.command.run, Run::Read(_))
                && !origin.rides
                && local.lets_read(request.command, arguments, request.first_key)
            {
                self.turn.reads.push(StagedRead {
                    command: request.command,
                    origin,
                    source: Source::Mail { message, operation: i as u32 },
                    spans: (0, 0),
                    first_key: request.first_key,
                    database: request.database,
                    shard: place.local,
                });
            } else if !local.admit(&request, &mut self.stats) {
                refused.push(origin);
            }
        }
        for (_, message) in transactions {
            self.take_transaction(message);
        }
        for origin in refused {
            self.answer_error(origin, OUT_OF_MEMORY);
        }
    }

    /// Executes the staged reads: all buckets are prefetched, then all items, then they run in
    /// order. Cost per read: one or two cache misses, overlapped with those of the others.
    pub(in crate::core) fn run_stage(&mut self) {
        if self.turn.reads.is_empty() {
            return;
        }
        let mut reads = std::mem::take(&mut self.turn.reads);
        let mut clock = Instant::now();
        if self.shared.cluster.is_clustered() {
            self.keep_unleased(&mut reads, clock);
        }
        for read in &reads {
            let keyspace = &self.shards[usize::from(read.shard)].keyspace;
            keyspace.prefetch_bucket(read.database, read.first_key);
        }
        let mut seeking = 0;
        for read in &reads {
            let keyspace = &self.shards[usize::from(read.shard)].keyspace;
            keyspace.prefetch_item(read.database, read.first_key);
            seeking += usize::from(read.command.member_at > 0);
        }
        if seeking > 1 {
            self.fetch_members(&reads);
        }
        for run in reads.chunk_by(|a, b| std::ptr::eq(a.command, b.command)) {
            for read in run {
                self.run_staged(read);
            }
            let start = clock;
            clock = self.stats.count(run[0].command, run.len() as u64, start);
            if self.stats.noted.is_slow(clock - start) {
                self.note_slow_reads(run, clock - start);
            }
        }
        self.turn.reads = reads;
        self.turn.reads.clear();
        self.turn.spans.clear();
    }

    /// Fetches what those reads will look into that name members.
    #[inline(never)]
    fn fetch_members(&self, reads: &[StagedRead]) {
        let seeking = reads.iter().filter(|read| read.command.member_at > 0);
        fetch_members(seeking.map(|read| {
            let keyspace = &self.shards[usize::from(read.shard)].keyspace;
            let arguments = read.arguments(&self.turn, &self.doors.ring, &self.answers.connections);
            let StagedRead { command, database, first_key, .. } = *read;
            Seeking { keyspace, command, database, first_key, arguments }
        }));
    }

    #[inline(always)]
    fn run_staged(&mut self, read: &StagedRead) {
        let shard = &self.shards[usize::from(read.shard)];
        assert!(shard.serves(), "a staged read has passed the door");
        let time = shard.time(self.turn.now_ms);
        let seed = self.chance.bits();
        let spans = &self.turn.spans[read.spans.0 as usize..][..read.spans.1 as usize];
        let (ring, mail) = (&self.doors.ring, &self.turn.mail);
        // A connection's own input is taken out while its reply is written beside it.
        let taken = match read.source {
            Source::Input(index) => {
                std::mem::take(&mut self.answers.connections.at_mut(index).input)
            }
            _ => Vec::new(),
        };
        let arguments = match read.source {
            Source::Buffer(buffer, length) => {
                Arguments::new(ring.buffer(buffer, usize::from(length)), spans)
            }
            Source::Input(_) => Arguments::new(&taken, spans),
            Source::Mail { message, operation } => {
                mail[message as usize].batch.operation(operation as usize).1
            }
        };
        let request = Request {
            command: read.command,
            origin: read.origin,
            database: read.database,
            first_key: read.first_key,
            arguments,
        };
        let stats = &mut self.stats;
        let mut size = 0;
        self.answers.write_with_rest(read.origin, |out, mut rest| {
            let start = out.len();
            let mut reply = Reply::with_rest(out, read.origin.protocol, rest.as_deref_mut());
            let bytes_max = shard.string_bytes_max;
            let outcome = run_read(&shard.keyspace, &request, time, seed, bytes_max, &mut reply);
            stats.finish(outcome, read.command, start, &mut reply);
            size = out.len() - start;
            if let Some(rest) = rest.and_then(Option::as_deref_mut) {
                stats.noted.note_long(rest, read.command, arguments, &mut size);
            }
        });
        if stats.noted.is_large_reply(size) {
            let log = &mut stats.noted.large_replies;
            let (now_ms, size) = (self.turn.now_ms, size as u64);
            log.note(read.command, now_ms, size, arguments, read.origin, &self.answers);
        }
        if let Source::Input(index) = read.source {
            self.answers.connections.at_mut(index).input = taken;
        }
    }

    /// Keeps the last of some reads for SLOWLOG that took long together, or each of them when all
    /// are wanted.
    #[cold]
    fn note_slow_reads(&mut self, reads: &[StagedRead], took: Duration) {
        let now_ms = self.turn.now_ms;
        self.stats.noted.note_latency(reads[0].command, took, now_ms);
        let all = self.stats.noted.slow.takes_all();
        let (first, each) =
            if all { (0, took / reads.len() as u32) } else { (reads.len() - 1, took) };
        for read in &reads[first..] {
            let arguments = read.arguments(&self.turn, &self.doors.ring, &self.answers.connections);
            let (log, each_us) = (&mut self.stats.noted.slow, each.as_micros() as u64);
            log.note(read.command, now_ms, each_us, arguments, read.origin, &self.answers);
        }
    }

    /// Answers a request with an error.
    pub(in crate::core) fn answer_error(&mut self, origin: Origin, text: &str) {
        let stats = &mut self.stats;
        self.answers.write(origin, |out| {
            let start = out.len();
            stats.refuse(text, start, &mut Reply::new(out, origin.protocol));
        });
    }
}

/// What a write answers when memory is full and nothing can be evicted.
pub const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// What EXEC answers then. Nothing of it is run.
pub(in crate::core) const EXEC_OUT_OF_MEMORY: &str = "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.";

/// An operation of a mailbox message as a request.
fn request_of<'a>(operation: &Operation, arguments: Arguments<'a>, origin: Origin) -> Request<'a> {
    Request {
        command: numbered(operation.command()),
        origin,
        database: operation.database(),
        first_key: operation.first_key(),
        arguments,
    }
}

/// Sends a request to its shard, here or on another core. A write that memory does not permit is
/// handed back in `refused`.
#[inline]
pub(in crate::core) fn forward(
    router: &Router,
    core: u16,
    shards: &mut [LocalShard],
    outboxes: &mut [Outbox],
    stats: &mut Stats,
    shard: ShardId,
    request: &Request<'_>,
    refused: &mut Option<Origin>,
) {
    let place = router.place(shard);
    if place.core == core {
        stats.local_requests += 1;
        if !shards[usize::from(place.local)].admit(request, stats) {
            *refused = Some(request.origin);
        }
    } else {
        stats.hops += 1;
        let outbox = &mut outboxes[usize::from(place.core)];
        if outbox.requests.batch.size() >= BATCH_BYTES_MAX {
            // Several large ones together may be more than a batch holds.
            outbox.close_requests();
        }
        let requests = &mut outbox.requests;
        let (number, arguments) = (request.command.number, request.arguments);
        requests.batch.push(number, request.database, request.first_key, arguments);
        requests.routes.push((shard, request.origin));
    }
}

/// Counts a key for the choice of the core where a connection would best live (majority vote of
/// Boyer and Moore).
#[inline(always)]
fn vote(votes: &mut u32, favourite: &mut (u16, u32), core: u16) {
    *votes += 1;
    *favourite = match *favourite {
        (same, surplus) if same == core => (core, surplus + 1),
        (_, 0) => (core, 1),
        (other, surplus) => (other, surplus - 1),
    };
}
