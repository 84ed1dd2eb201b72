//! The judges judged: histories that are known to be good, and histories that are known to be bad.

use super::{Operation, Outcome, check, graph, order};
use crate::command::{Command, Condition, Reply};

/// A history in the making. Commands are given with the moments of call and answer.
#[derive(Default)]
struct History(Vec<Operation>);

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn is(text: &str) -> Reply {
    if text.is_empty() { Reply::Nil } else { Reply::Bytes(bytes(text)) }
}

fn set(key: u8, value: &str) -> Command {
    Command::Set(key, bytes(value), Condition::Always)
}

fn mset(pairs: &[(u8, &str)]) -> Command {
    Command::MSet(pairs.iter().map(|(key, value)| (*key, bytes(value))).collect())
}

fn add(key: u8, element: &str) -> Command {
    Command::Append(key, bytes(element))
}

fn both(one: &str, other: &str) -> Reply {
    Reply::List(vec![is(one), is(other)])
}

impl History {
    fn done(mut self, called: u64, answered: u64, command: Command, reply: Reply) -> History {
        let number = self.0.len() as u64;
        let outcome = Outcome::Done(reply);
        self.0.push(Operation { number, command, called, answered, outcome, hint: None });
        self
    }

    fn unknown(mut self, called: u64, command: Command) -> History {
        let number = self.0.len() as u64;
        let (outcome, answered) = (Outcome::Unknown, u64::MAX);
        self.0.push(Operation { number, command, called, answered, outcome, hint: None });
        self
    }

    fn good(self, what: &str) {
        if let Err(error) = check(&self.0) {
            panic!("{what} is good: {error}");
        }
    }

    fn bad(self, what: &str) {
        assert!(order::check(&self.0).is_err(), "{what} is bad and the search does not see it");
    }

    /// Bad, and the graph sees it as well.
    fn bad_list(self, what: &str) {
        assert!(graph::check(&self.0).is_err(), "{what} is bad and the graph does not see it");
        self.bad(what);
    }
}

fn new() -> History {
    History::default()
}

/// Good histories pass, bad ones are refused.
pub fn the_checker_tells_good_from_bad() {
    registers();
    counters();
    lists();
    several_keys();
    unknown_outcomes();
}

fn registers() {
    new()
        .done(1, 4, set(1, "a"), Reply::Ok)
        .done(2, 3, Command::Get(1), Reply::Nil)
        .done(5, 6, Command::Get(1), is("a"))
        .good("a read beside a write sees it or not");
    new()
        .done(1, 6, set(1, "a"), Reply::Ok)
        .done(2, 3, Command::Get(1), is("a"))
        .done(4, 5, Command::Get(1), Reply::Nil)
        .bad("a read that goes back behind another");
    new()
        .done(1, 2, set(1, "a"), Reply::Ok)
        .done(3, 4, set(1, "b"), Reply::Ok)
        .done(5, 6, Command::Get(1), is("a"))
        .bad("a stale read");
    new()
        .done(1, 2, set(1, "a"), Reply::Ok)
        .done(3, 4, Command::Get(1), Reply::Nil)
        .bad("a lost write");
    new().done(1, 2, Command::Get(1), is("z")).bad("a value from nowhere");
    let swap = |to: &str| Command::Set(1, bytes(to), Condition::Equals(bytes("a")));
    new()
        .done(1, 2, set(1, "a"), Reply::Ok)
        .done(3, 6, swap("b"), Reply::Ok)
        .done(4, 5, swap("c"), Reply::Nil)
        .good("one of two compare-and-set");
    new()
        .done(1, 2, set(1, "a"), Reply::Ok)
        .done(3, 6, swap("b"), Reply::Ok)
        .done(4, 5, swap("c"), Reply::Ok)
        .bad("both of two compare-and-set: a lost update");
    let once = |value: &str| Command::Set(2, bytes(value), Condition::Absent);
    new().done(1, 4, once("a"), Reply::Ok).done(2, 3, once("b"), Reply::Ok).bad("two first writes");
}

