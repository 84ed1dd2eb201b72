//! Starts the cores, waits for them, ends them.

use super::banner::{Recovery, ShardProgress};
use super::directory::Directory;
use super::recover::Origins;
use super::{LEVEL, Plan, Refusal, checks, cpus};
use crate::acl::users::Register;
use crate::core::client::connection;
use crate::core::client::evict::ClientMemory;
use crate::core::cluster::members::PeerIdentity;
use crate::core::cluster::{ClusterView, META};
use crate::core::disk::background::Background;
use crate::core::disk::directory::ShardDirectory;
use crate::core::disk::full_disk::SnapshotTurn;
use crate::core::disk::storage::Storage;
use crate::core::mail::mailbox::{Mail, Mailbox, MailboxSender};
use crate::core::mail::router::Router;
use crate::core::place::board::Board;
use crate::core::place::load::CpuTimes;
use crate::core::turn::doors::{Doors, Listener};
use crate::core::{Core, Shared, Stage, wall_clock_ms};
use crate::limits::{RING_MEMORY_PAUSE, RING_MEMORY_WAIT};
use crate::net::listener;
use crate::net::ring::{Features, Ring};
use crate::net::unix::UnixSocket;
use crate::script::library::Library;
use crate::settings::values::CoresInUse;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};
use ringraft_shards::ids::ShardId;
use ringraft_shards::keyspace::KeyHasher;
use ringraft_shards::peer::Identity as PeerProcess;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory that glommio registers for its own file operations, per ring; the log does not use it.
const EXECUTOR_IO_MEMORY_BYTES: usize = 64 << 10;

/// How often the starter looks how far recovery has come.
const PROGRESS_POLL: Duration = Duration::from_millis(200);

/// A running node.
pub struct Node {
    threads: Vec<JoinHandle<Result<(), String>>>,
    shared: Arc<Shared>,
    mailboxes: Vec<MailboxSender>,
    /// Its file goes with it.
    _unix: Option<UnixSocket>,
}

/// What one core's thread is given.
struct Seat {
    id: u16,
    cpu: usize,
    mailbox: Mailbox,
    listeners: Vec<Listener>,
}

