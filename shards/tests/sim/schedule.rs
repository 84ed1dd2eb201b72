//! Virtual time: what happens when, and what everybody may use while it does: chance, counts,
//! trace, audit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use ringraft_shards::meta::MetaEntry;
use ringraft_shards::random::Random;

use crate::audit::Audit;
use crate::counts::{Count, Counts};
use crate::fault::Undo;
use crate::members::Told;
use crate::network::{Network, Side};
use crate::node::Input;
use crate::plan::Plan;
use crate::registry::Registry;
use crate::request::{Answer, Request};
use crate::steps::Trap;

/// Something that will happen.
pub enum Event {
    /// A process handles what has come in.
    Turn { node: u64, incarnation: u64 },
    /// Something reaches a process.
    Input { node: u64, incarnation: u64, input: Input },
    /// Somebody who has dialled reaches the node.
    Knock { connection: u64 },
    /// Bytes arrive at an end of a connection, or its end does.
    Arrival { connection: u64, side: Side, chunk: Option<Vec<u8>> },
    /// A process may have waited too long for what it has sent.
    Stuck { connection: u64, side: Side },
    /// A request arrives at a node.
    Request { node: u64, request: Box<Request> },
    /// An answer arrives at a client.
    Answer { client: usize, answer: Answer },
    /// A client goes on.
    Client { client: usize },
    /// A client waits no longer.
    Timeout { client: usize, attempt: u64 },
    /// Something breaks.
    Fault,
    /// It is whole again.
    Heal(Undo),
    /// A node starts.
    Start { node: u64 },
    /// The operator looks after the members.
    Operate,
    /// What the operator asks a node for arrives there.
    Ask { node: u64, ticket: u64, entry: MetaEntry },
    /// And what came of it at the operator.
    Told { ticket: u64, told: Told },
}

struct Scheduled {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at_us, self.number) == (other.at_us, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Lines of the trace that are kept.
const TRACE_LINES_MAX: usize = 400_000;

/// Time, and what everybody shares.
pub struct Core {
    pub plan: Plan,
    /// Microseconds since the run began.
    pub now_us: u64,
    /// Counts every event: a moment that nothing else has.
    pub moment: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub chance: Random,
    pub network: Network,
    pub registry: Registry,
    pub audit: Audit,
    pub counts: Counts,
    /// The process that each node is now.
    pub incarnations: BTreeMap<u64, u64>,
    /// Of each shard, and then of the meta group, the nodes that believe to lead it.
    pub leading: Vec<Vec<u64>>,
    /// Whoever sends such a message next dies of it.
    pub trap: Option<Trap>,
    /// Have the faults ended?
    pub calm: bool,
    trace: Option<VecDeque<String>>,
}

impl Core {
    pub fn new(plan: Plan, tracing: bool) -> Core {
        Core {
            now_us: 0,
            moment: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            chance: plan.chance(1),
            network: Network::new(&plan),
            registry: Registry::empty(),
            audit: Audit::default(),
            counts: Counts::default(),
            incarnations: BTreeMap::new(),
            leading: vec![Vec::new(); usize::from(plan.shards) + 1],
            trap: None,
            calm: false,
            trace: tracing.then(VecDeque::new),
            plan,
        }
    }

    /// Lets something happen after a while.
    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.scheduled += 1;
        let (at_us, number) = (self.now_us + delay_us, self.scheduled);
        self.queue.push(Reverse(Scheduled { at_us, number, event }));
    }

    /// The next thing to happen; time goes on to it.
    pub fn next(&mut self) -> Option<Event> {
        let Reverse(next) = self.queue.pop()?;
        self.now_us = next.at_us;
        self.moment += 1;
        Some(next.event)
    }

    /// A number around `mean`, seldom much greater.
    pub fn around(&mut self, mean: u64) -> u64 {
        let spread = self.chance.below(mean + 1) + self.chance.below(mean + 1);
        if self.chance.below(20) == 0 { spread * 4 } else { spread }
    }

    /// One of so many times?
    pub fn once_in(&mut self, count: u64) -> bool {
        self.chance.below(count) == 0
    }

    pub fn count(&mut self, count: Count) {
        self.counts.add(count);
    }

    /// A node believes to lead a shard, or does not any more.
    pub fn note_leader(&mut self, shard: u16, node: u64, leads: bool) {
        let place = usize::from(shard).min(self.leading.len() - 1);
        let nodes = &mut self.leading[place];
        let before = nodes.len();
        nodes.retain(|other| *other != node);
        let led = nodes.len() < before;
        if leads {
            nodes.push(node);
        } else if led {
            self.note(|| format!("n{node}/s{shard} leads no more"));
        }
    }

    /// Writes a line of the trace, if there is one.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace {
            if lines.len() == TRACE_LINES_MAX {
                lines.pop_front();
            }
            let (ms, us) = (self.now_us / 1000, self.now_us % 1000);
            lines.push_back(format!("{ms:>6}.{us:03} ms  {}", line()));
        }
    }

    /// The trace.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().into_iter().flatten().collect()
    }
}