fn counters() {
    let plus = Command::Increment(1);
    new()
        .done(1, 4, plus.clone(), Reply::Integer(2))
        .done(2, 3, plus.clone(), Reply::Integer(1))
        .good("two increments side by side");
    new()
        .done(1, 4, plus.clone(), Reply::Integer(1))
        .done(2, 3, plus.clone(), Reply::Integer(1))
        .bad("a lost increment");
    new()
        .done(1, 2, plus.clone(), Reply::Integer(1))
        .done(3, 4, Command::Get(1), is("2"))
        .bad("an increment counted twice");
}

fn lists() {
    new()
        .done(1, 4, add(1, "aaaaa"), Reply::Integer(10))
        .done(2, 3, add(1, "bbbbb"), Reply::Integer(5))
        .done(5, 6, Command::Get(1), is("bbbbbaaaaa"))
        .good("two appends side by side");
    new()
        .done(1, 2, add(1, "aaaaa"), Reply::Integer(5))
        .done(3, 4, Command::Get(1), is("aaaaaaaaaa"))
        .bad_list("a doubled append");
    new()
        .done(1, 2, add(1, "aaaaa"), Reply::Integer(5))
        .done(3, 4, add(1, "bbbbb"), Reply::Integer(10))
        .done(5, 6, Command::Get(1), is("bbbbb"))
        .bad_list("a lost append");
    new()
        .done(1, 2, add(1, "aaaaa"), Reply::Integer(5))
        .done(3, 4, Command::Get(1), Reply::Nil)
        .bad_list("a stale read of a list");
    new()
        .done(1, 8, add(1, "aaaaa"), Reply::Integer(5))
        .done(2, 9, add(1, "bbbbb"), Reply::Integer(10))
        .done(3, 4, Command::Get(1), is("aaaaabbbbb"))
        .done(5, 6, Command::Get(1), is("bbbbbaaaaa"))
        .bad_list("two orders of one list");
    new()
        .done(1, 2, add(1, "aaaaa"), Reply::Integer(5))
        .done(3, 4, add(1, "bbbbb"), Reply::Integer(10))
        .done(5, 6, Command::Get(1), is("bbbbbaaaaa"))
        .bad_list("against real time");
    new()
        .done(1, 20, add(1, "aaaaa"), Reply::Integer(5))
        .done(2, 21, add(2, "bbbbb"), Reply::Integer(5))
        .done(3, 4, Command::MGet(vec![1, 2]), both("aaaaa", ""))
        .done(5, 6, Command::MGet(vec![1, 2]), both("aaaaa", "bbbbb"))
        .good("one after the other");
    new()
        .done(1, 20, add(1, "aaaaa"), Reply::Integer(5))
        .done(2, 21, add(2, "bbbbb"), Reply::Integer(5))
        .done(3, 10, Command::MGet(vec![1, 2]), both("aaaaa", ""))
        .done(4, 11, Command::MGet(vec![1, 2]), both("", "bbbbb"))
        .bad_list("two readers who disagree (long fork)");
    let pair = Command::Exec(vec![add(1, "aaaaa"), add(2, "bbbbb")]);
    let lengths = Reply::List(vec![Reply::Integer(5), Reply::Integer(5)]);
    new()
        .done(1, 6, pair, lengths)
        .done(2, 3, Command::MGet(vec![1, 2]), both("aaaaa", ""))
        .done(4, 5, Command::MGet(vec![1, 2]), both("aaaaa", "bbbbb"))
        .bad_list("half of an EXEC");
    // Each reads what the other did not write yet, and appends.
    let read_then_add =
        |from: u8, to: u8, element: &str| Command::Exec(vec![Command::Get(from), add(to, element)]);
    let saw_nothing = Reply::List(vec![Reply::Nil, Reply::Integer(5)]);
    new()
        .done(1, 4, read_then_add(1, 2, "aaaaa"), saw_nothing.clone())
        .done(2, 3, read_then_add(2, 1, "bbbbb"), saw_nothing)
        .done(5, 6, Command::MGet(vec![1, 2]), both("bbbbb", "aaaaa"))
        .bad_list("write skew");
}

