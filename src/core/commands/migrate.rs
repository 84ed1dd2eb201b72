//! MIGRATE: keys move to another server, which may be a Redis.

use super::{Answer, Arity, Call, Group, Keys, Row, Search, Secrets, session};
use crate::core::SessionContext;
use crate::core::migrate::{Destination, Migration};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use std::time::Duration;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[moving("migrate", Arity::AtLeast(6)).about(
    Group::Generic,
    "2.6.0",
    "Moves keys to another server: each is there before it goes here.",
)];

/// What a timeout that is none stands for, as in Redis.
const TIMEOUT_MS: i64 = 1000;

/// A row that changes keys, though it runs on the core of the connection.
const fn moving(name: &'static str, arity: Arity) -> Row {
    let mut row = session(name, arity, migrate)
        .keyed(Keys::fixed(3, 3, 1).and(Search::MigrateKeys))
        .secrets(Secrets::OfMigrate)
        .no_multi();
    row.flags.write = true;
    row.for_leader()
}

/// MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password] [KEYS
/// key ...]
fn migrate(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let mut migration = read_options(call)?;
    let timeout_ms = call.integer(5)?;
    migration.database = call.integer(4)?;
    let timeout_ms = if timeout_ms <= 0 { TIMEOUT_MS } else { timeout_ms };
    migration.patience = Duration::from_millis(timeout_ms.unsigned_abs());
    if migration.keys.is_empty() {
        reply.simple("NOKEY");
        return Ok(Answer::Now);
    }
    context.migrate(migration, call.arguments);
    Ok(Answer::LaterCounted)
}

fn read_options(call: &Call<'_>) -> Result<Migration, Refusal> {
    let word = |i: usize| call.at(i).to_vec();
    let mut migration = Migration {
        destination: Destination { host: word(1), port: word(2) },
        database: 0,
        patience: Duration::ZERO,
        keys: vec![word(3)],
        copies: false,
        replaces: false,
        credentials: Vec::new(),
    };
    let mut i = 6;
    while i < call.count() {
        let left = call.count() - i - 1;
        if call.arguments.is(i, "copy") {
            migration.copies = true;
        } else if call.arguments.is(i, "replace") {
            migration.replaces = true;
        } else if call.arguments.is(i, "auth") && left >= 1 {
            migration.credentials = vec![word(i + 1)];
            i += 1;
        } else if call.arguments.is(i, "auth2") && left >= 2 {
            migration.credentials = vec![word(i + 1), word(i + 2)];
            i += 2;
        } else if call.arguments.is(i, "keys") {
            if !call.at(3).is_empty() {
                return Err(Refusal::text(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ));
            }
            migration.keys = (i + 1..call.count()).map(word).collect();
            break;
        } else {
            return Err(Refusal::Syntax);
        }
        i += 1;
    }
    Ok(migration)
}
