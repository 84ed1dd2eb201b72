//! HyperLogLog: counting distinct elements in a string of at most 12,304 bytes, to about 0.81 %.
//!
//! A value is a string that other Redis servers understand: a header of 16 bytes, then 16,384
//! registers of six bits, packed ([`dense`]) or as runs ([`sparse`]). An element's hash names a
//! register and a rank, the place of the lowest bit that is set in the rest of it; the register
//! keeps the highest rank. What is done here to the bytes is what Redis does, so values compare
//! equal byte for byte.
//!
//! ```text
//! "HYLL" │ encoding: 0 dense, 1 sparse │ 0 0 0 │ cached count, little-endian u64; top bit: not valid
//! ```
//!
//! The count is never written into the header: a read changes nothing. A count that another server
//! cached there is believed until the value changes.
//!
//! Source: Heule, Nunkesser, Hall, "HyperLogLog in Practice" (2013), for the registers; Ertl, "New
//! cardinality estimation algorithms for HyperLogLog sketches" (2017), section 4, for the estimate.

mod dense;
mod estimate;
mod hash;
mod sparse;

use crate::refusal::Refusal;

/// Count of registers.
pub const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;
/// Bits of the hash that a rank counts.
const RANK_BITS: u32 = 64 - INDEX_BITS;
/// Bytes of the header.
const HEADER_BYTES: usize = 16;
/// Bytes of a dense value.
const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * 6 / 8;
/// A sparse value of more bytes becomes dense: the default of `hll-sparse-max-bytes`.
const SPARSE_BYTES_MAX: usize = 3000;
const MAGIC: &[u8] = b"HYLL";

/// The key holds a string that is no HyperLogLog.
pub const NO_HYPERLOGLOG: Refusal =
    Refusal::text("WRONGTYPE Key is not a valid HyperLogLog string value.");
/// The runs of a sparse value do not cover all registers.
pub const CORRUPTED: Refusal = Refusal::text("INVALIDOBJ Corrupted HLL object detected");

/// The highest rank of each register, one byte each.
pub type Registers = [u8; REGISTERS];

/// How registers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Six bits each.
    Dense,
    /// As runs.
    Sparse,
}

/// Where an element counts: a register and the rank it must have at least.
pub fn place(element: &[u8]) -> (usize, u8) {
    let hash = hash::murmur64a(element, hash::SEED);
    let index = hash as usize & (REGISTERS - 1);
    // The guard bit ends the run of zeros.
    let rest = hash >> INDEX_BITS | 1 << RANK_BITS;
    (index, rest.trailing_zeros() as u8 + 1)
}

/// The encoding of a value. Errors: [`NO_HYPERLOGLOG`].
pub fn encoding(value: &[u8]) -> Result<Encoding, Refusal> {
    match (value.get(..4), value.get(4), value.len()) {
        (Some(MAGIC), Some(0), DENSE_BYTES) => Ok(Encoding::Dense),
        (Some(MAGIC), Some(1), HEADER_BYTES..) => Ok(Encoding::Sparse),
        _ => Err(NO_HYPERLOGLOG),
    }
}

/// The count in the header, if it is valid.
pub fn cached_count(value: &[u8]) -> Option<u64> {
    let bytes = value[8..HEADER_BYTES].try_into().expect("eight bytes");
    Some(u64::from_le_bytes(bytes)).filter(|count| count >> 63 == 0)
}

/// The estimated count of distinct elements. Errors: [`CORRUPTED`].
pub fn count(value: &[u8], encoding: Encoding) -> Result<u64, Refusal> {
    let histogram = match encoding {
        Encoding::Dense => dense::histogram(&value[HEADER_BYTES..]),
        Encoding::Sparse => sparse::histogram(&value[HEADER_BYTES..]).ok_or(CORRUPTED)?,
    };
    Ok(estimate::count(&histogram))
}

/// The estimate of all values whose registers were merged.
pub fn count_registers(registers: &Registers) -> u64 {
    let mut histogram: estimate::Histogram = [0; 64];
    registers.iter().for_each(|&rank| histogram[usize::from(rank)] += 1);
    estimate::count(&histogram)
}

