//! Random requests, run in process and on a real redis-server side by side.
//!
//! Only what both must answer alike is made up: no times, and no request that 7.2 answers otherwise
//! than 7.0. `SEED` chooses the requests; `REQUESTS` how many.

use crate::redis::RedisServer;
use crate::reply;
use crate::server::{InProcess, Server};

const REQUESTS: u64 = 20_000;
/// Fewer: each may add a thousand elements.
const SKETCH_REQUESTS: u64 = 2_000;
/// What answers members in any order.
const UNORDERED: &[&str] =
    &["smembers", "sinter", "sunion", "sdiff", "hkeys", "hvals", "hgetall", "hrandfield", "hscan"];

#[test]
fn transcripts_of_random_requests_agree_with_redis() {
    compare(REQUESTS, Dice::request);
}

#[test]
fn transcripts_of_random_sketches_agree_with_redis() {
    compare(SKETCH_REQUESTS, Dice::sketch_request);
}

#[test]
fn transcripts_of_random_sets_agree_with_redis() {
    compare(REQUESTS, Dice::set_request);
}

#[test]
fn transcripts_of_random_sorted_sets_agree_with_redis() {
    compare(REQUESTS, Dice::sorted_set_request);
}

#[test]
fn transcripts_of_random_hashes_agree_with_redis() {
    compare(REQUESTS, Dice::hash_request);
}

#[test]
fn transcripts_of_random_places_agree_with_redis() {
    compare(REQUESTS, Dice::place_request);
}

#[test]
fn transcripts_of_random_sorting_agrees_with_redis() {
    compare(REQUESTS, Dice::sort_request);
}

/// Runs what `make` makes up on both.
pub fn compare(count: u64, make: fn(&mut Dice) -> Vec<String>) {
    let Some(redis) = RedisServer::start() else {
        eprintln!("redis-server is not installed: random requests are not compared with it");
        return;
    };
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let seed = number("SEED")
        .unwrap_or_else(|| u64::from(std::process::id()) << 32 ^ redis.connect().now_ms() as u64);
    println!("SEED={seed}");
    let (mut ours, mut theirs) = (InProcess::new(), redis.connect());
    let mut dice = Dice { state: seed, stream_clock: 1 };
    let mut history = Vec::new();
    for _ in 0..number("REQUESTS").unwrap_or(count) {
        let words = make(&mut dice);
        history.push(format!("{words:?}"));
        let bytes = |words: &[String]| words.iter().map(|word| word.clone().into_bytes()).collect();
        let mut here = reply::render(&ours.execute(bytes(&words)));
        let mut there = reply::render(&theirs.execute(bytes(&words)));
        if UNORDERED.contains(&&*words[0]) {
            here.sort_unstable();
            there.sort_unstable();
        }
        if words[0] == "xinfo" {
            let mask = |lines: &mut Vec<String>| {
                let counts = (1..lines.len()).filter(|&i| lines[i - 1].contains("\"consumers\""));
                counts.collect::<Vec<_>>().into_iter().for_each(|i| lines[i].clear());
            };
            mask(&mut here);
            mask(&mut there);
        }
        let start = history.len().saturating_sub(30);
        assert_eq!(here, there, "SEED={seed}, after\n{}", history[start..].join("\n"));
    }
}

/// A stream of random numbers (splitmix64) and what is made of them.
pub struct Dice {
    state: u64,
    /// The milliseconds of the latest entry of a stream.
    pub stream_clock: u64,
}

