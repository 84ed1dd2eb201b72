//! Judges lists of appends by the dependencies between commands (after Elle): a circle of them is
//! impossible.
//!
//! Every appended element is unique and all have the same length, so a list that is read names the
//! commands that made it and their order. Edges: an append before the next one in a list (ww), an
//! append before those who read it (wr), a read before the append that it did not see (rw), and an
//! answer before every later call (time). Only keys are judged that nothing but APPEND, GET, MGET
//! and EXEC of these ever touched.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operation, Outcome};
use crate::command::{Command, KeyNumber, Reply};

/// Bytes of an element.
pub const ELEMENT_BYTES: usize = 5;

/// What a command did with lists.
enum Touch {
    Append(KeyNumber, Vec<u8>, Option<i64>),
    Read(KeyNumber, Vec<u8>),
    Other(KeyNumber),
}

fn touches(command: &Command, reply: Option<&Reply>, out: &mut Vec<Touch>) {
    let read = |key: KeyNumber, reply: &Reply| match reply {
        Reply::Bytes(bytes) => Touch::Read(key, bytes.clone()),
        _ => Touch::Read(key, Vec::new()),
    };
    match (command, reply) {
        (Command::Get(_) | Command::MGet(_), None) => {}
        (Command::Get(key), Some(reply)) => out.push(read(*key, reply)),
        (Command::MGet(keys), Some(Reply::List(replies))) => {
            out.extend(keys.iter().zip(replies).map(|(key, reply)| read(*key, reply)));
        }
        (Command::Append(key, element), reply) => {
            let length = match reply {
                Some(Reply::Integer(length)) => Some(*length),
                _ => None,
            };
            out.push(Touch::Append(*key, element.clone(), length));
        }
        (Command::Exec(commands), Some(Reply::List(replies))) => {
            for (command, reply) in commands.iter().zip(replies) {
                touches(command, Some(reply), out);
            }
        }
        (Command::Exec(commands), _) => {
            commands.iter().for_each(|command| touches(command, None, out));
        }
        (other, _) => out.extend(other.keys().into_iter().map(Touch::Other)),
    }
}

/// What is known of one list.
#[derive(Default)]
struct List {
    /// Who appended which element.
    writers: BTreeMap<Vec<u8>, usize>,
    /// The longest that anybody read.
    longest: Vec<u8>,
    /// Who read, and how much.
    reads: Vec<(usize, Vec<u8>)>,
    /// Who was told which length after appending which element.
    lengths: Vec<(usize, Vec<u8>, i64)>,
}

/// Does a circle of dependencies exist?
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut lists: BTreeMap<KeyNumber, List> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for (at, operation) in history.iter().enumerate() {
        let reply = match &operation.outcome {
            Outcome::Done(reply) => Some(reply),
            Outcome::Unknown => None,
        };
        let mut found = Vec::new();
        touches(&operation.command, reply, &mut found);
        for touch in found {
            match touch {
                Touch::Other(key) => {
                    others.insert(key);
                }
                Touch::Read(key, value) => {
                    lists.entry(key).or_default().reads.push((at, value));
                }
                Touch::Append(key, element, length) => {
                    let list = lists.entry(key).or_default();
                    list.writers.insert(element.clone(), at);
                    if let Some(length) = length {
                        list.lengths.push((at, element, length));
                    }
                }
            }
        }
    }
    lists.retain(|key, list| !others.contains(key) && !list.writers.is_empty());
    let mut edges: Vec<Vec<(usize, String)>> = vec![Vec::new(); history.len()];
    for (key, list) in &mut lists {
        judge(*key, list, history, &mut edges)?;
    }
    if lists.is_empty() {
        return Ok(());
    }
    find_circle(history, &edges)
}

