//! What the machine must give before a server can run: io_uring, locked memory, open files, ports,
//! disk space.
//!
//! What can be raised is raised; what stands in the way is refused with its cause and its remedy.

#![allow(unsafe_code)] // Resource limits have no safe interface in std.

use super::Refusal;
use super::directory::{Directory, unusable};
use super::recover::log_directory;
use crate::limits::{
    LOCKED_BYTES_MIN, LOCKED_BYTES_PER_CORE, OPEN_FILES_OF_PROCESS, OPEN_FILES_PER_CORE,
    OPEN_FILES_PER_SHARD,
};
use crate::net::listener;
use crate::settings::Settings;
use ringraft_shards::disk::free_bytes;
use ringraft_shards::ids::ShardId;
use ringraft_shards::limits::FREE_BYTES_LEFT_MIN;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Oldest Linux that has all that cannot be done without (rings of provided buffers).
pub const KERNEL_MIN: (u32, u32) = (5, 19);

/// Bit of CAP_IPC_LOCK: locked memory without limit.
const CAP_IPC_LOCK: u32 = 14;

/// Can this process set up a ring?
/// Errors: the kernel is too old, io_uring is switched off or filtered, or memory cannot be locked.
pub fn io_uring() -> Result<(), Refusal> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match try_ring() {
        Err(error) => {
            let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            Err(ring_refused(&error, sysctl.unwrap_or_default().trim(), release, &status))
        }
        Ok(_) => match version(release) {
            Some(version) if version < KERNEL_MIN => Err(Refusal::failure(format!(
                "Linux {release} is too old, {}.{} is needed: boot a newer kernel",
                KERNEL_MIN.0, KERNEL_MIN.1
            ))),
            _ => Ok(()),
        },
    }
}

/// Calls each of the three calls once: a filter may forbid any of them.
fn try_ring() -> io::Result<()> {
    let mut ring = io_uring::IoUring::new(8)?;
    ring.submitter().register_probe(&mut io_uring::Probe::new())?;
    let nothing = io_uring::opcode::Nop::new().build();
    // SAFETY: the operation refers to no memory.
    unsafe { ring.submission().push(&nothing) }.expect("there are eight places");
    ring.submit_and_wait(1).map(|_| ())
}

/// What a container's filter has to let through, and who does.
const FILTER_REMEDY: &str = "io_uring_setup, io_uring_enter and io_uring_register must be allowed: run the container with \
     --security-opt seccomp=FILE, where FILE is packaging/seccomp.json of ringraft, or your profile with these three, or unconfined";

/// Why a ring could not be set up. `sysctl` is the text of kernel.io_uring_disabled, `release` the
/// kernel's, `status` that of /proc/self/status.
pub fn ring_refused(error: &io::Error, sysctl: &str, release: &str, status: &str) -> Refusal {
    let is_filtered = status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
    let text = match (error.raw_os_error(), sysctl) {
        (Some(libc::EPERM), "1" | "2") => format!(
            "io_uring is disabled on this machine (kernel.io_uring_disabled = {sysctl}): run sysctl -w \
             kernel.io_uring_disabled=0{}",
            if sysctl == "1" {
                ", or add this user to the group of kernel.io_uring_group"
            } else {
                ""
            }
        ),
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), _) if is_filtered => {
            format!(
                "io_uring is forbidden to this process by a seccomp filter ({error}): {FILTER_REMEDY}"
            )
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            format!(
                "io_uring is forbidden to this process, most likely by a seccomp filter around it: {FILTER_REMEDY}"
            )
        }
        (Some(libc::ENOSYS), _) => format!(
            "Linux {release} offers no io_uring to this process: boot Linux {}.{} or newer with CONFIG_IO_URING, or \
             allow io_uring in the sandbox that hides it",
            KERNEL_MIN.0, KERNEL_MIN.1
        ),
        (Some(libc::ENOMEM), _) => {
            format!("io_uring could not lock memory ({error}): {LOCKED_MEMORY_REMEDY}")
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            format!(
                "io_uring got no file descriptor ({error}): raise the open-file limit (ulimit -n)"
            )
        }
        _ => format!("io_uring could not be set up ({error}): see the kernel's log"),
    };
    Refusal::failure(text)
}

