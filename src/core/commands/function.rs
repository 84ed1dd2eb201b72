//! FCALL, FCALL_RO and FUNCTION.
//!
//! What changes the libraries is judged here and done by the shard that keeps them
//! (`core/transact/libraries.rs`).

use super::help::help;
use super::script::{kill_running, reads};
use super::{
    Answer, Arity, Call, Group, Row, RunSession, ScriptBy, container, plain, script_row, session,
};
use crate::core::{Core, OUT_OF_MEMORY, SessionContext, busy};
use crate::glob::Glob;
use crate::refusal::Refusal;
use crate::resp::reply::{Protocol, Reply};
use crate::script::functions::{Functions, Registered};
use crate::script::library::{Busy, Kind};
use crate::script::shebang;
use ringraft_shards::arguments::Arguments;
use ringraft_shards::keyspace::LibraryChange;
use ringraft_shards::rdb::{LibrariesError, PayloadError, read_libraries, write_libraries};
use std::collections::BTreeMap;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    script_row("fcall", ScriptBy::Function).may_replicate().unshown().about(
        Group::Scripting,
        "7.0.0",
        "Calls a function.",
    ),
    reads(script_row("fcall_ro", ScriptBy::Function)).unshown().about(
        Group::Scripting,
        "7.0.0",
        "Calls a function that does not write.",
    ),
    container("function", FUNCTION).about(Group::Scripting, "7.0.0", "Libraries of functions."),
];

const FUNCTION: &[Row] = &[
    changing("load", Arity::AtLeast(3), load).grows().about(
        Group::Scripting,
        "7.0.0",
        "Adds a library, and answers its name.",
    ),
    changing("delete", Arity::Exactly(3), delete).about(
        Group::Scripting,
        "7.0.0",
        "Takes out a library.",
    ),
    session("list", Arity::AtLeast(2), list).of("function").about(
        Group::Scripting,
        "7.0.0",
        "The libraries and their functions.",
    ),
    session("stats", Arity::Exactly(2), stats).allows_busy().of("function").about(
        Group::Scripting,
        "7.0.0",
        "How many libraries and functions there are.",
    ),
    session("kill", Arity::Exactly(2), kill).allows_busy().of("function").about(
        Group::Scripting,
        "7.0.0",
        "Ends the functions that run; nothing of them is done.",
    ),
    changing("flush", Arity::AtLeast(2), flush).about(
        Group::Scripting,
        "7.0.0",
        "Takes out all libraries.",
    ),
    session("dump", Arity::Exactly(2), dump).of("function").about(
        Group::Scripting,
        "7.0.0",
        "All libraries as a payload that FUNCTION RESTORE reads.",
    ),
    changing("restore", Arity::AtLeast(3), restore).grows().about(
        Group::Scripting,
        "7.0.0",
        "Adds the libraries of a FUNCTION DUMP.",
    ),
    plain("help", Arity::Exactly(2), help).of("function").about(
        Group::Scripting,
        "7.0.0",
        "Lists the subcommands.",
    ),
];

/// A row that changes the libraries, which are no items.
const fn changing(name: &'static str, arity: Arity, run: RunSession) -> Row {
    let mut row = session(name, arity, run).of("function").asks();
    row.flags.write = true;
    row.for_leader()
}

/// A change, and the reply once it is made.
type Judged = Result<(LibraryChange, Vec<u8>), Refusal>;

fn load(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.change_libraries(call, judge_load)
}

fn delete(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.change_libraries(call, judge_delete)
}

fn flush(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.change_libraries(call, judge_flush)
}

fn restore(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.change_libraries(call, judge_restore)
}

fn ok() -> Vec<u8> {
    b"+OK\r\n".to_vec()
}

fn wrong_arity(arguments: Arguments<'_>) -> Refusal {
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    Refusal::repeating(before, arguments.at(1), "'. Try FUNCTION HELP.")
}

/// Errors: no memory is left where the libraries are kept.
fn check_memory(core: &mut Core, arguments: Arguments<'_>) -> Result<(), Refusal> {
    let command = super::table::resolve(arguments).expect("the row that runs");
    match core.lacks_memory(command, arguments) {
        true => Err(Refusal::text(OUT_OF_MEMORY)),
        false => Ok(()),
    }
}

