//! Strings: read, set, cut and join. Counters are in `counter.rs`, LCS in `lcs.rs`, bits in
//! `bit.rs`.

use super::options::{Condition, GivenExpiry, GivenTime, SetOptions, TimeUnit};
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Gather, Group, Keys, read, write};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly, Pairs};
use ringraft_shards::keyspace::{Edit, Expiry, StringForm, View};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    read("get", Exactly(2), Keys::FIRST, get).fast().about(
        Group::String,
        "1.0.0",
        "Returns the string at a key.",
    ),
    write("set", AtLeast(3), Keys::FIRST, set).grows().about(
        Group::String,
        "1.0.0",
        "Sets a key to a string, whatever it held, under conditions and with an expiry if asked.",
    ),
    write("setnx", Exactly(3), Keys::FIRST, setnx).grows().fast().about(
        Group::String,
        "1.0.0",
        "Sets a key to a string when the key does not exist.",
    ),
    write("setex", Exactly(4), Keys::FIRST, setex).grows().about(
        Group::String,
        "2.0.0",
        "Sets a key to a string that expires after some seconds.",
    ),
    write("psetex", Exactly(4), Keys::FIRST, psetex).grows().about(
        Group::String,
        "2.6.0",
        "Sets a key to a string that expires after some milliseconds.",
    ),
    write("getset", Exactly(3), Keys::FIRST, getset).grows().fast().about(
        Group::String,
        "1.0.0",
        "Sets a key to a string and returns the string it held.",
    ),
    write("getdel", Exactly(2), Keys::FIRST, getdel).fast().about(
        Group::String,
        "6.2.0",
        "Returns the string at a key and removes the key.",
    ),
    write("getex", AtLeast(2), Keys::FIRST, getex).fast().about(
        Group::String,
        "6.2.0",
        "Returns the string at a key and sets or removes the key's expiry.",
    ),
    read("mget", AtLeast(2), Keys::ALL, mget).fast().split(Gather::InOrder).about(
        Group::String,
        "1.0.0",
        "Returns the strings at several keys.",
    ),
    write("mset", Pairs, Keys::PAIRS, mset).grows().split(Gather::AllOk).about(
        Group::String,
        "1.0.1",
        "Sets several keys to strings.",
    ),
    write("msetnx", Pairs, Keys::PAIRS, msetnx).grows().about(
        Group::String,
        "1.0.1",
        "Sets several keys to strings when none of them exists.",
    ),
    write("append", Exactly(3), Keys::FIRST, append).grows().fast().about(
        Group::String,
        "2.0.0",
        "Appends to the string at a key, making the key when it does not exist.",
    ),
    read("strlen", Exactly(2), Keys::FIRST, strlen).fast().about(
        Group::String,
        "2.2.0",
        "Returns the length of the string at a key.",
    ),
    read("getrange", Exactly(4), Keys::FIRST, getrange).about(
        Group::String,
        "2.4.0",
        "Returns a part of the string at a key.",
    ),
    read("substr", Exactly(4), Keys::FIRST, getrange).about(
        Group::String,
        "1.0.0",
        "Returns a part of the string at a key: the old name of GETRANGE.",
    ),
    write("setrange", Exactly(4), Keys::FIRST, setrange).grows().about(
        Group::String,
        "2.2.0",
        "Overwrites a part of the string at a key, filling a gap with zero bytes.",
    ),
];

