//! ringraft: reads the command line, checks the machine, starts the node.

use ringraft::node::run::Node;
use ringraft::node::{self, Plan, Refusal, banner, logging, signals};
use ringraft::options::{self, Request};
use ringraft::rdb;
use ringraft::settings::Settings;
use ringraft::snapshot_print;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Options of the allocator, which looks for them under this name when it starts;
/// `_RJEM_MALLOC_CONF` in the environment goes before them. Large allocations begin at a page, not
/// anywhere within it, which costs each one more: 20,362 bytes instead of 16,637 for a value of
/// 16,000.
#[allow(unsafe_code)] // The name is the allocator's; nothing else in the process has it.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_OPTIONS: Option<&'static libc::c_char> =
    Some(first_byte(c"cache_oblivious:false"));

/// The address of a C string, as the allocator wants it, in a type that may be static.
#[allow(unsafe_code)]
const fn first_byte(text: &'static std::ffi::CStr) -> &'static libc::c_char {
    // SAFETY: a C string has at least the zero byte, and lives for ever.
    unsafe { &*text.as_ptr() }
}

fn main() -> ExitCode {
    let result = match options::read(std::env::args_os()) {
        Ok(Request::Show(text)) => {
            // Whoever closed the pipe has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(())
        }
        Ok(Request::Use(tool)) => return tool.run(now_ms() / 1000),
        Ok(Request::PrintSnapshot(file)) => print_snapshot(&file),
        Ok(Request::ImportRdb(import)) => {
            tool(|tell| rdb::import::run(&import, now_ms() as i64, tell))
        }
        Ok(Request::ExportRdb(export)) => tool(|tell| rdb::export::run(&export, now_ms(), tell)),
        Ok(Request::Serve(settings)) => serve(*settings),
        Err(line) => Err(Refusal::option(line)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("ringraft: {}", refusal.text);
            ExitCode::from(refusal.exit_code)
        }
    }
}

/// Nothing but commands goes to the output, so that it can be piped on; the count goes to standard
/// error.
fn print_snapshot(file: &Path) -> Result<(), Refusal> {
    let printed = snapshot_print::print(file, &mut std::io::stdout().lock());
    let counts = printed.map_err(|error| Refusal::failure(error.to_string()))?;
    eprintln!("ringraft: {} items printed, {} passed over", counts.items, counts.skipped);
    Ok(())
}

/// What a tool does, and what it says of it: all of it on standard error.
fn tool(run: impl FnOnce(&dyn Fn(&str)) -> Result<String, String>) -> Result<(), Refusal> {
    let line = run(&|line| eprintln!("ringraft: {line}")).map_err(Refusal::failure)?;
    eprintln!("ringraft: {line}");
    Ok(())
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn serve(settings: Settings) -> Result<(), Refusal> {
    let started = Instant::now();
    signals::abort_on_panic();
    signals::block();
    logging::start(settings.log_level, &settings.log_file)?;
    let plan = node::prepare(settings, now_ms())?;
    for line in banner::starting(&plan) {
        tracing::info!("{line}");
    }
    if let Some(line) = banner::warnings(&plan) {
        tracing::warn!("{line}");
    }
    run(&plan, started)
}

fn run(plan: &Plan, started: Instant) -> Result<(), Refusal> {
    type Stop = Box<dyn Fn() + Send + Sync>;
    let stop: Arc<OnceLock<Stop>> = Arc::default();
    let known = stop.clone();
    let watching = signals::watch(move |event| match event {
        signals::Event::Stop(name) => {
            tracing::info!("{name}: stopping");
            match known.get() {
                Some(stop) => stop(),
                // Recovery changes nothing that a later start needs, and nobody is served yet.
                None => {
                    tracing::info!("stopped before it served");
                    std::process::exit(0);
                }
            }
        }
        signals::Event::ReopenLog => logging::reopen(),
    });
    watching.map_err(|error| Refusal::failure(format!("cannot start a thread: {error}")))?;
    let node = Node::start(plan, started)?;
    // Nobody else sets it.
    let _ = stop.set(Box::new(node.stopper()));
    tracing::info!("{}", banner::ready(plan, started.elapsed()));
    node.wait()?;
    tracing::info!("stopped");
    Ok(())
}