/// Raises each register to that of a value. Errors: [`CORRUPTED`].
pub fn merge(registers: &mut Registers, value: &[u8], encoding: Encoding) -> Result<(), Refusal> {
    let registers_of = &value[HEADER_BYTES..];
    match encoding {
        Encoding::Dense => dense::merge(registers, registers_of),
        Encoding::Sparse => sparse::merge(registers, registers_of).ok_or(CORRUPTED)?,
    }
    Ok(())
}

/// Would any of these places change a dense value?
pub fn dense_changes(value: &[u8], mut places: impl Iterator<Item = (usize, u8)>) -> bool {
    places.any(|(index, rank)| dense::get(&value[HEADER_BYTES..], index) < rank)
}

/// Raises registers of a dense value in place; its cached count is no longer valid.
pub fn raise_dense(value: &mut [u8], places: impl Iterator<Item = (usize, u8)>) {
    for (index, rank) in places {
        dense::raise(&mut value[HEADER_BYTES..], index, rank);
    }
    forget_count(value);
}

fn forget_count(value: &mut [u8]) {
    value[HEADER_BYTES - 1] |= 0x80;
}

/// A value that is being changed.
#[derive(Clone, Debug)]
pub struct Sketch {
    bytes: Vec<u8>,
    encoding: Encoding,
}

impl Default for Sketch {
    /// One that has seen nothing.
    fn default() -> Sketch {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = 1;
        bytes.extend_from_slice(&sparse::EMPTY);
        Sketch { bytes, encoding: Encoding::Sparse }
    }
}

impl Sketch {
    /// A copy of a value. Errors: [`NO_HYPERLOGLOG`].
    pub fn of(value: &[u8]) -> Result<Sketch, Refusal> {
        Ok(Sketch { bytes: value.to_vec(), encoding: encoding(value)? })
    }

    /// The value's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How its registers are kept.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Raises a register, becoming dense when the runs no longer fit. Did anything change?
    /// Errors: [`CORRUPTED`].
    pub fn raise(&mut self, index: usize, rank: u8) -> Result<bool, Refusal> {
        if self.encoding == Encoding::Sparse {
            let mut runs = sparse::Runs { bytes: &mut self.bytes, bytes_max: SPARSE_BYTES_MAX };
            match runs.raise(index, rank).ok_or(CORRUPTED)? {
                sparse::Raised::Changed => return Ok(true),
                sparse::Raised::Not => return Ok(false),
                sparse::Raised::TooLong => self.make_dense()?,
            }
        }
        Ok(dense::raise(&mut self.bytes[HEADER_BYTES..], index, rank))
    }

    /// Keeps its registers packed from now on. Errors: [`CORRUPTED`].
    pub fn make_dense(&mut self) -> Result<(), Refusal> {
        if self.encoding == Encoding::Dense {
            return Ok(());
        }
        let mut registers = [0; REGISTERS];
        sparse::merge(&mut registers, &self.bytes[HEADER_BYTES..]).ok_or(CORRUPTED)?;
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.resize(DENSE_BYTES, 0);
        self.bytes[4] = 0;
        for (index, rank) in registers.into_iter().enumerate() {
            dense::raise(&mut self.bytes[HEADER_BYTES..], index, rank);
        }
        self.encoding = Encoding::Dense;
        Ok(())
    }

    /// Its cached count is no longer valid.
    pub fn forget_count(&mut self) {
        forget_count(&mut self.bytes);
    }
}

/// The runs of a sparse value in words (`z:5`, `Z:16384`, `v:1,2`), as PFDEBUG DECODE shows them.
/// `None` when they are cut short.
pub fn decode(value: &[u8]) -> Option<String> {
    sparse::decode(&value[HEADER_BYTES..])
}

