//! How rows of the table of settings are written, and how their values are read and printed.

use super::Settings;
use super::table::TABLE;
use super::values::{parse_size, size_text};

/// One row.
pub struct Setting {
    /// Its name in all places; with two dashes before it on the command line.
    pub name: &'static str,
    /// Redis' name for it, where that differs.
    pub redis_name: Option<&'static str>,
    /// Its value in Redis' words, to be shown under that name, where they differ from ours.
    pub redis_word: Option<fn(&Settings) -> &'static str>,
    /// Names that kvnode and RedRaft used.
    pub other_names: &'static [&'static str],
    /// Letter on the command line.
    pub short: Option<char>,
    /// Heading in `--help`.
    pub group: &'static str,
    /// What stands for the value in `--help`.
    pub value_name: &'static str,
    /// One line for `--help`. Empty in rows that CONFIG alone knows.
    pub help: &'static str,
    /// How it is read and written.
    pub kind: Kind,
    /// May CONFIG SET change it?
    pub at_run_time: bool,
    /// Is its value shown to nobody but the client that sets or asks for it?
    pub is_secret: bool,
}

/// How a setting is read and written as text.
pub enum Kind {
    /// A whole number within bounds.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
        /// Reads it.
        get: fn(&Settings) -> i64,
        /// Writes it; the value is within bounds.
        set: fn(&mut Settings, i64),
    },
    /// A count from 0 on.
    Count {
        /// Reads it.
        get: fn(&Settings) -> u64,
        /// Writes it.
        set: fn(&mut Settings, u64),
    },
    /// Bytes, with Redis' units.
    Size {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// Reads it.
        get: fn(&Settings) -> u64,
        /// Writes it; the value is within bounds.
        set: fn(&mut Settings, u64),
    },
    /// One of several words.
    Word {
        /// The words, for `--help`.
        words: fn() -> String,
        /// Reads it.
        get: fn(&Settings) -> &'static str,
        /// Writes it.
        set: fn(&mut Settings, &str) -> Result<(), String>,
    },
    /// `yes` or `no`.
    Switch {
        /// Reads it.
        get: fn(&Settings) -> bool,
        /// Writes it.
        set: fn(&mut Settings, bool),
    },
    /// Any other text.
    Text {
        /// Reads it.
        get: fn(&Settings) -> String,
        /// Writes it.
        set: fn(&mut Settings, &str) -> Result<(), String>,
    },
    /// Follows from other settings; only shown.
    Shown {
        /// Reads it.
        get: fn(&Settings) -> String,
    },
}

pub(super) const fn row(name: &'static str, kind: Kind) -> Setting {
    Setting {
        name,
        redis_name: None,
        redis_word: None,
        other_names: &[],
        short: None,
        group: "",
        value_name: "",
        help: "",
        kind,
        at_run_time: false,
        is_secret: false,
    }
}

pub(super) const fn integer(
    name: &'static str,
    min: i64,
    max: i64,
    get: fn(&Settings) -> i64,
    set: fn(&mut Settings, i64),
) -> Setting {
    row(name, Kind::Integer { min, max, get, set })
}

pub(super) const fn size(
    name: &'static str,
    min: u64,
    get: fn(&Settings) -> u64,
    set: fn(&mut Settings, u64),
) -> Setting {
    row(name, Kind::Size { min, max: i64::MAX as u64, get, set })
}

/// A count of entries, as Redis bounds it.
pub(super) const fn entries(
    name: &'static str,
    get: fn(&Settings) -> u64,
    set: fn(&mut Settings, u64),
) -> Setting {
    row(name, Kind::Count { get, set })
}