const LOCKED_MEMORY_REMEDY: &str = "raise the locked-memory limit (ulimit -l, LimitMEMLOCK= in systemd, --ulimit \
     memlock= in docker; it counts for all processes of the user), or use fewer cores with --cores";

/// Raises the limit of locked memory to what the rings of the cores need.
/// Errors: the system does not allow enough.
pub fn locked_memory(core_count: usize) -> Result<(), Refusal> {
    let unlimited = has_capability(CAP_IPC_LOCK);
    let need = locked_memory_need(core_count, unlimited);
    let limit = raise(libc::RLIMIT_MEMLOCK, need);
    if limit >= need {
        return Ok(());
    }
    Err(Refusal::failure(format!(
        "locked memory is limited to {} KiB, {core_count} core(s) need {} KiB for their rings: {LOCKED_MEMORY_REMEDY}",
        limit >> 10,
        need >> 10
    )))
}

/// glommio looks at the limit even where the kernel does not enforce it.
fn locked_memory_need(core_count: usize, unlimited: bool) -> u64 {
    let rings = if unlimited { 0 } else { core_count as u64 * LOCKED_BYTES_PER_CORE };
    rings.max(LOCKED_BYTES_MIN)
}

/// Raises the limit of open files to what `maxclients` needs; where that fails, lowers
/// `maxclients`. Errors: there would be no room for a single client.
pub fn open_files(
    settings: &mut Settings,
    core_count: usize,
    shard_count: u16,
) -> Result<(), Refusal> {
    let Err(possible) = raise_maxclients(settings.maxclients, core_count, shard_count) else {
        return Ok(());
    };
    let need = u64::from(settings.maxclients) + own_files(core_count, shard_count);
    if possible == 0 {
        return Err(Refusal::failure(format!(
            "open files are limited to {}, the server itself needs {}: raise the limit (ulimit -n, LimitNOFILE= in \
             systemd)",
            limit(libc::RLIMIT_NOFILE).0,
            own_files(core_count, shard_count)
        )));
    }
    tracing::warn!(
        "maxclients lowered from {} to {possible}: it needs {need} open files and the limit cannot be raised (ulimit -n, \
         LimitNOFILE= in systemd)",
        settings.maxclients
    );
    settings.maxclients = possible;
    Ok(())
}

/// Raises the limit of open files to what so many clients need.
/// Errors: how many clients are possible.
pub fn raise_maxclients(maxclients: u32, core_count: usize, shard_count: u16) -> Result<(), u32> {
    let own = own_files(core_count, shard_count);
    let need = u64::from(maxclients) + own;
    let limit = raise(libc::RLIMIT_NOFILE, need);
    if limit >= need { Ok(()) } else { Err(limit.saturating_sub(own) as u32) }
}

fn own_files(core_count: usize, shard_count: u16) -> u64 {
    OPEN_FILES_OF_PROCESS
        + core_count as u64 * OPEN_FILES_PER_CORE
        + u64::from(shard_count) * OPEN_FILES_PER_SHARD
}

/// Are the ports free? Addresses that may be absent, and of a name those that this machine does not
/// have, are left out. Errors: the first that is not; no address is left.
pub fn ports(settings: &mut Settings) -> Result<(), Refusal> {
    let mut present: Vec<IpAddr> = Vec::new();
    let mut absent = None;
    for place in settings.bind.places() {
        let mut refused = None;
        for &ip in &place.found {
            let address = SocketAddr::new(ip, settings.port);
            let known = present.contains(&ip);
            match if known { Ok(()) } else { listener::probe(address) } {
                Ok(()) if known => {}
                Ok(()) => present.push(ip),
                Err(error) if is_absent(&error) => {
                    refused = Some(listening_refused(address, "--port", &error));
                }
                Err(error) => return Err(listening_refused(address, "--port", &error)),
            }
        }
        if let Some(refusal) = refused
            && !place.found.iter().any(|ip| present.contains(ip))
        {
            if !place.is_optional {
                return Err(refusal);
            }
            tracing::info!("not listening on {}: it is not an address of this machine", place.name);
            absent = Some(refusal);
        }
    }
    if present.is_empty() {
        let nothing = || Refusal::option("option --bind: none of its names has an address");
        return Err(absent.unwrap_or_else(nothing));
    }
    settings.bind.keep(&present);
    for address in settings.tls_addresses() {
        listener::probe(address)
            .map_err(|error| listening_refused(address, "--tls-port", &error))?;
    }
    for address in settings.metrics_addresses() {
        listener::probe(address)
            .map_err(|error| listening_refused(address, "--metrics-port", &error))?;
    }
    Ok(())
}