fn judge_load(core: &mut Core, arguments: Arguments<'_>) -> Judged {
    check_memory(core, arguments)?;
    let last = arguments.count() - 1;
    let mut replaces = false;
    for at in 2..last {
        if !arguments.is(at, "replace") {
            return Err(Refusal::repeating("ERR Unknown option given: ", arguments.at(at), ""));
        }
        replaces = true;
    }
    let code = arguments.at(last);
    let (name, _) = shebang::of_library(code)?;
    let seen = core.shared.scripts.functions_version();
    let interpreter = core.interpreter()?;
    if !replaces && interpreter.functions().libraries.contains_key(&name) {
        return Err(Refusal::repeating("ERR Library '", &name, "' already exists"));
    }
    let (name, registered) = interpreter.load_library(code)?;
    let functions = interpreter.functions();
    check_collisions(functions, &[&name], &registered)?;
    let mut reply = Vec::new();
    Reply::new(&mut reply, Protocol::Resp2).bulk(&name);
    let texts = vec![(name, code.to_vec())];
    Ok((LibraryChange { seen, clears: false, texts }, reply))
}

/// Errors: a function is there already in another library than those that are replaced.
fn check_collisions(
    functions: &Functions,
    replaced: &[&Vec<u8>],
    registered: &[Registered],
) -> Result<(), Refusal> {
    for own in registered {
        let library = functions.library_of(&own.name);
        if library.is_some_and(|library| !replaced.iter().any(|name| name.as_slice() == library)) {
            return Err(Refusal::repeating("ERR Function ", &own.name, " already exists"));
        }
    }
    Ok(())
}

fn judge_delete(core: &mut Core, arguments: Arguments<'_>) -> Judged {
    let libraries = core.shared.scripts.functions();
    let (name, seen) = (arguments.at(2).to_vec(), libraries.change_count());
    if libraries.get(&name).is_none() {
        return Err(Refusal::text("ERR Library not found"));
    }
    Ok((LibraryChange { seen, clears: false, texts: vec![(name, Vec::new())] }, ok()))
}

