//! All users of a server, as a value that is replaced as a whole.

use super::rules::{RuleError, has_spaces, joined};
use super::user::{DEFAULT, User};
use crate::refusal::Refusal;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// All users by name. There is always one called `default`.
#[derive(Clone, Debug)]
pub struct Users {
    by_name: BTreeMap<Vec<u8>, Arc<User>>,
    next_id: u64,
    /// The connection that made the last change.
    pub changed_by: Option<u64>,
}

impl Users {
    /// The user `default` alone, with this password; without one when it is empty.
    pub fn new(password: &str) -> Users {
        let mut default = User::default_user(0);
        default.set_password(password.as_bytes());
        let by_name = BTreeMap::from([(DEFAULT.to_vec(), Arc::new(default))]);
        Users { by_name, next_id: 1, changed_by: None }
    }

    /// Those that every connection begins as.
    pub fn default_user(&self) -> &Arc<User> {
        &self.by_name[DEFAULT]
    }

    /// The user of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.by_name.values()
    }

    /// The user that a name and a password let in.
    pub fn log_in(&self, name: &[u8], password: &[u8]) -> Option<&Arc<User>> {
        self.get(name).filter(|user| user.lets_in(password))
    }

    /// Must a client log in before it may do anything?
    pub fn ask_for_password(&self) -> bool {
        let default = self.default_user();
        !default.needs_no_password || !default.is_on
    }

    /// Sets the password of the default user (`requirepass`).
    pub fn set_default_password(&mut self, password: &str) {
        let mut default = User::clone(self.default_user());
        default.set_password(password.as_bytes());
        self.by_name.insert(DEFAULT.to_vec(), Arc::new(default));
    }

    /// Makes a user, or changes it: by all of the rules or, when one is refused, by none.
    /// Errors: the first refusal, in Redis' words.
    pub fn set(&mut self, name: &[u8], words: &[&[u8]], all_channels: bool) -> Result<(), Refusal> {
        if has_spaces(name) {
            return Err(Refusal::text("ERR Usernames can't contain spaces or null characters"));
        }
        let rules = joined(words).map_err(|open| {
            let text = "ERR Unmatched parenthesis in acl selector starting at '";
            Refusal::repeating(text, words[open], "'.")
        })?;
        let known = self.get(name).map(|user| User::clone(user));
        let is_new = known.is_none();
        let mut user =
            known.unwrap_or_else(|| User::new(name.to_vec(), self.next_id, all_channels));
        for rule in rules {
            user.apply(&rule, all_channels).map_err(|error| {
                let text = "ERR Error in ACL SETUSER modifier '";
                Refusal::repeating(text, &rule, &format!("': {error}"))
            })?;
        }
        self.next_id += u64::from(is_new);
        self.by_name.insert(name.to_vec(), Arc::new(user));
        Ok(())
    }

    /// Removes a user. Was there one?
    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.by_name.remove(name).is_some()
    }

    /// The users as lines of an ACL file.
    pub fn lines(&self) -> impl Iterator<Item = Vec<u8>> {
        self.iter().map(|user| [b"user ", user.name.as_slice(), b" ", &user.describe()].concat())
    }

    /// What an ACL file says, in place of these users: who is in both keeps its identity.
    /// Errors: everything that is wrong, in Redis' words, in one line.
    pub fn read_file(&self, path: &Path, all_channels: bool) -> Result<Users, String> {
        let shown = path.display().to_string();
        let text = std::fs::read(path).map_err(|error| {
            let cause = system_text(&error);
            format!("Error loading ACLs, opening file '{shown}': {cause}")
        })?;
        self.read_text(&text, &shown, all_channels)
    }

    /// What the text of an ACL file says, whose name is `shown` in errors. As [`Users::read_file`].
    pub fn read_text(&self, text: &[u8], shown: &str, all_channels: bool) -> Result<Users, String> {
        let mut found = Users { by_name: BTreeMap::new(), next_id: self.next_id, changed_by: None };
        let mut errors = String::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let place = format!("{shown}:{}", number + 1);
            let line = line.trim_ascii();
            if !line.is_empty() {
                found.take_line(self, line, number + 1, &place, all_channels, &mut errors);
            }
        }
        if !errors.is_empty() {
            errors += "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
            return Err(errors);
        }
        let id = self.default_user().id;
        found.by_name.entry(DEFAULT.to_vec()).or_insert_with(|| Arc::new(User::default_user(id)));
        Ok(found)
    }

    /// The users as lines of the configuration file; none while there is but the default user, with
    /// no other rules than `requirepass` gives it. `None` when that file cannot hold one of
    /// them: it is no UTF-8, or has no name.
    pub fn configured(&self, requirepass: &str) -> Option<Vec<String>> {
        let mut plain = User::default_user(self.default_user().id);
        plain.set_password(requirepass.as_bytes());
        let is_plain = self.by_name.len() == 1 && **self.default_user() == plain;
        if is_plain {
            return Some(Vec::new());
        }
        let text =
            |line: Vec<u8>| String::from_utf8(line).ok()?.strip_prefix("user ").map(Into::into);
        let has_names = self.get(b"").is_none();
        self.lines().map(text).collect::<Option<_>>().filter(|_| has_names)
    }

    fn take_line(
        &mut self,
        before: &Users,
        line: &[u8],
        number: usize,
        place: &str,
        all_channels: bool,
        errors: &mut String,
    ) {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let (Some(&b"user"), Some(name)) = (words.first(), words.get(1)) else {
            *errors +=
                &format!("{place} should start with user keyword followed by the username. ");
            return;
        };
        let shown = String::from_utf8_lossy(name);
        if has_spaces(name) {
            *errors += &format!("'{place}: username '{shown}' contains invalid characters. ");
            return;
        }
        if self.get(name).is_some() {
            *errors += &format!("WARNING: Duplicate user '{shown}' found on line {number}. ");
            return;
        }
        let Ok(rules) = joined(&words[2..]) else {
            *errors += &format!("{place}: Unmatched parenthesis in selector definition.");
            return;
        };
        let id = before.get(name).map_or(self.next_id, |user| user.id);
        self.next_id = self.next_id.max(id + 1);
        let mut user = User::new(name.to_vec(), id, all_channels);
        let mut is_refused = false;
        for rule in rules {
            let rule = rule.trim_ascii();
            match user.apply(rule, all_channels) {
                Ok(()) => {}
                // It can hold no password.
                Err(error @ RuleError::Unknown) => {
                    let rule = String::from_utf8_lossy(rule);
                    *errors += &format!("{place}: Error in applying operation '{rule}': {error}. ");
                }
                Err(error) if !is_refused => {
                    is_refused = true;
                    *errors += &format!("{place}: {error}. ");
                }
                Err(_) => {}
            }
        }
        self.by_name.insert(name.to_vec(), Arc::new(user));
    }

    /// Adds the users of the configuration file, a line each without the word `user`.
    /// Errors: one line that says which, and why.
    pub fn add_configured(&mut self, lines: &[String], all_channels: bool) -> Result<(), String> {
        let mut seen: Vec<&[u8]> = Vec::new();
        for line in lines {
            let mut words = line.split_ascii_whitespace().map(str::as_bytes);
            let name = words.next().unwrap_or_default();
            let shown = String::from_utf8_lossy(name);
            if seen.contains(&name) {
                return Err(format!("user {shown} is declared twice"));
            }
            seen.push(name);
            let words: Vec<&[u8]> = words.collect();
            if name == DEFAULT {
                let nobody = User::new(DEFAULT.to_vec(), self.default_user().id, all_channels);
                self.by_name.insert(DEFAULT.to_vec(), Arc::new(nobody));
            }
            self.set(name, &words, all_channels).map_err(|refusal| {
                let cause = refusal.to_string();
                // A rule may hold a password: only what is wrong with it is told.
                let cause = cause.rsplit("': ").next().unwrap_or_default();
                format!("user {shown}: {cause}")
            })?;
            if self.get(name).is_some_and(|user| !user.is_on) {
                tracing::warn!("the user '{shown}' is disabled: its rules do not say 'on'");
            }
        }
        Ok(())
    }
}

/// The system's words for an error, without its number.
fn system_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// The users that are in force, for all cores. It is locked when users change and when a core takes
/// them over, never for a request.
#[derive(Debug)]
pub struct Register(Mutex<Arc<Users>>);

impl Register {
    /// With these users.
    pub fn new(users: Users) -> Register {
        Register(Mutex::new(Arc::new(users)))
    }

    /// The users.
    pub fn current(&self) -> Arc<Users> {
        self.0.lock().expect("nobody panics while it is locked").clone()
    }

    /// Changes them as this connection asks, unless the change fails. Errors: those of the change.
    pub fn change<T, E>(
        &self,
        asker_id: u64,
        change: impl FnOnce(&mut Users) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut current = self.0.lock().expect("nobody panics while it is locked");
        let mut users = Users::clone(&current);
        let done = change(&mut users)?;
        users.changed_by = Some(asker_id);
        *current = Arc::new(users);
        Ok(done)
    }
}
