//! Zipmaps: small hashes of Redis before 2.6.
//!
//! `count u8 | pairs | 0xff`. A pair is a length and a field, a length, a byte that tells how much
//! room is free behind the value, and the value. A length is a byte, or 254 and four bytes. A count
//! from 254 on means that nobody has counted.

use super::Fields;

const END: u8 = 0xff;
const LONG: u8 = 0xfe;

/// The fields and values of a good zipmap.
#[derive(Clone)]
pub(in crate::rdb) struct Zipmap<'a> {
    fields: Fields<'a>,
    count: usize,
}

impl<'a> Zipmap<'a> {
    /// Checks all of `blob`; `None` when it is no zipmap.
    pub(in crate::rdb) fn read(blob: &'a [u8]) -> Option<Zipmap<'a>> {
        let mut fields = Fields { rest: blob };
        let recorded = fields.byte()?;
        let (&end, pairs) = fields.rest.split_last()?;
        if end != END {
            return None;
        }
        let (all, mut count) = (Fields { rest: pairs }, 0);
        fields = all;
        while !fields.rest.is_empty() {
            pair(&mut fields)?;
            count += 1;
        }
        let counted = recorded >= LONG || usize::from(recorded) == count;
        counted.then_some(Zipmap { fields: all, count })
    }

    /// How many fields there are.
    pub(in crate::rdb) fn size(&self) -> usize {
        self.count
    }
}

impl<'a> Iterator for Zipmap<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        pair(&mut self.fields)
    }
}

fn pair<'a>(fields: &mut Fields<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let length = length(fields)?;
    let field = fields.take(length)?;
    let length = self::length(fields)?;
    let free = usize::from(fields.byte()?);
    let value = fields.take(length)?;
    fields.take(free)?;
    Some((field, value))
}

fn length(fields: &mut Fields<'_>) -> Option<usize> {
    match fields.byte()? {
        END => None,
        LONG => Some(fields.u32()? as usize),
        short => Some(short.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_damage_found() {
        let blob = b"\x02\x03foo\x03\x00bar\x01a\x02\x02bc..\xff";
        let read = Zipmap::read(blob).expect("good");
        assert_eq!(read.size(), 2);
        assert!(read.eq([(&b"foo"[..], &b"bar"[..]), (b"a", b"bc")]));
        for cut in 0..blob.len() {
            assert!(Zipmap::read(&blob[..cut]).is_none(), "cut to {cut}");
        }
        for (place, byte) in [(0, 3), (1, 0xfd), (5, 0xff), (13, 3)] {
            let mut changed = blob.to_vec();
            changed[place] = byte;
            assert!(Zipmap::read(&changed).is_none(), "{byte} at {place}");
        }
        let long = [b"\xfe\xfe\x03\0\0\0foo\x00\x00".as_slice(), b"\xff"].concat();
        assert!(Zipmap::read(&long).expect("good").eq([(&b"foo"[..], &b""[..])]));
    }
}
