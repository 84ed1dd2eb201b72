//! Requests built ahead: while a run is measured, sending one is copying bytes that lie ready.
//!
//! Each connection has a book of its own: batches one behind the other in one piece of memory, sent
//! from first to last and from the first again. Where the same keys must not come again (sequential
//! keys), and for a last, shorter batch, a batch is built when its turn comes; of those only one
//! can await replies at a time.

use super::keys::{Picker, Zipf};
use super::operations::Operation;
use super::plan::{Data, Distribution, Load, Pace};
use super::random::Random;

/// Bytes of requests that all books of one load may take.
const BOOKS_BYTES_MAX: usize = 96 << 20;

/// Batches of a book: enough that the server's caches do not know the sequence by heart, few enough
/// to build fast.
const BATCHES_MAX: usize = 16_384;

/// Batches that a book in which requests wait for replies (open loop) has at least.
const OPEN_BATCHES_MIN: usize = 256;

/// One request as its reply will be judged.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The command.
    pub operation: Operation,
    /// Where its keys begin.
    first_key: u32,
    key_count: u32,
}

/// Requests that are sent together.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The encoded requests.
    pub bytes: &'a [u8],
    /// What is expected for each.
    pub expected: &'a [Expected],
    keys: &'a [u64],
}

impl Batch<'_> {
    /// The keys of one of its requests.
    pub fn keys(&self, expected: Expected) -> &[u64] {
        &self.keys[expected.first_key as usize..][..expected.key_count as usize]
    }
}

/// Requests one behind the other.
#[derive(Default)]
struct Requests {
    bytes: Vec<u8>,
    expected: Vec<Expected>,
    keys: Vec<u64>,
}

/// The batches of a connection.
pub struct Book {
    ahead: Requests,
    /// Where in the bytes, and at which request, each batch built ahead begins; and the end.
    starts: Vec<(usize, usize)>,
    next: usize,
    /// The batch that was built when its turn came.
    late: Requests,
    writer: Writer,
    /// Whether batches built ahead may be sent: with sequential keys only the first time.
    usable: bool,
    sequential: bool,
}

/// The number of the batch that was not built ahead.
const LATE: usize = usize::MAX;

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
        let mut ahead = Requests::default();
        let mut starts = vec![(0, 0)];
        writer.append(&mut ahead, first_length);
        let affordable = BOOKS_BYTES_MAX / load.connections / ahead.bytes.len().max(1);
        let count = match load.pace {
            _ if sequential => 1,
            Pace::Open { .. } => affordable.clamp(OPEN_BATCHES_MIN, BATCHES_MAX),
            Pace::Closed => affordable.clamp(1, BATCHES_MAX),
        };
        starts.push((ahead.bytes.len(), ahead.expected.len()));
        while starts.len() <= count {
            writer.append(&mut ahead, load.pipeline);
            starts.push((ahead.bytes.len(), ahead.expected.len()));
        }
        let late = Requests::default();
        Book { ahead, starts, next: 0, late, writer, usable: true, sequential }
    }

    /// How many batches may await replies at a time.
    pub fn capacity(&self) -> usize {
        self.starts.len() - 1
    }

    /// Takes the next batch of `length` requests. The caller awaits replies for fewer than
    /// [`Book::capacity`] batches, and asks for another length than that of the load only when
    /// it is the last time.
    pub fn take(&mut self, length: usize) -> usize {
        let ahead = self.starts[self.next + 1].1 - self.starts[self.next].1;
        if !self.usable || ahead != length {
            self.late.clear();
            self.writer.append(&mut self.late, length);
            return LATE;
        }
        let taken = self.next;
        self.next = (self.next + 1) % self.capacity();
        self.usable = !self.sequential;
        taken
    }

    /// A batch that was taken.
    pub fn batch(&self, index: usize) -> Batch<'_> {
        if index == LATE {
            let Requests { bytes, expected, keys } = &self.late;
            return Batch { bytes, expected, keys };
        }
        let (begin, end) = (self.starts[index], self.starts[index + 1]);
        Batch {
            bytes: &self.ahead.bytes[begin.0..end.0],
            expected: &self.ahead.expected[begin.1..end.1],
            keys: &self.ahead.keys,
        }
    }
}

impl Requests {
    fn clear(&mut self) {
        self.bytes.clear();
        self.expected.clear();
        self.keys.clear();
    }
}

impl Writer {
    /// Writes `length` requests behind those that are there.
    fn append(&mut self, requests: &mut Requests, length: usize) {
        for _ in 0..length {
            let operation = self.operation();
            let first_key = requests.keys.len();
            for _ in 0..operation.key_count(self.keys_per_command) {
                requests.keys.push(self.picker.pick(&mut self.random));
            }
            let keys = &requests.keys[first_key..];
            operation.encode(&mut requests.bytes, keys, &self.data);
            let key_count = keys.len() as u32;
            requests.expected.push(Expected { operation, first_key: first_key as u32, key_count });
        }
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
            bursts: None,
            urgent: false,
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
                for expected in batch.expected {
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
            for expected in batch.expected {
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
        let bytes = |seed| Book::new(&DATA, &load, 0, 4, seed).batch(3).bytes.to_vec();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }
}