/// Does the error say that this machine has no such address, or none of its kind?
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
    )
}

/// Why an address cannot be listened on. `option` is the one that chooses the port.
pub fn listening_refused(address: SocketAddr, option: &str, error: &io::Error) -> Refusal {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another process listens there: stop it or choose another port with {option}")
        }
        io::ErrorKind::AddrNotAvailable => {
            "it is not an address of this machine: choose one with --bind".to_string()
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another with {option}"
            )
        }
        _ => format!("choose another address with --bind or port with {option}"),
    };
    Refusal::failure(format!("cannot listen on {address}: {error}: {remedy}"))
}

/// Is there room for the first segments of each shard's log? A log that has one needs no more: what
/// is on a full disk can be read, and writes are refused until there is room.
/// Errors: there is not.
pub fn free_space(directory: &Directory, segment_size: u64) -> Result<(), Refusal> {
    let path = directory.path();
    let shard_count = directory.identity().shard_count;
    let begun = (0..shard_count).filter(|&shard| has_log(path, ShardId(shard))).count();
    // The log writes one segment while the next is made ready.
    let need = segment_size.saturating_mul(2 * (u64::from(shard_count) - begun as u64));
    let free = free_bytes(path).map_err(|error| unusable(path, "examine", &error))?;
    if need > 0 && free < need.saturating_add(FREE_BYTES_LEFT_MIN) {
        return Err(Refusal::failure(format!(
            "the disk of directory {} is full: {} MiB are free, {} MiB are needed to start: free some space, choose \
             another disk with --dir, or for a new directory a smaller --segment-size",
            path.display(),
            free >> 20,
            need.saturating_add(FREE_BYTES_LEFT_MIN) >> 20
        )));
    }
    if free < FREE_BYTES_LEFT_MIN {
        tracing::warn!(
            "the disk of directory {} is full: writes are refused when the logs can grow no more",
            path.display()
        );
    }
    Ok(())
}

/// Has a shard's log a segment?
fn has_log(directory: &Path, shard: ShardId) -> bool {
    let files = std::fs::read_dir(log_directory(directory, shard));
    files.is_ok_and(|files| {
        files.flatten().any(|file| file.path().extension().is_some_and(|end| end == "log"))
    })
}

/// `6.18.44-fc` is (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.unwrap_or(0) >> bit & 1 == 1
}

type Resource = libc::__rlimit_resource_t;

/// The soft and the hard limit of a resource.
fn limit(resource: Resource) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and initialized.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(result, 0, "getrlimit fails only for an unknown resource");
    (limit.rlim_cur, limit.rlim_max)
}

