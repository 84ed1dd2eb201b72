//! The table `redis`.

use super::arguments::{Given, bytes_of};
use super::call::Ending;
use super::interpreter::Place;
use super::printing;
use super::quick::{self, ARGUMENT_PRECISION, Desk};
use super::raise::{Fault, Results, bridged, function};
use super::sha1;
use super::values::{counted_error, error, from_reply, raised};
use crate::core::commands::info::REDIS_VERSION;
use crate::core::commands::table;
use crate::resp::reply::Protocol;
use mlua::{Lua, MultiValue, Table, Value};
use ringraft_shards::arguments::OwnedArguments;
use std::rc::Rc;

/// Is an error of `redis.call` raised or returned?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Raised,
    Returned,
}

/// The table. Errors: no memory.
pub fn table(lua: &Lua, place: &Place, desk: &Rc<Desk>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, manner) in [("call", Manner::Raised), ("pcall", Manner::Returned)] {
        let (own, place) = (desk.clone(), place.clone());
        let run = move |lua: &Lua, values| match (call(lua, &place, &own, values), manner) {
            (Err(Fault::Raised(error)), Manner::Returned) if !place.is_stopping() => only(error),
            (results, _) => results,
        };
        table.raw_set(name, quick::function(lua, desk, bridged(lua, run)?)?)?;
    }
    let fields = [("error_reply", "err"), ("status_reply", "ok")];
    for (name, field) in fields {
        let run = move |lua: &Lua, values| single_field(lua, field, values);
        table.raw_set(name, function(lua, run)?)?;
    }
    table.raw_set("sha1hex", function(lua, sha1hex)?)?;
    let own = place.clone();
    table.raw_set("log", function(lua, move |lua, values| log(lua, &own, values))?)?;
    let own = place.clone();
    table.raw_set("setresp", function(lua, move |lua, values| set_resp(lua, &own, values))?)?;
    table.raw_set("set_repl", function(lua, set_repl)?)?;
    let here = place.clone();
    let acl_check_cmd = function(lua, move |lua, values| acl_check_cmd(lua, &here, values))?;
    table.raw_set("acl_check_cmd", acl_check_cmd)?;
    let always = |value: bool| function(lua, move |_, _| only(Value::Boolean(value)));
    table.raw_set("replicate_commands", always(true)?)?;
    table.raw_set("breakpoint", always(false)?)?;
    table.raw_set("debug", function(lua, |_, _| Ok(MultiValue::new()))?)?;
    let numbers = [
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
        ("REDIS_VERSION_NUM", version_number()),
    ];
    for (name, number) in numbers {
        table.raw_set(name, number)?;
    }
    table.raw_set("REDIS_VERSION", REDIS_VERSION)?;
    Ok(table)
}

fn version_number() -> i64 {
    let parts = REDIS_VERSION.split('.').map(|part| part.parse::<i64>().unwrap_or(0));
    parts.fold(0, |number, part| number << 8 | part)
}

fn only(value: Value) -> Results {
    Ok(MultiValue::from_iter([value]))
}

fn refusal(lua: &Lua, text: &str) -> Fault {
    raised(error(lua, text.as_bytes()))
}

fn call(lua: &Lua, place: &Place, desk: &Desk, values: MultiValue) -> Results {
    if let Some(ending) = desk.take_ending() {
        return told(lua, place, ending);
    }
    if values.is_empty() {
        let text = "ERR Please specify at least one argument for this redis lib call";
        return Err(refusal(lua, text));
    }
    let mut arguments = OwnedArguments::default();
    for value in &values {
        match value {
            Value::String(text) => arguments.push(&text.as_bytes()),
            Value::Number(number) => {
                arguments.push(&printing::general(*number, ARGUMENT_PRECISION))
            }
            Value::Integer(number) => arguments.push(number.to_string().as_bytes()),
            _ => {
                let text = "ERR Lua redis lib command arguments must be strings or integers";
                return Err(refusal(lua, text));
            }
        }
    }
    told(lua, place, place.command(place.protocol(), &arguments, Vec::new()))
}

