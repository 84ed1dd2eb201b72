//! Intsets: `width u32 | count u32 | integers`, all of one width of 2, 4 or 8 bytes, strictly
//! ascending.

use super::Fields;

/// The members of a good intset.
#[derive(Clone)]
pub(in crate::rdb) struct Intset<'a> {
    fields: Fields<'a>,
    width: usize,
}

impl<'a> Intset<'a> {
    /// Checks all of `blob`; `None` when it is no intset or has no members.
    pub(in crate::rdb) fn read(blob: &'a [u8]) -> Option<Intset<'a>> {
        let mut fields = Fields { rest: blob };
        let (width, count) = (fields.u32()? as usize, fields.u32()? as usize);
        let is_known = matches!(width, 2 | 4 | 8);
        if !is_known || count == 0 || count.checked_mul(width)? != fields.rest.len() {
            return None;
        }
        let members = Intset { fields, width };
        members.clone().is_sorted_by(|a, b| a < b).then_some(members)
    }

    /// How many members there are.
    pub(in crate::rdb) fn size(&self) -> usize {
        self.fields.rest.len() / self.width
    }
}

impl Iterator for Intset<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.fields.signed(self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intset(width: u32, members: &[i64]) -> Vec<u8> {
        let mut blob = width.to_le_bytes().to_vec();
        blob.extend_from_slice(&(members.len() as u32).to_le_bytes());
        for member in members {
            blob.extend_from_slice(&member.to_le_bytes()[..width.min(8) as usize]);
        }
        blob
    }

    #[test]
    fn every_width_is_read_and_disorder_refused() {
        for width in [2, 4, 8] {
            let blob = intset(width, &[-300, -1, 0, 7, 30_000]);
            let read = Intset::read(&blob).expect("good");
            assert_eq!(read.size(), 5);
            assert!(read.eq([-300, -1, 0, 7, 30_000]));
            assert!(Intset::read(&blob[..blob.len() - 1]).is_none());
        }
        assert!(Intset::read(&intset(2, &[])).is_none(), "no members");
        assert!(Intset::read(&intset(2, &[1, 1])).is_none(), "twice");
        assert!(Intset::read(&intset(2, &[2, 1])).is_none(), "disorder");
        assert!(Intset::read(&intset(3, &[1])).is_none(), "a width that is none");
        assert!(Intset::read(&[2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_none());
    }
}