/// Raises a soft limit to `need`, the hard one too where this process may, else as far as it goes;
/// never lowers it. Returns what holds then.
fn raise(resource: Resource, need: u64) -> u64 {
    let (soft, hard) = limit(resource);
    if soft >= need {
        return soft;
    }
    let to = |rlim_cur: u64, rlim_max: u64| {
        let limit = libc::rlimit { rlim_cur, rlim_max };
        // SAFETY: the structure is ours and initialized.
        unsafe { libc::setrlimit(resource, &raw const limit) == 0 }
    };
    if !to(need, hard.max(need)) {
        to(hard, hard);
    }
    limit(resource).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::directory::Wanted;

    #[test]
    fn ring_refusals_name_cause_and_remedy() {
        for (errno, sysctl, words) in [
            (libc::EPERM, "2", &["io_uring_disabled = 2", "sysctl -w"][..]),
            (libc::EPERM, "1", &["io_uring_disabled = 1", "io_uring_group"]),
            (libc::EPERM, "0", &["most likely by a seccomp filter", "io_uring_setup"]),
            (libc::EPERM, "", &["seccomp", "io_uring_enter", "packaging/seccomp.json"]),
            (libc::ENOSYS, "", &["Linux 4.19.0 offers no io_uring", "5.19"]),
            (libc::ENOMEM, "0", &["ulimit -l", "--cores"]),
            (libc::EMFILE, "0", &["ulimit -n"]),
            (libc::EINVAL, "0", &["could not be set up"]),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let refusal = ring_refused(&error, sysctl, "4.19.0", "Seccomp:\t0\n");
            assert_eq!(refusal.exit_code, 1);
            assert!(!refusal.text.contains('\n'), "{}", refusal.text);
            for word in words {
                assert!(refusal.text.contains(word), "{word}: {}", refusal.text);
            }
        }
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            let error = io::Error::from_raw_os_error(errno);
            let refusal = ring_refused(&error, "0", "6.18.0", "Seccomp:\t2\nSeccomp_filters:\t1\n");
            assert!(refusal.text.contains("by a seccomp filter ("), "{}", refusal.text);
        }
        assert_eq!(io_uring(), Ok(()));
    }

    #[test]
    fn kernel_versions() {
        for (release, expected) in
            [("6.18.44-fc", Some((6, 18))), ("5.19-rc1", Some((5, 19))), ("6", None), ("", None)]
        {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn locked_memory_grows_with_the_cores() {
        assert_eq!(locked_memory_need(1, false), LOCKED_BYTES_MIN.max(LOCKED_BYTES_PER_CORE));
        assert_eq!(locked_memory_need(16, false), 16 * LOCKED_BYTES_PER_CORE);
        assert_eq!(locked_memory_need(16, true), LOCKED_BYTES_MIN);
    }

    #[test]
    fn listening_refusals_name_the_option() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        for (errno, word) in [
            (libc::EADDRINUSE, "another port with --port"),
            (libc::EACCES, "CAP_NET_BIND_SERVICE"),
            (libc::EADDRNOTAVAIL, "--bind"),
            (libc::EAFNOSUPPORT, "--bind"),
        ] {
            let refusal =
                listening_refused(address, "--port", &io::Error::from_raw_os_error(errno));
            assert!(
                refusal.text.starts_with("cannot listen on 127.0.0.1:80: "),
                "{}",
                refusal.text
            );
            assert!(refusal.text.contains(word), "{}", refusal.text);
        }
    }

    #[test]
    fn a_taken_port_is_refused() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let port = taken.local_addr().expect("bound").port();
        let mut settings = Settings::default();
        settings.port = port;
        let refusal = ports(&mut settings).expect_err("taken");
        assert!(refusal.text.contains("another process listens there"), "{}", refusal.text);
    }

    #[test]
    fn limits_are_raised_as_far_as_they_go() {
        let (soft, hard) = limit(libc::RLIMIT_NOFILE);
        assert!(soft <= hard);
        assert_eq!(raise(libc::RLIMIT_NOFILE, soft), soft);
        assert_eq!(raise_maxclients(1, 1, 1), Ok(()));
    }

    #[test]
    fn a_full_disk_is_refused() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let directory =
            Directory::open(folder.path(), &Wanted { shards: Some(1), ..Wanted::default() }, 0)
                .expect("created");
        assert_eq!(free_space(&directory, 1 << 20), Ok(()));
        let refusal = free_space(&directory, 1 << 60).expect_err("no disk is so large");
        assert!(refusal.text.contains("is full"), "{}", refusal.text);
        let log = log_directory(folder.path(), ShardId(0));
        std::fs::create_dir_all(&log).expect("created");
        assert!(free_space(&directory, 1 << 60).is_err(), "it has no segment yet");
        std::fs::write(log.join("00000000000000000001.log"), "").expect("written");
        assert_eq!(free_space(&directory, 1 << 60), Ok(()), "what is there can be read");
    }
}
