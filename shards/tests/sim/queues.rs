//! Queues: keys that clients push to, and wait for. Half of them are lists, half sorted sets.
//!
//! The judges of histories do not know them; what must hold of them is simpler. Every element is
//! pushed once and has a name of its own, so that it can be followed: nobody is served twice,
//! nothing is popped for nobody, what was pushed is in a queue in the end or was popped once, and
//! what clients are told is what happened.

use std::collections::{HashMap, HashSet};

use ringraft_shards::keyspace::{Edit, Key, Value, View};
use ringraft_shards::value::list::End;
use ringraft_shards::waiting::{WaitKey, WaitKind};

use crate::checker::Outcome;
use crate::command::{Command, KeyNumber, Reply};
use crate::machine::{DATABASE, key_name};

/// What a queue is: its number says it.
fn kind(key: &[u8]) -> WaitKind {
    let last = key.last().copied().unwrap_or_default();
    if last.is_multiple_of(2) { WaitKind::List } else { WaitKind::SortedSet }
}

/// A queue, as it is waited for.
pub fn awaited(key: &[u8]) -> WaitKey {
    WaitKey::new(DATABASE, kind(key), key)
}

/// Is there what is waited for?
pub fn has(view: &View<'_>, key: &WaitKey) -> bool {
    let item = view.peek(&Key::new(&key.bytes, view.hasher().hash(&key.bytes)));
    match item.map(|item| item.value()) {
        Some(Value::List(_)) => key.kind == WaitKind::List,
        Some(Value::SortedSet(_)) => key.kind == WaitKind::SortedSet,
        _ => false,
    }
}

const TYPED: &str = "queues have one type";

/// The name of what a command pushes to a key.
pub fn element(operation: u64, key: KeyNumber) -> Vec<u8> {
    format!("{operation:06}k{key}").into_bytes()
}

/// Pushes an element. Returns how many there are.
pub fn push(edit: &mut Edit<'_>, key: &Key<'_>, element: &[u8]) -> i64 {
    if kind(key.bytes()) == WaitKind::List {
        let mut list = edit.list_mut(key).expect(TYPED);
        list.push(End::Back, element);
        return list.count() as i64;
    }
    let digits = std::str::from_utf8(&element[..6]).ok().and_then(|digits| digits.parse().ok());
    let mut set = edit.sorted_set_mut(key).expect(TYPED);
    set.set(element, digits.expect("its name begins with six digits"));
    set.count() as i64
}

/// Pops the first element, if there is one.
pub fn pop(edit: &mut Edit<'_>, key: &Key<'_>) -> Option<Vec<u8>> {
    if !has(&edit.view(), &awaited(key.bytes())) {
        return None;
    }
    if kind(key.bytes()) == WaitKind::List {
        return edit.list_mut(key).expect(TYPED).pop(End::Front);
    }
    let mut set = edit.sorted_set_mut(key).expect(TYPED);
    let first = set.sorted_set().at(0).map(|(member, _)| member.to_vec());
    set.remove_at(0, 1);
    first
}

/// All elements of a queue.
pub fn elements(view: &View<'_>, key: KeyNumber) -> Vec<Vec<u8>> {
    let name = key_name(key);
    let item = view.peek(&Key::new(&name, view.hasher().hash(&name)));
    match item.map(|item| item.value()) {
        None => Vec::new(),
        Some(Value::List(list)) => list.elements_from(0).map(<[u8]>::to_vec).collect(),
        Some(Value::SortedSet(set)) => {
            set.members_from(0).map(|(member, _)| member.to_vec()).collect()
        }
        Some(_) => unreachable!("{TYPED}"),
    }
}

/// A place in a log: shard and index.
pub type Place = (u16, u64);

