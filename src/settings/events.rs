//! `notify-keyspace-events`: which events clients may hear of.

use std::fmt::{Display, Formatter};

/// Bits of classes, and of the two kinds of channels.
pub mod class {
    /// Channels named by the key.
    pub const BY_KEY: u16 = 1;
    /// Channels named by the event.
    pub const BY_EVENT: u16 = 1 << 1;
    /// Commands of every type.
    pub const GENERIC: u16 = 1 << 2;
    /// Strings.
    pub const STRING: u16 = 1 << 3;
    /// Lists.
    pub const LIST: u16 = 1 << 4;
    /// Sets.
    pub const SET: u16 = 1 << 5;
    /// Hashes.
    pub const HASH: u16 = 1 << 6;
    /// Sorted sets.
    pub const SORTED_SET: u16 = 1 << 7;
    /// Keys past their deadline.
    pub const EXPIRED: u16 = 1 << 8;
    /// Keys that memory had no room for.
    pub const EVICTED: u16 = 1 << 9;
    /// Streams.
    pub const STREAM: u16 = 1 << 10;
    /// Reads that found no key.
    pub const MISS: u16 = 1 << 11;
    /// Modules, of which there are none.
    pub const MODULE: u16 = 1 << 12;
    /// Keys that were not there before.
    pub const NEW: u16 = 1 << 13;
    /// Keys that clients may have copies of: no letter asks for it.
    pub const CACHED: u16 = 1 << 14;
    /// What `A` stands for.
    pub const ALL: u16 =
        GENERIC | STRING | LIST | SET | HASH | SORTED_SET | EXPIRED | EVICTED | STREAM | MODULE;
}

/// Letters and their bits, in the order in which they are shown.
const LETTERS: [(char, u16); 14] = [
    ('g', class::GENERIC),
    ('$', class::STRING),
    ('l', class::LIST),
    ('s', class::SET),
    ('h', class::HASH),
    ('z', class::SORTED_SET),
    ('x', class::EXPIRED),
    ('e', class::EVICTED),
    ('t', class::STREAM),
    ('d', class::MODULE),
    ('n', class::NEW),
    ('K', class::BY_KEY),
    ('E', class::BY_EVENT),
    ('m', class::MISS),
];

/// Letters before this one are not shown when `A` is.
const SHOWN_WITH_ALL: usize = 11;

/// The events that are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u16);

impl Events {
    /// Reads the letters. Errors: Redis' text.
    pub fn read(text: &str) -> Result<Events, String> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match (letter, LETTERS.iter().find(|(known, _)| *known == letter)) {
                ('A', _) => class::ALL,
                (_, Some((_, bit))) => *bit,
                (_, None) => {
                    return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into());
                }
            };
        }
        Ok(Events(bits))
    }

    /// Is any of these bits wanted?
    pub fn want(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// Would anybody hear of a change?
    pub fn hear_changes(self) -> bool {
        self.has_channels() && self.want(!(class::BY_KEY | class::BY_EVENT | class::MISS))
    }

    /// Would anybody hear of a key that a read did not find?
    pub fn hear_misses(self) -> bool {
        self.has_channels() && self.want(class::MISS)
    }

    fn has_channels(self) -> bool {
        self.want(class::BY_KEY | class::BY_EVENT)
    }
}

impl Display for Events {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let all = self.0 & class::ALL == class::ALL;
        if all {
            f.write_str("A")?;
        }
        let shown = &LETTERS[if all { SHOWN_WITH_ALL } else { 0 }..];
        let mut set = shown.iter().filter(|(_, bit)| self.want(*bit));
        set.try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_shown_as_redis_shows_them() {
        for (text, shown) in [
            ("", ""),
            ("KEA", "AKE"),
            ("Kn", "nK"),
            ("KEg$n", "g$nKE"),
            ("AKEmn", "AKEm"),
            ("Kgxd", "gxdK"),
            ("Kglshzxetdn$", "AK"),
            ("m", "m"),
        ] {
            assert_eq!(Events::read(text).expect("letters").to_string(), shown);
        }
        assert!(Events::read("foo").is_err());
        assert!(!Events::read("A").expect("letters").hear_changes(), "on no channel");
        assert!(!Events::read("Km").expect("letters").hear_changes());
        assert!(Events::read("Ex").expect("letters").hear_changes());
    }
}