fn judge_flush(core: &mut Core, arguments: Arguments<'_>) -> Judged {
    if arguments.count() > 3 {
        return Err(wrong_arity(arguments));
    }
    let is_mode = arguments.count() == 2 || arguments.is(2, "sync") || arguments.is(2, "async");
    if !is_mode {
        return Err(Refusal::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    let seen = core.shared.scripts.functions_version();
    Ok((LibraryChange { seen, clears: true, texts: Vec::new() }, ok()))
}

/// What FUNCTION RESTORE does with libraries that are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Append,
    Replace,
    Flush,
}

fn policy_of(arguments: Arguments<'_>) -> Result<Policy, Refusal> {
    let is = |word| arguments.is(3, word);
    match arguments.count() {
        3 => Ok(Policy::Append),
        4 if is("append") => Ok(Policy::Append),
        4 if is("replace") => Ok(Policy::Replace),
        4 if is("flush") => Ok(Policy::Flush),
        4 => Err(Refusal::text(
            "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
        )),
        _ => Err(wrong_arity(arguments)),
    }
}

fn judge_restore(core: &mut Core, arguments: Arguments<'_>) -> Judged {
    check_memory(core, arguments)?;
    let policy = policy_of(arguments)?;
    let codes = read_libraries(arguments.at(2)).map_err(|error| {
        Refusal::text(match error {
            LibrariesError::Opcode(_) => "ERR given type is not a function",
            LibrariesError::Payload(PayloadError::Value(_)) => {
                "ERR failed loading the given functions payload"
            }
            LibrariesError::Payload(_) => "ERR DUMP payload version or checksum are wrong",
        })
    })?;
    let seen = core.shared.scripts.functions_version();
    let interpreter = core.interpreter()?;
    let mut loaded: BTreeMap<Vec<u8>, (Vec<u8>, Vec<Registered>)> = BTreeMap::new();
    for code in codes {
        let (name, registered) = interpreter.load_library(&code)?;
        if loaded.contains_key(&name) {
            return Err(Refusal::repeating("ERR Library '", &name, "' already exists"));
        }
        let mut others = loaded.values().flat_map(|(_, registered)| registered);
        let twice = |own: &&Registered| others.any(|other| other.name == own.name);
        if let Some(own) = registered.iter().find(twice) {
            return Err(Refusal::repeating("ERR Function ", &own.name, " already exists"));
        }
        loaded.insert(name, (code, registered));
    }
    if policy != Policy::Flush {
        let functions = interpreter.functions();
        let names: Vec<&Vec<u8>> = loaded.keys().collect();
        let is_there = |name: &&&Vec<u8>| functions.libraries.contains_key(**name);
        if let Some(name) = names.iter().find(is_there).filter(|_| policy == Policy::Append) {
            return Err(Refusal::repeating("ERR Library ", name, " already exists"));
        }
        for (_, registered) in loaded.values() {
            check_collisions(functions, &names, registered)?;
        }
    }
    let texts = loaded.into_iter().map(|(name, (code, _))| (name, code)).collect();
    Ok((LibraryChange { seen, clears: policy == Policy::Flush, texts }, ok()))
}

fn dump(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let libraries = context.core.shared.scripts.functions();
    reply.bulk(&write_libraries(libraries.iter().map(|(_, code)| &code[..])));
    Ok(Answer::Now)
}

fn kill(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    kill_running(context, Kind::Function, reply)
}

fn list(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let (mut pattern, mut with_code) = (None, false);
    let mut at = 2;
    while at < call.count() {
        if !with_code && call.arguments.is(at, "withcode") {
            with_code = true;
        } else if pattern.is_none() && call.arguments.is(at, "libraryname") {
            at += 1;
            let given = call.arguments.get(at);
            let missing = Refusal::text("ERR library name argument was not given");
            pattern = Some(given.ok_or(missing)?.to_ascii_lowercase());
        } else {
            return Err(Refusal::repeating("ERR Unknown argument ", call.at(at), ""));
        }
        at += 1;
    }
    let glob = pattern.as_deref().map(Glob::new);
    let is_asked =
        |name: &[u8]| glob.as_ref().is_none_or(|glob| glob.matches(&name.to_ascii_lowercase()));
    let functions = context.core.interpreter()?.functions();
    let asked = || functions.libraries.iter().filter(|(name, _)| is_asked(name));
    reply.array(asked().count());
    for (name, library) in asked() {
        reply.map(if with_code { 4 } else { 3 });
        reply.bulk(b"library_name");
        reply.bulk(name);
        reply.bulk(b"engine");
        reply.bulk(b"LUA");
        reply.bulk(b"functions");
        reply.array(library.functions.len());
        for registered in &library.functions {
            write_function(registered, reply);
        }
        if with_code {
            reply.bulk(b"library_code");
            reply.bulk(&library.code);
        }
    }
    Ok(Answer::Now)
}

fn write_function(registered: &Registered, reply: &mut Reply<'_>) {
    reply.map(3);
    reply.bulk(b"name");
    reply.bulk(&registered.name);
    reply.bulk(b"description");
    match &registered.description {
        Some(text) => reply.bulk(text),
        None => reply.null(),
    }
    reply.bulk(b"flags");
    let names = registered.traits.names();
    reply.set(names.len());
    names.into_iter().for_each(|name| reply.simple(name));
}

fn write_running(running: &Busy, reply: &mut Reply<'_>) {
    reply.map(3);
    reply.bulk(b"name");
    reply.bulk(&running.name);
    reply.bulk(b"command");
    reply.array(running.command.len());
    running.command.iter().for_each(|word| reply.bulk(word));
    reply.bulk(b"duration_ms");
    reply.integer(running.began.elapsed().as_millis() as i64);
}

fn stats(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let running = context.core.shared.scripts.busy();
    if running.as_ref().is_some_and(|running| running.kind == Kind::Script) {
        return Err(busy(&context.core.shared.scripts));
    }
    let functions = context.core.interpreter()?.functions();
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        Some(running) => write_running(&running, reply),
        None => reply.null(),
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(functions.libraries.len() as i64);
    reply.bulk(b"functions_count");
    reply.integer(functions.count() as i64);
    Ok(Answer::Now)
}
