//! One core: a pinned thread and all it owns.
//!
//! A core runs turns. A turn takes what the ring has completed and what other cores have sent,
//! parses it all, runs the reads in stages, proposes the writes of each shard as one entry, and
//! sends every connection's replies at once. Nothing is shared with other cores but mailboxes and a
//! few counters, and no lock is taken on a request's path.

pub mod client;
pub mod cluster;
pub mod commands;
pub mod disk;
pub mod gather;
pub mod mail;
pub mod migrate;
pub mod observe;
pub mod place;
pub mod push;
pub mod shard;
pub mod transact;
pub mod turn;
pub mod wait;

pub use client::dispatch::busy;
pub use client::intake::OUT_OF_MEMORY;
pub use gather::context::SessionContext;

use crate::acl::log::AclLog;
use crate::acl::users::{Register, Users};
use crate::limits::{
    COMPLETIONS_PER_MOVING_TURN_MAX, COMPLETIONS_PER_TURN_MAX, LAZY_FREE_LEAVES_PER_TURN,
    REPLIES_PREFETCHED_BYTES,
};
use crate::net;
use crate::net::ring::{Completion, Operation, Wait};
use crate::script::library::Library;
use crate::settings::Settings;
use client::answers::Answers;
use disk::storage::Storage;
use disk::together::Ended;
use mail::mailbox::Mail;
use mail::router::Router;
use observe::latency::Event;
use observe::stats::Stats;
use ringraft_shards::ids::ShardId;
use ringraft_shards::keyspace::prefetch;
use ringraft_shards::raft::Output;
use shard::LocalShard;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use turn::Turn;
use turn::doors::{Doors, Listener};

/// How far a core has come with its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All its shards serve.
    Serves,
    /// All shards are on one core.
    HasGathered,
    /// Clients can connect.
    Listens,
}

/// What all cores of a process share: counters and flags that are read now and then.
pub struct Shared {
    /// The next connection's id.
    pub next_connection_id: AtomicU64,
    /// Connections open.
    pub connection_count: AtomicU32,
    /// Connections that MONITOR.
    pub monitor_count: AtomicU32,
    /// Has SHUTDOWN or a signal asked the process to end?
    pub stopping: AtomicBool,
    /// May clients come? They may when all shards of all cores serve and the directory is founded.
    pub may_listen: AtomicBool,
    /// Cores that have finished what was under way when the end began.
    pub stopped_count: AtomicU32,
    /// Connections that have another one told of what they track.
    pub redirecting_count: AtomicU32,
    /// Who takes a snapshot on a full disk.
    pub snapshot_turn: disk::full_disk::SnapshotTurn,
    /// Shards that are short of room on the disk.
    pub short_count: AtomicU32,
    /// For each shard: is memory over its limit, with nothing to evict?
    pub full: Vec<AtomicBool>,
    /// Which shard moves between cores.
    pub moves: place::moving::MoveTurn,
    /// How busy cores and shards are, and which cores are in use.
    pub board: place::board::Board,
    /// The cpu of each core.
    pub cpus: Vec<usize>,
    /// When the process started.
    pub started: Instant,
    /// How often the wall clock went back.
    pub clock_reports: turn::clock::ClockReports,
    /// Forty hexadecimal digits that tell this run of the process from others.
    pub run_id: String,
    /// The cluster's id.
    pub cluster_id: u128,
    /// This node's id in it.
    pub node_id: u64,
    /// Scripts.
    pub scripts: Arc<Library>,
    /// What TLS begins with, where it is spoken.
    pub tls: Option<Arc<net::tls::front::Front>>,
    /// What clients hold.
    pub client_memory: client::evict::ClientMemory,
    /// Users and what they may do.
    pub users: Register,
    /// What was denied.
    pub acl_log: Mutex<AclLog>,
    /// What is known of other nodes.
    pub cluster: cluster::ClusterView,
    /// What stamps of other nodes' requests stand for.
    pub lanes: Arc<cluster::lanes::Lanes>,
    /// What this process is to other nodes; nothing in `cache` mode.
    pub peer: Option<cluster::members::PeerIdentity>,
}

