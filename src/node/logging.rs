//! Events: where they are written, and from which level on.
//!
//! Events are rare and written at once, under one lock. One that is switched off costs the check of
//! a level that is cached where it is issued.

use super::Refusal;
use crate::settings::values::LogLevel;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, registry, reload};

/// Where events go.
enum Sink {
    Stderr,
    File(PathBuf, File),
}

static SINK: Mutex<Sink> = Mutex::new(Sink::Stderr);
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Begins to log; to be called once. An empty path is standard error.
/// Errors: the file cannot be opened for writing.
pub fn start(level: LogLevel, file: &Path) -> Result<(), Refusal> {
    let to_file = !file.as_os_str().is_empty();
    if to_file {
        let opened = open(file).map_err(|error| {
            let shown = file.display();
            Refusal::failure(format!(
                "cannot write log file {shown}: {error}: make it writable or choose another with --log-file"
            ))
        })?;
        // Absolute, so that it can be opened again whatever happens to the current directory.
        let path = std::path::absolute(file).unwrap_or_else(|_| file.into());
        *sink() = Sink::File(path, opened);
    }
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer()
        .compact()
        .with_target(false)
        .with_ansi(!to_file && io::stderr().is_terminal())
        .with_writer(|| Writer);
    tracing::subscriber::set_global_default(registry().with(filter).with(lines))
        .expect("logging starts once per process");
    assert!(LEVEL.set(handle).is_ok(), "logging starts once per process");
    Ok(())
}

/// Changes the level from which on events are written.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        handle.reload(filter(level)).expect("the subscriber lives as long as the process");
    }
}

/// Opens the log file again, after it was moved away. When that fails, events go on into the old
/// one.
pub fn reopen() {
    let failure = match &mut *sink() {
        Sink::Stderr => None,
        Sink::File(path, file) => match open(path) {
            Ok(new) => {
                *file = new;
                None
            }
            Err(error) => Some(format!("cannot open {} again: {error}", path.display())),
        },
    };
    if let Some(failure) = failure {
        tracing::warn!("{failure}");
    }
}

/// Writes a panic's message into the log file, unless the panic came from logging itself.
pub(super) fn last_words(text: &str) {
    if let Ok(mut sink) = SINK.try_lock()
        && let Sink::File(_, file) = &mut *sink
    {
        let _ = writeln!(file, "{text}");
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn sink() -> std::sync::MutexGuard<'static, Sink> {
    // Nothing below leaves a sink half changed.
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Quiet => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Verbose | LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// Writes to the sink of the moment.
struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *sink() {
            Sink::Stderr => io::stderr().write(bytes),
            Sink::File(_, file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_costs_a_level_check() {
        start(LogLevel::Info, Path::new("")).expect("standard error needs no opening");
        assert_eq!(LevelFilter::current(), LevelFilter::INFO);
        set_level(LogLevel::Debug);
        assert_eq!(LevelFilter::current(), LevelFilter::DEBUG);
        set_level(LogLevel::Quiet);
        assert_eq!(LevelFilter::current(), LevelFilter::OFF);
    }
}