/// Checks the arithmetic as PFSELFTEST promises: random registers read back, and estimates of known
/// counts in both encodings. Errors: what went wrong.
pub fn self_test() -> Result<(), String> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bits = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut packed, mut naive) = (vec![0; DENSE_BYTES - HEADER_BYTES], [0; REGISTERS]);
    for _ in 0..8 * REGISTERS {
        let (index, rank) = (bits() as usize % REGISTERS, (bits() % 64) as u8);
        dense::raise(&mut packed, index, rank);
        naive[index] = rank.max(naive[index]);
    }
    if let Some(index) = (0..REGISTERS).find(|&i| dense::get(&packed, i) != naive[i]) {
        return Err(format!("TESTFAILED register {index} should be {}", naive[index]));
    }
    let (mut either, mut dense) = (Sketch::default(), Sketch::default());
    dense.make_dense().map_err(|refusal| refusal.to_string())?;
    let mut next_check = 1;
    for added in 1..=100_000u64 {
        let (index, rank) = place(&bits().to_le_bytes());
        for sketch in [&mut either, &mut dense] {
            sketch.raise(index, rank).map_err(|refusal| refusal.to_string())?;
        }
        if added != next_check {
            continue;
        }
        next_check *= 10;
        let estimates = [&either, &dense].map(|sketch| count(&sketch.bytes, sketch.encoding));
        let [Ok(a), Ok(b)] = estimates else {
            return Err("TESTFAILED a value of its own is corrupted".into());
        };
        // Six standard errors of 1.04 / sqrt(registers), and one element for small counts.
        let allowed = (added as f64 * 6.0 * 1.04 / 128.0).ceil() as u64 + 1;
        if a != b || a.abs_diff(added) > allowed {
            return Err(format!("TESTFAILED {added} elements were taken for {a} and {b}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_test_passes() {
        assert_eq!(self_test(), Ok(()));
    }

    #[test]
    fn a_new_value_is_redis_own() {
        let sketch = Sketch::default();
        assert_eq!(sketch.bytes(), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff");
        assert_eq!(cached_count(sketch.bytes()), Some(0));
        assert_eq!(count(sketch.bytes(), Encoding::Sparse), Ok(0));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let right = Sketch::default();
        for length in 0..HEADER_BYTES {
            assert_eq!(encoding(&right.bytes()[..length]), Err(NO_HYPERLOGLOG));
        }
        for (at, byte) in [(0, b'h'), (4, 2), (4, 0)] {
            let mut wrong = right.bytes().to_vec();
            wrong[at] = byte;
            assert_eq!(encoding(&wrong), Err(NO_HYPERLOGLOG), "{at}");
        }
        // Runs that are cut short, or go on past the last register.
        for runs in [&b""[..], b"\x7f", b"\x7f\xfe", b"\x7f\xff\x00", b"\x80"] {
            let value = [&right.bytes()[..HEADER_BYTES], runs].concat();
            assert_eq!(count(&value, Encoding::Sparse), Err(CORRUPTED), "{runs:?}");
            let mut registers = [0; REGISTERS];
            assert_eq!(merge(&mut registers, &value, Encoding::Sparse), Err(CORRUPTED));
            let mut sketch = Sketch::of(&value).expect("its header is right");
            assert_eq!(sketch.make_dense(), Err(CORRUPTED));
        }
    }

    #[test]
    fn both_encodings_hold_the_same_registers() {
        let (mut sketch, mut naive) = (Sketch::default(), [0u8; REGISTERS]);
        for n in 0..60_000u32 {
            let (index, rank) = place(&n.to_le_bytes());
            let changed = sketch.raise(index, rank).expect("its own value");
            assert_eq!(changed, rank > naive[index], "element {n}");
            naive[index] = rank.max(naive[index]);
            if n < 3000 && n % 50 == 0 || n % 10_000 == 0 {
                let mut registers = [0; REGISTERS];
                merge(&mut registers, sketch.bytes(), sketch.encoding()).expect("its own value");
                assert!(registers == naive, "after element {n}");
                let counted = count(sketch.bytes(), sketch.encoding());
                assert_eq!(counted, Ok(count_registers(&naive)), "after element {n}");
            }
        }
        assert_eq!(sketch.encoding(), Encoding::Dense);
    }

    #[test]
    fn a_rank_beyond_what_runs_hold_makes_it_dense() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.raise(5, 32), Ok(true));
        assert_eq!(sketch.encoding(), Encoding::Sparse);
        assert_eq!(sketch.raise(5, 33), Ok(true));
        assert_eq!(sketch.encoding(), Encoding::Dense);
        assert_eq!(sketch.raise(5, 33), Ok(false));
    }
}
