//! The slow commands of one core; SLOWLOG merges those of all cores.

use crate::commands::Command;
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::client::connection::Address;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Arguments of a slow command that are kept.
const ARGUMENTS_KEPT_MAX: usize = 32;

/// Bytes of each argument that are kept.
const ARGUMENT_BYTES_KEPT_MAX: usize = 128;

/// Ids run through the whole process.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One slow command.
#[derive(Clone, Debug)]
pub struct SlowCommand {
    /// Counted from 0 within the process.
    pub id: u64,
    /// When it ran, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// How long.
    pub duration: Duration,
    /// Its arguments, cut as Redis cuts them.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub peer: Address,
    /// The client's name.
    pub name: Vec<u8>,
}

/// The newest slow commands of a core.
#[derive(Clone, Debug)]
pub struct SlowLog {
    commands: VecDeque<SlowCommand>,
    threshold: Duration,
    count_max: usize,
}

impl Default for SlowLog {
    /// Empty, and never takes one.
    fn default() -> SlowLog {
        SlowLog { commands: VecDeque::new(), threshold: Duration::MAX, count_max: 0 }
    }
}

impl SlowLog {
    /// Takes commands from now on that last `threshold_us` or longer (negative: none), and keeps the newest
    /// `count_max` of them.
    pub fn configure(&mut self, threshold_us: i64, count_max: u64) {
        self.threshold = u64::try_from(threshold_us).map_or(Duration::MAX, Duration::from_micros);
        self.count_max = usize::try_from(count_max).unwrap_or(usize::MAX);
        self.commands.truncate(self.count_max);
    }

    /// Is that long enough to be kept?
    #[inline(always)]
    pub fn is_slow(&self, duration: Duration) -> bool {
        duration >= self.threshold
    }

    /// Must every command be kept, however short?
    pub fn takes_all(&self) -> bool {
        self.threshold.is_zero()
    }

    /// Keeps a command that a shard has run, unless it is the server's own.
    #[cold]
    pub fn note(
        &mut self,
        command: &Command,
        time_ms: i64,
        duration: Duration,
        arguments: Arguments<'_>,
        origin: Origin,
        answers: &Answers,
    ) {
        if command.flags.no_slowlog || origin.target == Target::Nobody {
            return;
        }
        let mut client = None;
        if origin.core == answers.core {
            let whole = match origin.target {
                Target::Gather { index, .. } => answers.gathers.get(index).map(|g| g.target),
                target => Some(target),
            };
            if let Some(Target::Connection { index, .. }) = whole {
                client = answers
                    .connections
                    .get(index)
                    .map(|c| (c.peer.clone(), c.session.name.clone()));
            }
        }
        // The one command of clients that goes to its shard under another name.
        let exec: OwnedArguments = [&b"exec"[..]].into_iter().collect();
        let shown = if command.flags.internal { exec.borrow() } else { arguments };
        self.add(command, time_ms, duration, shown, client);
    }

    /// Keeps a command and, when there are too many, drops the oldest. Its secrets are left out.
    pub fn add(
        &mut self,
        command: &Command,
        time_ms: i64,
        duration: Duration,
        arguments: Arguments<'_>,
        client: Option<(Address, Vec<u8>)>,
    ) {
        let (peer, name) = client.unwrap_or_default();
        let redacted = command.redacted(arguments);
        let arguments = redacted.as_ref().map_or(arguments, OwnedArguments::borrow);
        self.commands.push_front(SlowCommand {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            time_ms,
            duration,
            arguments: cut(arguments),
            peer,
            name,
        });
        self.commands.truncate(self.count_max);
    }

    /// The commands kept, newest first.
    pub fn commands(&self) -> impl Iterator<Item = &SlowCommand> {
        self.commands.iter()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.commands.clear();
    }
}

fn cut(arguments: Arguments<'_>) -> Vec<Vec<u8>> {
    let count = arguments.count();
    let kept = if count > ARGUMENTS_KEPT_MAX { ARGUMENTS_KEPT_MAX - 1 } else { count };
    let mut cut: Vec<Vec<u8>> = arguments
        .iter_from(0)
        .take(kept)
        .map(|argument| match argument.len().checked_sub(ARGUMENT_BYTES_KEPT_MAX) {
            Some(more) if more > 0 => {
                let mut text = argument[..ARGUMENT_BYTES_KEPT_MAX].to_vec();
                text.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
                text
            }
            _ => argument.to_vec(),
        })
        .collect();
    if count > kept {
        cut.push(format!("... ({} more arguments)", count - kept).into_bytes());
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_shards::arguments::OwnedArguments;

    #[test]
    fn the_newest_are_kept_and_arguments_are_cut() {
        let mut log = SlowLog::default();
        assert!(!log.is_slow(Duration::from_secs(3600)));
        log.configure(100, 2);
        assert!(log.is_slow(Duration::from_micros(100)) && !log.is_slow(Duration::from_micros(99)));
        let long = vec![b'x'; 200];
        let owned: OwnedArguments = std::iter::repeat_n(long.as_slice(), 40).collect();
        let get = crate::commands::table::find(b"get").expect("there is GET");
        for _ in 0..3 {
            log.add(get, 7, Duration::from_millis(1), owned.borrow(), None);
        }
        let commands: Vec<_> = log.commands().collect();
        assert_eq!(commands.len(), 2);
        assert!(commands[0].id > commands[1].id);
        assert_eq!(commands[0].arguments.len(), ARGUMENTS_KEPT_MAX);
        assert!(commands[0].arguments[0].ends_with(b"... (72 more bytes)"));
        assert_eq!(commands[0].arguments[31], b"... (9 more arguments)");
        log.clear();
        assert_eq!(log.commands().count(), 0);
    }
}
