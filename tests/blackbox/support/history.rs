//! The history of one register that several clients write and read at the same time, and whether it
//! is linearizable: whether there is one order of all operations that respects real time and in
//! which every read finds the value of the write before it.
//!
//! Every write has a value of its own, which makes the question easy (Gibbons and Korach, "Testing
//! Shared Memories", 1997). A write and its reads must stand together in the order; call them a
//! cluster. Cluster A is forced before B when some operation of A ended before some operation of B
//! began, that is when A's first end lies before B's last beginning. The history is linearizable
//! exactly when no two clusters are forced before each other: a longer circle of forced pairs
//! always holds such a pair. An operation whose reply never came has no end: it may have taken
//! effect at any time after its beginning, or never.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

/// What a register holds before its first write.
pub const NOTHING: u64 = 0;

/// Operations of one register, recorded by any number of threads.
pub struct History {
    begin: Instant,
    operations: Mutex<Vec<Operation>>,
}

/// A write whose reply has not come yet.
#[must_use]
pub struct Pending {
    /// The value to write, which no other write of this history has.
    pub value: u64,
    index: usize,
}

/// A point in time, nanoseconds since the history began. At 0 the register held nothing, and that
/// was all.
pub type Moment = u64;

#[derive(Clone, Copy, Debug)]
struct Operation {
    value: u64,
    writes: bool,
    from: Moment,
    to: Moment,
}

/// All operations of one value.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    value: u64,
    written: bool,
    write_from: Moment,
    first_end: Moment,
    last_beginning: Moment,
}

impl History {
    /// An empty one.
    pub fn new() -> History {
        History { begin: Instant::now(), operations: Mutex::default() }
    }

    /// Now: taken before a request is sent, and after its reply is read.
    pub fn now(&self) -> Moment {
        1 + self.begin.elapsed().as_nanos() as Moment
    }

    /// A write is about to be sent. Its outcome is unknown until [`History::written`].
    pub fn write(&self) -> Pending {
        let from = self.now();
        let mut operations = self.operations.lock().expect("nobody panics here");
        let index = operations.len();
        let value = index as u64 + 1;
        operations.push(Operation { value, writes: true, from, to: Moment::MAX });
        Pending { value, index }
    }

    /// The write was acknowledged.
    pub fn written(&self, pending: Pending) {
        let to = self.now();
        self.operations.lock().expect("nobody panics here")[pending.index].to = to;
    }

    /// A read that was begun at `from` and has ended found `value`.
    pub fn read(&self, value: u64, from: Moment) {
        self.read_until(value, from, self.now());
    }

    /// The same of a read that had ended at `to`.
    pub fn read_until(&self, value: u64, from: Moment, to: Moment) {
        let operation = Operation { value, writes: false, from, to };
        self.operations.lock().expect("nobody panics here").push(operation);
    }

    /// How many operations there are.
    pub fn size(&self) -> usize {
        self.operations.lock().expect("nobody panics here").len()
    }

    /// Is it linearizable? If not, says which values cannot be put in order.
    pub fn check(&self) -> Result<(), String> {
        let operations = self.operations.lock().expect("nobody panics here").clone();
        check(&operations)
    }
}

