//! The values that settings take: words from closed sets, sizes, lists.
//!
//! Each type reads itself from text and writes itself back, so that a row of the table needs one
//! line. A refusal here is only the cause ("argument must be a memory value"); who asked adds the
//! rest: CONFIG SET its `ERR CONFIG SET failed`, the command line and the file their place.

use crate::net::ring::Features;
use ringraft_shards::log::SyncPolicy;
use ringraft_shards::slot::SlotScheme;
use std::fmt::Display;

/// A value out of a closed set of words.
pub trait Word: Copy + PartialEq + 'static {
    /// Each word and its value, in the order in which a refusal lists them.
    const WORDS: &'static [(&'static str, Self)];
    /// Words of Redis, kvnode and RedRaft that mean the same.
    const SYNONYMS: &'static [(&'static str, Self)] = &[];

    /// The word of this value.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.expect("WORDS names every value").0
    }

    /// The value of a word, in any case of letters.
    /// Errors: the list of words.
    fn from_word(text: &str) -> Result<Self, String> {
        let mut all = Self::WORDS.iter().chain(Self::SYNONYMS);
        match all.find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, value)) => Ok(*value),
            None => Err(format!("argument(s) must be one of the following: {}", words::<Self>())),
        }
    }
}

/// The words of a type, separated by commas.
pub fn words<W: Word>() -> String {
    join(W::WORDS.iter().map(|(word, _)| word), ", ")
}

/// Whether data is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every acknowledged write is in a log on disk.
    Store,
    /// Nothing is on disk; `maxmemory` evicts.
    Cache,
}

impl Word for Mode {
    const WORDS: &'static [(&'static str, Mode)] =
        &[("store", Mode::Store), ("cache", Mode::Cache)];
}

/// When the log is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before the client has its reply.
    Always,
    /// Every second.
    Everysec,
    /// When the kernel likes.
    No,
}

impl Fsync {
    /// What a finished write of the log promises.
    pub fn sync_policy(self) -> SyncPolicy {
        match self {
            Fsync::Always => SyncPolicy::Always,
            Fsync::Everysec | Fsync::No => SyncPolicy::Lazy,
        }
    }
}

impl Word for Fsync {
    const WORDS: &'static [(&'static str, Fsync)] =
        &[("everysec", Fsync::Everysec), ("always", Fsync::Always), ("no", Fsync::No)];
    const SYNONYMS: &'static [(&'static str, Fsync)] = &[
        ("high", Fsync::Always),
        ("medium", Fsync::Everysec),
        ("med", Fsync::Everysec),
        ("low", Fsync::No),
    ];
}

/// How many of its cores a server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoresInUse {
    /// As many as the load needs.
    Auto,
    /// All, each with the shards that are dealt to it.
    All,
}

impl Word for CoresInUse {
    const WORDS: &'static [(&'static str, CoresInUse)] =
        &[("auto", CoresInUse::Auto), ("all", CoresInUse::All)];
}

/// Which channels a new user may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PubsubDefault {
    /// All.
    Allchannels,
    /// None.
    Resetchannels,
}

impl Word for PubsubDefault {
    const WORDS: &'static [(&'static str, PubsubDefault)] = &[
        ("allchannels", PubsubDefault::Allchannels),
        ("resetchannels", PubsubDefault::Resetchannels),
    ];
}

impl PubsubDefault {
    /// Is it all?
    pub fn is_all(self) -> bool {
        self == PubsubDefault::Allchannels
    }
}

/// How keys are placed in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// As the directory says; as Codis does in a new one.
    Auto,
    /// CRC-32 mod 1024, with Codis' tags.
    Codis,
    /// CRC-16 mod 16384, with the tags of Redis Cluster.
    Redis,
}

impl Slots {
    /// The scheme, when one is asked for.
    pub fn scheme(self) -> Option<SlotScheme> {
        match self {
            Slots::Auto => None,
            Slots::Codis => Some(SlotScheme::Codis),
            Slots::Redis => Some(SlotScheme::Redis),
        }
    }

    /// The word for a scheme.
    pub fn of_scheme(scheme: SlotScheme) -> Slots {
        match scheme {
            SlotScheme::Codis => Slots::Codis,
            SlotScheme::Redis => Slots::Redis,
        }
    }
}

impl Word for Slots {
    const WORDS: &'static [(&'static str, Slots)] =
        &[("auto", Slots::Auto), ("codis", Slots::Codis), ("redis", Slots::Redis)];
}