pub(super) const fn word(
    name: &'static str,
    words: fn() -> String,
    get: fn(&Settings) -> &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Setting {
    row(name, Kind::Word { words, get, set })
}

pub(super) const fn switch(
    name: &'static str,
    get: fn(&Settings) -> bool,
    set: fn(&mut Settings, bool),
) -> Setting {
    row(name, Kind::Switch { get, set })
}

pub(super) const fn text(
    name: &'static str,
    get: fn(&Settings) -> String,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Setting {
    row(name, Kind::Text { get, set })
}

pub(super) const fn shown(name: &'static str, get: fn(&Settings) -> String) -> Setting {
    row(name, Kind::Shown { get })
}

impl Setting {
    pub(super) const fn help(
        mut self,
        group: &'static str,
        value_name: &'static str,
        help: &'static str,
    ) -> Setting {
        self.group = group;
        self.value_name = value_name;
        self.help = help;
        self
    }

    pub(super) const fn up_to(mut self, most: u64) -> Setting {
        if let Kind::Size { max, .. } = &mut self.kind {
            *max = most;
        }
        self
    }

    pub(super) const fn short(mut self, letter: char) -> Setting {
        self.short = Some(letter);
        self
    }

    pub(super) const fn redis(mut self, name: &'static str) -> Setting {
        self.redis_name = Some(name);
        self
    }

    pub(super) const fn in_redis_words(mut self, word: fn(&Settings) -> &'static str) -> Setting {
        self.redis_word = Some(word);
        self
    }

    pub(super) const fn also(mut self, names: &'static [&'static str]) -> Setting {
        self.other_names = names;
        self
    }

    pub(super) const fn secret(mut self) -> Setting {
        self.is_secret = true;
        self
    }

    pub(super) const fn at_run_time(mut self) -> Setting {
        self.at_run_time = true;
        self
    }

    /// Does the command line and the file know it, or CONFIG alone?
    pub fn is_option(&self) -> bool {
        !self.help.is_empty()
    }

    /// May its value on the command line begin with a dash? Numbers that are negative, addresses
    /// that may be absent, and passwords do.
    pub fn takes_dashes(&self) -> bool {
        let is_number = matches!(self.kind, Kind::Integer { .. } | Kind::Size { .. });
        is_number || self.is_secret || self.name == "bind"
    }

    /// Every name it goes by, its own first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.name].into_iter().chain(self.redis_name).chain(self.other_names.iter().copied())
    }

    /// The row of a name in any case of letters, and that name as the table spells it.
    pub fn find(name: &str) -> Option<(&'static Setting, &'static str)> {
        TABLE.iter().find_map(|row| {
            let spelling = row.names().find(|known| known.eq_ignore_ascii_case(name))?;
            Some((row, spelling))
        })
    }

    /// Its default as `--help` shows it.
    pub fn default_text(&self) -> String {
        match self.kind {
            Kind::Size { get, .. } => size_text(get(&Settings::default())),
            _ => self.kind.get(&Settings::default()),
        }
    }
}

impl Kind {
    /// The value as CONFIG GET shows it.
    pub fn get(&self, settings: &Settings) -> String {
        match self {
            Kind::Integer { get, .. } => get(settings).to_string(),
            Kind::Size { get, .. } | Kind::Count { get, .. } => get(settings).to_string(),
            Kind::Word { get, .. } => get(settings).to_string(),
            Kind::Switch { get, .. } => if get(settings) { "yes" } else { "no" }.to_string(),
            Kind::Text { get, .. } | Kind::Shown { get } => get(settings),
        }
    }

    /// Reads a value.
    /// Errors: why it does not fit, in Redis' words.
    pub fn set(&self, settings: &mut Settings, value: &str) -> Result<(), String> {
        match self {
            Kind::Integer { min, max, set, .. } => set(settings, in_range(value, *min, *max)?),
            Kind::Count { set, .. } => set(settings, in_range(value, 0, i64::MAX)? as u64),
            Kind::Size { min, max, set, .. } => {
                let bytes = parse_size(value).ok_or("argument must be a memory value")?;
                if !(*min..=*max).contains(&bytes) {
                    return Err(format!("argument must be between {min} and {max} inclusive"));
                }
                set(settings, bytes);
            }
            Kind::Switch { set, .. } => match value.to_ascii_lowercase().as_str() {
                "yes" => set(settings, true),
                "no" => set(settings, false),
                _ => return Err("argument must be 'yes' or 'no'".into()),
            },
            Kind::Word { set, .. } | Kind::Text { set, .. } => set(settings, value)?,
            Kind::Shown { .. } => return Err("can't set immutable config".into()),
        }
        Ok(())
    }
}

/// A whole number within bounds.
/// Errors: why it is none, in Redis' words.
pub(super) fn in_range(value: &str, min: i64, max: i64) -> Result<i64, String> {
    let number = crate::numbers::parse_integer(value.as_bytes())
        .ok_or("argument couldn't be parsed into an integer")?;
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(format!("argument must be between {min} and {max} inclusive"))
    }
}
