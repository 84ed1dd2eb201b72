//! Requests built ahead: while a run is measured, sending one is copying bytes that lie ready.
//!
//! Each connection has a book of its own, a ring of batches. A batch that no reply is awaited for may be built anew;
//! that is done only where the same keys must not come again (sequential keys), and for the last, shorter batch.

use super::keys::{Picker, Zipf};
use super::operations::Operation;
use super::plan::{Data, Distribution, Load, Pace};
use super::random::Random;

/// Bytes of requests that all books of one load may take.
const BOOKS_BYTES_MAX: usize = 96 << 20;

/// Batches of a book: enough that the server's caches do not know the sequence by heart, few enough to build fast.
const BATCHES_MAX: usize = 16_384;

/// Batches that a book in which requests wait for replies (open loop) has at least.
const OPEN_BATCHES_MIN: usize = 256;

/// One request as its reply will be judged.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The command.
    pub operation: Operation,
    /// Where its keys begin among those of the batch.
    first_key: u32,
    key_count: u32,
}

/// Requests that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The encoded requests.
    pub bytes: Vec<u8>,
    /// What is expected for each.
    pub expected: Vec<Expected>,
    keys: Vec<u64>,
}

impl Batch {
    /// The keys of one of its requests.
    pub fn keys(&self, expected: Expected) -> &[u64] {
        &self.keys[expected.first_key as usize..][..expected.key_count as usize]
    }
}

/// The batches of a connection.
pub struct Book {
    batches: Vec<Batch>,
    next: usize,
    writer: Writer,
    /// Whether the batch built ahead was used and every later one is built when its turn comes: sequential keys.
    stale: bool,
    sequential: bool,
}

/// Builds batches.
struct Writer {
    data: Data,
    /// Operations with the sum of shares up to and with each.
    mix: Vec<(Operation, f64)>,
    keys_per_command: usize,
    picker: Picker,
    random: Random,
}

impl Book {
    /// The book of connection `index` of a load, of which it sends `first_length` requests first.
    pub fn new(data: &Data, load: &Load, index: usize, first_length: usize, seed: u64) -> Book {
        let picker = match load.distribution {
            Distribution::Uniform => Picker::Uniform { count: data.keys },
            Distribution::Zipf { exponent } => Picker::Zipf(Zipf::new(data.keys, exponent)),
            Distribution::Sequential => Picker::Sequential {
                count: data.keys,
                next: index as u64 % data.keys,
                step: load.connections as u64,
            },
        };
        let mut sum = 0.0;
        let mix = load.mix.iter().map(|(operation, share)| {
            sum += share;
            (*operation, sum)
        });
        let mut writer = Writer {
            data: *data,
            mix: mix.collect(),
            keys_per_command: load.keys_per_command,
            picker,
            random: Random::new(seed ^ ((index as u64) << 32)),
        };
        let sequential = load.distribution == Distribution::Sequential;
        let first = writer.batch(Batch::default(), first_length);
        let affordable = BOOKS_BYTES_MAX / load.connections / first.bytes.len().max(1);
        let count = match load.pace {
            _ if sequential => 1,
            Pace::Open { .. } => affordable.clamp(OPEN_BATCHES_MIN, BATCHES_MAX),
            Pace::Closed => affordable.clamp(1, BATCHES_MAX),
        };
        let mut batches = vec![first];
        while batches.len() < count {
            batches.push(writer.batch(Batch::default(), load.pipeline));
        }
        Book { batches, next: 0, writer, stale: false, sequential }
    }

    /// How many batches may await replies at a time.
    pub fn capacity(&self) -> usize {
        self.batches.len()
    }

    /// Takes the next batch of `length` requests. The caller awaits replies for fewer than [`Book::capacity`] batches.
    pub fn take(&mut self, length: usize) -> usize {
        let taken = self.next;
        self.next = (self.next + 1) % self.batches.len();
        let batch = &mut self.batches[taken];
        if self.stale || batch.expected.len() != length {
            *batch = self.writer.batch(std::mem::take(batch), length);
        }
        self.stale = self.sequential;
        taken
    }

    /// A batch that was taken.
    pub fn batch(&self, index: usize) -> &Batch {
        &self.batches[index]
    }
}

impl Writer {
    /// Builds a batch in the memory of a used one.
    fn batch(&mut self, mut batch: Batch, length: usize) -> Batch {
        batch.bytes.clear();
        batch.expected.clear();
        batch.keys.clear();
        for _ in 0..length {
            let operation = self.operation();
            let first_key = batch.keys.len();
            for _ in 0..operation.key_count(self.keys_per_command) {
                batch.keys.push(self.picker.pick(&mut self.random));
            }
            let keys = &batch.keys[first_key..];
            operation.encode(&mut batch.bytes, keys, &self.data);
            let key_count = keys.len() as u32;
            batch.expected.push(Expected { operation, first_key: first_key as u32, key_count });
        }
        batch
    }

    fn operation(&mut self) -> Operation {
        let (last, total) = *self.mix.last().expect("a load has a mix");
        if self.mix.len() == 1 {
            return last;
        }
        let drawn = self.random.unit() * total;
        self.mix.iter().find(|(_, sum)| drawn < *sum).map_or(last, |(operation, _)| *operation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::Sizes;
    use super::*;

    const DATA: Data =
        Data { keys: 10, key_size: 16, sizes: Sizes { smallest: 8, largest: 8 }, ttl_seconds: 60 };

    fn load(distribution: Distribution, mix: &[(Operation, f64)]) -> Load {
        Load {
            name: "test".into(),
            mix: mix.to_vec(),
            distribution,
            keys_per_command: 3,
            pipeline: 4,
            connections: 2,
            threads: 1,
            pace: Pace::Closed,
        }
    }

    #[test]
    fn sequential_books_of_all_connections_cover_every_key_once() {
        let load = load(Distribution::Sequential, &[(Operation::Set, 1.0)]);
        let mut seen = [0; 10];
        for index in 0..2 {
            let mut book = Book::new(&DATA, &load, index, 4, 1);
            for length in [4, 1] {
                let taken = book.take(length);
                let batch = book.batch(taken);
                assert_eq!(batch.expected.len(), length);
                for expected in &batch.expected {
                    seen[batch.keys(*expected)[0] as usize] += 1;
                }
            }
        }
        assert_eq!(seen, [1; 10]);
    }

    #[test]
    fn mixes_have_their_shares() {
        let load = load(Distribution::Uniform, &[(Operation::Get, 3.0), (Operation::MSet, 1.0)]);
        let mut book = Book::new(&DATA, &load, 0, 4, 1);
        let (mut gets, mut all) = (0, 0);
        for _ in 0..2_500 {
            let taken = book.take(4);
            let batch = book.batch(taken);
            for expected in &batch.expected {
                all += 1;
                match expected.operation {
                    Operation::Get => gets += 1,
                    _ => assert_eq!(batch.keys(*expected).len(), 3),
                }
            }
        }
        assert_eq!(all, 10_000);
        assert!((7_300..7_700).contains(&gets), "{gets} of {all} are GET");
    }

    #[test]
    fn the_same_seed_writes_the_same_book() {
        let load = load(Distribution::Zipf { exponent: 0.99 }, &[(Operation::Get, 1.0)]);
        let bytes = |seed| Book::new(&DATA, &load, 0, 4, seed).batches[3].bytes.clone();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }
}
