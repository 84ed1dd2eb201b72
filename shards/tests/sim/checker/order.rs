//! Searches for an order of all commands that explains every answer.
//!
//! Depth first: of the commands that were called before the first answer still outstanding, one is
//! next; those whose answer the model does not give are not. What was tried is remembered as (set
//! of commands done, state), so that no two ways to the same place are walked. A command without an
//! answer may come at any time after its call, also at the very end, where it changes nothing that
//! anybody saw.

use std::collections::{BTreeMap, HashSet};

use super::model::{Model, Undo};
use super::{Operation, Outcome};
use crate::command::KeyNumber;

/// Commands tried before the search gives up. A good history takes about as many as it has
/// commands.
const TRIES_MAX: usize = 300_000;

/// Is there such an order?
pub fn check(history: &[Operation]) -> Result<(), String> {
    for part in parts(history) {
        search(&part)?;
    }
    Ok(())
}

/// Splits a history into parts that have no key in common; each may be judged alone.
fn parts(history: &[Operation]) -> Vec<Vec<&Operation>> {
    let mut group: [usize; 256] = std::array::from_fn(|key| key);
    fn root(group: &[usize; 256], mut key: usize) -> usize {
        while group[key] != key {
            key = group[key];
        }
        key
    }
    for operation in history {
        let keys = operation.command.keys();
        for key in &keys {
            let (one, other) =
                (root(&group, usize::from(keys[0])), root(&group, usize::from(*key)));
            group[other] = one;
        }
    }
    let mut parts: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        // A read without an answer says nothing.
        if operation.outcome == Outcome::Unknown && operation.command.is_read() {
            continue;
        }
        let Some(key) = operation.command.keys().first().copied() else { continue };
        parts.entry(root(&group, usize::from(key))).or_default().push(operation);
    }
    parts.into_values().collect()
}

/// A command that was chosen, and what to do when it was the wrong choice.
struct Step {
    /// What could be next, best last.
    candidates: Vec<usize>,
    /// The one that was.
    chosen: usize,
    undo: Undo,
}

struct Search<'a> {
    /// By the moment of the call.
    operations: Vec<&'a Operation>,
    /// By the moment of the answer.
    answers: Vec<usize>,
    done: Vec<bool>,
    done_hash: u64,
    /// How many commands with an answer are done.
    done_answers: usize,
    /// The first in `answers` that is not done.
    first_answer: usize,
    /// All of `operations` before this are done.
    first_call: usize,
    model: Model,
}

fn name(at: usize) -> u64 {
    ringraft_shards::random::mix(at as u64 + 1)
}

impl Search<'_> {
    /// What may be next, best last.
    fn candidates(&mut self) -> Vec<usize> {
        while self.answers.get(self.first_answer).is_some_and(|at| self.done[*at]) {
            self.first_answer += 1;
        }
        while self.done.get(self.first_call) == Some(&true) {
            self.first_call += 1;
        }
        let Some(&first) = self.answers.get(self.first_answer) else { return Vec::new() };
        let limit = self.operations[first].answered;
        let mut found: Vec<usize> = (self.first_call..self.operations.len())
            .take_while(|at| self.operations[*at].called < limit)
            .filter(|at| !self.done[*at])
            .collect();
        found.sort_by_key(|at| {
            let operation = self.operations[*at];
            let hint = operation.hint.unwrap_or(u64::MAX);
            std::cmp::Reverse((hint, operation.answered, *at))
        });
        found
    }

    fn mark(&mut self, at: usize, done: bool) {
        self.done[at] = done;
        self.done_hash ^= name(at);
        if self.operations[at].outcome != Outcome::Unknown {
            self.done_answers = if done { self.done_answers + 1 } else { self.done_answers - 1 };
        }
        if !done {
            // What was passed over may be open again.
            self.first_call = self.first_call.min(at);
            self.first_answer = 0;
        }
    }
}

