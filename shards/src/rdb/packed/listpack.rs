//! Listpacks: Redis 5 for streams, 7 for all small collections.
//!
//! `size u32 | count u16 | entries | 0xff`. An entry is a byte that tells its kind, data, and its
//! own length once more in 1 to 5 bytes that are read backwards. A count of 65,535 means that
//! nobody has counted.

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

/// Writes a listpack.
pub(in crate::rdb) struct Writer {
    blob: Vec<u8>,
    count: usize,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { blob: vec![0; HEAD_BYTES], count: 0 }
    }
}

impl Writer {
    /// Adds an integer.
    pub(in crate::rdb) fn integer(&mut self, n: i64) {
        let start = self.blob.len();
        let bytes = n.to_le_bytes();
        match n {
            0..0x80 => self.blob.push(n as u8),
            -0x1000..0x1000 => {
                let n = n as u16 & 0x1fff;
                self.blob.extend_from_slice(&(0xc000 | n).to_be_bytes());
            }
            -0x8000..0x8000 => self.entry(0xf1, &bytes[..2]),
            -0x80_0000..0x80_0000 => self.entry(0xf2, &bytes[..3]),
            -0x8000_0000..0x8000_0000 => self.entry(0xf3, &bytes[..4]),
            _ => self.entry(0xf4, &bytes),
        }
        self.end_entry(start);
    }

    /// Adds a string; the canonical text of an integer as that integer.
    pub(in crate::rdb) fn string(&mut self, string: &[u8]) {
        if let Some(n) = canonical_integer(string) {
            return self.integer(n);
        }
        let start = self.blob.len();
        match string.len() {
            size @ 0..0x40 => self.entry(0x80 | size as u8, string),
            size @ 0x40..0x1000 => {
                self.blob.extend_from_slice(&(0xe000 | size as u16).to_be_bytes());
                self.blob.extend_from_slice(string);
            }
            size => {
                self.entry(0xf0, &(size as u32).to_le_bytes());
                self.blob.extend_from_slice(string);
            }
        }
        self.end_entry(start);
    }

    fn entry(&mut self, kind: u8, data: &[u8]) {
        self.blob.push(kind);
        self.blob.extend_from_slice(data);
    }

    fn end_entry(&mut self, start: usize) {
        let (bytes, size) = backwards(self.blob.len() - start);
        self.blob.extend_from_slice(&bytes[..size]);
        self.count += 1;
    }

    /// The listpack.
    pub(in crate::rdb) fn finish(mut self) -> Vec<u8> {
        self.blob.push(END);
        let size = self.blob.len() as u32;
        let count = self.count.min(UNCOUNTED) as u16;
        self.blob[..4].copy_from_slice(&size.to_le_bytes());
        self.blob[4..HEAD_BYTES].copy_from_slice(&count.to_le_bytes());
        self.blob
    }
}

/// The integer whose text this is, when printing the integer gives the text again.
fn canonical_integer(text: &[u8]) -> Option<i64> {
    /// The longest text: `-9223372036854775808`.
    const TEXT_BYTES_MAX: usize = 20;
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let n: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(n).as_bytes() == text).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let integers = [0, 127, 128, -1, 4095, -4096, 4096, 1 << 15, -(1 << 15), 1 << 23, 1 << 31]
            .into_iter()
            .chain([-(1i64 << 31), i64::MAX, i64::MIN]);
        let strings = [0, 1, 63, 64, 4095, 4096, 70_000].map(|size| vec![b'x'; size]);
        let mut writer = Writer::default();
        integers.clone().for_each(|n| writer.integer(n));
        strings.iter().for_each(|string| writer.string(string));
        ["12", "-9223372036854775808", "012", "9223372036854775808"]
            .iter()
            .for_each(|text| writer.string(text.as_bytes()));
        let blob = writer.finish();
        let read = Listpack::read(&blob).expect("just written");
        let expected = integers
            .map(Element::Integer)
            .chain(strings.iter().map(|string| Element::Bytes(string)))
            .chain([Element::Integer(12), Element::Integer(i64::MIN), Element::Bytes(b"012")])
            .chain([Element::Bytes(b"9223372036854775808")]);
        assert!(read.eq(expected));
    }

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