impl Dice {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of some words.
    pub fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    /// A template's words; those with a leading capital stand for something random, `?` words come
    /// or not.
    fn request(&mut self) -> Vec<String> {
        const TEMPLATES: &[&str] = &[
            "set Key Value ?Option ?Option",
            "set Key Value",
            "set Key Float",
            "get Key",
            "setnx Key Value",
            "getset Key Value",
            "getdel Key",
            "getex Key ?Option",
            "mget Key Key Key",
            "mset Key Value Key Value",
            "msetnx Key Value Key Value",
            "append Key Value",
            "strlen Key",
            "getrange Key Index Index",
            "substr Key Index Index",
            "setrange Key Offset Value",
            "incr Key",
            "decr Key",
            "incrby Key Integer",
            "decrby Key Integer",
            "incrbyfloat Key Float",
            "incrbyfloat Key Float",
            "incrbyfloat Key Float",
            "lcs Key Key ?Lcs ?Lcs ?Lcs",
            "setbit Key Offset Bit",
            "getbit Key Offset",
            "bitcount Key Index Index ?Unit",
            "bitcount Key",
            "bitpos Key Bit",
            "bitpos Key Bit Index",
            "bitpos Key Bit Index Index ?Unit",
            "bitop Join Key Key Key",
            "bitop not Key Key",
            "bitfield Key ?Overflow ?Field ?Field ?Overflow ?Field",
            "bitfield_ro Key get Type Place",
            "del Key",
            "exists Key Key",
            "type Key",
            "object encoding Key",
            "rename Key Key",
            "copy Key Key replace",
        ];
        let template = self.one_of(TEMPLATES);
        self.words_of(template)
    }

    /// A request to HyperLogLogs. PFCOUNT of one key is left out: Redis writes the count into the
    /// value.
    fn sketch_request(&mut self) -> Vec<String> {
        let template = match self.below(20) {
            0 => "del Key",
            1 => "pfdebug todense Key",
            2 => "pfdebug getreg Key",
            3 => "pfdebug encoding Key",
            4 | 5 => "pfmerge Key Key Key",
            6 | 7 => "pfcount Key Key Key",
            8..=13 => "get Key",
            _ => "pfadd Key",
        };
        let mut words = Vec::new();
        template.split(' ').for_each(|word| self.fill(word, &mut words));
        if words[0] == "pfadd" {
            let size = 1 << self.below(11);
            let elements =
                (0..self.below(size)).map(|_| (self.next() >> self.below(64)).to_string());
            words.extend(elements);
        }
        words
    }

    /// A request to sets. Some grow out of their small forms; now and then there is a string
    /// instead.
    fn set_request(&mut self) -> Vec<String> {
        const TEMPLATES: &[&str] = &[
            "srem Key Member Member",
            "sismember Key Member",
            "smismember Key Member Member",
            "smembers Key",
            "scard Key",
            "smove Key Key Member",
            "sinter Key Key ?Key",
            "sunion Key Key ?Key",
            "sdiff Key Key ?Key",
            "sinterstore Key Key Key",
            "sunionstore Key Key Key",
            "sdiffstore Key Key Key",
            "sdiffstore Key Key Key Key Key",
            "sintercard 2 Key Key",
            "sintercard 2 Key Key limit Count",
            "srandmember Key 0",
            "copy Key Key replace",
            "rename Key Key",
        ];
        let template = match self.below(200) {
            0 => "set Key Value",
            1..=3 => "del Key",
            4..=60 => "sadd Key",
            _ => self.one_of(TEMPLATES),
        };
        let mut words = self.words_of(template);
        if words[0] == "sadd" {
            let size = 1 << self.below(9);
            for _ in 0..=self.below(size) {
                self.fill("Member", &mut words);
            }
        }
        words
    }

