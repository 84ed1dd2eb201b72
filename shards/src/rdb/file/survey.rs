//! Reads an RDB file to its end and keeps nothing: is it good, and what is in it?

use super::super::{Fault, ItemRecord, Piece};
use super::{Event, Library, RdbError, RdbReader};
use crate::value::{Part, ValueType};
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

/// What was found in a good file.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Items.
    pub items: u64,
    /// Bytes.
    pub bytes: u64,
    /// Libraries of functions.
    pub libraries: Vec<Library>,
    /// Data of modules beside their values, by name.
    pub modules: Vec<String>,
    /// For whoever reads it next: see [`RdbReader::open`].
    pub totals: VecDeque<u64>,
}

/// Reads all of a file. `tell` hears how far it is, in bytes.
/// Errors: what is wrong and where. A member or field that comes twice is, too.
pub fn survey(source: impl Read, tell: &mut dyn FnMut(u64)) -> Result<Survey, RdbError> {
    let mut reader = RdbReader::open(source, VecDeque::new())?;
    let mut found = Survey::default();
    let (mut members, mut list) = (Members::default(), None);
    loop {
        let mut duplicate = None;
        let event = reader.next(&mut |record, fields| {
            if record.piece == Piece::Whole || matches!(record.piece, Piece::First(_)) {
                members.seen.clear();
                found.totals.extend(list.take());
            }
            // A large list in nodes says how many there are only at its end. Those that say it
            // before get no entry.
            match (record.piece, record.value.value_type()) {
                (Piece::First(0), ValueType::List) => list = Some(record.value.count()),
                (Piece::Next(_), ValueType::List) => {
                    list = list.map(|count| count + record.value.count());
                }
                _ => {}
            }
            if members.note(&record).is_err() {
                duplicate.get_or_insert((fields.offset, record.key.to_vec()));
            }
            Ok(())
        })?;
        if let Some((offset, key)) = duplicate {
            return Err(RdbError::Damaged { offset, key: Some(key), fault: Fault::Duplicate });
        }
        tell(reader.offset());
        match event {
            Event::Item => found.items += 1,
            Event::Library(library) => found.libraries.push(library),
            Event::Module(name) => found.modules.push(name),
            Event::End => {
                found.totals.extend(list.take());
                found.bytes = reader.offset();
                return Ok(found);
            }
        }
    }
}

/// The members of a value, by 128 bits of hash each: that two are equal by chance is not to be
/// expected.
#[derive(Default)]
struct Members {
    hashers: [RandomState; 2],
    seen: HashSet<[u64; 2]>,
}

impl Members {
    fn note(&mut self, record: &ItemRecord<'_>) -> Result<(), Fault> {
        if matches!(record.value.value_type(), ValueType::String | ValueType::List) {
            return Ok(());
        }
        let noted = record.value.each(&mut |part| {
            let (Part::Member(name)
            | Part::Field(name, _)
            | Part::TimedField(name, ..)
            | Part::Scored(name, _)) = part
            else {
                return Ok(());
            };
            let hashes = [0, 1].map(|place: usize| self.hashers[place].hash_one(name));
            if self.seen.insert(hashes) { Ok(()) } else { Err(Fault::Duplicate) }
        });
        noted.map_err(|error| error.fault)
    }
}
