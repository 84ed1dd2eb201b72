//! Values as RDB payloads: DUMP and RESTORE.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::resp::reply::Reply;
use ringraft_shards::ids::Deadline;
use ringraft_shards::keyspace::{AccessClock, Edit, Expiry, View};
use ringraft_shards::rdb::{PayloadError, read_payload, write_payload};

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    read("dump", Arity::Exactly(2), Keys::FIRST, dump).about(
        Group::Generic,
        "2.6.0",
        "A value as a payload that RESTORE reads.",
    ),
    write("restore", Arity::AtLeast(4), Keys::FIRST, restore).grows().about(
        Group::Generic,
        "2.6.0",
        "Creates a key from the payload of a DUMP.",
    ),
];

fn dump(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match view.get(&call.key(1)) {
        Some(item) => {
            let mut payload = Vec::new();
            write_payload(&mut payload, item.value());
            reply.bulk(&payload);
        }
        None => reply.null(),
    }
    Ok(())
}

fn restore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = RestoreOptions::of(call)?;
    let key = call.key(1);
    if !options.replace && edit.view().peek(&key).is_some() {
        return Err(Refusal::text("BUSYKEY Target key name already exists."));
    }
    let ttl_ms = call.integer(2)?;
    if ttl_ms < 0 {
        return Err(Refusal::text("ERR Invalid TTL value, must be >= 0"));
    }
    let value = read_payload(call.at(3)).map_err(|error| match error {
        PayloadError::TooShort(_) | PayloadError::Version(_) | PayloadError::Checksum => {
            Refusal::text("ERR DUMP payload version or checksum are wrong")
        }
        PayloadError::Value(_) => Refusal::text("ERR Bad data format"),
    })?;
    call.joined_size(value.longest(), 0)?;
    let expiry = match ttl_ms {
        0 => Expiry::Never,
        _ if options.absolute => Expiry::At(Deadline(ttl_ms)),
        _ => Expiry::At(Deadline(ttl_ms.saturating_add(edit.now_ms()))),
    };
    match expiry {
        Expiry::At(deadline) if deadline.0 <= edit.now_ms() => {
            edit.remove(&key);
        }
        _ => {
            edit.restore(&key, &value, expiry).map_err(|_| Refusal::text("ERR Bad data format"))?;
            match (edit.view().access_clock(), options.idle_seconds, options.frequency) {
                (AccessClock::Recency, Some(idle_seconds), _) => edit.set_idle(&key, idle_seconds),
                (AccessClock::Frequency, _, Some(frequency)) => {
                    edit.set_frequency(&key, frequency);
                }
                _ => {}
            }
        }
    }
    reply.ok();
    Ok(())
}

#[derive(Default)]
struct RestoreOptions {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

impl RestoreOptions {
    fn of(call: &Call<'_>) -> Result<RestoreOptions, Refusal> {
        let mut options = RestoreOptions::default();
        let mut i = 4;
        while i < call.count() {
            let has_value = i + 1 < call.count();
            if call.arguments.is(i, "replace") {
                options.replace = true;
            } else if call.arguments.is(i, "absttl") {
                options.absolute = true;
            } else if call.arguments.is(i, "idletime") && has_value && options.frequency.is_none() {
                i += 1;
                let seconds = u64::try_from(call.integer(i)?)
                    .map_err(|_| Refusal::text("ERR Invalid IDLETIME value, must be >= 0"))?;
                options.idle_seconds = Some(seconds);
            } else if call.arguments.is(i, "freq") && has_value && options.idle_seconds.is_none() {
                i += 1;
                let frequency = u8::try_from(call.integer(i)?).map_err(|_| {
                    Refusal::text("ERR Invalid FREQ value, must be >= 0 and <= 255")
                })?;
                options.frequency = Some(frequency);
            } else {
                return Err(Refusal::Syntax);
            }
            i += 1;
        }
        Ok(options)
    }
}