/// A source of chance for choices that need not be repeated (RANDOMKEY, SCAN's luck).
pub struct Chance(u64);

impl Chance {
    /// From any seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed | 1)
    }

    /// Random bits (xorshift64*).
    #[inline(always)]
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Clients that CLIENT PAUSE holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Until when, milliseconds since the process started.
    pub until_ms: i64,
    /// All requests, or only those that write?
    pub all: bool,
}

/// A core.
pub struct Core {
    /// Its number, from 0.
    pub id: u16,
    /// Its copy of the settings.
    pub settings: Settings,
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// The users, as it knows them.
    pub users: Arc<Users>,
    /// Which shard owns what, and where it lives.
    pub router: Router,
    /// Its shards.
    pub shards: Vec<LocalShard>,
    /// Its counters.
    pub stats: Stats,
    /// Connections, gathers and outboxes.
    pub answers: Answers,
    /// Random bits.
    pub chance: Chance,
    /// Files of its shards.
    pub storage: Storage,
    /// How fast its counters grow.
    pub rates: observe::rates::Rates,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub active_expire: bool,
    doors: Doors,
    turn: Turn,
    /// Connections with input left from an earlier turn.
    runnable: Vec<u32>,
    /// TLS handshakes that have something to do.
    handshakes: client::secure::Handshakes,
    /// Must every request take the slow path (monitors, a pause, the end)?
    gate_closed: bool,
    /// For spans, and for Raft.
    steady: turn::clock::SteadyClock,
    /// Has a tenth of a second passed since the last tick?
    tick_due: bool,
    stop_sent: bool,
    /// Has this core said that it is through?
    stop_noted: bool,
    failure: Option<String>,
    output: Output,
    /// Operations on files that have ended, while their shards are told.
    ended: Vec<Ended>,
    /// Transactions over several shards.
    transactions: transact::spread::Transactions,
    /// What runs leave for the next one.
    spares: transact::Spares,
    /// Connections that MONITOR.
    monitors: std::collections::BTreeSet<u32>,
    /// Channels, patterns and their subscribers.
    pub push: push::Push,
    /// Who has read which key.
    pub tracking: push::TrackingTable,
    /// What runs scripts, and those that rest.
    scripts: transact::scripts::Scripts,
    /// Requests of this turn that will be begun together.
    coalesced: transact::coalesce::Coalesced,
    /// Shards that move from or to it.
    moves: place::moving::Moves,
    /// Its part in following the load.
    governor: place::govern::Governor,
    /// Whether it looks for work before it sleeps.
    spinner: turn::spin::Spinner,
    /// When syncs were started last, milliseconds since the process started.
    last_sync_ms: i64,
    /// When the ring and the memory were looked after last, milliseconds since the process
    /// started.
    rested_ms: i64,
    /// Is memory of cleared databases still to be freed?
    freeing: bool,
    /// Told when the core serves.
    report: Option<mpsc::Sender<Result<Stage, String>>>,
    /// Is it counted among the cores that serve?
    is_noted_as_serving: bool,
    /// Keys on their way to other servers.
    migrations: migrate::Migrations,
    /// Its part in the cluster.
    cluster: cluster::Cluster,
}

/// Between two ticks: Raft's clock, expiry, timeouts.
pub const TICK: Duration = Duration::from_millis(100);

/// The same while there are other nodes, for Raft's clock; the rest is done at every second one.
pub const CLUSTER_TICK: Duration = Duration::from_millis(50);

