//! The conspicuous commands of one core: those that took long, whose request was large, or whose
//! reply was (COMMANDLOG, SLOWLOG). The commands merge those of all cores.

use crate::commands::{Command, Run};
use crate::core::client::answers::{Answers, Origin, Target};
use crate::core::client::connection::Address;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// Arguments of a command that are kept.
const ARGUMENTS_KEPT_MAX: usize = 32;

/// Bytes of each argument that are kept.
const ARGUMENT_BYTES_KEPT_MAX: usize = 128;

/// What makes a command conspicuous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trait {
    /// It took so many microseconds.
    Slow,
    /// Its request had so many bytes.
    LargeRequest,
    /// Its reply had so many bytes.
    LargeReply,
}

impl Trait {
    /// Each with its word.
    pub const ALL: [(Trait, &'static str); 3] = [
        (Trait::Slow, "slow"),
        (Trait::LargeRequest, "large-request"),
        (Trait::LargeReply, "large-reply"),
    ];
}

/// The next id of each trait's commands; they run through the whole process.
static NEXT_IDS: [AtomicU64; Trait::ALL.len()] = [const { AtomicU64::new(0) }; Trait::ALL.len()];

/// One conspicuous command.
#[derive(Clone, Debug)]
pub struct NotedCommand {
    /// Counted from 0 within the process, for each trait.
    pub id: u64,
    /// When it ran, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Microseconds or bytes, by the trait.
    pub amount: u64,
    /// Its arguments, cut as Redis cuts them.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub peer: Address,
    /// The client's name.
    pub name: Vec<u8>,
}

/// The newest commands of a core with one trait.
#[derive(Clone, Debug)]
pub struct CommandLog {
    kind: Trait,
    commands: VecDeque<NotedCommand>,
    threshold: u64,
    count_max: usize,
}

impl CommandLog {
    /// Empty, and never takes one.
    pub fn new(kind: Trait) -> CommandLog {
        CommandLog { kind, commands: VecDeque::new(), threshold: u64::MAX, count_max: 0 }
    }

    /// Takes commands from now on with so much or more (negative: none), and keeps the newest
    /// `count_max` of them.
    pub fn configure(&mut self, threshold: i64, count_max: u64) {
        self.threshold = u64::try_from(threshold).unwrap_or(u64::MAX);
        self.count_max = usize::try_from(count_max).unwrap_or(usize::MAX);
        self.commands.truncate(self.count_max);
    }

    /// From how much on a command is kept.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Must every command be kept, however little it is?
    pub fn takes_all(&self) -> bool {
        self.threshold == 0
    }

    /// Keeps a command that a shard has run, if it is conspicuous and not the server's own.
    #[cold]
    pub fn note(
        &mut self,
        command: &Command,
        time_ms: i64,
        amount: u64,
        arguments: Arguments<'_>,
        origin: Origin,
        answers: &Answers,
    ) {
        // A script was noted when it ran.
        let is_record = matches!(command.run, Run::Record);
        let is_own = command.flags.no_slowlog || origin.target == Target::Nobody || is_record;
        if amount < self.threshold || is_own {
            return;
        }
        let mut client = None;
        if origin.core == answers.core {
            let whole = match origin.target {
                Target::Gather { index, .. } => answers.gathers.get(index).map(|g| g.target),
                target => Some(target),
            };
            if let Some(Target::Connection { index, .. }) = whole {
                client = answers.connections.get(index).map(|c| c.identity());
            }
        }
        // The one command of clients that goes to its shard under another name.
        let exec: OwnedArguments = [&b"exec"[..]].into_iter().collect();
        let shown = if command.flags.internal { exec.borrow() } else { arguments };
        self.add(command, time_ms, amount, shown, client);
    }

    /// Keeps a command and, when there are too many, drops the oldest. Its secrets are left out.
    pub fn add(
        &mut self,
        command: &Command,
        time_ms: i64,
        amount: u64,
        arguments: Arguments<'_>,
        client: Option<(Address, Vec<u8>)>,
    ) {
        let (peer, name) = client.unwrap_or_default();
        let redacted = command.redacted(arguments);
        let arguments = redacted.as_ref().map_or(arguments, OwnedArguments::borrow);
        self.commands.push_front(NotedCommand {
            id: NEXT_IDS[self.kind as usize].fetch_add(1, Ordering::Relaxed),
            time_ms,
            amount,
            arguments: cut(arguments),
            peer,
            name,
        });
        self.commands.truncate(self.count_max);
    }

    /// The commands kept, newest first.
    pub fn commands(&self) -> impl Iterator<Item = &NotedCommand> {
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
        let mut log = CommandLog::new(Trait::Slow);
        assert_eq!(log.threshold(), u64::MAX);
        log.configure(100, 2);
        assert_eq!((log.threshold(), log.takes_all()), (100, false));
        log.configure(0, 2);
        assert!(log.takes_all());
        let long = vec![b'x'; 200];
        let owned: OwnedArguments = std::iter::repeat_n(long.as_slice(), 40).collect();
        let get = crate::core::commands::table::find(b"get").expect("there is GET");
        for _ in 0..3 {
            log.add(get, 7, 1000, owned.borrow(), None);
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
