//! One set of permissions: which commands, on which keys, with which channels.
//!
//! A user has one, and may have more, each for itself: a request is allowed when one of them allows
//! all of it.

use crate::commands::{Command, Run};
use crate::core::commands::command::categories;
use crate::core::commands::key_access::{Access, Channels};
use crate::core::commands::table;
use crate::glob::Glob;
use ringraft_shards::arguments::Arguments;
use std::collections::{BTreeMap, BTreeSet};

/// Words of a set of commands: a bit for every number that a row may have.
const WORDS: usize = table::NUMBERS_MAX.div_ceil(u64::BITS as usize);

/// Keys that a selector allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    /// A glob.
    pub glob: Vec<u8>,
    /// What may be done with them.
    pub access: Access,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command.
    Command,
    /// The key at this position.
    Key(usize),
    /// The channel at this position.
    Channel(usize),
}

/// A set of permissions. Nothing is allowed by default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selector {
    /// Every key?
    pub all_keys: bool,
    /// Every channel?
    pub all_channels: bool,
    /// Did the rules begin with all commands, or with none?
    pub from_all: bool,
    /// Allowed commands, by number.
    allowed: [u64; WORDS],
    /// First arguments, in lower case, that are allowed where the command is not.
    first_words: BTreeMap<u16, BTreeSet<Vec<u8>>>,
    /// Allowed keys.
    pub keys: Vec<KeyPattern>,
    /// Allowed channels, as globs.
    pub channels: Vec<Vec<u8>>,
    /// The rules that made up the commands, each allowing or not, as they are shown.
    pub rules: Vec<(bool, Vec<u8>)>,
}

impl Selector {
    /// That allows every channel, or nothing at all.
    pub fn new(all_channels: bool) -> Selector {
        Selector { all_channels, ..Selector::default() }
    }

    /// Allows, or forbids, every command.
    pub fn set_all(&mut self, is_allowed: bool) {
        self.allowed = [if is_allowed { u64::MAX } else { 0 }; WORDS];
        self.from_all = is_allowed;
        self.rules.clear();
        self.first_words.clear();
    }

    /// Is every command allowed?
    pub fn allows_all_commands(&self) -> bool {
        self.allowed == [u64::MAX; WORDS]
    }

    fn has(&self, number: u16) -> bool {
        self.allowed[usize::from(number) / 64] & (1 << (number % 64)) != 0
    }

    fn set_bit(&mut self, number: u16, is_allowed: bool) {
        let word = &mut self.allowed[usize::from(number) / 64];
        let bit = 1 << (number % 64);
        if is_allowed {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    fn set_row(&mut self, row: &Command, is_allowed: bool) {
        self.set_bit(row.number, is_allowed);
        self.first_words.remove(&row.number);
        if let Run::Container = row.run {
            let own = table::rows().iter().filter(|other| other.parent == row.name);
            own.for_each(|own| self.set_bit(own.number, is_allowed));
        }
    }

    /// Allows, or forbids, a command and its subcommands.
    pub fn set_command(&mut self, row: &Command, is_allowed: bool) {
        self.set_row(row, is_allowed);
        self.note_rule(row.full_name().as_bytes().to_vec(), is_allowed);
    }

    /// Allows, or forbids, the commands of a category.
    pub fn set_category(&mut self, category: &str, is_allowed: bool) {
        self.note_rule(format!("@{category}").into_bytes(), is_allowed);
        for row in table::rows().iter().filter(|row| !row.flags.internal) {
            if categories(row).contains(&category) {
                self.set_row(row, is_allowed);
            }
        }
    }

    /// Allows a command with one first argument.
    pub fn allow_first_word(&mut self, row: &Command, word: &[u8]) {
        let word = word.to_ascii_lowercase();
        self.note_rule([row.name.as_bytes(), b"|", &word].concat(), true);
        self.first_words.entry(row.number).or_default().insert(word);
    }

    /// A rule takes the place of those about the same command or its subcommands.
    fn note_rule(&mut self, rule: Vec<u8>, is_allowed: bool) {
        let is_replaced = |old: &[u8]| {
            let rest = old.strip_prefix(rule.as_slice());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"|"))
        };
        self.rules.retain(|(_, old)| !is_replaced(old));
        self.rules.push((is_allowed, rule));
    }

    /// Allows some keys more.
    pub fn add_keys(&mut self, glob: &[u8], access: Access) {
        match self.keys.iter_mut().find(|known| known.glob == glob) {
            Some(known) => known.access = known.access.and(access),
            None => self.keys.push(KeyPattern { glob: glob.to_vec(), access }),
        }
    }

    /// Allows some channels more.
    pub fn add_channels(&mut self, glob: &[u8]) {
        if !self.channels.iter().any(|known| known == glob) {
            self.channels.push(glob.to_vec());
        }
    }

    fn allows_key(&self, key: &[u8], wanted: Access) -> bool {
        let mut patterns = self.keys.iter().filter(|pattern| pattern.access.covers(wanted));
        patterns.any(|pattern| Glob::new(&pattern.glob).matches(key))
    }

    /// May every key be read?
    pub fn reads_all_keys(&self) -> bool {
        let is_all =
            |pattern: &KeyPattern| pattern.glob == b"*" && pattern.access.covers(Access::Read);
        self.all_keys || self.keys.iter().any(is_all)
    }

    fn allows_command(&self, command: &Command, arguments: Arguments<'_>) -> bool {
        if command.flags.no_auth || self.has(command.number) {
            return true;
        }
        let first = arguments.get(1).unwrap_or_default();
        let words = self.first_words.get(&command.number);
        words.is_some_and(|words| words.iter().any(|word| word.eq_ignore_ascii_case(first)))
    }

    /// Is all of a request allowed? Cost: for each key a match with each pattern.
    /// Errors: the first that is not.
    pub fn check(&self, command: &Command, arguments: Arguments<'_>) -> Result<(), Denied> {
        if !self.allows_command(command, arguments) {
            return Err(Denied::Command);
        }
        if !self.all_keys {
            for (position, wanted) in command.key_access(arguments) {
                if !self.allows_key(arguments.at(position), wanted) {
                    return Err(Denied::Key(position));
                }
            }
        }
        if !self.all_channels {
            let (range, kind) = command.channels(arguments.count());
            for position in range {
                if !allows_channel(&self.channels, arguments.at(position), kind) {
                    return Err(Denied::Channel(position));
                }
            }
        }
        Ok(())
    }
}

/// Is a channel, or a pattern of channels, among these globs? A pattern must be one of them to the
/// letter.
pub fn allows_channel(globs: &[Vec<u8>], name: &[u8], kind: Channels) -> bool {
    globs.iter().any(|glob| match kind {
        Channels::Patterns => glob == name,
        Channels::Names => Glob::new(glob).matches(name),
    })
}
