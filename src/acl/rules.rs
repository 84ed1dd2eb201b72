//! The rules of ACL SETUSER, of `user` lines and of ACL files.

use super::password::Password;
use super::selector::Selector;
use super::user::User;
use crate::core::commands::command::{CATEGORIES, named};
use crate::core::commands::key_access::Access;
use crate::resp::quoting::split_words;

/// Why a rule is refused. `Display` is Redis' text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// There is no such command or category.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// It is no rule.
    #[error("Syntax error")]
    Syntax,
    /// Keys are added where all are allowed.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try \
         'resetkeys' to start with an empty list of patterns"
    )]
    AllKeys,
    /// Channels are added where all are allowed.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try \
         'resetchannels' to start with an empty list of channels"
    )]
    AllChannels,
    /// A password that is none of the user's is taken away.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// It is no digest.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    Digest,
    /// `+parent|child|word`.
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstWordOfSubcommand,
}

/// Does a name, or a pattern, hold what would break a line of an ACL file?
pub fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b' ' | b'\t'..=b'\r' | 0))
}

/// Joins the words of selectors: what stands between brackets is one rule.
/// Errors: the position of a bracket that is not closed.
pub fn joined(words: &[&[u8]]) -> Result<Vec<Vec<u8>>, usize> {
    let mut rules = Vec::with_capacity(words.len());
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (position, word) in words.iter().enumerate() {
        match &mut open {
            None if word.starts_with(b"(") && !word.ends_with(b")") => {
                open = Some((position, word.to_vec()));
            }
            None => rules.push(word.to_vec()),
            Some((_, rule)) => {
                rule.push(b' ');
                rule.extend_from_slice(word);
                if word.ends_with(b")") {
                    rules.extend(open.take().map(|(_, rule)| rule));
                }
            }
        }
    }
    open.map_or(Ok(rules), |(position, _)| Err(position))
}

impl User {
    /// Applies one rule. `all_channels`: what `acl-pubsub-default` says.
    /// Errors: it is none, and nothing is changed.
    pub fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            [] => {}
            _ if is("on") => self.is_on = true,
            _ if is("off") => self.is_on = false,
            _ if is("skip-sanitize-payload") => self.skips_sanitizing = true,
            _ if is("sanitize-payload") => self.skips_sanitizing = false,
            _ if is("nopass") => {
                self.passwords.clear();
                self.needs_no_password = true;
            }
            _ if is("resetpass") => {
                self.passwords.clear();
                self.needs_no_password = false;
            }
            [b'>' | b'#', ..] => {
                let password = password(rule)?;
                if !self.passwords.contains(&password) {
                    self.passwords.push(password);
                }
                self.needs_no_password = false;
            }
            [b'<' | b'!', ..] => {
                let password = password(rule)?;
                let known = self.passwords.iter().position(|known| *known == password);
                self.passwords.remove(known.ok_or(RuleError::NoSuchPassword)?);
            }
            [b'(', inside @ .., b')'] => {
                let mut selector = Selector::new(all_channels);
                // As in Redis: with a quote that is not closed it allows nothing.
                for word in split_words(inside).unwrap_or_default() {
                    selector.apply(&word)?;
                }
                self.others.push(selector);
            }
            _ if is("clearselectors") => self.others.clear(),
            _ if is("reset") => *self = User::new(self.name.clone(), self.id, all_channels),
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }
}

fn password(rule: &[u8]) -> Result<Password, RuleError> {
    match rule {
        [b'>' | b'<', clear @ ..] => Ok(Password::of(clear)),
        [_, digits @ ..] => Password::of_digest(digits).ok_or(RuleError::Digest),
        [] => Err(RuleError::Syntax),
    }
}

impl Selector {
    /// Applies one rule. Errors: it is none, and nothing is changed.
    pub fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            _ if is("allkeys") || is("~*") => {
                self.keys.clear();
                self.all_keys = true;
            }
            _ if is("resetkeys") => {
                self.keys.clear();
                self.all_keys = false;
            }
            _ if is("allchannels") || is("&*") => {
                self.channels.clear();
                self.all_channels = true;
            }
            _ if is("resetchannels") => {
                self.channels.clear();
                self.all_channels = false;
            }
            _ if is("allcommands") || is("+@all") => self.set_all(true),
            _ if is("nocommands") || is("-@all") => self.set_all(false),
            [b'~' | b'%', ..] => {
                if self.all_keys {
                    return Err(RuleError::AllKeys);
                }
                let (access, glob) = key_rule(rule)?;
                self.add_keys(glob, access);
            }
            [b'&', glob @ ..] => {
                if self.all_channels {
                    return Err(RuleError::AllChannels);
                }
                if has_spaces(glob) {
                    return Err(RuleError::Syntax);
                }
                self.add_channels(glob);
            }
            [sign @ (b'+' | b'-'), b'@', category @ ..] => {
                let is_it = |name: &&&str| name.as_bytes().eq_ignore_ascii_case(category);
                let category = CATEGORIES.iter().find(is_it).ok_or(RuleError::Unknown)?;
                self.set_category(category, *sign == b'+');
            }
            [b'+', name @ ..] if name.contains(&b'|') => self.allow_part(name)?,
            [sign @ (b'+' | b'-'), name @ ..] => {
                self.set_command(named(name).ok_or(RuleError::Unknown)?, *sign == b'+');
            }
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    /// `+parent|child`, or `+command|word` where there are no subcommands.
    fn allow_part(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let bar = name.iter().rposition(|byte| *byte == b'|').ok_or(RuleError::Syntax)?;
        let (parent, word) = (&name[..bar], &name[bar + 1..]);
        let parent = named(parent).ok_or(RuleError::Unknown)?;
        if !parent.parent.is_empty() {
            return Err(RuleError::FirstWordOfSubcommand);
        }
        // One with spaces could not be read back from a file.
        if word.is_empty() || has_spaces(word) {
            return Err(RuleError::Syntax);
        }
        if let crate::commands::Run::Container = parent.run {
            self.set_command(named(name).ok_or(RuleError::Unknown)?, true);
        } else {
            self.allow_first_word(parent, word);
        }
        Ok(())
    }
}

/// `~glob`, `%R~glob`, `%W~glob`, `%RW~glob`.
fn key_rule(rule: &[u8]) -> Result<(Access, &[u8]), RuleError> {
    let (access, glob) = match rule {
        [b'~', glob @ ..] => (Access::ReadWrite, glob),
        [_, rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b'~').unwrap_or(rest.len());
            let access = match rest[..end].to_ascii_uppercase().as_slice() {
                b"R" => Access::Read,
                b"W" => Access::Write,
                b"RW" | b"WR" => Access::ReadWrite,
                _ => return Err(RuleError::Syntax),
            };
            (access, rest.get(end + 1..).unwrap_or_default())
        }
        [] => return Err(RuleError::Syntax),
    };
    if has_spaces(glob) { Err(RuleError::Syntax) } else { Ok((access, glob)) }
}
