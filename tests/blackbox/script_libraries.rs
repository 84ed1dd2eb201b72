//! Lua's libraries `cjson`, `cmsgpack`, `struct` and `bit` with random values and random bytes, as
//! in the real redis-server.

use crate::support::client::encode;
use crate::support::{Chance, Server};
use std::fmt::Write;

/// Writes any value as text that is the same for equal values, and calls a function without being
/// ended by its errors.
const PRELUDE: &str = "local function show(v, depth) local t = type(v) \
    if t == 'number' then return string.format('%.17g', v) \
    elseif t == 'string' then return '<'..v..'>' \
    elseif t ~= 'table' then return t == 'userdata' and 'null' or tostring(v) end \
    if depth > 20 then return 'deep' end local parts = {} \
    for k, w in pairs(v) do parts[#parts+1] = show(k, depth+1)..'='..show(w, depth+1) end \
    table.sort(parts) return '{'..table.concat(parts, ' ')..'}' end \
    local function try(f, ...) local r = {pcall(f, ...)} local n = select('#', unpack(r)) local out = {} \
    for i = 1, n do out[i] = show(r[i], 0) end return table.concat(out, ' ') end ";

const SCRIPTS: usize = 2000;
const BATCH: usize = 100;

fn agree(name: &str, make: fn(&mut Chance) -> String) {
    let mut chance = Chance::new(name);
    let (redis, ours) =
        (Server::start_redis(&[]), Server::start(&["--shards", "1", "--mode", "cache"]));
    let (mut oracle, mut client) = (redis.client(), ours.client());
    for _ in 0..SCRIPTS / BATCH {
        let scripts: Vec<String> =
            (0..BATCH).map(|_| format!("{PRELUDE}return {}", make(&mut chance))).collect();
        let requests: Vec<u8> =
            scripts.iter().flat_map(|script| encode(&["EVAL", script, "0"])).collect();
        let (theirs, own) = (oracle.pipeline(&requests, BATCH), client.pipeline(&requests, BATCH));
        for ((script, expected), reply) in scripts.iter().zip(&theirs).zip(&own) {
            assert_eq!(reply, expected, "{}", &script[PRELUDE.len()..]);
        }
    }
}

/// A string of Lua with these bytes.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("'");
    bytes.iter().for_each(|byte| write!(out, "\\{byte:03}").expect("a string grows"));
    out.push('\'');
    out
}

fn random_bytes(chance: &mut Chance, most: u64) -> Vec<u8> {
    let count = chance.below(most + 1);
    let plain = chance.below(2) == 0;
    let byte = |bits: u64| if plain { b' ' + (bits % 95) as u8 } else { bits as u8 };
    (0..count).map(|_| byte(chance.next() >> 13)).collect()
}

fn number(chance: &mut Chance) -> String {
    let sign = if chance.below(2) == 0 { "" } else { "-" };
    match chance.below(6) {
        0 => format!("{sign}{}", chance.below(300)),
        1 => format!("{sign}{}", (1u64 << chance.below(53)) - chance.below(2)),
        2 => format!("{sign}{}", chance.next() >> 12),
        3 => format!("{sign}{}.{}", chance.below(1000), chance.below(100_000)),
        4 => format!("{sign}{}e{}", chance.below(100_000), chance.below(40)),
        _ => format!("{sign}{}e-{}", chance.below(100_000), chance.below(40)),
    }
}

/// A value of Lua; tables are rows, or have one field: the order of more is each interpreter's own.
fn value(chance: &mut Chance, depth: u32) -> String {
    match chance.below(if depth > 3 { 5 } else { 9 }) {
        0 => ["true", "false", "nil", "cjson.null"][chance.below(4) as usize].to_string(),
        1 | 2 => number(chance),
        3 | 4 => quoted(&random_bytes(chance, 40)),
        5 | 6 => {
            let count = chance.below(if depth == 0 { 20 } else { 5 });
            let items: Vec<String> = (0..count).map(|_| value(chance, depth + 1)).collect();
            format!("{{{}}}", items.join(","))
        }
        7 => {
            let key = match chance.below(3) {
                0 => chance.below(40).to_string(),
                1 => number(chance),
                _ => quoted(&random_bytes(chance, 10)),
            };
            format!("{{[{key}]={}}}", value(chance, depth + 1))
        }
        _ => "{}".to_string(),
    }
}

