//! Sets of integers alone: an ascending array of 2, 4 or 8 bytes each, as wide as the widest needs.
//!
//! ```text
//! width u8 | integers, little endian
//! ```

/// Such a set, read from its bytes; without any it is empty.
#[derive(Clone, Copy, Debug)]
pub struct Integers<'a> {
    bytes: &'a [u8],
}

impl<'a> Integers<'a> {
    /// The set that these bytes are.
    pub fn new(bytes: &'a [u8]) -> Integers<'a> {
        Integers { bytes }
    }

    fn width(self) -> usize {
        self.bytes.first().map_or(2, |&width| width.into())
    }

    /// Count of members.
    pub fn count(self) -> usize {
        self.bytes.len().saturating_sub(1) / self.width()
    }

    /// The member of a rank, which is below the count.
    pub fn at(self, rank: usize) -> i64 {
        let width = self.width();
        let bytes = &self.bytes[1 + rank * width..][..width];
        let negative = bytes[width - 1] & 0x80 != 0;
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..width].copy_from_slice(bytes);
        i64::from_le_bytes(all)
    }

    /// The rank of a member, or the one that it would have.
    pub fn find(self, n: i64) -> Result<usize, usize> {
        let (mut start, mut end) = (0, self.count());
        while start < end {
            let middle = (start + end) / 2;
            match self.at(middle).cmp(&n) {
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        Err(start)
    }

    /// The bytes with one member more; `None` when it is there.
    pub fn with(self, n: i64) -> Option<Vec<u8>> {
        let rank = self.find(n).err()?;
        let needed = if i16::try_from(n).is_ok() {
            2
        } else if i32::try_from(n).is_ok() {
            4
        } else {
            8
        };
        let width = needed.max(self.width());
        let mut bytes = Vec::with_capacity(1 + (self.count() + 1) * width);
        bytes.push(width as u8);
        if width == self.width() && !self.bytes.is_empty() {
            let (before, behind) = self.bytes[1..].split_at(rank * width);
            bytes.extend_from_slice(before);
            bytes.extend_from_slice(&n.to_le_bytes()[..width]);
            bytes.extend_from_slice(behind);
        } else {
            let before = (0..rank).map(|at| self.at(at));
            let behind = (rank..self.count()).map(|at| self.at(at));
            for member in before.chain([n]).chain(behind) {
                bytes.extend_from_slice(&member.to_le_bytes()[..width]);
            }
        }
        Some(bytes)
    }

    /// The bytes without some members. The width stays.
    pub fn without(self, rank: usize, count: usize) -> Vec<u8> {
        let width = self.width();
        let (start, end) = (1 + rank * width, 1 + (rank + count) * width);
        [&self.bytes[..start], &self.bytes[end..]].concat()
    }

    /// Bytes of the longest text of a member.
    pub fn longest_text(self) -> usize {
        let size = |at: usize| itoa::Buffer::new().format(self.at(at)).len();
        match self.count() {
            0 => 0,
            // The ends are the longest of either sign.
            count => size(0).max(size(count - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_every_width_go_in_and_out() {
        let mut bytes = Vec::new();
        let members = [5, -3, 70_000, i64::MAX, i64::MIN, 0, -70_000, i64::from(i16::MIN)];
        for n in members {
            bytes = Integers::new(&bytes).with(n).expect("new");
            assert_eq!(Integers::new(&bytes).with(n), None, "{n} twice");
        }
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        let set = Integers::new(&bytes);
        assert!((0..set.count()).map(|at| set.at(at)).eq(sorted.iter().copied()));
        assert_eq!(set.longest_text(), 20);
        let rest = set.without(1, 6);
        let rest = Integers::new(&rest);
        assert_eq!((rest.count(), rest.at(0), rest.at(1)), (2, i64::MIN, i64::MAX));
        assert_eq!(rest.find(0), Err(1));
        assert_eq!(Integers::new(&rest.without(0, 2)).count(), 0);
    }
}