    /// A request to sorted sets, with scores that 7.0 and 7.2 print alike.
    fn sorted_set_request(&mut self) -> Vec<String> {
        const TEMPLATES: &[&str] = &[
            "zrem Key Member Member",
            "zscore Key Member",
            "zmscore Key Member Member",
            "zcard Key",
            "zrank Key Member",
            "zrevrank Key Member",
            "zincrby Key Score Member",
            "zadd Key Adding ?Adding Score Member",
            "zadd Key Adding Score Member Score Member",
            "zcount Key Score Score",
            "zcount Key -inf (0",
            "zlexcount lex Lex Lex",
            "zrange Key Index Index ?withscores ?rev",
            "zrange Key Score Score byscore limit Index Index withscores",
            "zrange Key Score Score byscore rev",
            "zadd lex 0 Member 0 Member 0 Member",
            "zadd lex 0 Member 0 Member 0 Member",
            "zrange lex Lex Lex bylex ?rev",
            "zrevrange Key Index Index withscores",
            "zrangebyscore Key Score Score",
            "zrevrangebyscore Key Score Score ?withscores",
            "zrangebylex lex Lex Lex",
            "zrevrangebylex lex Lex Lex",
            "zrangestore Key Key Index Index ?rev",
            "zrangestore Key Key Score Score byscore",
            "zremrangebyrank Key Index Index",
            "zremrangebyscore Key Score Score",
            "zremrangebylex lex Lex Lex",
            "zpopmin Key",
            "zpopmax Key",
            "zpopmin Key 3",
            "zmpop 2 Key Key max count 2",
            "zunion 2 Key Key ?withscores",
            "zunion 3 Key Key Key weights Score Score 1 aggregate Aggregate withscores",
            "zinter 2 Key Key withscores",
            "zinter 3 Key Key Key weights Score 2 Score aggregate Aggregate withscores",
            "zdiff 2 Key Key withscores",
            "zdiff 3 Key Key Key",
            "zintercard 2 Key Key limit Count",
            "zunionstore Key 2 Key Key aggregate Aggregate",
            "zinterstore Key 2 Key Key",
            "zdiffstore Key 2 Key Key",
            "zrandmember Key 100000 withscores",
            "zrandmember Key 0",
            "copy Key Key replace",
            "rename Key Key",
        ];
        let template = match self.below(200) {
            0 => "set Key Value",
            1 => "sadd Key Member Member Member",
            2 => "del Key",
            3..=50 => "zadd Key",
            _ => self.one_of(TEMPLATES),
        };
        let mut words = self.words_of(template);
        if words.len() == 2 && words[0] == "zadd" {
            let size = 1 << self.below(7);
            for _ in 0..=self.below(size) {
                self.fill("Score", &mut words);
                self.fill("Member", &mut words);
            }
        }
        words
    }

    /// A request to places. Near each other now and then, near edges of the map, and all over it;
    /// areas from nothing to more than Earth.
    fn place_request(&mut self) -> Vec<String> {
        const TEMPLATES: &[&str] = &[
            "geopos Key Town Town",
            "geohash Key Town",
            "geodist Key Town Town LengthUnit",
            "geosearch Key fromlonlat Spot byradius Length LengthUnit asc withdist ?withcoord",
            "geosearch Key fromlonlat Spot byradius Length LengthUnit withhash",
            "geosearch Key fromlonlat Spot bybox Length Length LengthUnit desc withdist",
            "geosearch Key frommember Town bybox Length Length LengthUnit",
            "geosearch Key frommember Town byradius Length LengthUnit count Few any",
            "georadius Key Spot Length LengthUnit count Few ?desc",
            "georadius Key Spot Length LengthUnit store Key",
            "georadiusbymember Key Town Length LengthUnit",
            "georadius_ro Key Spot Length LengthUnit withdist asc",
            "geosearchstore Key Key fromlonlat Spot bybox Length Length LengthUnit",
            "geosearchstore Key Key frommember Town byradius Length LengthUnit count Few",
            "zrange Key 0 -1 withscores",
        ];
        match self.below(5) {
            0 => {
                let mut words = vec!["geoadd".to_owned()];
                self.fill("Key", &mut words);
                let size = 1 << self.below(7);
                for _ in 0..=self.below(size) {
                    self.fill("Spot", &mut words);
                    self.fill("Town", &mut words);
                }
                words
            }
            _ => {
                let template = self.one_of(TEMPLATES);
                self.words_of(template)
            }
        }
    }

    /// A longitude or latitude up to `end` degrees. No two places are one: which of those equally
    /// far is counted first is the sorting's affair. Files have the corners.
    fn degrees(&mut self, end: f64) -> f64 {
        let part = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        match self.below(8) {
            0 => [0.0, 1.0, -1.0, 66.5, -80.1][self.below(5) as usize] + part / 10.0,
            1 if end < 90.0 => end.copysign(part),
            2 => end.copysign(part) - part / 100.0,
            3 => 12.0 + part / 10.0,
            _ => end * part,
        }
    }