/// Looks at one list: are all reads parts of one order? Adds the edges that follow from it.
fn judge(
    key: KeyNumber,
    list: &mut List,
    history: &[Operation],
    edges: &mut [Vec<(usize, String)>],
) -> Result<(), String> {
    for (_, value) in &list.reads {
        if value.len() > list.longest.len() {
            list.longest = value.clone();
        }
    }
    for (at, value) in &list.reads {
        if !list.longest.starts_with(value) || value.len() % ELEMENT_BYTES != 0 {
            let (read, longest) = (history[*at].describe(), String::from_utf8_lossy(&list.longest));
            return Err(format!("k{key}: {read} is no beginning of {longest:?}"));
        }
    }
    let order: Vec<&[u8]> = list.longest.chunks(ELEMENT_BYTES).collect();
    let mut writers = Vec::new();
    for element in &order {
        let name = String::from_utf8_lossy(element);
        let Some(&writer) = list.writers.get(*element) else {
            return Err(format!("k{key}: nobody appended {name:?}"));
        };
        if writers.contains(&writer) && order.iter().filter(|other| *other == element).count() > 1 {
            let writer = history[writer].describe();
            return Err(format!("k{key}: {name:?} is there twice: {writer}"));
        }
        writers.push(writer);
    }
    let mut link = |from: usize, to: usize, why: &str| {
        if from != to {
            edges[from].push((to, format!("{why} k{key}")));
        }
    };
    for pair in writers.windows(2) {
        link(pair[0], pair[1], "ww");
    }
    for (reader, value) in &list.reads {
        let seen = value.len() / ELEMENT_BYTES;
        if seen > 0 {
            link(writers[seen - 1], *reader, "wr");
        }
        if let Some(next) = writers.get(seen) {
            link(*reader, *next, "rw");
        }
        // Appended for sure, and in no read: after all that were read.
        for (element, writer) in &list.writers {
            if seen == writers.len() && !order.contains(&element.as_slice()) {
                link(*reader, *writer, "rw");
            }
        }
    }
    for (writer, element, length) in &list.lengths {
        let place = order.iter().position(|other| other == element);
        let expected = place.map(|place| ((place + 1) * ELEMENT_BYTES) as i64);
        if expected.is_some_and(|expected| expected != *length) {
            let writer = history[*writer].describe();
            return Err(format!("k{key}: {writer} was told a wrong length: {:?}", list.longest));
        }
    }
    Ok(())
}

/// Finds a circle of edges and time.
fn find_circle(history: &[Operation], edges: &[Vec<(usize, String)>]) -> Result<(), String> {
    // Time without a quadratic number of edges: a chain of moments, one per answer. An answer leads
    // to its moment, each moment to the next, and the last moment before a call to the call.
    let mut answers: Vec<usize> =
        (0..history.len()).filter(|at| history[*at].outcome != Outcome::Unknown).collect();
    answers.sort_by_key(|at| history[*at].answered);
    let count = history.len();
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count + answers.len()];
    for (at, list) in edges.iter().enumerate() {
        next[at].extend(list.iter().map(|(to, _)| *to));
    }
    for (i, at) in answers.iter().enumerate() {
        next[*at].push(count + i);
        if i + 1 < answers.len() {
            next[count + i].push(count + i + 1);
        }
    }
    for (at, operation) in history.iter().enumerate() {
        let before = answers.partition_point(|other| history[*other].answered < operation.called);
        if before > 0 {
            next[count + before - 1].push(at);
        }
    }
    let Some(circle) = circle(&next) else { return Ok(()) };
    let members: Vec<usize> = circle.into_iter().filter(|at| *at < count).collect();
    let mut lines = vec!["these commands must each come before the next, in a circle:".to_string()];
    for (i, at) in members.iter().enumerate() {
        let to = members[(i + 1) % members.len()];
        let why = edges[*at].iter().find(|(other, _)| *other == to).map(|(_, why)| why.as_str());
        lines.push(format!("  {} | {}", history[*at].describe(), why.unwrap_or("time")));
    }
    Err(lines.join("\n"))
}

/// A circle in a graph, if there is one.
fn circle(next: &[Vec<usize>]) -> Option<Vec<usize>> {
    const NEW: u8 = 0;
    const ON_PATH: u8 = 1;
    const DONE: u8 = 2;
    let mut color = vec![NEW; next.len()];
    for start in 0..next.len() {
        if color[start] != NEW {
            continue;
        }
        let mut path = vec![(start, 0)];
        color[start] = ON_PATH;
        while let Some((at, edge)) = path.last_mut() {
            let Some(&to) = next[*at].get(*edge) else {
                color[*at] = DONE;
                path.pop();
                continue;
            };
            *edge += 1;
            match color[to] {
                NEW => {
                    color[to] = ON_PATH;
                    path.push((to, 0));
                }
                ON_PATH => {
                    let from = path.iter().position(|(at, _)| *at == to)?;
                    return Some(path[from..].iter().map(|(at, _)| *at).collect());
                }
                _ => {}
            }
        }
    }
    None
}