/// A text of JSON, sometimes with something wrong.
fn json(chance: &mut Chance, depth: u32) -> String {
    let blank = ["", "", "", " ", "\t", "\\n"][chance.below(6) as usize];
    let text = match chance.below(if depth > 3 { 5 } else { 8 }) {
        0 => ["true", "false", "null", "tru", "NaN", "inf"][chance.below(6) as usize].to_string(),
        1 | 2 => number(chance),
        3 => format!("\"{}\"", chance.below(1000)),
        4 => {
            let escapes =
                ["\\\\n", "\\\\u00e9", "\\\\ud83d\\\\ude00", "\\\\ud83d", "\\\\x", "\\\\/"];
            format!("\"a{}b\"", escapes[chance.below(6) as usize])
        }
        5 | 6 => {
            let items: Vec<String> =
                (0..chance.below(4)).map(|_| json(chance, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let fields: Vec<String> = (0..chance.below(4))
                .map(|n| format!("\"k{n}\":{}", json(chance, depth + 1)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    };
    let broken = ["", "", "", "", "", "", "", "", "]", "}", ",", "x"];
    format!("{blank}{text}{blank}{}", broken[chance.below(12) as usize])
}

#[test]
fn json_is_written_and_read_as_in_redis() {
    agree("json", |chance| match chance.below(3) {
        0 => format!("try(cjson.encode, {})", value(chance, 0)),
        1 => format!("try(cjson.decode, '{}')", json(chance, 0)),
        _ => format!("try(function() return cjson.decode(cjson.encode({})) end)", value(chance, 0)),
    });
}

#[test]
fn message_packs_are_written_and_read_as_in_redis() {
    agree("cmsgpack", |chance| match chance.below(4) {
        0 => format!("try(cmsgpack.pack, {})", value(chance, 0)),
        1 => {
            let values: Vec<String> = (0..chance.below(4)).map(|_| value(chance, 1)).collect();
            let values = values.join(",");
            format!("try(function() return cmsgpack.unpack(cmsgpack.pack({values})) end)")
        }
        // No more values than Lua's pcall has room for when its calls are checked.
        2 => format!("try(cmsgpack.unpack, {})", quoted(&random_bytes(chance, 15))),
        _ => {
            let bytes = quoted(&random_bytes(chance, 15));
            let (limit, offset) = (chance.below(4), chance.below(6));
            match chance.below(2) {
                0 => format!("try(cmsgpack.unpack_limit, {bytes}, {limit}, {offset})"),
                _ => format!("try(cmsgpack.unpack_one, {bytes}, {offset})"),
            }
        }
    });
}

fn format_of(chance: &mut Chance) -> (String, usize) {
    let (mut format, mut count) = (String::new(), 0);
    for _ in 0..chance.below(6) {
        let options =
            ["b", "B", "h", "H", "l", "L", "i", "I", "f", "d", "s", "x", ">", "<", "=", "!"];
        let option = options[chance.below(options.len() as u64) as usize];
        format.push_str(option);
        match option {
            "i" | "I" if chance.below(2) == 0 => {
                let size = 1 + chance.below(8);
                write!(format, "{size}").expect("a string grows");
            }
            "!" => write!(format, "{}", 1 << chance.below(4)).expect("a string grows"),
            _ => {}
        }
        count += usize::from(!["x", ">", "<", "=", "!"].contains(&option));
    }
    if chance.below(4) == 0 {
        write!(format, "c{}", chance.below(8)).expect("a string grows");
        count += 1;
    }
    (format, count)
}

#[test]
fn structures_are_packed_and_unpacked_as_in_redis() {
    agree("struct", |chance| {
        let (format, count) = format_of(chance);
        let values: Vec<String> = (0..count)
            .map(|_| match chance.below(5) {
                0 => quoted(&random_bytes(chance, 12)),
                1 => chance.below(256).to_string(),
                _ => {
                    let sign = if chance.below(2) == 0 { "" } else { "-" };
                    format!("{sign}{}", chance.next() >> (33 + chance.below(25)))
                }
            })
            .collect();
        let values = values.iter().map(|value| format!(",{value}")).collect::<String>();
        match chance.below(4) {
            0 => format!("try(struct.pack, '{format}'{values})"),
            1 => format!(
                "try(function() return struct.unpack('{format}', struct.pack('{format}'{values})) end)"
            ),
            2 => format!("try(struct.size, '{format}')"),
            _ => {
                let bytes = quoted(&random_bytes(chance, 40));
                format!("try(struct.unpack, '{format}', {bytes}, {})", 1 + chance.below(5))
            }
        }
    });
}

#[test]
fn bits_are_those_of_redis() {
    agree("bit", |chance| {
        let names = [
            "tobit", "bnot", "band", "bor", "bxor", "lshift", "rshift", "arshift", "rol", "ror",
            "bswap", "tohex",
        ];
        let name = names[chance.below(names.len() as u64) as usize];
        let count = match name {
            "tobit" | "bnot" | "bswap" => 1,
            "band" | "bor" | "bxor" => 1 + chance.below(4),
            "tohex" => 1 + chance.below(2),
            _ => 2,
        };
        let numbers: Vec<String> = (0..count)
            .map(|nth| {
                let sign = if chance.below(2) == 0 { "" } else { "-" };
                let bits = if nth == 1 && name == "tohex" { 60 } else { 12 + chance.below(50) };
                format!("{sign}{}", chance.next() >> bits)
            })
            .collect();
        format!("try(bit.{name}, {})", numbers.join(","))
    });
}