impl Node {
    /// Starts all cores, recovers their shards, and returns when they serve.
    /// Errors: a listening socket, a ring or the recovery of a shard fails.
    pub fn start(plan: &Plan, started: Instant) -> Result<Node, Refusal> {
        let core_count = plan.cpus.len();
        let cpu_times = CpuTimes::read();
        let shard_count = usize::from(plan.identity.shard_count);
        let is_clustered = plan.peer.as_ref().is_some_and(|peer| peer.is_clustered);
        let shared = Arc::new(Shared {
            next_connection_id: AtomicU64::new(1),
            connection_count: AtomicU32::new(0),
            monitor_count: AtomicU32::new(0),
            redirecting_count: AtomicU32::new(0),
            stopped_count: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            may_listen: AtomicBool::new(false),
            snapshot_turn: SnapshotTurn::default(),
            short_count: AtomicU32::new(0),
            full: (0..plan.identity.shard_count).map(|_| AtomicBool::new(false)).collect(),
            moves: Default::default(),
            board: Board::new(core_count, shard_count),
            cpus: plan.cpus.clone(),
            started: std::time::Instant::now(),
            clock_reports: Default::default(),
            run_id: random_digits()?,
            cluster_id: plan.identity.cluster.0,
            node_id: plan.identity.node.0,
            scripts: Arc::new(Library::new()),
            client_memory: ClientMemory::new(core_count),
            users: Register::new(plan.users.clone()),
            acl_log: Mutex::default(),
            tls: plan.tls.clone(),
            cluster: ClusterView::new(plan.identity.node, shard_count, is_clustered),
            lanes: Arc::default(),
            peer: peer_identity(plan)?,
        });
        let hasher = KeyHasher::with_scheme(plan.identity.key_hash_seed, plan.identity.slot_scheme);
        let unix = unix_socket(plan)?;
        let mut mailboxes = Vec::new();
        let mut seats = Vec::new();
        for (id, &cpu) in plan.cpus.iter().enumerate() {
            let (mailbox, sender) = Mailbox::new().map_err(|error| {
                Refusal::failure(format!("cannot create an eventfd for core {id}: {error}"))
            })?;
            mailboxes.push(sender);
            let listeners = listeners(plan, id, unix.as_ref())?;
            seats.push(Seat { id: id as u16, cpu, mailbox, listeners });
        }
        // All that can be refused beforehand was asked.
        if let Some(directory) = &plan.directory {
            directory.begin_founding()?;
            if let Some(loaded) = &plan.loaded {
                loaded.load(directory, wall_clock_ms())?;
            }
            let whose = (plan.identity.cluster, plan.identity.node);
            super::recover::redo_journals(directory.path(), whose, core_count as u16)
                .map_err(Refusal::failure)?;
        }
        let (report, reports) = mpsc::channel();
        let progress: Arc<Vec<Mutex<ShardProgress>>> =
            Arc::new((0..shard_count).map(|_| Mutex::default()).collect());
        let mut threads = Vec::new();
        let origins = Arc::new(Origins {
            directory: plan.directory.as_ref().map(|d| d.path().to_path_buf()),
            cluster: plan.identity.cluster,
            node: plan.identity.node,
            hasher,
            segment_bytes: plan.settings.segment_size,
            fsync: plan.settings.fsync,
            heals: plan.peer.as_ref().is_some_and(|peer| peer.heals),
            rejoins: Mutex::new(given_up(plan)),
            progress: progress.clone(),
        });
        for seat in seats {
            let mut router = Router::new(hasher, shard_count, core_count, seat.id);
            if is_clustered {
                // It is brought back there, and goes where the links are.
                router.send_to(META, 0);
                if seat.id == 0 {
                    router.put(META, router.shards_of_core(0).count());
                }
            }
            let start = CoreStart {
                settings: plan.settings.clone(),
                origins: origins.clone(),
                shared: shared.clone(),
                router,
                mailboxes: mailboxes.clone(),
                report: report.clone(),
            };
            let name = format!("core-{}", seat.id);
            let thread = std::thread::Builder::new().name(name).spawn(move || start.run(seat));
            threads
                .push(thread.map_err(|error| {
                    Refusal::failure(format!("cannot start a thread: {error}"))
                })?);
        }
        drop(report);
        let mut recovery = Recovery::default();
        let (mut serving, mut listening) = (0, 0);
        while listening < core_count {
            match reports.recv_timeout(PROGRESS_POLL) {
                Ok(Ok(Stage::Serves)) => {
                    serving += 1;
                    if serving < core_count {
                        continue;
                    }
                    plan.directory.as_ref().map_or(Ok(()), Directory::end_founding)?;
                    match plan.settings.cores_in_use {
                        CoresInUse::Auto => gather(plan, &shared, &mailboxes, &cpu_times),
                        CoresInUse::All => permit(&shared, &mailboxes),
                    }
                }
                Ok(Ok(Stage::HasGathered)) => permit(&shared, &mailboxes),
                Ok(Ok(Stage::Listens)) => listening += 1,
                Ok(Err(text)) => return Err(Refusal::failure(text)),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Refusal::failure("a core ended while it started"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let far = |shard: &Mutex<ShardProgress>| *shard.lock().expect("no panic");
                    let shards: Vec<ShardProgress> = progress.iter().map(far).collect();
                    if let Some(line) = recovery.line(&shards, started.elapsed()) {
                        tracing::info!("{line}");
                    }
                }
            }
        }
        if let Some(tls) = &plan.tls {
            tls.watch()
                .map_err(|error| Refusal::failure(format!("cannot start a thread: {error}")))?;
        }
        Ok(Node { threads, shared, mailboxes, _unix: unix })
    }

    /// Asks all cores to stop in order.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let (shared, mailboxes) = (self.shared.clone(), self.mailboxes.clone());
        move || {
            shared.stopping.store(true, Ordering::SeqCst);
            shared.scripts.ends.store(true, Ordering::Relaxed);
            for mailbox in &mailboxes {
                let stop = Mail::Task(Box::new(Core::stop));
                // A full mailbox means an awake core, which sees the flag at its next tick.
                let _ = mailbox.send(stop);
            }
        }
    }

    /// Waits until all cores have ended.
    /// Errors: why one of them failed.
    pub fn wait(self) -> Result<(), Refusal> {
        let mut result = Ok(());
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(text)) => result = Err(Refusal::failure(text)),
                Err(_) => result = Err(Refusal::failure("a core panicked")),
            }
        }
        result
    }
}

