//! Signals: a request to stop, the log file opened again, and death on a panic.
//!
//! They are blocked in every thread and read by one that does nothing else, so no handler ever
//! interrupts a core.

#![allow(unsafe_code)] // Signal masks and sigwait have no safe interface in std.

use std::io;
use std::mem::MaybeUninit;

/// Signals that the waiting thread reads.
const READ: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT: stop in order.
    Stop(&'static str),
    /// SIGHUP: open the log file again.
    ReopenLog,
}

/// Blocks the signals that [`watch`] reads, in this thread and all it will start; to be called
/// before the first is started. SIGPIPE is ignored: a closed socket is an error of the write.
pub fn block() {
    let set = set();
    // SAFETY: the set is initialized, the old mask is not asked for, and SIG_IGN is a valid
    // disposition.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Starts the thread that reads signals and calls `on_event` for each. A second SIGINT ends the
/// process at once: whoever presses ^C twice does not want to wait.
/// Errors: no thread can be started.
pub fn watch(mut on_event: impl FnMut(Event) + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut interrupts = 0;
        loop {
            match wait() {
                libc::SIGINT if interrupts > 0 => {
                    eprintln!("ringraft: interrupted twice, stopping at once");
                    std::process::exit(1);
                }
                libc::SIGINT => {
                    interrupts += 1;
                    on_event(Event::Stop("SIGINT"));
                }
                libc::SIGHUP => on_event(Event::ReopenLog),
                _ => on_event(Event::Stop("SIGTERM")),
            }
        }
    })?;
    Ok(())
}

/// Makes every panic end the process: a server that lost a core must not answer for the rest.
pub fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        super::logging::last_words(&format!("{panic}"));
        std::process::abort();
    }));
}

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set before anything else touches it; the numbers are
    // valid signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in READ {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn wait() -> libc::c_int {
    let set = set();
    let mut signal = 0;
    // SAFETY: both point to initialized memory of this frame, and every thread blocks the signals
    // of the set.
    let result = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    assert_eq!(result, 0, "sigwait fails only for an invalid set");
    signal
}