/// What a node that does not lead does with requests for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Sends them to the node that does.
    Forward,
    /// Names that node: `-TRY host:port`.
    Try,
    /// Names it as Redis Cluster does: `-MOVED slot host:port`.
    Moved,
}

impl Word for Routing {
    const WORDS: &'static [(&'static str, Routing)] =
        &[("forward", Routing::Forward), ("try", Routing::Try), ("moved", Routing::Moved)];
}

/// What a read may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Everything that was acknowledged before it was sent, at whatever node.
    High,
    /// What the node has that believes to lead: a leader that is cut off may not know of another
    /// one.
    Medium,
    /// What the node has that it was sent to; but at least what its connection has seen.
    Low,
}

impl Word for Consistency {
    const WORDS: &'static [(&'static str, Consistency)] =
        &[("high", Consistency::High), ("medium", Consistency::Medium), ("low", Consistency::Low)];
    const SYNONYMS: &'static [(&'static str, Consistency)] = &[("med", Consistency::Medium)];
}

/// How long a core looks for work before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// As long as it pays.
    Auto,
    /// So many microseconds.
    Micros(u32),
}

impl Display for Spin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Spin::Auto => f.write_str("auto"),
            Spin::Micros(us) => us.fmt(f),
        }
    }
}

/// Which items go when `maxmemory` is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxmemoryPolicy {
    /// The least recently used of those with a deadline.
    VolatileLru,
    /// The least frequently used of those with a deadline.
    VolatileLfu,
    /// Any of those with a deadline.
    VolatileRandom,
    /// The one whose deadline is nearest.
    VolatileTtl,
    /// The least recently used.
    AllkeysLru,
    /// The least frequently used.
    AllkeysLfu,
    /// Any.
    AllkeysRandom,
    /// None: writes that grow memory are refused.
    Noeviction,
}

impl Word for MaxmemoryPolicy {
    const WORDS: &'static [(&'static str, MaxmemoryPolicy)] = &[
        ("volatile-lru", MaxmemoryPolicy::VolatileLru),
        ("volatile-lfu", MaxmemoryPolicy::VolatileLfu),
        ("volatile-random", MaxmemoryPolicy::VolatileRandom),
        ("volatile-ttl", MaxmemoryPolicy::VolatileTtl),
        ("allkeys-lru", MaxmemoryPolicy::AllkeysLru),
        ("allkeys-lfu", MaxmemoryPolicy::AllkeysLfu),
        ("allkeys-random", MaxmemoryPolicy::AllkeysRandom),
        ("noeviction", MaxmemoryPolicy::Noeviction),
    ];
}

/// Which events are written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// None.
    Quiet,
    /// Failures.
    Error,
    /// And what an operator should look into.
    Warn,
    /// And what happens in normal life.
    Info,
    /// And what a developer wants to know.
    Verbose,
    /// The same: Redis has two words for it.
    Debug,
}

impl LogLevel {
    /// Redis' word for it, or for the next that says no less.
    pub fn redis_word(self) -> &'static str {
        match self {
            LogLevel::Quiet => "nothing",
            LogLevel::Error | LogLevel::Warn => "warning",
            LogLevel::Info => "notice",
            LogLevel::Verbose => "verbose",
            LogLevel::Debug => "debug",
        }
    }
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, LogLevel)] = &[
        ("quiet", LogLevel::Quiet),
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("verbose", LogLevel::Verbose),
        ("debug", LogLevel::Debug),
    ];
    const SYNONYMS: &'static [(&'static str, LogLevel)] =
        &[("nothing", LogLevel::Quiet), ("warning", LogLevel::Warn), ("notice", LogLevel::Info)];
}

/// A feature of the kernel's ring that a test may do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFeature {
    /// [`Features::defer_taskrun`].
    DeferTaskrun,
    /// [`Features::multishot_receive`].
    MultishotReceive,
    /// [`Features::multishot_accept`].
    MultishotAccept,
}

impl Word for RingFeature {
    const WORDS: &'static [(&'static str, RingFeature)] = &[
        ("no-defer-taskrun", RingFeature::DeferTaskrun),
        ("no-multishot-recv", RingFeature::MultishotReceive),
        ("no-multishot-accept", RingFeature::MultishotAccept),
    ];
}

impl RingFeature {
    /// Its place in the features of a ring.
    pub fn place(self, features: &mut Features) -> &mut bool {
        match self {
            RingFeature::DeferTaskrun => &mut features.defer_taskrun,
            RingFeature::MultishotReceive => &mut features.multishot_receive,
            RingFeature::MultishotAccept => &mut features.multishot_accept,
        }
    }
}