/// GET key. Cost: one lookup, one copy of the value.
fn get(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    match call.string(1, view)? {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}

/// SET key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT time | PXAT time | KEEPTTL].
/// Cost: one lookup and one copy of the value; a second lookup with NX, XX or GET.
fn set(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = SetOptions::parse(call)?;
    let expiry = options.expiry("set", edit.now_ms())?;
    let key = call.key(1);
    if options.get {
        get(call, &edit.view(), reply)?;
    }
    let allowed = match options.condition {
        Condition::Always => true,
        Condition::Absent => edit.view().peek(&key).is_none(),
        Condition::Present => edit.view().peek(&key).is_some(),
    };
    if allowed {
        edit.set_string(&key, call.at(2), StringForm::Automatic, expiry);
    }
    match (options.get, allowed) {
        (true, _) => {}
        (false, true) => reply.ok(),
        (false, false) => reply.null(),
    }
    Ok(())
}

/// SETNX key value.
fn setnx(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let absent = edit.view().peek(&key).is_none();
    if absent {
        edit.set_string(&key, call.at(2), StringForm::Automatic, Expiry::Never);
    }
    reply.integer(absent.into());
    Ok(())
}

/// SETEX key seconds value.
fn setex(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_for(TimeUnit::Seconds, call, edit, reply)
}

/// PSETEX key milliseconds value.
fn psetex(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_for(TimeUnit::Milliseconds, call, edit, reply)
}

fn set_for(unit: TimeUnit, call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let time = GivenTime { text: call.at(2), unit };
    let deadline = time.deadline(call.command.name, edit.now_ms())?;
    edit.set_string(&call.key(1), call.at(3), StringForm::Automatic, Expiry::At(deadline));
    reply.ok();
    Ok(())
}

/// GETSET key value.
fn getset(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    get(call, &edit.view(), reply)?;
    edit.set_string(&call.key(1), call.at(2), StringForm::Automatic, Expiry::Never);
    Ok(())
}

/// GETDEL key.
fn getdel(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    get(call, &edit.view(), reply)?;
    edit.remove(&call.key(1));
    Ok(())
}

/// GETEX key [EX seconds | PX milliseconds | EXAT time | PXAT time | PERSIST].
/// The time is looked at only when the key exists, as in Redis.
fn getex(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let expiry = GivenExpiry::parse(call)?;
    let Some(value) = call.string(1, &edit.view())? else {
        reply.null();
        return Ok(());
    };
    let deadline = match expiry {
        GivenExpiry::Time(time) => Some(time.deadline("getex", edit.now_ms())?),
        GivenExpiry::Unsaid | GivenExpiry::Keep | GivenExpiry::Persist => None,
    };
    reply.bulk(value);
    if deadline.is_some() || expiry == GivenExpiry::Persist {
        edit.set_deadline(&call.key(1), deadline);
    }
    Ok(())
}

/// MGET key [key ...]. A key that does not exist or holds another type is null.
fn mget(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.array(call.count() - 1);
    for chunk in call.key_chunks() {
        view.prefetch(chunk.iter().map(|(_, key)| key.hash()));
        for (_, key) in &chunk {
            match view.get(key).and_then(|item| item.string()) {
                Some(value) => reply.bulk(value),
                None => reply.null(),
            }
        }
    }
    Ok(())
}

/// MSET key value [key value ...].
fn mset(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_pairs(call, edit);
    reply.ok();
    Ok(())
}

/// MSETNX key value [key value ...]. All keys or none.
fn msetnx(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let view = edit.view();
    let absent =
        call.command.keys.positions(call.arguments).all(|i| view.peek(&call.key(i)).is_none());
    if absent {
        set_pairs(call, edit);
    }
    reply.integer(absent.into());
    Ok(())
}

fn set_pairs(call: &Call<'_>, edit: &mut Edit<'_>) {
    for chunk in call.key_chunks() {
        edit.view().prefetch(chunk.iter().map(|(_, key)| key.hash()));
        for (i, key) in &chunk {
            edit.set_string(key, call.at(i + 1), StringForm::Automatic, Expiry::Never);
        }
    }
}

/// APPEND key value. Keeps the deadline. Cost: amortized by the room that a raw string has to grow.
fn append(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, tail) = (call.key(1), call.at(2));
    let Some(old_size) = call.string(1, &edit.view())?.map(<[u8]>::len) else {
        edit.set_string(&key, tail, StringForm::Automatic, Expiry::Never);
        reply.integer(tail.len() as i64);
        return Ok(());
    };
    let size = call.joined_size(old_size, tail.len())?;
    let bytes = edit.string_mut(&key, size, StringForm::Raw).ok_or(Refusal::WrongType)?;
    bytes[old_size..].copy_from_slice(tail);
    reply.integer(size as i64);
    Ok(())
}

/// STRLEN key.
fn strlen(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let value = call.string(1, view)?.unwrap_or_default();
    reply.integer(value.len() as i64);
    Ok(())
}

/// GETRANGE key start end, and SUBSTR. Both ends belong to the range; negative ones count from the
/// end.
fn getrange(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    let value = call.string(1, view)?.unwrap_or_default();
    let range = super::options::range_in_order(start, end, value.len() as i64);
    reply.bulk(range.map_or(b"", |(start, end)| &value[start as usize..=end as usize]));
    Ok(())
}

/// SETRANGE key offset value. Keeps the deadline; an empty value changes nothing.
fn setrange(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let offset = call.integer(2)?;
    let patch = call.at(3);
    let offset =
        usize::try_from(offset).map_err(|_| Refusal::text("ERR offset is out of range"))?;
    let old_size = call.string(1, &edit.view())?.map_or(0, <[u8]>::len);
    if patch.is_empty() {
        reply.integer(old_size as i64);
        return Ok(());
    }
    let size = old_size.max(call.joined_size(offset, patch.len())?);
    let bytes = edit.string_mut(&call.key(1), size, StringForm::Raw).ok_or(Refusal::WrongType)?;
    bytes[offset..offset + patch.len()].copy_from_slice(patch);
    reply.integer(size as i64);
    Ok(())
}