fn search(part: &[&Operation]) -> Result<(), String> {
    let mut operations = part.to_vec();
    operations.sort_by_key(|operation| operation.called);
    let answered = |at: &usize| operations[*at].outcome != Outcome::Unknown;
    let mut answers: Vec<usize> = (0..operations.len()).filter(answered).collect();
    answers.sort_by_key(|at| operations[*at].answered);
    let mut search = Search {
        done: vec![false; operations.len()],
        done_hash: 0,
        done_answers: 0,
        first_answer: 0,
        first_call: 0,
        model: Model::default(),
        operations,
        answers,
    };
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut candidates = search.candidates();
    let mut tries = 0;
    // The first that explained the most answers, for the message.
    let mut best: (usize, Vec<usize>) = (0, Vec::new());
    loop {
        if candidates.is_empty() && search.first_answer == search.answers.len() {
            return Ok(());
        }
        let mut advanced = false;
        while let Some(at) = candidates.pop() {
            tries += 1;
            let mut undo = Undo::new();
            let reply = search.model.run(&search.operations[at].command, &mut undo);
            let fits = match &search.operations[at].outcome {
                Outcome::Done(expected) => *expected == reply,
                Outcome::Unknown => true,
            };
            let key = (search.done_hash ^ name(at), search.model.hash);
            if fits && seen.insert(key) {
                search.mark(at, true);
                steps.push(Step { candidates, chosen: at, undo });
                candidates = search.candidates();
                advanced = true;
                if search.done_answers > best.0 {
                    best = (search.done_answers, steps.iter().map(|step| step.chosen).collect());
                }
                break;
            }
            search.model.undo(undo);
        }
        if advanced {
            continue;
        }
        let step = steps.pop();
        if step.is_none() || tries > TRIES_MAX {
            let sure = if step.is_none() { "explains these answers" } else { "found" };
            for step in step.into_iter().chain(steps.into_iter().rev()) {
                search.mark(step.chosen, false);
                search.model.undo(step.undo);
            }
            let text = explain(&mut search, &best.1);
            return Err(format!("no order {sure} ({tries} tries)\n{text}"));
        }
        let Some(step) = step else { unreachable!("just looked") };
        search.mark(step.chosen, false);
        search.model.undo(step.undo);
        candidates = step.candidates;
    }
}

/// How far the search came: the last commands that fit, and those of which none does.
fn explain(search: &mut Search<'_>, order: &[usize]) -> String {
    for &at in order {
        search.model.run(&search.operations[at].command, &mut Undo::new());
        search.mark(at, true);
    }
    let first = search.answers.iter().find(|at| !search.done[**at]);
    let limit = first.map_or(u64::MAX, |at| search.operations[*at].answered);
    let open = |at: &usize| !search.done[*at] && search.operations[*at].called < limit;
    let stuck: Vec<usize> = (0..search.operations.len()).filter(open).collect();
    let answered = |at: &&usize| search.operations[**at].outcome != Outcome::Unknown;
    let keys: HashSet<KeyNumber> = stuck
        .iter()
        .filter(answered)
        .flat_map(|at| search.operations[*at].command.keys())
        .collect();
    let mut lines = vec!["the last that fit, and concern these keys:".to_string()];
    let related =
        |at: &&usize| search.operations[**at].command.keys().iter().any(|key| keys.contains(key));
    let last: Vec<usize> = order.iter().rev().filter(related).take(12).copied().collect();
    for at in last.into_iter().rev() {
        lines.push(format!("  {}", search.operations[at].describe()));
    }
    lines.push("none of these fits next:".to_string());
    for at in stuck {
        lines.push(format!("  {}", search.operations[at].describe()));
    }
    for key in search.model.state.keys().filter(|key| keys.contains(key)) {
        let value = String::from_utf8_lossy(&search.model.state[key]);
        lines.push(format!("  k{key} is {value:?} then"));
    }
    lines.join("\n")
}
