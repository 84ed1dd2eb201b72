//! Listpacks: Redis 5 for streams, 7 for all small collections.
//!
//! `size u32 | count u16 | entries | 0xff`. An entry is a byte that tells its kind, data, and its own length once
//! more in 1 to 5 bytes that are read backwards. A count of 65,535 means that nobody has counted.

use super::{Element, Fields};

const HEAD_BYTES: usize = 6;
const END: u8 = 0xff;
const UNCOUNTED: usize = 0xffff;

/// The elements of a good listpack.
#[derive(Clone)]
pub(in crate::rdb) struct Listpack<'a> {
    fields: Fields<'a>,
    count: usize,
}

impl<'a> Listpack<'a> {
    /// Checks all of `blob`; `None` when it is no listpack.
    pub(in crate::rdb) fn read(blob: &'a [u8]) -> Option<Listpack<'a>> {
        let mut fields = Fields { rest: blob };
        let (size, recorded) = (fields.u32()? as usize, usize::from(fields.u16()?));
        if size != blob.len() || blob.len() <= HEAD_BYTES {
            return None;
        }
        let (&end, entries) = fields.rest.split_last()?;
        if end != END {
            return None;
        }
        let (all, mut count) = (Fields { rest: entries }, 0);
        fields = all;
        while !fields.rest.is_empty() {
            entry(&mut fields)?;
            count += 1;
        }
        (recorded == UNCOUNTED || recorded == count).then_some(Listpack { fields: all, count })
    }

    /// How many elements there are.
    pub(in crate::rdb) fn size(&self) -> usize {
        self.count
    }
}

impl<'a> Iterator for Listpack<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        entry(&mut self.fields)
    }
}

fn entry<'a>(fields: &mut Fields<'a>) -> Option<Element<'a>> {
    let start = fields.rest;
    let kind = fields.byte()?;
    let element = match kind {
        0..0x80 => Element::Integer(kind.into()),
        0x80..0xc0 => Element::Bytes(fields.take(usize::from(kind & 0x3f))?),
        0xc0..0xe0 => {
            let n = i64::from(kind & 0x1f) << 8 | i64::from(fields.byte()?);
            Element::Integer(if n < 1 << 12 { n } else { n - (1 << 13) })
        }
        0xe0..0xf0 => {
            let length = usize::from(kind & 0x0f) << 8 | usize::from(fields.byte()?);
            Element::Bytes(fields.take(length)?)
        }
        0xf0 => {
            let length = fields.u32()? as usize;
            Element::Bytes(fields.take(length)?)
        }
        0xf1 => Element::Integer(fields.signed(2)?),
        0xf2 => Element::Integer(fields.signed(3)?),
        0xf3 => Element::Integer(fields.signed(4)?),
        0xf4 => Element::Integer(fields.signed(8)?),
        _ => return None,
    };
    let length = start.len() - fields.rest.len();
    let (backwards, size) = backwards(length);
    (fields.take(size)? == &backwards[..size]).then_some(element)
}

/// An entry's length as it stands behind it: seven bits a byte, all but the first marked.
fn backwards(length: usize) -> ([u8; 5], usize) {
    let size = match length {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let mut bytes = [0; 5];
    for (i, byte) in bytes[..size].iter_mut().enumerate() {
        let bits = (length >> (7 * (size - 1 - i))) as u8 & 0x7f;
        *byte = if i == 0 { bits } else { bits | 0x80 };
    }
    (bytes, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listpack of entries without their lengths backwards.
    pub(crate) fn listpack(entries: &[&[u8]]) -> Vec<u8> {
        let mut blob = vec![0; HEAD_BYTES];
        for entry in entries {
            blob.extend_from_slice(entry);
            let (bytes, size) = backwards(entry.len());
            blob.extend_from_slice(&bytes[..size]);
        }
        blob.push(END);
        let size = blob.len() as u32;
        blob[..4].copy_from_slice(&size.to_le_bytes());
        blob[4..6].copy_from_slice(&(entries.len() as u16).to_le_bytes());
        blob
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        let long: Vec<u8> = [0xe1, 0x00].into_iter().chain([b'x'; 256]).collect();
        let huge: Vec<u8> =
            [0xf0, 0x00, 0x10, 0, 0].into_iter().chain(std::iter::repeat_n(b'y', 4096)).collect();
        let blob = listpack(&[
            &[0x00],
            &[0x7f],
            &[0x82, b'a', b'b'],
            &[0xdf, 0xff],
            &[0xcf, 0xff],
            &long,
            &huge,
            &[0xf1, 0x00, 0x80],
            &[0xf2, 0xff, 0xff, 0x7f],
            &[0xf3, 0x00, 0x00, 0x00, 0x80],
            &[0xf4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ]);
        let read = Listpack::read(&blob).expect("good");
        assert_eq!(read.size(), 11);
        let expected = [
            Element::Integer(0),
            Element::Integer(127),
            Element::Bytes(b"ab"),
            Element::Integer(-1),
            Element::Integer(4095),
            Element::Bytes(&[b'x'; 256]),
            Element::Bytes(&[b'y'; 4096]),
            Element::Integer(-32768),
            Element::Integer((1 << 23) - 1),
            Element::Integer(i32::MIN.into()),
            Element::Integer(i64::MAX),
        ];
        assert!(read.eq(expected));
    }

    #[test]
    fn damage_is_found() {
        let blob = listpack(&[&[0x01], &[0x82, b'a', b'b'], &[0xf1, 1, 2]]);
        assert!(Listpack::read(&blob).is_some());
        for cut in 0..blob.len() {
            assert!(Listpack::read(&blob[..cut]).is_none(), "cut to {cut}");
        }
        // All but the bytes of elements: those are data.
        let data = [6, 9, 10, 13, 14];
        for place in (0..blob.len()).filter(|place| !data.contains(place)) {
            let mut flipped = blob.clone();
            flipped[place] ^= 0x40;
            assert!(Listpack::read(&flipped).is_none(), "flipped {place}");
        }
        let mut uncounted = blob;
        uncounted[4..6].fill(0xff);
        assert_eq!(Listpack::read(&uncounted).map(|read| read.size()), Some(3));
    }
}
