//! A group of one in memory, until the engine's takes its place.
#![allow(missing_docs)]
use ringraft_shards::ids::{Index, Term};
pub struct Entry {
    pub term: Term,
    pub index: Index,
    pub data: Vec<u8>,
}
pub struct Proposal {
    pub term: Term,
    pub index: Index,
}
#[derive(Debug)]
pub enum ProposeError {
    NotLeader,
    Busy,
}
impl ProposeError {
    pub fn reply(&self) -> String {
        "ERR leader not known".into()
    }
}
#[derive(Default)]
pub struct Output {
    pub committed: Vec<Entry>,
}
#[derive(Default)]
pub struct Group {
    index: u64,
    out: Vec<Entry>,
}
impl Group {
    pub fn tick(&mut self) {}
    pub fn is_leader(&self) -> bool {
        true
    }
    pub fn propose(&mut self, data: Vec<u8>) -> Result<Proposal, ProposeError> {
        self.index += 1;
        self.out.push(Entry { term: Term(1), index: Index(self.index), data });
        Ok(Proposal { term: Term(1), index: Index(self.index) })
    }
    pub fn poll(&mut self, out: &mut Output) {
        out.committed.append(&mut self.out);
    }
    pub fn applied(&mut self, _index: Index) {}
}
