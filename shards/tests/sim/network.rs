//! The network: connections between nodes, whose bytes are delayed, held up, damaged and cut off,
//! but keep their order, as those of TCP do. A connection ends at one side first; the other hears
//! of it later, or never.
//!
//! Requests of clients and their answers go over it too, but clients are on no side of a partition:
//! an old leader that is cut off from its followers is still asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::counts::Count;
use crate::plan::{Kind, Plan};
use crate::schedule::{Core, Event};

/// A process that has sent something and got no acknowledgement for so long gives the connection
/// up.
const STUCK_US: u64 = 100_000;

/// Which end of a connection: 0 has dialled, 1 was dialled.
pub type Side = usize;

/// One end.
#[derive(Clone, Copy, Default)]
struct End {
    node: u64,
    /// The process: a later one knows nothing of the connection.
    incarnation: u64,
    is_open: bool,
}

/// Bytes from one end to the other. `None`: there are no more.
type Chunk = Option<Vec<u8>>;

#[derive(Default)]
struct Stream {
    /// What waits behind a cut, in order.
    held: VecDeque<Chunk>,
    /// When the last chunk arrives: those behind it come later.
    arrives_us: u64,
}

/// A connection.
#[derive(Default)]
struct Connection {
    ends: [End; 2],
    /// Until then nothing goes.
    is_answered: bool,
    /// From each end to the other.
    streams: [Stream; 2],
}

/// State of everything between nodes.
pub struct Network {
    /// Chunks of a thousand that are lost and sent again, late, damaged.
    loss: u64,
    reorder: u64,
    garble: u64,
    delay_us: u64,
    /// How many partitions cut a way (from, to).
    cut: BTreeMap<(u64, u64), u32>,
    slow: BTreeSet<(u64, u64)>,
    connections: BTreeMap<u64, Connection>,
    dialled: u64,
}

impl Network {
    pub fn new(plan: &Plan) -> Network {
        let mut chance = plan.chance(2);
        let mut rate =
            |kind, most| if plan.has(kind) { 1 + chance.below(most) } else { chance.below(1) };
        Network {
            loss: rate(Kind::Loss, 100),
            reorder: rate(Kind::Reorder, 100),
            garble: rate(Kind::Garble, 5),
            delay_us: 50 + rate(Kind::Reorder, 2000),
            cut: BTreeMap::new(),
            slow: BTreeSet::new(),
            connections: BTreeMap::new(),
            dialled: 0,
        }
    }

    /// Cuts ways.
    pub fn cut(&mut self, ways: &[(u64, u64)]) {
        for way in ways {
            *self.cut.entry(*way).or_default() += 1;
        }
    }

    /// Makes a way slow, or normal again.
    pub fn set_slow(&mut self, way: (u64, u64), slow: bool) {
        if slow {
            self.slow.insert(way);
        } else {
            self.slow.remove(&way);
        }
    }

    fn is_cut(&self, way: (u64, u64)) -> bool {
        self.cut.contains_key(&way)
    }

    /// Connections with an end at a node, and which end.
    fn of_node(&self, node: u64) -> Vec<(u64, Side)> {
        let mut found = Vec::new();
        for (id, connection) in &self.connections {
            for side in [0, 1] {
                let end = connection.ends[side];
                if end.is_open && end.node == node {
                    found.push((*id, side));
                }
            }
        }
        found
    }
}

impl Core {
    /// From now on all is well.
    pub fn calm_network(&mut self) {
        (self.network.loss, self.network.reorder, self.network.garble) = (0, 0, 0);
        self.network.slow.clear();
        let ways: Vec<_> = self.network.cut.keys().copied().collect();
        self.network.cut.clear();
        ways.into_iter().for_each(|way| self.let_through(way));
    }

    /// Takes a cut back.
    pub fn mend(&mut self, ways: &[(u64, u64)]) {
        for way in ways {
            let Some(count) = self.network.cut.get_mut(way) else { continue };
            *count -= 1;
            if *count == 0 {
                self.network.cut.remove(way);
                self.let_through(*way);
            }
        }
    }

    /// A process dials a node.
    pub fn dial(&mut self, node: u64, incarnation: u64, to: u64) -> u64 {
        self.count(Count::Dials);
        self.network.dialled += 1;
        let id = self.network.dialled;
        let dials = End { node, incarnation, is_open: true };
        let answers = End { node: to, incarnation: 0, is_open: false };
        let connection = Connection { ends: [dials, answers], ..Connection::default() };
        self.network.connections.insert(id, connection);
        let is_cut = self.network.is_cut((node, to)) || self.network.is_cut((to, node));
        if !is_cut {
            let delay_us = self.around(self.network.delay_us);
            self.after(delay_us, Event::Knock { connection: id });
        }
        id
    }

    /// Somebody knocks: the node that was dialled, if the one that has dialled still waits.
    pub fn knocks(&self, id: u64) -> Option<u64> {
        let connection = self.network.connections.get(&id)?;
        connection.ends[0].is_open.then_some(connection.ends[1].node)
    }

