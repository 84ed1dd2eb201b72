//! Ziplists: small collections up to Redis 6.2.
//!
//! `size u32 | offset of the last entry u32 | count u16 | entries | 0xff`. An entry begins with the
//! length of the one before (1 byte, or 254 and 4 bytes), then a byte that tells its kind. A count
//! of 65,535 means that nobody has counted.

use super::{Element, Fields};

const HEAD_BYTES: usize = 10;
const END: u8 = 0xff;
const LONG: u8 = 0xfe;
const UNCOUNTED: usize = 0xffff;

/// The elements of a good ziplist.
#[derive(Clone)]
pub(in crate::rdb) struct Ziplist<'a> {
    fields: Fields<'a>,
    count: usize,
}

impl<'a> Ziplist<'a> {
    /// Checks all of `blob`; `None` when it is no ziplist.
    pub(in crate::rdb) fn read(blob: &'a [u8]) -> Option<Ziplist<'a>> {
        let mut fields = Fields { rest: blob };
        let (size, tail) = (fields.u32()? as usize, fields.u32()? as usize);
        let recorded = usize::from(fields.u16()?);
        let (&end, entries) = fields.rest.split_last()?;
        if size != blob.len() || end != END {
            return None;
        }
        let (all, mut count) = (Fields { rest: entries }, 0);
        let (mut last, mut length) = (HEAD_BYTES, 0);
        fields = all;
        while !fields.rest.is_empty() {
            let start = fields.rest.len();
            last = HEAD_BYTES + entries.len() - start;
            let (before, _) = entry(&mut fields)?;
            if before != length {
                return None;
            }
            length = start - fields.rest.len();
            count += 1;
        }
        let counted = recorded == UNCOUNTED || recorded == count;
        (tail == last && counted).then_some(Ziplist { fields: all, count })
    }

    /// How many elements there are.
    pub(in crate::rdb) fn size(&self) -> usize {
        self.count
    }
}

impl<'a> Iterator for Ziplist<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        entry(&mut self.fields).map(|(_, element)| element)
    }
}

/// The length of the entry before, and the element.
fn entry<'a>(fields: &mut Fields<'a>) -> Option<(usize, Element<'a>)> {
    let before = match fields.byte()? {
        LONG => fields.u32()? as usize,
        END => return None,
        short => short.into(),
    };
    let kind = fields.byte()?;
    let element = match kind {
        0..0x40 => Element::Bytes(fields.take(kind.into())?),
        0x40..0x80 => {
            let length = usize::from(kind & 0x3f) << 8 | usize::from(fields.byte()?);
            Element::Bytes(fields.take(length)?)
        }
        // Redis writes 0x80, and reads any of these.
        0x80..0xc0 => {
            let length = u32::from_be_bytes(fields.array()?) as usize;
            Element::Bytes(fields.take(length)?)
        }
        0xc0 => Element::Integer(fields.signed(2)?),
        0xd0 => Element::Integer(fields.signed(4)?),
        0xe0 => Element::Integer(fields.signed(8)?),
        0xf0 => Element::Integer(fields.signed(3)?),
        0xfe => Element::Integer(fields.signed(1)?),
        0xf1..=0xfd => Element::Integer(i64::from(kind & 0x0f) - 1),
        _ => return None,
    };
    Some((before, element))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ziplist of entries without the length of the one before.
    fn ziplist(entries: &[&[u8]]) -> Vec<u8> {
        let mut blob = vec![0; HEAD_BYTES];
        let (mut last, mut length) = (HEAD_BYTES, 0);
        for entry in entries {
            last = blob.len();
            if length < LONG as usize {
                blob.push(length as u8);
            } else {
                blob.push(LONG);
                blob.extend_from_slice(&(length as u32).to_le_bytes());
            }
            blob.extend_from_slice(entry);
            length = blob.len() - last;
        }
        blob.push(END);
        let size = blob.len() as u32;
        blob[..4].copy_from_slice(&size.to_le_bytes());
        blob[4..8].copy_from_slice(&(last as u32).to_le_bytes());
        blob[8..10].copy_from_slice(&(entries.len() as u16).to_le_bytes());
        blob
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        let long: Vec<u8> = [0x41, 0x00].into_iter().chain([b'x'; 256]).collect();
        let huge: Vec<u8> =
            [0x80, 0, 0, 0x10, 0x00].into_iter().chain(std::iter::repeat_n(b'y', 4096)).collect();
        let blob = ziplist(&[
            &[0x02, b'a', b'b'],
            &long,
            &huge,
            &[0xc0, 0x00, 0x80],
            &[0xd0, 0x00, 0x00, 0x00, 0x80],
            &[0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0xf0, 0x00, 0x00, 0x80],
            &[0xfe, 0x80],
            &[0xf1],
            &[0xfd],
        ]);
        let read = Ziplist::read(&blob).expect("good");
        assert_eq!(read.size(), 10);
        let expected = [
            Element::Bytes(b"ab"),
            Element::Bytes(&[b'x'; 256]),
            Element::Bytes(&[b'y'; 4096]),
            Element::Integer(-32768),
            Element::Integer(i32::MIN.into()),
            Element::Integer(i64::MAX),
            Element::Integer(-(1 << 23)),
            Element::Integer(-128),
            Element::Integer(0),
            Element::Integer(12),
        ];
        assert!(read.eq(expected));
    }

    #[test]
    fn damage_is_found() {
        let blob = ziplist(&[&[0x02, b'a', b'b'], &[0xfe, 5], &[0xf3]]);
        assert!(Ziplist::read(&blob).is_some());
        for cut in 0..blob.len() {
            assert!(Ziplist::read(&blob[..cut]).is_none(), "cut to {cut}");
        }
        let data = [12, 13, 16];
        for place in (0..blob.len()).filter(|place| !data.contains(place)) {
            let mut flipped = blob.clone();
            flipped[place] ^= 0x20;
            assert!(Ziplist::read(&flipped).is_none(), "flipped {place}");
        }
        assert!(Ziplist::read(&ziplist(&[])).is_some(), "an empty one is one");
    }
}