/// How a command has ended, as a script sees it.
fn told(lua: &Lua, place: &Place, ending: Ending) -> Results {
    let protocol = place.protocol();
    match ending {
        Ending::Reply(reply) => only(from_reply(lua, &reply, protocol)?.0),
        Ending::Error(text) => Err(raised(counted_error(lua, &text))),
        Ending::Stop => {
            place.stop();
            Err(Fault::placed("the script runs again"))
        }
    }
}

fn single_field(lua: &Lua, field: &str, values: MultiValue) -> Results {
    let given: Vec<Value> = values.into_vec();
    let [Value::String(text)] = given.as_slice() else {
        let table = error(lua, b"ERR wrong number or type of arguments")?;
        return only(Value::Table(table));
    };
    let text = text.as_bytes().to_vec();
    let text = match field {
        "err" => {
            let text = text.strip_prefix(b"-").unwrap_or(&text);
            match text.contains(&b' ') {
                true => text.to_vec(),
                false => [b"ERR ", text].concat(),
            }
        }
        _ => text,
    };
    let table = lua.create_table()?;
    table.raw_set(field, lua.create_string(&text)?)?;
    only(Value::Table(table))
}

fn sha1hex(lua: &Lua, values: MultiValue) -> Results {
    let given: Vec<Value> = values.into_vec();
    let [value] = given.as_slice() else {
        return Err(refusal(lua, "ERR wrong number of arguments"));
    };
    // What is no string counts as an empty one, as in Redis.
    let digest = sha1::digest(&bytes_of(value).unwrap_or_default());
    only(Value::String(lua.create_string(sha1::hexadecimal(&digest))?))
}

fn log(lua: &Lua, place: &Place, values: MultiValue) -> Results {
    let given = Given::new(values);
    if given.values.len() < 2 {
        return Err(refusal(lua, "ERR redis.log() requires two arguments or more."));
    }
    let level = match given.get(1) {
        Some(Value::Number(level)) => *level as i64,
        Some(Value::Integer(level)) => *level,
        _ => return Err(refusal(lua, "ERR First argument must be a number (log level).")),
    };
    if !(0..=3).contains(&level) {
        return Err(refusal(lua, "ERR Invalid debug level."));
    }
    let words: Vec<Vec<u8>> = given.values[1..].iter().filter_map(bytes_of).collect();
    place.log(level, String::from_utf8_lossy(&words.join(&b' ')).into_owned());
    Ok(MultiValue::new())
}

fn set_resp(lua: &Lua, place: &Place, values: MultiValue) -> Results {
    let given = Given::new(values);
    if given.values.len() != 1 {
        return Err(refusal(lua, "ERR redis.setresp() requires one argument."));
    }
    match given.integer(1)? {
        2 => place.set_protocol(Protocol::Resp2),
        3 => place.set_protocol(Protocol::Resp3),
        _ => return Err(refusal(lua, "ERR RESP version must be 2 or 3.")),
    }
    Ok(MultiValue::new())
}

fn set_repl(lua: &Lua, values: MultiValue) -> Results {
    let given = Given::new(values);
    if given.values.len() != 1 {
        return Err(refusal(lua, "ERR redis.set_repl() requires two arguments."));
    }
    // What a script did is in the log whole or not at all: there is nothing to choose.
    match given.integer(1)? & !3 {
        0 => Ok(MultiValue::new()),
        _ => Err(refusal(
            lua,
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        )),
    }
}

fn acl_check_cmd(lua: &Lua, place: &Place, values: MultiValue) -> Results {
    if values.is_empty() {
        let text = "ERR Please specify at least one argument for this redis.acl_check_cmd() call";
        return Err(refusal(lua, text));
    }
    let arguments: Option<OwnedArguments> = values
        .iter()
        .map(bytes_of)
        .collect::<Option<Vec<_>>>()
        .map(|words| words.iter().map(Vec::as_slice).collect());
    let Some(arguments) = arguments else {
        let text = "ERR redis.acl_check_cmd() command arguments must be strings or integers";
        return Err(refusal(lua, text));
    };
    match table::resolve(arguments.borrow()) {
        Some(command) if !command.flags.internal => {
            only(Value::Boolean(place.allows(command, arguments.borrow())))
        }
        _ => Err(refusal(lua, "ERR Invalid command passed to redis.acl_check_cmd()")),
    }
}
