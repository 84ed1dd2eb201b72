//! Pieces of work on a request's way, each a function that can be run again and again: timed by
//! criterion (`benches/parser.rs`) and counted in instructions by callgrind
//! (`examples/parser_work.rs`).

#[path = "../../shards/benches/work/piece.rs"]
mod piece;

use std::hint::black_box;

use ringraft::core::commands::table;
use ringraft::resp::parse::{Bounds, Parser, Step as Parsed};
use ringraft::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::Span;

pub use piece::{Step, Work};

/// Requests that arrive together.
const REQUESTS: usize = 100;

/// All of them.
pub const WORKS: &[Work] = &[
    Work { name: "parse-get", operations: REQUESTS as u64, begin: parse_get },
    Work { name: "parse-set-64", operations: REQUESTS as u64, begin: parse_set },
    Work { name: "parse-mset-10", operations: REQUESTS as u64, begin: parse_mset },
    Work { name: "parse-inline", operations: REQUESTS as u64, begin: parse_inline },
    Work { name: "parse-and-find", operations: REQUESTS as u64, begin: parse_and_find },
    Work { name: "reply-bulk-64", operations: REQUESTS as u64, begin: reply_bulk },
];

const BOUNDS: Bounds = Bounds { bulk_bytes_max: 512 << 20, unauthenticated: false };

fn request(arguments: &[&str]) -> String {
    let mut text = format!("*{}\r\n", arguments.len());
    for argument in arguments {
        text.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
    }
    text
}

fn requests(one: impl Fn(usize) -> String) -> Vec<u8> {
    (0..REQUESTS).map(one).collect::<String>().into_bytes()
}

fn get(number: usize) -> String {
    request(&["GET", &format!("key:{number:012}")])
}

fn parse_get() -> Step {
    parse(requests(get))
}

fn parse_set() -> Step {
    let value = "v".repeat(64);
    parse(requests(|number| request(&["SET", &format!("key:{number:012}"), &value])))
}

fn parse_mset() -> Step {
    parse(requests(|number| {
        let key = format!("key:{number:012}");
        let mut arguments = vec!["MSET"];
        arguments.extend([key.as_str(), "value"].repeat(10));
        request(&arguments)
    }))
}

fn parse_inline() -> Step {
    parse(requests(|number| format!("GET key:{number:012}\r\n")))
}

fn parse(input: Vec<u8>) -> Step {
    parse_and(input, |_, spans| {
        black_box(spans);
    })
}

fn parse_and_find() -> Step {
    parse_and(requests(get), |input, spans| {
        let name = &input[spans[0].start()..spans[0].end()];
        assert!(black_box(table::find(name)).is_some());
    })
}

fn parse_and(input: Vec<u8>, mut act: impl FnMut(&[u8], &[Span]) + 'static) -> Step {
    let mut parser = Parser::default();
    let mut spans = Vec::new();
    Box::new(move || {
        let mut position = 0;
        for _ in 0..REQUESTS {
            spans.clear();
            match parser.next(black_box(&input), position, BOUNDS, &mut spans) {
                Ok(Parsed::Request(end)) => position = end,
                other => panic!("a whole request is not {other:?}"),
            }
            act(&input, &spans);
        }
    })
}

fn reply_bulk() -> Step {
    let value = [b'v'; 64];
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        for _ in 0..REQUESTS {
            reply.bulk(black_box(&value));
        }
        black_box(&out);
    })
}
