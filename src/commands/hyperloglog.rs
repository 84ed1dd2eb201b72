//! HyperLogLogs: counts of distinct elements. The values are strings; what is in them is in
//! `crate::hyperloglog`.

use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, Keys, plain, read, write};
use crate::hyperloglog::{self, CORRUPTED, Encoding, REGISTERS, Registers, Sketch};
use crate::resp::reply::Reply;
use Arity::{AtLeast, Exactly};
use ringraft_shards::keyspace::{Edit, Expiry, Key, StringForm, View};

/// The rows of this family.
pub const COMMANDS: &[Command] = &[
    write("pfadd", AtLeast(2), Keys::FIRST, pfadd).grows().fast().about(
        Group::HyperLogLog,
        "2.8.9",
        "Adds elements to the HyperLogLog at a key, which is created when there is none.",
    ),
    read("pfcount", AtLeast(2), Keys::ALL, pfcount).may_replicate().about(
        Group::HyperLogLog,
        "2.8.9",
        "Estimates how many distinct elements HyperLogLogs have seen together.",
    ),
    write("pfmerge", AtLeast(2), Keys::ALL, pfmerge).grows().about(
        Group::HyperLogLog,
        "2.8.9",
        "Merges HyperLogLogs into the first one.",
    ),
    write("pfdebug", Exactly(3), Keys::SECOND, pfdebug).grows().admin().about(
        Group::HyperLogLog,
        "2.8.9",
        "Shows the inside of a HyperLogLog.",
    ),
    plain("pfselftest", Exactly(1), pfselftest).admin().about(
        Group::HyperLogLog,
        "2.8.9",
        "Checks the arithmetic of HyperLogLogs.",
    ),
];

/// PFADD key [element ...]: 1 when a register was raised or the key created. Keeps the deadline.
fn pfadd(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let key = call.key(1);
    let places = || call.arguments.iter_from(2).map(hyperloglog::place);
    let view = edit.view();
    let value = call.string(1, &view)?;
    let encoding = value.map(hyperloglog::encoding).transpose()?;
    if let (Some(value), Some(Encoding::Dense)) = (value, encoding) {
        let changes = hyperloglog::dense_changes(value, places());
        if changes {
            let bytes = edit.string_mut(&key, value.len(), StringForm::Raw);
            hyperloglog::raise_dense(bytes.expect("it is a string"), places());
        }
        reply.integer(i64::from(changes));
        return Ok(());
    }
    let mut changed = value.is_none();
    let mut sketch = value.map_or(Ok(Sketch::default()), Sketch::of)?;
    for (index, rank) in places() {
        changed |= sketch.raise(index, rank)?;
    }
    if changed {
        sketch.forget_count();
        keep(&key, &sketch, edit);
    }
    reply.integer(i64::from(changed));
    Ok(())
}

fn keep(key: &Key<'_>, sketch: &Sketch, edit: &mut Edit<'_>) {
    edit.set_string(key, sketch.bytes(), StringForm::Raw, Expiry::Keep);
}

/// PFCOUNT key [key ...]. Of one key, a count that another server left in it is believed.
fn pfcount(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    if call.count() > 2 {
        let registers = merged(call, view)?.0;
        reply.integer(hyperloglog::count_registers(&registers) as i64);
        return Ok(());
    }
    let count = match call.string(1, view)? {
        None => 0,
        Some(value) => {
            let encoding = hyperloglog::encoding(value)?;
            match hyperloglog::cached_count(value) {
                Some(count) => count,
                None => hyperloglog::count(value, encoding)?,
            }
        }
    };
    reply.integer(count as i64);
    Ok(())
}

/// The highest registers of all keys, and whether one of them is dense.
fn merged(call: &Call<'_>, view: &View<'_>) -> Result<(Box<Registers>, bool), Refusal> {
    let mut registers = Box::new([0; REGISTERS]);
    let mut any_dense = false;
    for i in 1..call.count() {
        let Some(value) = call.string(i, view)? else { continue };
        let encoding = hyperloglog::encoding(value)?;
        any_dense |= encoding == Encoding::Dense;
        hyperloglog::merge(&mut registers, value, encoding)?;
    }
    Ok((registers, any_dense))
}

/// PFMERGE destination [source ...]: the destination is one of those merged. Keeps its deadline.
fn pfmerge(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let view = edit.view();
    let (registers, any_dense) = merged(call, &view)?;
    let mut sketch = call.string(1, &view)?.map_or(Ok(Sketch::default()), Sketch::of)?;
    if any_dense {
        sketch.make_dense()?;
    }
    for (index, &rank) in registers.iter().enumerate().filter(|(_, rank)| **rank > 0) {
        sketch.raise(index, rank)?;
    }
    sketch.forget_count();
    keep(&call.key(1), &sketch, edit);
    reply.ok();
    Ok(())
}

/// PFDEBUG GETREG|DECODE|ENCODING|TODENSE key. GETREG and TODENSE make the value dense.
fn pfdebug(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let view = edit.view();
    let missing = Refusal::text("ERR The specified key does not exist");
    let value = call.string(2, &view)?.ok_or(missing)?;
    let mut sketch = Sketch::of(value)?;
    let known = ["getreg", "decode", "encoding", "todense"];
    if !known.iter().any(|word| call.arguments.is(1, word)) {
        return Err(Refusal::repeating("ERR Unknown PFDEBUG subcommand '", call.at(1), "'"));
    }
    if call.arguments.is(1, "encoding") {
        reply.simple(match sketch.encoding() {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        });
        return Ok(());
    }
    if call.arguments.is(1, "decode") {
        if sketch.encoding() == Encoding::Dense {
            return Err(Refusal::text("ERR HLL encoding is not sparse"));
        }
        reply.bulk(hyperloglog::decode(value).ok_or(CORRUPTED)?.as_bytes());
        return Ok(());
    }
    let was_sparse = sketch.encoding() == Encoding::Sparse;
    if was_sparse {
        sketch.make_dense()?;
        keep(&call.key(2), &sketch, edit);
    }
    if call.arguments.is(1, "todense") {
        reply.integer(i64::from(was_sparse));
        return Ok(());
    }
    let mut registers = Box::new([0; REGISTERS]);
    hyperloglog::merge(&mut registers, sketch.bytes(), Encoding::Dense)?;
    reply.array(REGISTERS);
    registers.iter().for_each(|&rank| reply.integer(rank.into()));
    Ok(())
}

/// PFSELFTEST: takes some milliseconds of its core.
fn pfselftest(_: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    hyperloglog::self_test().map_err(|text| Refusal::Text(text.into()))?;
    reply.ok();
    Ok(())
}