    /// A request that sorts. Elements are small numbers, and keys with weights and names hang on
    /// them.
    fn sort_request(&mut self) -> Vec<String> {
        const TEMPLATES: &[&str] = &[
            "set Weight Integer",
            "set Weight Few",
            "set Weight Word",
            "del Weight",
            "hset Fields weight Few name Value",
            "hset Fields weight Integer",
            "rpush list Small Small",
            "lpush list Small",
            "lpop list",
            "lrem list 0 Small",
            "sadd set Small Small",
            "srem set Small",
            "zadd zset Few Small",
            "zrem zset Small",
            "del list",
            "sort Sorted ?desc ?alpha ?Limit",
            "sort Sorted ?desc ?alpha ?Limit get # get weight:* get fields:*->name",
            "sort list by weight:* ?desc",
            "sort set by weight:* get weight:*",
            "sort zset by fields:*->weight ?desc ?Limit get #",
            "sort list by fields:*->weight get fields:*->name store to",
            "sort Sorted by nosort store to",
            "sort Sorted ?desc ?Limit store to",
            "sort list by nosort ?desc ?Limit",
            "sort_ro zset by nosort ?desc ?Limit",
            "lrange to 0 -1",
        ];
        let template = self.one_of(TEMPLATES);
        self.words_of(template)
    }

    /// A request to hashes.
    fn hash_request(&mut self) -> Vec<String> {
        const TEMPLATES: &[&str] = &[
            "hget Key Field",
            "hmget Key Field Field Field",
            "hdel Key Field Field",
            "hlen Key",
            "hexists Key Field",
            "hstrlen Key Field",
            "hsetnx Key Field Value",
            "hmset Key Field Value Field Value",
            "hkeys Key",
            "hvals Key",
            "hgetall Key",
            "hincrby Key Field Integer",
            "hincrbyfloat Key Field Float",
            "hrandfield Key 100000",
            "hrandfield Key 0 withvalues",
            "copy Key Key replace",
            "rename Key Key",
            "object encoding Key",
        ];
        let template = match self.below(200) {
            0 => "set Key Value",
            1 => "del Key",
            2..=60 => "hset Key",
            _ => self.one_of(TEMPLATES),
        };
        let template = template.replace("Field", "Member");
        let mut words = self.words_of(&template);
        if words[0] == "hset" {
            let size = 1 << self.below(8);
            for _ in 0..=self.below(size) {
                self.fill("Member", &mut words);
                self.fill("Value", &mut words);
            }
        }
        words
    }

    /// A template's words filled in; those behind a `?` come or not.
    fn words_of(&mut self, template: &str) -> Vec<String> {
        let mut words = Vec::new();
        for word in template.split(' ') {
            match word.strip_prefix('?') {
                Some(_) if self.below(2) == 0 => {}
                Some(word) => self.fill(word, &mut words),
                None => self.fill(word, &mut words),
            }
        }
        words
    }