impl Core {
    /// A core without shards; `seed`: random bits.
    pub fn new(
        id: u16,
        settings: Settings,
        shared: Arc<Shared>,
        router: Router,
        storage: Storage,
        doors: Doors,
        seed: u64,
    ) -> Core {
        Core {
            id,
            settings,
            users: shared.users.current(),
            shards: Vec::new(),
            stats: Stats::default(),
            answers: Answers::new(id, doors.mailboxes.len()),
            chance: Chance::new(seed),
            storage,
            rates: observe::rates::Rates::default(),
            pause: Pause::default(),
            active_expire: true,
            doors,
            turn: Turn::default(),
            runnable: Vec::new(),
            handshakes: Default::default(),
            gate_closed: false,
            steady: turn::clock::SteadyClock::new(shared.started),
            tick_due: true,
            stop_sent: false,
            stop_noted: false,
            failure: None,
            output: Output::default(),
            ended: Vec::new(),
            transactions: transact::spread::Transactions::new(id, seed),
            spares: Default::default(),
            monitors: Default::default(),
            push: Default::default(),
            tracking: Default::default(),
            scripts: Default::default(),
            coalesced: transact::coalesce::Coalesced::new(router.shard_count()),
            moves: place::moving::Moves::default(),
            governor: place::govern::Governor::of_this_thread(),
            spinner: turn::spin::Spinner::default(),
            last_sync_ms: 0,
            rested_ms: 0,
            freeing: false,
            report: None,
            is_noted_as_serving: false,
            migrations: Default::default(),
            cluster: Default::default(),
            shared,
            router,
        }
    }

    /// Gives it the shards that it begins with.
    pub fn begin_with(&mut self, shards: Vec<LocalShard>) {
        assert!(self.shards.is_empty(), "it begins once");
        self.shards = shards;
        self.shards.iter_mut().for_each(|shard| shard.share(&self.shared));
    }

    /// Brings a shard from the directory, or makes it there. Blocks until its data is read.
    #[cold]
    fn recover(&self, id: ShardId) -> Result<LocalShard, String> {
        let mut shard = self.storage.directory().recover(id)?;
        shard.share(&self.shared);
        Ok(shard)
    }

    /// The cpu that it is pinned to.
    pub fn cpu(&self) -> usize {
        self.shared.cpus[usize::from(self.id)]
    }

    /// Count of cores.
    pub fn core_count(&self) -> usize {
        self.doors.mailboxes.len()
    }