/// Unsent reply bytes that close a connection of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimit {
    /// At once above this many bytes; 0 is no limit.
    pub hard_bytes: u64,
    /// After `soft_seconds` above this many bytes; 0 is no limit.
    pub soft_bytes: u64,
    /// How long `soft_bytes` may be exceeded.
    pub soft_seconds: u64,
}

/// Unsent reply bytes that close a connection, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    /// Ordinary clients, MONITOR included.
    pub normal: BufferLimit,
    /// Replicas that follow by Redis' own protocol.
    pub replica: BufferLimit,
    /// Clients that subscribe.
    pub pubsub: BufferLimit,
}

/// Most `soft_seconds`, as in Redis.
const SOFT_SECONDS_MAX: u64 = i32::MAX as u64;

impl BufferLimits {
    /// Redis' defaults.
    pub const DEFAULT: BufferLimits = BufferLimits {
        normal: BufferLimit { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 },
        replica: BufferLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_seconds: 60 },
        pubsub: BufferLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 },
    };

    /// Reads groups of four: class, hard limit, soft limit, seconds. Classes not named keep their
    /// limits. Errors: Redis' texts.
    pub fn change(mut self, text: &str) -> Result<BufferLimits, String> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        if !parts.len().is_multiple_of(4) || parts.is_empty() {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        for group in parts.chunks_exact(4) {
            let class = match group[0].to_ascii_lowercase().as_str() {
                "normal" => &mut self.normal,
                "slave" | "replica" => &mut self.replica,
                "pubsub" => &mut self.pubsub,
                _ => {
                    return Err(
                        "Invalid client class specified in buffer limit configuration.".into()
                    );
                }
            };
            let numbers = (parse_size(group[1]), parse_size(group[2]), group[3].parse().ok());
            let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds @ 0..=SOFT_SECONDS_MAX)) =
                numbers
            else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                        .into(),
                );
            };
            *class = BufferLimit { hard_bytes, soft_bytes, soft_seconds };
        }
        Ok(self)
    }
}

impl Display for BufferLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let classes = [("normal", self.normal), ("slave", self.replica), ("pubsub", self.pubsub)];
        for (i, (class, limit)) in classes.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(
                f,
                "{gap}{class} {} {} {}",
                limit.hard_bytes, limit.soft_bytes, limit.soft_seconds
            )?;
        }
        Ok(())
    }
}

/// A size in bytes: digits, then nothing or one of Redis' units in any case (`k` 1000, `kb` 1024,
/// and so on).
pub fn parse_size(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A size for people: the largest power-of-two unit that loses nothing.
pub fn size_text(bytes: u64) -> String {
    let units = [(1u64 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")];
    match units.iter().find(|(unit, _)| bytes != 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// A list of cpus such as `0-3,6`: ascending, each once.
/// Errors: what is wrong with which part.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in items(text) {
        let bad = || format!("'{part}' is no cpu number or range such as 0-3");
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u16 = first.parse().map_err(|_| bad())?;
        let last: u16 = last.parse().map_err(|_| bad())?;
        if last < first {
            return Err(bad());
        }
        cpus.extend((first..=last).map(usize::from));
    }
    cpus.sort_unstable();
    cpus.dedup();
    if cpus.is_empty() { Err("the list of cpus is empty".into()) } else { Ok(cpus) }
}

/// A list of cpus in its shortest form, `0-3,6`.
pub fn cpus_text(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let texts = runs.map(|run| match run {
        [] => String::new(),
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
    });
    join(texts, ",")
}

/// The parts of a list whose separators are commas and spaces.
pub fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|item| !item.is_empty())
}

/// Texts with a separator between them.
pub fn join<T: Display>(items: impl Iterator<Item = T>, separator: &str) -> String {
    let mut text = String::new();
    for (i, item) in items.enumerate() {
        if i > 0 {
            text.push_str(separator);
        }
        text.push_str(&item.to_string());
    }
    text
}

/// Memory that clients may hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientShare {
    /// So many bytes; 0 is no limit.
    Bytes(u64),
    /// So much of `maxmemory`, percent.
    Percent(u8),
}