    /// A process answers, or there is none.
    pub fn answer(&mut self, id: u64, incarnation: Option<u64>) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        match incarnation {
            Some(incarnation) => {
                (connection.ends[1].incarnation, connection.ends[1].is_open) = (incarnation, true);
                connection.is_answered = true;
                let way = (connection.ends[0].node, connection.ends[1].node);
                if !self.network.is_cut(way) {
                    self.let_through(way);
                }
            }
            None => self.push(id, 1, None),
        }
    }

    /// A process writes: its bytes go in pieces.
    pub fn write(&mut self, id: u64, side: Side, mut bytes: Vec<u8>) {
        while !bytes.is_empty() {
            // Mostly whole.
            let length = match self.chance.below(4) {
                0 => 1 + self.chance.below(bytes.len() as u64) as usize,
                _ => bytes.len(),
            };
            let rest = bytes.split_off(length);
            self.count(Count::ChunksSent);
            if self.chance.below(1000) < self.network.garble && !self.calm {
                self.count(Count::ChunksGarbled);
                let bit = self.chance.below(8 * bytes.len() as u64) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            self.push(id, side, Some(bytes));
            bytes = rest;
        }
    }

    /// A chunk goes on its way, or waits behind a cut.
    fn push(&mut self, id: u64, side: Side, chunk: Chunk) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let way = (connection.ends[side].node, connection.ends[1 - side].node);
        let stream = &mut connection.streams[side];
        let waits = side == 0 && !connection.is_answered;
        if waits || self.network.cut.contains_key(&way) || !stream.held.is_empty() {
            stream.held.push_back(chunk);
            if !waits {
                self.count(Count::ChunksHeld);
            }
            self.after(STUCK_US, Event::Stuck { connection: id, side });
            return;
        }
        self.deliver(id, side, chunk);
    }

    fn deliver(&mut self, id: u64, side: Side, chunk: Chunk) {
        let mut delay_us = self.around(self.network.delay_us);
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let way = (connection.ends[side].node, connection.ends[1 - side].node);
        if self.network.slow.contains(&way) {
            delay_us += 20_000 + self.chance.below(100_000);
        }
        if self.chance.below(1000) < self.network.loss {
            self.counts.add(Count::ChunksLost);
            delay_us += 5_000 + self.chance.below(40_000);
        }
        if self.chance.below(1000) < self.network.reorder {
            self.counts.add(Count::ChunksDelayed);
            delay_us += self.chance.below(30_000);
        }
        let stream = &mut connection.streams[side];
        stream.arrives_us = (self.now_us + delay_us).max(stream.arrives_us);
        let delay_us = stream.arrives_us - self.now_us;
        self.after(delay_us, Event::Arrival { connection: id, side: 1 - side, chunk });
    }

    /// What waited behind a cut goes on.
    fn let_through(&mut self, way: (u64, u64)) {
        let ids: Vec<u64> = self.network.connections.keys().copied().collect();
        for id in ids {
            for side in [0, 1] {
                let connection = self.network.connections.get_mut(&id).expect("it is listed");
                let here = (connection.ends[side].node, connection.ends[1 - side].node) == way;
                if here && (side == 1 || connection.is_answered) {
                    for chunk in std::mem::take(&mut connection.streams[side].held) {
                        self.deliver(id, side, chunk);
                    }
                }
            }
        }
    }

    /// Is that end still there, and whose is it? When not, whoever writes to it is told, as a
    /// kernel does.
    pub fn end_of(&mut self, id: u64, side: Side, is_last: bool) -> Option<(u64, u64)> {
        let connection = self.network.connections.get(&id)?;
        let end = connection.ends[side];
        let gone = self.incarnations.get(&end.node) != Some(&end.incarnation);
        if end.is_open && !gone {
            return Some((end.node, end.incarnation));
        }
        if !is_last && connection.ends[1 - side].is_open {
            self.push(id, side, None);
        }
        None
    }

    /// Bytes wait behind a cut for long: the process that sent them gives up. Returns whose end
    /// that is.
    pub fn is_stuck(&mut self, id: u64, side: Side) -> Option<(u64, u64)> {
        let connection = self.network.connections.get(&id)?;
        let end = connection.ends[side];
        (end.is_open && !connection.streams[side].held.is_empty())
            .then_some((end.node, end.incarnation))
    }

    /// A process closes its end; what it wrote before still arrives, and then its end.
    pub fn hang_up(&mut self, id: u64, side: Side) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        if !std::mem::take(&mut connection.ends[side].is_open) {
            return;
        }
        if connection.ends[1 - side].is_open {
            self.push(id, side, None);
        } else {
            self.network.connections.remove(&id);
        }
    }

    /// A process has ended. A machine without power closes no connections: the others notice when
    /// it is back, or by its silence.
    pub fn process_ended(&mut self, node: u64, power: bool) {
        for (id, side) in self.network.of_node(node) {
            if power {
                let connection = self.network.connections.get_mut(&id).expect("it is listed");
                connection.ends[side].is_open = false;
            } else {
                self.hang_up(id, side);
            }
        }
    }

    /// A connection of a node breaks. One end hears of it now; returns which. The other may not.
    pub fn reset(&mut self, node: u64) -> Option<(u64, u64, u64)> {
        let all = self.network.of_node(node);
        if all.is_empty() {
            return None;
        }
        let (id, side) = all[self.chance.below(all.len() as u64) as usize];
        self.count(Count::Resets);
        let notices = self.once_in(2);
        let connection = self.network.connections.get_mut(&id).expect("it is listed");
        let end = connection.ends[side];
        if notices {
            self.hang_up(id, side);
        } else {
            connection.ends[side].is_open = false;
        }
        Some((id, end.node, end.incarnation))
    }

    /// Delay of a request or an answer; `None`: it is lost.
    pub fn client_delay(&mut self) -> Option<u64> {
        let lost = self.chance.below(1000) < self.network.loss / 4;
        let delay_us = self.around(self.network.delay_us);
        (!lost).then_some(delay_us)
    }
}