fn check(operations: &[Operation]) -> Result<(), String> {
    let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
    let nothing =
        Cluster { value: NOTHING, written: true, write_from: 0, first_end: 0, last_beginning: 0 };
    clusters.insert(NOTHING, nothing);
    for operation in operations {
        let cluster = clusters.entry(operation.value).or_insert(Cluster {
            value: operation.value,
            written: false,
            write_from: 0,
            first_end: Moment::MAX,
            last_beginning: 0,
        });
        cluster.first_end = cluster.first_end.min(operation.to);
        cluster.last_beginning = cluster.last_beginning.max(operation.from);
        if operation.writes {
            cluster.written = true;
            cluster.write_from = operation.from;
        }
    }
    for cluster in clusters.values() {
        if !cluster.written || cluster.first_end < cluster.write_from {
            return Err(format!("value {} was read before it was written", cluster.value));
        }
    }
    let wrong = |one: &Cluster, other: &Cluster| {
        let (old, new) =
            if one.write_from < other.write_from { (one, other) } else { (other, one) };
        let show = |cluster: &Cluster| {
            let of_value = |operation: &&Operation| operation.value == cluster.value;
            let lines = operations.iter().filter(of_value).take(20).map(|o| format!("  {o:?}\n"));
            lines.collect::<String>()
        };
        Err(format!(
            "a step back: value {} must come before {} and {} before {}\n{}{}",
            old.value,
            new.value,
            new.value,
            old.value,
            show(old),
            show(new)
        ))
    };
    // Clusters that stretch over some time hold the register for all of it.
    let (mut holders, moments): (Vec<Cluster>, Vec<Cluster>) =
        clusters.values().partition(|cluster| cluster.first_end < cluster.last_beginning);
    holders.sort_by_key(|holder| holder.first_end);
    for pair in holders.windows(2) {
        if pair[1].first_end < pair[0].last_beginning {
            return wrong(&pair[0], &pair[1]);
        }
    }
    // The others need one moment between their last beginning and their first end that nobody else
    // holds.
    for moment in &moments {
        let before = holders.partition_point(|holder| holder.first_end < moment.last_beginning);
        if let Some(holder) = holders[..before].last()
            && moment.first_end < holder.last_beginning
        {
            return wrong(holder, moment);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u64, from: Moment, to: Moment) -> Operation {
        Operation { value, writes: true, from, to }
    }

    fn read(value: u64, from: Moment, to: Moment) -> Operation {
        Operation { value, writes: false, from, to }
    }

    #[test]
    fn good_histories_pass() {
        for history in [
            vec![],
            vec![read(0, 1, 2), write(1, 3, 4), read(1, 5, 6)],
            // While a write is on its way, either value may be read; then, once seen, only the new
            // one.
            vec![write(1, 10, 90), read(0, 20, 30), read(1, 40, 50), read(1, 60, 70)],
            // Two writes at once, in either order.
            vec![write(1, 1, 10), write(2, 1, 10), read(1, 11, 12), read(1, 13, 14)],
            vec![write(1, 1, 10), write(2, 1, 10), read(2, 11, 12), read(2, 13, 14)],
            // A write without a reply: never, late, or at once.
            vec![write(1, 1, Moment::MAX), read(0, 100, 101)],
            vec![write(1, 1, Moment::MAX), read(0, 100, 101), read(1, 102, 103)],
            vec![write(1, 1, 2), write(2, 3, Moment::MAX), write(3, 4, 5), read(2, 6, 7)],
            // Overlapping reads of different values.
            vec![write(1, 1, 2), write(2, 10, 20), read(2, 11, 19), read(1, 9, 18)],
        ] {
            assert_eq!(check(&history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn bad_histories_are_refused() {
        for history in [
            // From nowhere, and from the future.
            vec![read(7, 1, 2)],
            vec![read(1, 1, 2), write(1, 3, 4)],
            // An acknowledged write is not seen.
            vec![write(1, 1, 2), read(0, 3, 4)],
            vec![write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],
            // Back again.
            vec![write(1, 10, 90), read(1, 20, 30), read(0, 40, 50)],
            vec![write(1, 1, 9), write(2, 1, 9), read(1, 11, 12), read(2, 13, 14), read(1, 15, 16)],
            // Two readers disagree on the order of two writes.
            vec![
                write(1, 1, 90),
                write(2, 1, 90),
                read(1, 10, 11),
                read(2, 20, 21),
                read(2, 12, 13),
                read(1, 22, 23),
            ],
            // An unacknowledged write comes back from before another that was seen.
            vec![
                write(1, 1, Moment::MAX),
                write(2, 2, 3),
                read(1, 4, 5),
                read(2, 6, 7),
                read(1, 8, 9),
            ],
        ] {
            assert!(check(&history).is_err(), "{history:?}");
        }
    }

    /// Against the definition: every order of up to six operations is tried.
    #[test]
    fn agrees_with_trying_every_order() {
        let mut chance = crate::support::Chance::new("agrees_with_trying_every_order");
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let writes = 1 + chance.below(3);
            let mut history = Vec::new();
            for value in 1..=writes {
                let from = 1 + chance.below(12);
                let to =
                    if chance.below(6) == 0 { Moment::MAX } else { from + 1 + chance.below(6) };
                history.push(write(value, from, to));
            }
            for _ in 0..1 + chance.below(3) {
                let from = 1 + chance.below(16);
                history.push(read(chance.below(writes + 1), from, from + 1 + chance.below(4)));
            }
            let expected = orders(&history, &mut vec![false; history.len()], NOTHING);
            assert_eq!(check(&history).is_ok(), expected, "{history:?}");
            *(if expected { &mut good } else { &mut bad }) += 1;
        }
        assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad");
    }

    /// Can the operations that are not done yet follow, when the register holds `value`?
    fn orders(history: &[Operation], done: &mut Vec<bool>, value: u64) -> bool {
        // Writes without a reply need not happen.
        let missing = |i: &usize| !done[*i] && history[*i].to != Moment::MAX;
        let Some(end) = (0..history.len()).filter(missing).map(|i| history[i].to).min() else {
            return true;
        };
        (0..history.len()).any(|i| {
            let next = history[i];
            if done[i] || next.from > end || (!next.writes && next.value != value) {
                return false;
            }
            done[i] = true;
            let can = orders(history, done, next.value);
            done[i] = false;
            can
        })
    }
}
