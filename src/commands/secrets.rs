//! Passwords among the arguments of commands: MONITOR and SLOWLOG show `(redacted)` in their place.
//!
//! A row says where its secrets are; whoever shows arguments to others than the client that sent
//! them asks here first. What is badly formed is hidden rather than shown: a slip in a command does
//! not make its password less secret.

use super::Command;
use crate::settings::row::Setting;
use ringraft_shards::arguments::{Arguments, OwnedArguments};

/// Which arguments of a command are nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// None.
    None,
    /// All of them (AUTH).
    All,
    /// All from the second on (ACL SETUSER).
    FromSecond,
    /// A user and a password behind the option AUTH (HELLO).
    BehindAuth,
    /// Values of secret settings (CONFIG SET).
    Settings,
    /// A password behind AUTH, a user and a password behind AUTH2, before KEYS (MIGRATE).
    OfMigrate,
}

/// What is shown instead.
const REDACTED: &[u8] = b"(redacted)";

/// Settings of Redis that hold secrets and that ringraft does not know: a CONFIG SET of them is
/// refused, and hidden all the same.
const SECRETS_OF_REDIS: [&str; 4] =
    ["masterauth", "masteruser", "tls-key-file-pass", "tls-client-key-file-pass"];

impl Command {
    /// The arguments as others may see them; `None` when that is all of them as they are.
    pub fn redacted(&self, arguments: Arguments<'_>) -> Option<OwnedArguments> {
        if self.secrets == Secrets::None {
            return None;
        }
        let count = arguments.count();
        let mut hidden = vec![false; count];
        match self.secrets {
            Secrets::None => {}
            Secrets::All => hidden[1..].fill(true),
            Secrets::FromSecond => hide(&mut hidden, 2..count),
            Secrets::BehindAuth => {
                if let Some(option) = (1..count).find(|&i| arguments.is(i, "auth")) {
                    hide(&mut hidden, option + 1..option + 3);
                }
            }
            Secrets::Settings => hide_settings(arguments, &mut hidden),
            Secrets::OfMigrate => hide_of_migrate(arguments, &mut hidden),
        }
        let shown = hidden.iter().enumerate();
        let shown = shown.map(|(i, hide)| if *hide { REDACTED } else { arguments.at(i) });
        hidden.contains(&true).then(|| shown.collect())
    }
}

fn hide(hidden: &mut [bool], range: std::ops::Range<usize>) {
    let end = range.end.min(hidden.len());
    hidden[range.start.min(end)..end].fill(true);
}

/// What stands before KEYS and is no word of MIGRATE.
fn hide_of_migrate(arguments: Arguments<'_>, hidden: &mut [bool]) {
    let mut i = 6;
    while i < arguments.count() && !arguments.is(i, "keys") {
        let count = match () {
            () if arguments.is(i, "auth") => 1,
            () if arguments.is(i, "auth2") => 2,
            () => 0,
        };
        // A word that is none of its own may be a password that stands at the wrong place.
        let is_known = count > 0 || arguments.is(i, "copy") || arguments.is(i, "replace");
        hidden[i] = !is_known;
        hide(hidden, i + 1..i + 1 + count);
        i += 1 + count;
    }
}

/// Well-formed pairs hide the values of secrets; from a name or a count that is wrong on, all
/// behind the first secret.
fn hide_settings(arguments: Arguments<'_>, hidden: &mut [bool]) {
    let count = arguments.count();
    let is_known = |i: usize| {
        let name = std::str::from_utf8(arguments.at(i)).unwrap_or_default();
        Setting::find(name).is_some()
    };
    if count.is_multiple_of(2) && (2..count).step_by(2).all(is_known) {
        let secrets = (2..count).step_by(2).filter(|&i| is_secret(arguments.at(i)));
        secrets.for_each(|i| hidden[i + 1] = true);
    } else if let Some(first) = (2..count).find(|&i| is_secret(arguments.at(i))) {
        hide(hidden, first + 1..count);
    }
}

fn is_secret(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    Setting::find(name).is_some_and(|(row, _)| row.is_secret)
        || SECRETS_OF_REDIS.iter().any(|secret| secret.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use crate::core::commands::table;
    use ringraft_shards::arguments::OwnedArguments;

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        for (line, shown) in [
            ("AUTH p", "AUTH *"),
            ("auth u p", "auth * *"),
            ("AUTH u p p p", "AUTH * * * *"),
            ("HELLO 3", "HELLO 3"),
            ("HELLO 3 AUTH u p", "HELLO 3 AUTH * *"),
            ("hello 3 SETNAME n auth u p", "hello 3 SETNAME n auth * *"),
            ("HELLO 3 Auth u p SETNAME n", "HELLO 3 Auth * * SETNAME n"),
            ("HELLO 3 AUTH p", "HELLO 3 AUTH *"),
            ("HELLO 3 AUTH", "HELLO 3 AUTH"),
            ("HELLO x AUTH u p", "HELLO x AUTH * *"),
            ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 1"),
            ("CONFIG SET requirepass p", "CONFIG SET requirepass *"),
            (
                "config set timeout 1 RequirePass p maxmemory 2",
                "config set timeout 1 RequirePass * maxmemory 2",
            ),
            ("CONFIG SET requirepass p q", "CONFIG SET requirepass * *"),
            ("CONFIG SET requirepass p q r", "CONFIG SET requirepass * * *"),
            ("CONFIG SET timeout requirepass p", "CONFIG SET timeout requirepass *"),
            ("CONFIG SET masterauth p", "CONFIG SET masterauth *"),
            ("CONFIG GET requirepass", "CONFIG GET requirepass"),
            ("SET requirepass p", "SET requirepass p"),
            ("ACL SETUSER u on >p ~* +@all", "ACL SETUSER * * * * *"),
            ("acl deluser u", "acl deluser *"),
            ("ACL GETUSER u", "ACL GETUSER *"),
            ("ACL WHOAMI", "ACL WHOAMI"),
            ("MIGRATE auth 1 auth 0 9", "MIGRATE auth 1 auth 0 9"),
            ("MIGRATE h 1 k 0 9 COPY AUTH p REPLACE", "MIGRATE h 1 k 0 9 COPY AUTH * REPLACE"),
            ("MIGRATE h 1 k 0 9 auth2 u", "MIGRATE h 1 k 0 9 auth2 *"),
            ("migrate h 1 k 0 9 auth2 u p KEYS auth x", "migrate h 1 k 0 9 auth2 * * KEYS auth x"),
            ("migrate h 1 k 0 9 auth keys KEYS auth x", "migrate h 1 k 0 9 auth * KEYS auth x"),
        ] {
            let words: OwnedArguments = line.split(' ').map(str::as_bytes).collect();
            let row = table::resolve(words.borrow()).expect(line);
            let redacted = row.redacted(words.borrow()).unwrap_or(words);
            let text: Vec<String> = redacted
                .borrow()
                .iter_from(0)
                .map(|word| String::from_utf8_lossy(word).replace("(redacted)", "*"))
                .collect();
            assert_eq!(text.join(" "), shown);
        }
    }
}
