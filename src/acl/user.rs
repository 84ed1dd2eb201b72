//! One user.

use super::password::{Password, is_among};
use super::selector::{Denied, Selector, allows_channel};
use crate::commands::Command;
use crate::core::commands::key_access::{Access, Channels};
use crate::refusal::Refusal;
use crate::resp::quoting::quote_into;
use ringraft_shards::arguments::Arguments;

/// The user that every connection begins with.
pub const DEFAULT: &[u8] = b"default";

/// A user, as the rules have made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: Vec<u8>,
    /// Tells it from another of the same name, before or after it.
    pub id: u64,
    /// May one log in as it?
    pub is_on: bool,
    /// With any password?
    pub needs_no_password: bool,
    /// Shown and otherwise of no effect: what RESTORE reads is always checked.
    pub skips_sanitizing: bool,
    /// Its passwords.
    pub passwords: Vec<Password>,
    /// What it may do.
    pub root: Selector,
    /// What it may do besides.
    pub others: Vec<Selector>,
}

/// Why a request of a user is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// By one of its permissions.
    By(Denied),
    /// An option of SORT reads keys that patterns name, and the user may not read all keys.
    Option(&'static str),
}

impl User {
    /// A user that may do nothing, as a rule `reset` leaves it.
    pub fn new(name: Vec<u8>, id: u64, all_channels: bool) -> User {
        User {
            name,
            id,
            is_on: false,
            needs_no_password: false,
            skips_sanitizing: false,
            passwords: Vec::new(),
            root: Selector::new(all_channels),
            others: Vec::new(),
        }
    }

    /// The user `default` that may do everything, without a password.
    pub fn default_user(id: u64) -> User {
        let mut user = User::new(DEFAULT.to_vec(), id, true);
        (user.is_on, user.needs_no_password, user.root.all_keys) = (true, true, true);
        user.root.set_all(true);
        user
    }

    /// Sets the only password; none when it is empty.
    pub fn set_password(&mut self, clear: &[u8]) {
        self.passwords.clear();
        self.needs_no_password = clear.is_empty();
        if !clear.is_empty() {
            self.passwords.push(Password::of(clear));
        }
    }

    /// Its permissions, each for itself.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.others)
    }

    /// May it do everything? Then no request of it is looked at.
    pub fn is_unlimited(&self) -> bool {
        self.selectors().any(|s| s.allows_all_commands() && s.all_keys && s.all_channels)
    }

    /// May one log in as it with this password?
    pub fn lets_in(&self, password: &[u8]) -> bool {
        self.is_on && (self.needs_no_password || is_among(&self.passwords, password))
    }

    /// Is a request allowed?
    /// Errors: what is closest to what would be.
    pub fn check(&self, command: &Command, arguments: Arguments<'_>) -> Result<(), Denial> {
        let option = command.refers.and_then(|refers| (refers.option)(arguments));
        let (mut worst, mut is_allowed) = (Denied::Command, false);
        for selector in self.selectors() {
            match selector.check(command, arguments) {
                Ok(()) if option.is_none() || selector.reads_all_keys() => return Ok(()),
                Ok(()) => is_allowed = true,
                Err(denied) => worst = worst.max(denied),
            }
        }
        match option.filter(|_| is_allowed) {
            Some(option) => Err(Denial::Option(option)),
            None => Err(Denial::By(worst)),
        }
    }

    /// Its words in ACL LIST and GETUSER.
    pub fn flags(&self) -> Vec<&'static str> {
        let sanitizing =
            if self.skips_sanitizing { "skip-sanitize-payload" } else { "sanitize-payload" };
        let mut flags = vec![if self.is_on { "on" } else { "off" }];
        flags.extend(self.needs_no_password.then_some("nopass"));
        flags.push(sanitizing);
        flags
    }

    /// The rules that make it, as ACL LIST shows them.
    pub fn describe(&self) -> Vec<u8> {
        let mut text = self.flags().join(" ").into_bytes();
        text.push(b' ');
        for password in &self.passwords {
            text.extend_from_slice(format!("#{} ", password.digits()).as_bytes());
        }
        text.extend_from_slice(&self.root.describe());
        for other in &self.others {
            text.push(b' ');
            text.extend_from_slice(&other.describe_in_brackets());
        }
        text
    }

    /// Does it lack a channel that the user had before the change?
    pub fn loses_channels(&self, before: &User) -> bool {
        if self.selectors().any(|selector| selector.all_channels) {
            return false;
        }
        let mut had = before.selectors();
        let has = |channel: &Vec<u8>| self.selectors().any(|own| own.channels.contains(channel));
        had.any(|old| old.all_channels || !old.channels.iter().all(has))
    }

    /// May it listen to a channel, or to a pattern of channels?
    pub fn may_listen(&self, name: &[u8], kind: Channels) -> bool {
        self.selectors().any(|s| s.all_channels || allows_channel(&s.channels, name, kind))
    }

    /// What a client is told. `shows`: the key or channel too (ACL DRYRUN).
    pub fn refusal(
        &self,
        denial: Denial,
        command: &Command,
        arguments: Arguments<'_>,
        shows: Shows,
    ) -> Refusal {
        let of = |noun: &str, position: usize| match shows {
            Shows::Nothing => Refusal::Text(format!("No permissions to access a {noun}").into()),
            Shows::Object => {
                let what = [b"access the '", arguments.at(position), b"' ", noun.as_bytes()];
                self.may_not(&what.concat())
            }
        };
        match denial {
            Denial::By(Denied::Command) => {
                self.may_not(format!("run the '{}' command", command.full_name()).as_bytes())
            }
            Denial::By(Denied::Key(position)) => of("key", position),
            Denial::By(Denied::Channel(position)) => of("channel", position),
            Denial::Option(option) => {
                let text =
                    format!("{option} option of SORT denied due to insufficient ACL permissions.");
                Refusal::Text(text.into())
            }
        }
    }

    fn may_not(&self, what: &[u8]) -> Refusal {
        Refusal::Bytes([b"User ", self.name.as_slice(), b" has no permissions to ", what].concat())
    }
}

