//! The process around the cores: what is checked, opened and decided before the first of them
//! starts.

pub mod banner;
pub mod checks;
pub mod cpus;
pub mod directory;
pub mod join;
pub mod life;
pub mod logging;
pub mod recover;
pub mod replica;
pub mod run;
pub mod signals;

use crate::acl::users::Users;
use crate::net::tls::front::Front;
use crate::rdb::first_start::{self, Checked};
use crate::settings::values::{Mode, Slots};
use crate::settings::{SettingError, Settings};
use directory::{Directory, Identity, Wanted};
use ringraft_shards::peer::Secret;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why the server does not start: one line with what is wrong, why, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The line.
    pub text: String,
    /// What the process exits with: 2 when the options are wrong, 1 when the machine is.
    pub exit_code: u8,
}

impl Refusal {
    /// The machine does not allow it.
    pub fn failure(text: impl Into<String>) -> Refusal {
        Refusal { text: text.into(), exit_code: 1 }
    }

    /// The options make no sense.
    pub fn option(text: impl Into<String>) -> Refusal {
        Refusal { text: text.into(), exit_code: 2 }
    }
}

/// Everything decided before the first core starts.
#[derive(Debug)]
pub struct Plan {
    /// The settings, with shards and cores filled in.
    pub settings: Settings,
    /// The cpu of each core.
    pub cpus: Vec<usize>,
    /// Which cluster this is, and how many shards it has.
    pub identity: Identity,
    /// The data directory, locked; `None` in `cache` mode.
    pub directory: Option<Directory>,
    /// What TLS begins with; `None` without a port for it.
    pub tls: Option<Arc<Front>>,
    /// The RDB file that a new directory gets its data from.
    pub loaded: Option<Checked>,
    /// The users.
    pub users: Users,
    /// What this process is to other nodes; nothing in `cache` mode.
    pub peer: Option<PeerFacts>,
}

/// What this process is to other nodes.
#[derive(Debug)]
pub struct PeerFacts {
    /// Its directory, and which of its starts this is.
    pub life: life::Life,
    /// Where they reach it.
    pub address: String,
    /// The secret that they share.
    pub secret: Secret,
    /// Is it one of several, or does it become one now?
    pub is_clustered: bool,
    /// Are there others from whom it can have what it cannot read?
    pub heals: bool,
}

/// The newest feature level that this version knows.
pub const LEVEL: u32 = 3;

/// Checks the machine and opens the data directory. `now_ms` is the time since the Unix epoch.
/// Errors: the first thing that stands in the way.
pub fn prepare(mut settings: Settings, now_ms: u64) -> Result<Plan, Refusal> {
    checks::io_uring()?;
    let users = users_of(&settings)?;
    settings.bind.resolve().map_err(Refusal::option)?;
    let allowed = cpus::allowed();
    let asked = settings.cores.clone();
    let mut cpus = cpus::choose(asked.as_deref(), &allowed, settings.shards, cpus::quota())?;
    let wanted = Wanted {
        shards: settings.shards,
        shards_default: cpus.len().min(ringraft_shards::slot::SLOT_COUNT) as u16,
        slots: settings.slots.scheme(),
    };
    let secret = read_secret(&settings)?;
    let mut directory = match settings.mode {
        Mode::Store => Some(Directory::open(&settings.dir, &wanted, now_ms)?),
        Mode::Cache => None,
    };
    let mut peer = None;
    if let Some(directory) = &mut directory {
        peer = Some(meet_others(&settings, directory, &cpus, secret, now_ms)?);
    }
    let identity = match &directory {
        Some(directory) => directory.identity().clone(),
        None => Identity::create(&wanted, now_ms),
    };
    if let Some(directory) = &directory {
        checks::free_space(directory, settings.segment_size)?;
    }
    let loaded = first_load(&settings, directory.as_ref())?;
    if asked.is_none() {
        cpus.truncate(usize::from(identity.shard_count));
    }
    checks::locked_memory(cpus.len())?;
    checks::open_files(&mut settings, cpus.len(), identity.shard_count)?;
    checks::ports(&mut settings)?;
    let tls = match settings.tls.port {
        0 => None,
        _ => Some(
            Front::open(&settings.tls)
                .map_err(|(name, cause)| Refusal::failure(format!("option --{name}: {cause}")))?,
        ),
    };
    settings.shards = Some(identity.shard_count);
    settings.slots = Slots::of_scheme(identity.slot_scheme);
    settings
        .check()
        .map_err(|(name, cause)| Refusal::failure(format!("option --{name}: {cause}")))?;
    settings.cores = Some(cpus.clone());
    Ok(Plan { settings, cpus, identity, directory, tls, loaded, users, peer })
}

/// The secret of the cluster.
/// Errors: its file cannot be read, or is empty.
fn read_secret(settings: &Settings) -> Result<Secret, Refusal> {
    let Some(file) = &settings.cluster_secret else { return Ok(Secret::none()) };
    let read = std::fs::read(file).map_err(|error| {
        Refusal::failure(format!("cannot read --cluster-secret {}: {error}", file.display()))
    })?;
    match read.trim_ascii() {
        b"" => Err(Refusal::option(format!("--cluster-secret {} is empty", file.display()))),
        secret => Ok(Secret::new(secret)),
    }
}