    fn fill(&mut self, word: &str, words: &mut Vec<String>) {
        let filled = match word {
            "Key" => self.one_of(&["a", "b", "c", "d"]).to_owned(),
            "Bit" => self.below(2).to_string(),
            "Unit" => self.one_of(&["BIT", "byte"]).to_owned(),
            "Join" => self.one_of(&["and", "OR", "Xor"]).to_owned(),
            "Option" => self.one_of(&["NX", "xx", "GET", "KEEPTTL", "persist", "EX"]).to_owned(),
            "Lcs" => self.one_of(&["IDX", "LEN", "WITHMATCHLEN", "MINMATCHLEN", "2"]).to_owned(),
            "Offset" => self.one_of(&["0", "1", "7", "8", "13", "100", "-1", "x"]).to_owned(),
            "Place" => self.one_of(&["0", "3", "8", "#0", "#1", "#3", "77", "#", "-1"]).to_owned(),
            "Index" => match self.below(8) {
                0 => (self.next() as i64).to_string(),
                _ => (self.below(40) as i64 - 20).to_string(),
            },
            "Integer" => self.integer(),
            "Float" => self.float(),
            "Value" => self.value(),
            "Count" => self.below(300).to_string(),
            "Word" => self.one_of(&["", "abc", "1.5", "-2", "1x", " 7", "0x1p3"]).to_owned(),
            "Small" => self.below(15).to_string(),
            "Weight" => format!("weight:{}", self.below(15)),
            "Fields" => format!("fields:{}", self.below(15)),
            "Sorted" => self.one_of(&["list", "set", "zset"]).to_owned(),
            "Limit" => {
                words.push("limit".to_owned());
                words.push((self.below(12) as i64 - 1).to_string());
                (self.below(12) as i64 - 1).to_string()
            }
            "Few" => (1 + self.below(5)).to_string(),
            "Town" => format!("town:{}", self.below(200)),
            "LengthUnit" => self.one_of(&["m", "km", "ft", "mi"]).to_owned(),
            "Length" => match self.below(4) {
                0 => self.one_of(&["0", "1", "100", "5000", "20015", "1e9"]).to_owned(),
                _ => format!(
                    "{}",
                    (self.below(1000) as f64 / 7.0) * 10f64.powi(self.below(7) as i32 - 1)
                ),
            },
            "Spot" => {
                words.push(self.degrees(180.0).to_string());
                self.degrees(85.05112878).to_string()
            }
            "Aggregate" => self.one_of(&["sum", "min", "max"]).to_owned(),
            "Adding" => self.one_of(&["nx", "xx", "gt", "lt", "ch", "incr"]).to_owned(),
            "Score" => match self.below(12) {
                0 => self.one_of(&["inf", "-inf", "+inf", "x"]).to_owned(),
                1 => format!("{}.5", self.below(20)),
                _ => (self.below(60) as i64 - 30).to_string(),
            },
            "Lex" => match self.below(6) {
                0 => self.one_of(&["-", "+", "a"]).to_owned(),
                _ => format!("{}{}", self.one_of(&["[", "("]), self.below(700)),
            },
            "Member" => match self.below(20) {
                0 => format!("member:{}", self.below(300)),
                1 => self.value(),
                _ => self.below(700).to_string(),
            },
            "Type" => self.kind(),
            "Overflow" => {
                words.push("overflow".to_owned());
                self.one_of(&["WRAP", "sat", "Fail", "fail", "sat"]).to_owned()
            }
            "Field" => {
                let action = self.one_of(&["get", "set", "incrby"]);
                words.push(action.to_owned());
                let kind = self.kind();
                words.push(kind);
                self.fill("Place", words);
                match action {
                    "get" => return,
                    _ => self.integer(),
                }
            }
            literal => literal.to_owned(),
        };
        words.push(filled);
    }

    fn kind(&mut self) -> String {
        let size = self.below(66);
        format!("{}{size}", self.one_of(&["u", "i"]))
    }

    fn integer(&mut self) -> String {
        match self.below(4) {
            0 => (self.below(40) as i64 - 20).to_string(),
            1 => (self.next() as i64).to_string(),
            2 => ((self.next() as i64) >> self.below(64)).to_string(),
            _ => self.one_of(&["9223372036854775807", "-9223372036854775808", "1x"]).to_owned(),
        }
    }

    fn value(&mut self) -> String {
        match self.below(5) {
            0 => self.integer(),
            1 => self.float(),
            _ => {
                let size = self.below(60);
                (0..size).map(|_| self.one_of(&["a", "b", "\u{0}", "\u{7f}", "\u{e9}"])).collect()
            }
        }
    }

    fn digits(&mut self, size_max: u64) -> String {
        (0..self.below(size_max)).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn float(&mut self) -> String {
        let sign = self.one_of(&["", "", "-", "+"]);
        if self.below(20) == 0 {
            return format!("{sign}{}", self.one_of(&["inf", "Infinity", "nan", "1e", "0x", "."]));
        }
        if self.below(10) == 0 {
            let (whole, fraction) = (self.next(), self.next() >> self.below(64));
            let exponent = self.below(200) as i64 - 100;
            return format!("{sign}0x{whole:X}.{fraction:x}p{exponent}");
        }
        let size = [3, 10, 25, 60][self.below(4) as usize];
        let mut text = format!("{sign}{}", self.digits(size));
        if self.below(3) > 0 {
            text.push('.');
            let size = [3, 10, 25, 60][self.below(4) as usize];
            text += &self.digits(size);
        }
        if self.below(4) == 0 {
            let span = [10, 60, 9990][self.below(3) as usize];
            text += &format!("e{}", self.below(span) as i64 - span as i64 / 2);
        }
        text
    }
}