fn several_keys() {
    new()
        .done(1, 4, mset(&[(1, "a"), (2, "a")]), Reply::Ok)
        .done(2, 3, Command::MGet(vec![1, 2]), both("a", ""))
        .bad("a torn MGET");
    new()
        .done(1, 2, mset(&[(1, "a"), (2, "a")]), Reply::Ok)
        .done(3, 8, mset(&[(1, "b"), (2, "b")]), Reply::Ok)
        .done(4, 5, Command::Get(1), is("b"))
        .done(6, 7, Command::Get(2), is("a"))
        .bad("half of an MSET seen by two reads");
    new()
        .done(1, 2, set(1, "a"), Reply::Ok)
        .done(3, 4, set(2, "b"), Reply::Ok)
        .done(1, 5, Command::MGet(vec![1, 2]), both("", "b"))
        .bad("a later write without an earlier one that had finished");
    new()
        .done(1, 2, set(1, "a"), Reply::Ok)
        .done(3, 6, Command::Rename(1, 2), Reply::Ok)
        .done(4, 5, Command::MGet(vec![1, 2]), both("a", "a"))
        .bad("a RENAME seen half");
    new()
        .done(1, 2, set(1, "a"), Reply::Ok)
        .done(3, 6, Command::Rename(1, 2), Reply::Ok)
        .done(4, 5, Command::MGet(vec![1, 2]), both("a", ""))
        .done(7, 8, Command::MGet(vec![1, 2]), both("", "a"))
        .good("a RENAME, before and after");
    let fresh = |value: &str| Command::MSetAbsent(vec![(1, bytes(value)), (2, bytes(value))]);
    new()
        .done(1, 4, fresh("a"), Reply::Integer(1))
        .done(2, 3, fresh("b"), Reply::Integer(1))
        .bad("two MSETNX of the same keys");
    let copy = Command::Copy { from: 1, to: 2, replace: false };
    new()
        .done(1, 2, mset(&[(1, "a"), (2, "b")]), Reply::Ok)
        .done(3, 4, copy, Reply::Integer(1))
        .bad("a COPY onto what is there");
    let pair = Command::Exec(vec![Command::Increment(1), Command::Increment(2)]);
    let ones = Reply::List(vec![Reply::Integer(1), Reply::Integer(1)]);
    let mixed = Reply::List(vec![Reply::Integer(2), Reply::Integer(1)]);
    new().done(1, 4, pair.clone(), ones.clone()).done(2, 3, pair, mixed).bad("EXECs interleaved");
}

fn unknown_outcomes() {
    new()
        .unknown(1, set(1, "a"))
        .done(2, 3, Command::Get(1), Reply::Nil)
        .done(4, 5, Command::Get(1), is("a"))
        .good("an unknown write that comes late");
    new()
        .unknown(1, set(1, "a"))
        .done(2, 3, Command::Get(1), is("a"))
        .done(4, 5, Command::Get(1), Reply::Nil)
        .bad("an unknown write that comes and goes");
    new()
        .unknown(1, mset(&[(1, "a"), (2, "a")]))
        .done(2, 3, Command::MGet(vec![1, 2]), both("a", ""))
        .bad("half of an unknown MSET");
    new()
        .unknown(1, add(1, "aaaaa"))
        .done(2, 3, add(1, "bbbbb"), Reply::Integer(5))
        .done(4, 5, Command::Get(1), is("bbbbbaaaaa"))
        .good("an unknown append that was done");
    new()
        .unknown(1, Command::Increment(1))
        .done(2, 3, Command::Get(1), is("2"))
        .bad("an unknown increment that was done twice");
    new()
        .unknown(5, set(1, "a"))
        .done(1, 2, Command::Get(1), is("a"))
        .bad("a value seen before anybody wrote it");
}