    /// The time of this turn, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.turn.now_ms
    }

    /// The time of this turn for measuring spans, milliseconds since the process started.
    pub fn steady_ms(&self) -> i64 {
        self.turn.steady_ms
    }

    /// Runs turns until the process is to end; `report` is told how far it has come until it
    /// serves. Returns why it ends, if it is for a failure.
    pub async fn run(&mut self, report: mpsc::Sender<Result<Stage, String>>) -> Result<(), String> {
        self.report = Some(report);
        self.doors.ring.poll_wake(self.doors.mailbox.bell().descriptor());
        self.adopt_settings(self.settings.clone());
        let mut completions = Vec::new();
        while self.failure.is_none() {
            let busy = self.turn(&mut completions);
            if self.report.is_some() {
                self.open_when_permitted();
            }
            if self.failure.is_none() && self.has_stopped() {
                self.end_sessions();
                return Ok(());
            }
            if !busy && !self.doors.ring.has_work() {
                self.sleep();
            }
        }
        Err(self.failure.take().expect("the loop's condition"))
    }

    /// Lets clients in once the starter permits it: when every shard of every core serves, so that
    /// no request of theirs comes too early.
    #[cold]
    fn open_when_permitted(&mut self) {
        let Some(report) = self.report.clone() else { return };
        // Among others it may be long until somebody leads: requests wait for that.
        let is_ready = self.shared.cluster.is_clustered() || self.shards_serve();
        if !self.is_noted_as_serving && is_ready {
            self.is_noted_as_serving = true;
            for shard in &mut self.shards {
                shard.propose_limits(self.settings.limits);
            }
            // Nobody listens when another core failed to start.
            let _ = report.send(Ok(Stage::Serves));
        }
        if self.has_gathered() {
            let _ = report.send(Ok(Stage::HasGathered));
        }
        if !self.shared.may_listen.load(Ordering::Acquire) || self.stop_sent {
            return;
        }
        self.open_listeners();
        self.report = None;
        let _ = report.send(Ok(Stage::Listens));
    }

    /// Lets clients connect, where this core accepts any.
    fn open_listeners(&mut self) {
        for listener in 0..self.doors.listeners.len() {
            let Listener { socket, kind, listens } = &self.doors.listeners[listener];
            if *listens || !self.accepts(*kind) {
                continue;
            }
            if let Err(error) = net::listener::listen(socket) {
                return self.fail(format!("cannot listen: {error}"));
            }
            self.doors.listeners[listener].listens = true;
            self.arm_listener(listener as u32);
        }
    }

    /// A turn has ended, at the beginning of the next or when the core goes to sleep.
    #[inline(always)]
    fn note_turn(&mut self, began: Duration, ended: Duration) {
        let (took, now_ms) = (ended.saturating_sub(began), self.turn.now_ms);
        self.stats.noted.latency.note(Event::Turn, took, now_ms);
    }

    /// The core has nothing to do from now on.
    fn end_turn(&mut self, now: Instant) {
        if let Some(began) = self.turn.began.take() {
            self.note_turn(began, self.steady.at(now));
        }
    }

    /// Waits for the ring. Looks for work for a while first, if the settings say so.
    fn sleep(&mut self) {
        let time = self.spinner.time(self.settings.spin_us);
        if !time.is_zero() && self.spin(time) {
            return;
        }
        if !self.doors.mailbox.sleep() {
            return;
        }
        if self.storage.has_done() {
            return self.doors.mailbox.wake();
        }
        let begin = Instant::now();
        self.end_turn(begin);
        let result = self.doors.ring.enter(Wait::ForCompletion);
        self.doors.mailbox.wake();
        self.spinner.slept(begin.elapsed());
        if let Err(error) = result {
            self.failure = Some(format!("the socket ring failed: {error}"));
        }
    }

    /// Looks for work so long. Is there some?
    #[cold]
    fn spin(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        self.end_turn(start);
        let (mut found, mut passed) = (false, Duration::ZERO);
        while !found && passed < time {
            std::hint::spin_loop();
            found = self.doors.ring.has_work()
                || !self.doors.mailbox.is_empty()
                || self.storage.has_done();
            passed = start.elapsed();
        }
        self.governor.meter.spun(passed);
        self.spinner.looked(found);
        found
    }

    /// One turn. True when there is more to do at once, whatever the ring and the mailbox have.
    fn turn(&mut self, completions: &mut Vec<Completion>) -> bool {
        if let Err(error) = self.doors.ring.enter(Wait::No) {
            self.failure = Some(format!("the socket ring failed: {error}"));
            return false;
        }
        self.begin_turn();
        completions.clear();
        let most = match self.shared.moves.is_any() {
            true => COMPLETIONS_PER_MOVING_TURN_MAX,
            false => COMPLETIONS_PER_TURN_MAX,
        };
        self.doors.ring.take(most, completions);
        for completion in completions.iter() {
            self.complete(completion);
        }
        while let Some(mail) = self.doors.mailbox.take() {
            self.take_mail(mail);
        }
        if self.handshakes.has_work() {
            self.shake_hands();
        }
        if self.cluster.has_told_itself() {
            self.take_own_messages();
        }
        for index in std::mem::take(&mut self.runnable) {
            self.resume(index);
        }
        self.run_stage();
        self.turn.takes_beforehand = false;
        self.settle_beforehand();
        // What was taken in full and what did not fit: the rest waits for another turn.
        let is_full = completions.len() == COMPLETIONS_PER_TURN_MAX;
        self.governor.meter.leaves_over(is_full || !self.runnable.is_empty());
        if self.governor.is_resting {
            self.end_rest();
        }
        if std::mem::take(&mut self.tick_due) {
            if self.wants_tick() {
                // Its completion ends the sleep, should there be one then.
                let is_clustered = self.shared.cluster.is_clustered();
                self.doors.ring.start_timer(if is_clustered { CLUSTER_TICK } else { TICK });
            }
            self.tick();
        }
        if self.scripts.any_rests() {
            self.resume_scripts();
        }
        self.shed_shards();
        self.sync_lazily();
        self.turn.has_new_work = false;
        self.drive_shards();
        if self.failure.is_some() {
            // Nobody is answered: the log may not have what was done.
            return false;
        }
        self.complete_gathers();
        let unblocked = self.tend_blocked();
        self.send_moved();
        let is_clustered = self.shared.cluster.is_clustered();
        if is_clustered {
            self.hand_outgoing_on();
        }
        if !self.answers.in_slices.is_empty() {
            self.write_slices();
        }
        if self.answers.lazy_free.has_any() {
            self.answers.lazy_free.shed(LAZY_FREE_LEAVES_PER_TURN);
        }
        self.flush();
        if is_clustered {
            // Behind the replies of other nodes' clients.
            self.flush_links();
        }
        self.free_released();
        if self.moves.has_work() {
            self.tend_moves();
        }
        unblocked
            || self.scripts.any_rests()
            || self.turn.has_new_work
            || !self.runnable.is_empty()
            || !self.answers.dirty.is_empty()
            || !self.answers.in_slices.is_empty()
            || self.answers.lazy_free.has_any()
            || self.handshakes.has_work()
            || self.has_work()
            || self.has_transaction_work()
            || self.has_unsent_mail()
    }

    fn begin_turn(&mut self) {
        self.turn.now_ms = wall_clock_ms();
        let steady = self.steady.read();
        self.turn.steady_ms = steady.as_millis() as i64;
        if let Some(began) = self.turn.began.replace(steady) {
            self.note_turn(began, steady);
        }
        self.turn.takes_beforehand = true;
        self.stats.now_ms = self.turn.now_ms;
        self.stats.turns += 1;
        if self.shared.cluster.is_clustered() {
            self.look_at_leases(steady);
        }
        let paused = self.pause.until_ms > self.turn.steady_ms;
        self.gate_closed = paused
            || self.stop_sent
            || self.shared.scripts.is_busy()
            || self.shared.cluster.is_elsewhere()
            || self.shared.monitor_count.load(Ordering::Relaxed) > 0
            || self.settings.slowlog_log_slower_than == 0;
    }

    fn complete(&mut self, completion: &Completion) {
        match completion.token.operation {
            Operation::Accept => self.accepted(completion),
            Operation::Receive => self.receive_completed(completion),
            Operation::Writable => self.writable(completion.token.index),
            Operation::Wake => {
                if !completion.more {
                    self.doors.ring.poll_wake(self.doors.mailbox.bell().descriptor());
                }
            }
            Operation::Disk => self.disk_completed(completion),
            Operation::Timer => {
                self.tick_due = true;
                // Without timers a core might sleep for ever.
                if completion.result != -libc::ETIME {
                    let cause = std::io::Error::from_raw_os_error(-completion.result);
                    self.fail(format!("the kernel gives no timer: {cause}"));
                }
            }
            // The turn looks at the deadlines.
            Operation::Deadline | Operation::Cancel => {}
        }
    }

    fn take_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Requests(requests) => self.take_requests(requests),
            Mail::Replies(mut replies) => {
                let mut rests = std::mem::take(&mut replies.rests).into_iter().peekable();
                let mut start = 0;
                for (at, (target, length)) in replies.targets.iter().enumerate() {
                    let end = start + *length;
                    let bytes = &replies.bytes[start..end];
                    // The other core's cache has them: fetched one by one they cost more than all
                    // the rest.
                    prefetch(bytes.as_ptr().wrapping_add(REPLIES_PREFETCHED_BYTES));
                    match rests.next_if(|(of, _)| *of == at) {
                        None => {
                            self.answers.write_here(*target, |out| out.extend_from_slice(bytes));
                        }
                        Some((_, rest)) => self.answers.write_begun(*target, bytes, rest),
                    }
                    start = end;
                }
                self.answers.spares.keep_replies(replies);
            }
            Mail::Connection(connection) => self.adopt(connection),
            Mail::Shard(moved) => self.adopt_shard(*moved),
            Mail::Message(message, origin) => self.take_message(&message, origin),
            Mail::News(news) => self.take_news(&news),
            Mail::Task(task) => task(self),
        }
    }

    /// Does something on every core, this one included.
    pub fn everywhere(&mut self, task: impl Fn(&mut Core) + Clone + Send + 'static) {
        for core in 0..self.core_count() {
            if core == usize::from(self.id) {
                task(self);
            } else {
                self.answers.post(core as u16, Mail::Task(Box::new(task.clone())));
            }
        }
    }

    /// Ends the process for a reason that no client is to blame for.
    pub fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }
}

/// Milliseconds since the Unix epoch.
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