/// What a refusal says of the key or channel that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Nothing.
    Nothing,
    /// Its name.
    Object,
}

impl Selector {
    /// Its commands, as GETUSER shows them.
    pub fn describe_commands(&self) -> Vec<u8> {
        self.command_words().join(&b' ')
    }

    /// Its keys, as GETUSER shows them.
    pub fn describe_keys(&self) -> Vec<u8> {
        self.key_words().join(&b' ')
    }

    /// Its channels, as GETUSER shows them.
    pub fn describe_channels(&self) -> Vec<u8> {
        self.channel_words().join(&b' ')
    }

    /// All of it, as ACL LIST shows it.
    pub fn describe(&self) -> Vec<u8> {
        self.words().join(&b' ')
    }

    /// All of it between brackets, where quotes mean something: words that hold some are quoted, or
    /// they would not be read back.
    fn describe_in_brackets(&self) -> Vec<u8> {
        let shown = self.words().into_iter().map(|word| {
            if !word.iter().any(|byte| matches!(byte, b'"' | b'\'')) && !word.ends_with(b")") {
                return word;
            }
            let mut quoted = Vec::new();
            quote_into(&word, &mut quoted);
            quoted
        });
        [b"(", shown.collect::<Vec<_>>().join(&b' ').as_slice(), b")"].concat()
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let mut words = self.key_words();
        words.extend((!self.all_channels).then(|| b"resetchannels".to_vec()));
        words.extend(self.channel_words());
        words.extend(self.command_words());
        words
    }

    fn command_words(&self) -> Vec<Vec<u8>> {
        let first: &[u8] = if self.from_all { b"+@all" } else { b"-@all" };
        let rules = self.rules.iter().map(|(is_allowed, rule)| {
            let sign: &[u8] = if *is_allowed { b"+" } else { b"-" };
            [sign, rule].concat()
        });
        std::iter::once(first.to_vec()).chain(rules).collect()
    }

    fn key_words(&self) -> Vec<Vec<u8>> {
        if self.all_keys {
            return vec![b"~*".to_vec()];
        }
        let shown = self.keys.iter().map(|pattern| {
            let sign: &[u8] = match pattern.access {
                Access::Read => b"%R~",
                Access::Write => b"%W~",
                _ => b"~",
            };
            [sign, &pattern.glob].concat()
        });
        shown.collect()
    }

    fn channel_words(&self) -> Vec<Vec<u8>> {
        if self.all_channels {
            return vec![b"&*".to_vec()];
        }
        self.channels.iter().map(|glob| [b"&", glob.as_slice()].concat()).collect()
    }
}