/// Shards that `--rejoin` gives up: all.
fn given_up(plan: &Plan) -> BTreeSet<ShardId> {
    let all = (0..plan.identity.shard_count).map(ShardId).chain([META]);
    all.filter(|_| plan.settings.rejoin).collect()
}

/// What this process is to other nodes.
/// Errors: the kernel has no random numbers.
fn peer_identity(plan: &Plan) -> Result<Option<PeerIdentity>, Refusal> {
    let Some(peer) = &plan.peer else { return Ok(None) };
    let process = getrandom::u64()
        .map_err(|error| Refusal::failure(format!("cannot read random bytes: {error}")))?;
    let identity = PeerProcess {
        cluster: plan.identity.cluster,
        epoch: 1,
        node: plan.identity.node,
        directory: peer.life.directory,
        start: peer.life.start,
        process,
        level: LEVEL,
        address: peer.address.clone(),
    };
    Ok(Some(PeerIdentity { identity, secret: peer.secret.clone() }))
}

/// Brings all shards to the first core whose cpu is not busy with something else.
fn gather(plan: &Plan, shared: &Shared, mailboxes: &[MailboxSender], before: &CpuTimes) {
    let now = CpuTimes::read();
    let busy: Vec<Option<f64>> = plan.cpus.iter().map(|cpu| now.busy_since(before, *cpu)).collect();
    let home = cpus::first_free(&busy) as u16;
    shared.board.set_home(home);
    let task = Mail::Task(Box::new(Core::gather_shards));
    let is_sent = mailboxes[usize::from(home)].send(task).is_ok();
    assert!(is_sent, "nobody fills a mailbox before there are clients");
}

/// Lets all cores listen.
fn permit(shared: &Shared, mailboxes: &[MailboxSender]) {
    shared.cluster.set_link_core(shared.board.home());
    shared.may_listen.store(true, Ordering::Release);
    for mailbox in mailboxes {
        // A full mailbox means an awake core.
        let _ = mailbox.send(Mail::Task(Box::new(|_| {})));
    }
}

/// The listening sockets of one core: one for each address, and the metrics page on the first core.
fn listeners(
    plan: &Plan,
    core: usize,
    unix: Option<&UnixSocket>,
) -> Result<Vec<Listener>, Refusal> {
    let settings = &plan.settings;
    let keepalive = u64::from(settings.tcp_keepalive);
    let mut listeners = Vec::new();
    let mut listen = |port: u16, option: &str, kind| {
        for &ip in settings.bind.addresses() {
            let address = SocketAddr::new(ip, port);
            let socket = listener::bind(address, keepalive)
                .map_err(|error| checks::listening_refused(address, option, &error))?;
            listeners.push(Listener { socket, kind, listens: false });
        }
        Ok(())
    };
    if settings.port != 0 {
        listen(settings.port, "--port", connection::Kind::Client)?;
    }
    if settings.tls.port != 0 {
        listen(settings.tls.port, "--tls-port", connection::Kind::Tls)?;
    }
    if settings.metrics_port != 0 && core == 0 {
        listen(settings.metrics_port, "--metrics-port", connection::Kind::Metrics)?;
    }
    if let Some(unix) = unix {
        let socket = unix.share().map_err(|error| unix_refused(&settings.unixsocket, &error))?;
        let kind = connection::Kind::Client;
        listeners.push(Listener { socket, kind, listens: false });
    }
    Ok(listeners)
}

/// The unix socket, when one is asked for.
fn unix_socket(plan: &Plan) -> Result<Option<UnixSocket>, Refusal> {
    let settings = &plan.settings;
    if settings.unixsocket.is_empty() {
        return Ok(None);
    }
    UnixSocket::bind(Path::new(&settings.unixsocket), settings.unixsocketperm)
        .map(Some)
        .map_err(|error| unix_refused(&settings.unixsocket, &error))
}

