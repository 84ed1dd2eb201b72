//! Texts by name that a shard keeps for the server beside its items: libraries of functions. What
//! they mean the engine does not know.
//!
//! They are part of the shard's state: changed by its log alone, in its snapshots, in its digest.
//! Who changes them says which state they have judged, so that of two changes judged by the same
//! one only the first takes effect.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The texts of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Libraries {
    texts: BTreeMap<Vec<u8>, Arc<[u8]>>,
    /// Changes so far, in the shard's whole life.
    change_count: u64,
}

/// A change of [`Libraries`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryChange {
    /// The state it was judged by: see [`Libraries::change_count`].
    pub seen: u64,
    /// Is everything that was there taken out first?
    pub clears: bool,
    /// Names and their texts; an empty text takes the name out.
    pub texts: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Libraries {
    /// Changes so far: names a state.
    pub fn change_count(&self) -> u64 {
        self.change_count
    }

    /// Was there never one?
    pub fn is_untouched(&self) -> bool {
        self.change_count == 0
    }

    /// Names and texts, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<[u8]>)> {
        self.texts.iter().map(|(name, text)| (name.as_slice(), text))
    }

    /// The text of a name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<[u8]>> {
        self.texts.get(name)
    }

    /// Makes a change. False: it was judged by another state than this one, and nothing is done.
    pub fn change(&mut self, change: &LibraryChange) -> bool {
        if change.seen != self.change_count {
            return false;
        }
        if change.clears {
            self.texts.clear();
        }
        for (name, text) in &change.texts {
            if text.is_empty() {
                self.texts.remove(name);
            } else {
                self.texts.insert(name.clone(), text.as_slice().into());
            }
        }
        self.change_count += 1;
        true
    }

    /// The bytes in a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.change_count.to_le_bytes().to_vec();
        for (name, text) in self.iter() {
            for part in [name, text] {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
                out.extend_from_slice(part);
            }
        }
        out
    }

    /// Reads what [`Libraries::encode`] wrote; `None` when it is nothing such.
    pub fn decode(bytes: &[u8]) -> Option<Libraries> {
        let (count, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut texts = BTreeMap::new();
        while !rest.is_empty() {
            let name = take_part(&mut rest)?;
            texts.insert(name.to_vec(), take_part(&mut rest)?.into());
        }
        Some(Libraries { texts, change_count: u64::from_le_bytes(*count) })
    }
}

impl LibraryChange {
    /// The arguments of the operation behind its name.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let mut words = vec![self.seen.to_le_bytes().to_vec(), vec![self.clears.into()]];
        for (name, text) in &self.texts {
            words.extend([name.clone(), text.clone()]);
        }
        words
    }

    /// Reads what [`LibraryChange::words`] made; `None` when it is nothing such.
    pub fn of_words<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<LibraryChange> {
        let seen = u64::from_le_bytes(words.next()?.try_into().ok()?);
        let clears = words.next()? == [1];
        let mut texts = Vec::new();
        while let Some(name) = words.next() {
            texts.push((name.to_vec(), words.next()?.to_vec()));
        }
        Some(LibraryChange { seen, clears, texts })
    }
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(seen: u64, clears: bool, texts: &[(&str, &str)]) -> LibraryChange {
        let texts =
            texts.iter().map(|(name, text)| (name.as_bytes().into(), text.as_bytes().into()));
        LibraryChange { seen, clears, texts: texts.collect() }
    }

    #[test]
    fn a_change_judged_by_another_state_does_nothing() {
        let mut libraries = Libraries::default();
        assert!(libraries.is_untouched());
        assert!(libraries.change(&change(0, false, &[("a", "x"), ("b", "y")])));
        assert!(!libraries.change(&change(0, true, &[])), "judged before the first");
        assert!(libraries.change(&change(1, false, &[("a", "")])));
        let left: Vec<&[u8]> = libraries.iter().map(|(name, _)| name).collect();
        assert_eq!(left, [b"b"]);
        assert!(libraries.change(&change(2, true, &[("c", "z")])));
        assert_eq!(libraries.get(b"c").map(|text| &text[..]), Some(&b"z"[..]));
        assert_eq!((libraries.iter().count(), libraries.change_count()), (1, 3));
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        let mut libraries = Libraries::default();
        libraries.change(&change(0, false, &[("a", "text"), ("", "b")]));
        let bytes = libraries.encode();
        assert_eq!(Libraries::decode(&bytes), Some(libraries));
        for end in (0..bytes.len()).filter(|end| ![8, 17].contains(end)) {
            assert_eq!(Libraries::decode(&bytes[..end]), None, "cut at {end}");
        }
        let change = change(7, true, &[("a", "b"), ("c", "")]);
        let words = change.words();
        let again = LibraryChange::of_words(words.iter().map(Vec::as_slice));
        assert_eq!(again, Some(change));
        assert_eq!(LibraryChange::of_words(words[..3].iter().map(Vec::as_slice)), None);
    }
}