/// Who was served what, wherever it was applied first.
#[derive(Default)]
pub struct Served {
    by_operation: HashMap<u64, (Place, Vec<u8>)>,
    /// Who has popped an element for good.
    popped: HashMap<Vec<u8>, u64>,
    /// Who has moved an element first.
    moved: HashMap<Vec<u8>, u64>,
}

impl Served {
    /// An entry has served an operation. The same entry says the same on every replica.
    pub fn note(
        &mut self,
        operation: u64,
        place: Place,
        element: &[u8],
        is_moved: bool,
    ) -> Result<(), String> {
        let found = (place, element.to_vec());
        let known = self.by_operation.entry(operation).or_insert_with(|| found.clone());
        if *known != found {
            return Err(format!("#{operation} is served twice: {known:?}, {found:?}"));
        }
        if is_moved {
            self.moved.entry(element.to_vec()).or_insert(operation);
            return Ok(());
        }
        let known = *self.popped.entry(element.to_vec()).or_insert(operation);
        if known != operation {
            let element = element.escape_ascii();
            return Err(format!("#{known} and #{operation} are both given {element}"));
        }
        Ok(())
    }

    /// Has another operation brought an element to where it is?
    pub fn was_moved(&self, element: &[u8], operation: u64) -> bool {
        self.moved.get(element).is_some_and(|first| *first != operation)
    }

    /// Judges what clients of queues were told, when `left` is all that is in them. `happened`:
    /// operations that were applied.
    pub fn judge<'a>(
        &self,
        told: impl Iterator<Item = Told<'a>>,
        happened: &HashSet<u64>,
        left: Vec<Vec<u8>>,
    ) -> Result<(), String> {
        let mut pushed: HashSet<Vec<u8>> = HashSet::new();
        for Told { operation, command, outcome, is_refused } in told {
            let what = || format!("#{operation} {command}, told {outcome:?}");
            match (command, outcome) {
                (Command::Pop(_) | Command::Move(..), Outcome::Done(Reply::Bytes(element))) => {
                    match self.by_operation.get(&operation) {
                        Some((_, given)) if given == element => {}
                        given => return Err(format!("{} was given {given:?}", what())),
                    }
                }
                (Command::Pop(_) | Command::Move(..), outcome) => {
                    let in_vain = is_refused || *outcome == Outcome::Done(Reply::Nil);
                    if let Some(given) = self.by_operation.get(&operation).filter(|_| in_vain) {
                        return Err(format!("{} and refused: {is_refused}: {given:?}", what()));
                    }
                }
                (_, outcome) => {
                    let is_done = matches!(outcome, Outcome::Done(_));
                    let has_happened = happened.contains(&operation);
                    if is_done && !has_happened || is_refused && has_happened {
                        return Err(format!("{}: {is_refused}, happened: {has_happened}", what()));
                    }
                    if has_happened {
                        pushed.extend(command.keys().iter().map(|key| element(operation, *key)));
                    }
                }
            }
        }
        let count = left.len();
        let left: HashSet<Vec<u8>> = left.into_iter().collect();
        if left.len() < count {
            return Err("an element is in the queues twice".into());
        }
        let popped: HashSet<Vec<u8>> = self.popped.keys().cloned().collect();
        let text = |element: &Vec<u8>| element.escape_ascii().to_string();
        if let Some(both) = left.intersection(&popped).next() {
            return Err(format!("{} was popped and is there", text(both)));
        }
        let lost = |element: &&Vec<u8>| !left.contains(*element) && !popped.contains(*element);
        if let Some(lost) = pushed.iter().find(lost) {
            return Err(format!("{} was pushed, not popped, and is not there", text(lost)));
        }
        match left.union(&popped).find(|element| !pushed.contains(*element)) {
            Some(extra) => Err(format!("{} was never pushed", text(extra))),
            None => Ok(()),
        }
    }
}

/// What the client of a queue was told.
pub struct Told<'a> {
    pub operation: u64,
    pub command: &'a Command,
    pub outcome: &'a Outcome,
    pub is_refused: bool,
}