/// Counts this start, finds out where others reach this node, and joins them if that was asked for
/// and not done. Errors: the directory's, or why it cannot join.
fn meet_others(
    settings: &Settings,
    directory: &mut Directory,
    cpus: &[usize],
    secret: Secret,
    now_ms: u64,
) -> Result<PeerFacts, Refusal> {
    let life = life::Life::begin(directory.path())?;
    let mut address = settings.advertise.clone();
    if address.is_empty() {
        // What others reach before what only this machine does.
        let listening: Vec<SocketAddr> = match settings.tls.cluster {
            true => settings.tls_addresses().collect(),
            false => settings.addresses().collect(),
        };
        let port = if settings.tls.cluster { settings.tls.port } else { settings.port };
        let best = listening.iter().find(|a| !a.ip().is_loopback() && !a.ip().is_unspecified());
        let best = best.or(listening.iter().find(|a| !a.ip().is_unspecified()));
        address = best.map_or(String::new(), SocketAddr::to_string);
        if address.is_empty() && port != 0 {
            address = format!("127.0.0.1:{port}");
        }
    }
    let joins = !settings.join.is_empty() && directory.is_new();
    if joins {
        if address.is_empty() {
            return Err(Refusal::option("--join needs a port where other nodes reach this one"));
        }
        let asking = join::Asking {
            seeds: &settings.join,
            life,
            address: &address,
            cores: cpus.len(),
            level: LEVEL,
            secret: &secret,
            tls: settings
                .tls
                .cluster
                .then(|| crate::net::tls::config::load_client(&settings.tls))
                .transpose()
                .map_err(|(name, cause)| Refusal::failure(format!("option --{name}: {cause}")))?,
        };
        let identity = join::join(&asking, now_ms)?;
        tracing::info!("this is node {} of cluster {}", identity.node, identity.cluster);
        if settings.shards.is_some_and(|shards| shards != identity.shard_count) {
            return Err(Refusal::option(format!(
                "the cluster has {} shards: leave out --shards",
                identity.shard_count
            )));
        }
        directory.join(identity);
    }
    let heals = !directory.is_new() && replica::has_companions(directory.path());
    let is_clustered = joins || heals || recover::has_meta(directory.path());
    if settings.rejoin && !heals {
        return Err(Refusal::option(
            "--rejoin gives this node's data up, and it knows of no majority of other nodes that have it",
        ));
    }
    Ok(PeerFacts { life, address, secret, is_clustered, heals })
}

/// Checks what `--load-rdb` names, if this start creates the directory.
fn first_load(
    settings: &Settings,
    directory: Option<&Directory>,
) -> Result<Option<Checked>, Refusal> {
    let Some(file) = &settings.load_rdb else { return Ok(None) };
    match directory {
        Some(directory) if directory.is_new() => first_start::check_file(file).map(Some),
        Some(directory) => {
            tracing::info!(
                "--load-rdb {} is passed over: {} has data of its own",
                file.display(),
                directory.path().display()
            );
            Ok(None)
        }
        None => Err(Refusal::option(
            "--load-rdb fills a new directory, and --mode cache has none: start, then ringraft rdb import FILE",
        )),
    }
}

/// The users that a server begins with.
/// Errors: one is wrong, the ACL file cannot be read, or both are given.
fn users_of(settings: &Settings) -> Result<Users, Refusal> {
    let all_channels = settings.acl_pubsub_default.is_all();
    let mut users = Users::new(&settings.requirepass);
    if settings.aclfile.as_os_str().is_empty() {
        users.add_configured(&settings.users, all_channels).map_err(Refusal::option)?;
        return Ok(users);
    }
    if !settings.users.is_empty() {
        return Err(Refusal::option(
            "users are declared in the configuration file and aclfile is set: declare them in one place",
        ));
    }
    let users = users.read_file(&settings.aclfile, all_channels).map_err(Refusal::option)?;
    if !settings.requirepass.is_empty() && !users.ask_for_password() {
        tracing::warn!(
            "requirepass is passed over, as in Redis: {} says what the user default may do, and with what password",
            settings.aclfile.display()
        );
    }
    Ok(users)
}

/// Does what a change of settings entails for the process as a whole; to be called once per change,
/// before the cores are told.
/// Errors: the system does not allow it, and nothing was done.
pub fn apply(old: &Settings, new: &Settings) -> Result<(), SettingError> {
    if new.maxclients > old.maxclients {
        let cores = new.cores.as_ref().map_or(1, Vec::len);
        checks::raise_maxclients(new.maxclients, cores, new.shards.unwrap_or(1)).map_err(|possible| {
            let cause = format!(
                "The operating system is not able to handle the specified number of clients, try with {possible}"
            );
            SettingError::Value("maxclients", cause)
        })?;
    }
    if new.log_level != old.log_level {
        logging::set_level(new.log_level);
    }
    Ok(())
}
