//! What the process takes from the machine: memory and processor time.

#![allow(unsafe_code)] // getrusage, and two calls into the allocator that no safe wrapper has.

use ringraft_shards::keyspace::Spare;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tikv_jemalloc_ctl::{epoch, stats};

static PEAK: AtomicU64 = AtomicU64::new(0);
static AT_START: AtomicU64 = AtomicU64::new(0);

/// Bytes, as the allocator and the kernel count them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// In allocations; of the chunks that keyspaces cut up, what is in theirs.
    pub allocated: u64,
    /// In pages and slabs that hold allocations.
    pub active: u64,
    /// In pages that the allocator has not given back.
    pub resident: u64,
    /// Of the whole process, in physical memory.
    pub process: u64,
    /// Most that was ever seen in allocations.
    pub peak: u64,
    /// In allocations when the first core began to serve.
    pub at_start: u64,
}

/// Longest report of the allocator; what is beyond is cut off.
const REPORT_BYTES_MAX: usize = 1 << 20;

/// Reads it. Cost: some tens of microseconds.
pub fn memory() -> Memory {
    // An allocator without statistics answers zero: then nothing better is known.
    let _ = epoch::advance();
    let (spare, allocated) = (Spare::of_process(), allocated_bytes());
    let without = |all: usize, part: usize| all.saturating_sub(part) as u64;
    Memory {
        allocated,
        active: without(stats::active::read().unwrap_or(0), spare.empty),
        resident: without(stats::resident::read().unwrap_or(0), spare.absent),
        process: resident_bytes(),
        peak: PEAK.fetch_max(allocated, Ordering::Relaxed).max(allocated),
        at_start: AT_START.load(Ordering::Relaxed),
    }
}

/// Notes what is allocated now if it is more than ever before. To be called now and then.
pub fn note_peak() {
    let _ = epoch::advance();
    let allocated = allocated_bytes();
    PEAK.fetch_max(allocated, Ordering::Relaxed);
    // The first call is the start.
    let _ = AT_START.compare_exchange(0, allocated, Ordering::Relaxed, Ordering::Relaxed);
}

/// What the allocator has given out, less what keyspaces hold in chunks without using it.
fn allocated_bytes() -> u64 {
    let allocated = stats::allocated::read().unwrap_or(0);
    allocated.saturating_sub(Spare::of_process().idle) as u64
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * page_bytes()
}

fn page_bytes() -> u64 {
    // SAFETY: takes and returns plain numbers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// Physical memory of the machine in bytes.
pub fn system_memory() -> u64 {
    // SAFETY: takes and returns plain numbers.
    unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) as u64 * page_bytes() }
}

/// Processor time that the process has used: in the kernel, and outside of it.
pub fn processor_time() -> (Duration, Duration) {
    // SAFETY: all zeros is a value of this struct of numbers, and the kernel writes only into it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
    };
    (time(usage.ru_stime), time(usage.ru_utime))
}

/// Gives free pages back to the kernel. False: the allocator refuses.
pub fn purge() -> bool {
    /// The number that stands for all arenas.
    const ALL: &[u8] = b"arena.4096.purge\0";
    let none = std::ptr::null_mut();
    // SAFETY: the name ends with a zero byte, and a null pointer of no length is "no value" in both
    // directions.
    let result = unsafe {
        tikv_jemalloc_sys::mallctl(ALL.as_ptr().cast(), none, std::ptr::null_mut(), none, 0)
    };
    result == 0
}

/// Gives back what of the calling thread's free pages has been free for long. The allocator does so
/// by itself as a thread allocates; for a thread that does nothing somebody has to ask.
pub fn decay() {
    let (mut arena, mut size) = (0u32, size_of::<u32>());
    let none = std::ptr::null_mut();
    // SAFETY: names end with a zero byte; the first call writes the four bytes that it is given,
    // the second has no value in either direction. What an allocator refuses is left as it is.
    unsafe {
        let to = (&raw mut arena).cast();
        if tikv_jemalloc_sys::mallctl(c"thread.arena".as_ptr(), to, &mut size, none, 0) == 0 {
            let name = format!("arena.{arena}.decay\0");
            tikv_jemalloc_sys::mallctl(name.as_ptr().cast(), none, std::ptr::null_mut(), none, 0);
        }
    }
}

/// The allocator's version number.
pub fn allocator_version() -> String {
    let version = tikv_jemalloc_ctl::version::read().unwrap_or_default();
    version.split('-').next().unwrap_or_default().to_string()
}

/// The allocator's own report.
pub fn allocator_report() -> String {
    /// Appends a piece of the report to the vector that `to` points to.
    unsafe extern "C" fn append(to: *mut c_void, piece: *const c_char) {
        // SAFETY: `to` is the vector below, which nobody else uses meanwhile; pieces end with a
        // zero byte.
        let (report, piece) = unsafe { (&mut *to.cast::<Vec<u8>>(), CStr::from_ptr(piece)) };
        let piece = piece.to_bytes();
        // Not by growing: the allocator must not be entered from here.
        let room = report.capacity() - report.len();
        report.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    let mut report: Vec<u8> = Vec::with_capacity(REPORT_BYTES_MAX);
    let to = (&raw mut report).cast();
    // SAFETY: `append` is called before this returns, with `to`; a null pointer stands for no
    // options.
    unsafe { tikv_jemalloc_sys::malloc_stats_print(Some(append), to, std::ptr::null()) };
    String::from_utf8_lossy(&report).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_memory_and_time() {
        note_peak();
        let memory = memory();
        assert!(memory.process > 0 && memory.resident >= memory.active);
        assert!(system_memory() > memory.process);
        let (kernel, user) = processor_time();
        assert!(kernel + user < Duration::from_secs(3600));
        decay();
        assert!(purge());
        assert!(allocator_report().contains("jemalloc"));
    }
}