fn unix_refused(path: &str, error: &std::io::Error) -> Refusal {
    Refusal::failure(format!(
        "cannot listen on {path}: {error}: choose another path with --unixsocket"
    ))
}

/// Forty hexadecimal digits that nobody can guess.
/// Errors: the kernel has no random numbers.
pub fn random_digits() -> Result<String, Refusal> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)
        .map_err(|error| Refusal::failure(format!("cannot read random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

struct CoreStart {
    settings: crate::settings::Settings,
    origins: Arc<Origins>,
    shared: Arc<Shared>,
    router: Router,
    mailboxes: Vec<MailboxSender>,
    report: mpsc::Sender<Result<Stage, String>>,
}

impl CoreStart {
    /// The life of a core's thread.
    fn run(self, seat: Seat) -> Result<(), String> {
        self.step(seat.id, "waiting for the executor of its core");
        // The helper thread is made before the core is pinned, so that it does not compete for the
        // core's cpu.
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(EXECUTOR_IO_MEMORY_BYTES)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make();
        let cpu = core_affinity::CoreId { id: seat.cpu };
        if !core_affinity::set_for_current(cpu) {
            return self.give_up(format!("cannot pin core {} to cpu {}", seat.id, seat.cpu));
        }
        match executor {
            Ok(executor) => executor.run(self.live(seat)),
            Err(error) => self.give_up(format!("cannot start the executor of a core: {error}")),
        }
    }

    /// Something begins for all shards of the core.
    fn step(&self, core: u16, step: &'static str) {
        self.router.shards_of_core(core).for_each(|shard| self.origins.step(shard, step));
    }

    fn give_up(self, text: String) -> Result<(), String> {
        // The starter may have given up already because of another core.
        let _ = self.report.send(Err(text.clone()));
        Err(text)
    }

    async fn live(self, seat: Seat) -> Result<(), String> {
        self.step(seat.id, "waiting for the ring of its core");
        let ring = match set_up_ring(self.settings.ring_features) {
            Ok(ring) => ring,
            Err(error) => {
                return self.give_up(format!("cannot set up a socket ring: {error}"));
            }
        };
        let mut seed = [0; 8];
        if let Err(error) = getrandom::fill(&mut seed) {
            return self.give_up(format!("cannot read random bytes: {error}"));
        }
        let seed = u64::from_le_bytes(seed);
        let mut shards: Vec<ShardId> = self.router.shards_of_core(seat.id).collect();
        shards.extend(self.router.local(META).map(|_| META));
        let journal = self.origins.journal(seat.id, seed);
        self.step(seat.id, "waiting for the helper thread of its core");
        let background = Background::start(seat.mailbox.bell().clone()).await;
        self.step(seat.id, "waiting for the shards before it");
        let mut storage = Storage::new(background, journal, self.origins.clone());
        let mut recovered = Vec::new();
        for shard in shards {
            match self.origins.recover(shard) {
                Ok(shard) => recovered.push(shard),
                Err(text) => {
                    storage.stop().await;
                    return self.give_up(text);
                }
            }
        }
        let mailboxes = self.mailboxes;
        let (mailbox, listeners, silent) = (seat.mailbox, seat.listeners, Vec::new());
        let doors = Doors { ring, mailbox, mailboxes, listeners, silent };
        let (settings, shared, router) = (self.settings, self.shared, self.router);
        let mut core = Core::new(seat.id, settings, shared, router, storage, doors, seed);
        core.begin_with(recovered);
        let result = core.run(self.report).await;
        if result.is_ok() {
            core.storage.stop().await;
        }
        if let Err(text) = &result {
            // The other cores may hold replies that rest on this one: nobody goes on alone.
            tracing::error!("{text}");
            eprintln!("ringraft: {text}");
            std::process::exit(1);
        }
        result
    }
}

/// The memory of a ring comes back a moment after its process was killed: who starts right behind
/// it waits for it.
fn set_up_ring(features: Features) -> io::Result<Ring> {
    let begun = Instant::now();
    loop {
        match Ring::new(features) {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM)
                    && begun.elapsed() < RING_MEMORY_WAIT =>
            {
                std::thread::sleep(RING_MEMORY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}