impl ClientShare {
    /// Reads `10mb` or `5%`. Errors: it is neither.
    pub fn parse(text: &str) -> Result<ClientShare, String> {
        let wrong = || "argument must be a memory or percent value".to_string();
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse().ok().filter(|percent| *percent <= 100);
                percent.map(ClientShare::Percent).ok_or_else(wrong)
            }
            None => parse_size(text).map(ClientShare::Bytes).ok_or_else(wrong),
        }
    }
}

impl std::fmt::Display for ClientShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientShare::Bytes(bytes) => write!(f, "{bytes}"),
            ClientShare::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Units of a span of time, with milliseconds in each; the greatest first.
const SPAN_UNITS: [(char, i64); 3] = [('h', 3_600_000), ('m', 60_000), ('s', 1000)];

/// A span of time as it is given, in the greatest unit that it is a multiple of.
pub(super) fn span_text(ms: i64) -> String {
    let unit = SPAN_UNITS.iter().find(|(_, unit)| ms > 0 && ms % unit == 0);
    unit.map_or("no".into(), |(letter, unit)| format!("{}{letter}", ms / unit))
}

/// Reads a span of time: a number with a unit, or `no`.
/// Errors: it is none, or is longer than a year.
pub(super) fn read_span(value: &str) -> Result<i64, String> {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    if value == "no" {
        return Ok(0);
    }
    let read = |(letter, unit): &(char, i64)| {
        let count: i64 = value.strip_suffix(*letter)?.parse().ok()?;
        count.checked_mul(*unit).filter(|ms| (1..=YEAR_MS).contains(ms))
    };
    SPAN_UNITS.iter().find_map(read).ok_or("it must be a time as 90s, 10m or 2h, or no".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_redis_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("1b", Some(1)),
            ("1k", Some(1000)),
            ("1kb", Some(1024)),
            ("1KB", Some(1024)),
            ("5m", Some(5_000_000)),
            ("5mb", Some(5 << 20)),
            ("2g", Some(2_000_000_000)),
            ("2Gb", Some(2 << 30)),
            ("17179869184gb", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("", None),
            ("mb", None),
            ("-1", None),
            ("+1", None),
            ("1.5gb", None),
            ("1 mb", None),
            ("5%", None),
            ("1tb", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
        for (bytes, text) in [(0, "0"), (1, "1"), (1024, "1kb"), (1000, "1000"), (3 << 30, "3gb")] {
            assert_eq!(size_text(bytes), text);
            assert_eq!(parse_size(text), Some(bytes));
        }
    }

    #[test]
    fn cpu_lists_read_and_print() {
        for (text, shortest) in
            [("0", "0"), ("0-3,6", "0-3,6"), ("6 0-1 1,2", "0-2,6"), ("4-4", "4"), ("0,1", "0-1")]
        {
            assert_eq!(
                parse_cpus(text).map(|cpus| cpus_text(&cpus)),
                Ok(shortest.into()),
                "{text}"
            );
        }
        for text in ["", ",", "a", "3-1", "1-", "-1", "0-3-5", "99999"] {
            assert!(parse_cpus(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn buffer_limits_change_by_class() {
        let limits = BufferLimits::DEFAULT.change("normal 1mb 512kb 10").expect("well formed");
        let text =
            "normal 1048576 524288 10 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(limits.to_string(), text);
        assert_eq!(BufferLimits::DEFAULT.change(text), Ok(limits));
        for (text, start) in [
            ("", "Wrong number"),
            ("normal 0 0", "Wrong number"),
            ("master 0 0 0", "Invalid client class"),
            ("normal x 0 0", "Error in hard"),
            ("normal 0 0 x", "Error in hard"),
        ] {
            let refusal = BufferLimits::DEFAULT.change(text).expect_err(text);
            assert!(refusal.starts_with(start), "{text}: {refusal}");
        }
    }

    #[test]
    fn words_are_unique_and_total() {
        fn check<W: Word + std::fmt::Debug>() {
            let mut seen = std::collections::HashSet::new();
            for (word, value) in W::WORDS.iter().chain(W::SYNONYMS) {
                assert!(seen.insert(*word), "{word} twice");
                assert_eq!(W::from_word(&word.to_uppercase()), Ok(*value));
            }
            for (word, value) in W::WORDS {
                assert_eq!(value.word(), *word);
            }
            assert!(W::from_word("perhaps").is_err());
        }
        check::<Mode>();
        check::<Consistency>();
        check::<Routing>();
        check::<Fsync>();
        check::<MaxmemoryPolicy>();
        check::<LogLevel>();
        check::<RingFeature>();
    }
}
