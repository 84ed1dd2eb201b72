//! The slow commands of one core; SLOWLOG merges those of all cores.

use ringraft_shards::arguments::Arguments;
use std::collections::VecDeque;
use std::net::SocketAddr;
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
    pub peer: Option<SocketAddr>,
    /// The client's name.
    pub name: Vec<u8>,
}

/// The newest slow commands of a core.
#[derive(Debug, Default)]
pub struct SlowLog {
    commands: VecDeque<SlowCommand>,
}

impl SlowLog {
    /// Keeps a command, and no more than `count_max` of them.
    pub fn add(
        &mut self,
        time_ms: i64,
        duration: Duration,
        arguments: Arguments<'_>,
        client: Option<(Option<SocketAddr>, Vec<u8>)>,
        count_max: u64,
    ) {
        let (peer, name) = client.unwrap_or_default();
        self.commands.push_front(SlowCommand {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            time_ms,
            duration,
            arguments: cut(arguments),
            peer,
            name,
        });
        self.commands.truncate(usize::try_from(count_max).unwrap_or(usize::MAX));
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
        let long = vec![b'x'; 200];
        let owned: OwnedArguments = std::iter::repeat_n(long.as_slice(), 40).collect();
        for _ in 0..3 {
            log.add(7, Duration::from_millis(1), owned.borrow(), None, 2);
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
