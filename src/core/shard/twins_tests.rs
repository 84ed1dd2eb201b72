//! Replicas that run the same operations, one of them from a snapshot in the middle on: every reply
//! and every digest is the same, whatever became of the values before.

use super::run_operation;
use crate::commands::Run;
use crate::core::commands::table;
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::OwnedArguments;
use ringraft_shards::ids::{ClusterId, DatabaseIndex, Index, ShardId, Term};
use ringraft_shards::keyspace::{KeyHasher, Keyspace};
use ringraft_shards::random::Random;
use ringraft_shards::snapshot::load::load;
use ringraft_shards::snapshot::{Header, Membership, SlotRange, SnapshotReader, SnapshotWriter};
use std::collections::BTreeSet;

const NOW_MS: i64 = 1_700_000_000_000;
const STRING_BYTES_MAX: usize = 1 << 20;
const DATABASES: u64 = 2;
const HASH_SEED: u64 = 5;

/// Requests of every type. `K` is one of a few keys, `N` a number, `S` a small one, `M` a member of
/// few, `L` one of many, `F` a number with digits behind the point, `B` a string, `I` an entry's
/// id.
const REQUESTS: &[&str] = &[
    "SET sK B",
    "SET sK N",
    "SET sK B EX N",
    "SETNX sK B",
    "GETSET sK B",
    "GETDEL sK",
    "GETEX sK PX N",
    "GET sK",
    "APPEND sK B",
    "SETRANGE sK S B",
    "GETRANGE sK S N",
    "STRLEN sK",
    "INCR sK",
    "INCRBY sK N",
    "DECR sK",
    "INCRBYFLOAT sK F",
    "SETBIT sK N 1",
    "GETBIT sK N",
    "BITCOUNT sK",
    "BITPOS sK 1",
    "BITOP XOR sK sK sK",
    "BITFIELD sK SET u8 S N INCRBY i5 S 3 GET u4 0",
    "MSET sK B sK N",
    "MSETNX sK B sK B",
    "MGET sK sK lK",
    "LCS sK sK LEN",
    "RPUSH lK B N M",
    "LPUSH lK M B",
    "RPUSHX lK N",
    "LPUSHX lK B",
    "LPOP lK",
    "RPOP lK S",
    "LLEN lK",
    "LINDEX lK N",
    "LINSERT lK BEFORE M B",
    "LSET lK S B",
    "LREM lK S M",
    "LTRIM lK S -S",
    "LRANGE lK S N",
    "LPOS lK M RANK -1 COUNT 0",
    "LMOVE lK lK LEFT RIGHT",
    "RPOPLPUSH lK lK",
    "LMPOP 2 lK lK LEFT COUNT S",
    "RPUSH lK B B B B B B B B B B B B B B B B",
    "SADD tK M N L",
    "SADD tK L L L L L L L L L L L L",
    "SREM tK M L",
    "SMEMBERS tK",
    "SCARD tK",
    "SISMEMBER tK M",
    "SMISMEMBER tK M L N",
    "SPOP tK",
    "SPOP tK S",
    "SRANDMEMBER tK",
    "SRANDMEMBER tK -S",
    "SRANDMEMBER tK S",
    "SMOVE tK tK M",
    "SINTER tK tK",
    "SUNION tK tK",
    "SDIFF tK tK",
    "SINTERSTORE tK tK tK",
    "SUNIONSTORE tK tK tK",
    "SDIFFSTORE tK tK tK",
    "SINTERCARD 2 tK tK LIMIT S",
    "SSCAN tK 0 COUNT S",
    "HSET hK M B L N",
    "HSET hK L B L B L B L B L B L B L B",
    "HSETNX hK M N",
    "HGET hK M",
    "HMGET hK M L N",
    "HGETALL hK",
    "HDEL hK M L",
    "HLEN hK",
    "HEXISTS hK L",
    "HSTRLEN hK M",
    "HKEYS hK",
    "HVALS hK",
    "HINCRBY hK N S",
    "HINCRBYFLOAT hK N F",
    "HRANDFIELD hK",
    "HRANDFIELD hK S WITHVALUES",
    "HRANDFIELD hK -S",
    "HSCAN hK 0 COUNT S NOVALUES",
    "HPEXPIRE hK N FIELDS 2 M L",
    "HPERSIST hK FIELDS 1 M",
    "HPTTL hK FIELDS 2 M L",
    "HGETDEL hK FIELDS 1 M",
    "HGETEX hK PX N FIELDS 1 L",
    "HSETEX hK PX N FIELDS 1 M B",
    "ZADD zK F M N L",
    "ZADD zK GT CH N M",
    "ZADD zK NX F L F L F L F L F L F L F L",
    "ZADD zK INCR S M",
    "ZINCRBY zK F L",
    "ZREM zK M L",
    "ZCARD zK",
    "ZSCORE zK L",
    "ZMSCORE zK M L",
    "ZRANK zK M WITHSCORE",
    "ZREVRANK zK L",
    "ZCOUNT zK -N N",
    "ZRANGE zK S N WITHSCORES",
    "ZRANGE zK N -N BYSCORE REV LIMIT 0 S",
    "ZRANGEBYLEX zK - [M",
    "ZLEXCOUNT zK [M +",
    "ZREMRANGEBYRANK zK S S",
    "ZREMRANGEBYSCORE zK S S",
    "ZREMRANGEBYLEX zK [M [N",
    "ZPOPMIN zK",
    "ZPOPMAX zK S",
    "ZMPOP 1 zK MAX COUNT S",
    "ZRANDMEMBER zK -S WITHSCORES",
    "ZRANDMEMBER zK S",
    "ZUNIONSTORE zK 2 zK tK WEIGHTS 2 S",
    "ZINTERSTORE zK 2 zK zK AGGREGATE MAX",
    "ZDIFFSTORE zK 2 zK zK",
    "ZUNION 2 zK tK WITHSCORES",
    "ZINTERCARD 2 zK zK",
    "ZRANGESTORE zK zK S N",
    "ZSCAN zK 0 COUNT S",
    "XADD xK * M B",
    "XADD xK MAXLEN S * M B L N",
    "XADD xK * M B",
    "XLEN xK",
    "XRANGE xK - + COUNT S",
    "XREVRANGE xK + I",
    "XDEL xK I",
    "XTRIM xK MAXLEN N",
    "XTRIM xK MINID ~ I",
    "XREAD COUNT S STREAMS xK 0",
    "XGROUP CREATE xK g 0 MKSTREAM",
    "XGROUP CREATECONSUMER xK g M",
    "XGROUP DELCONSUMER xK g M",
    "XGROUP SETID xK g I",
    "XGROUP DESTROY xK gg",
    "XREADGROUP GROUP g M COUNT S STREAMS xK >",
    "XREADGROUP GROUP g M STREAMS xK 0",
    "XACK xK g I",
    "XPENDING xK g",
    "XPENDING xK g - + S",
    "XCLAIM xK g M 0 I",
    "XAUTOCLAIM xK g M 0 0 COUNT S",
    "XINFO STREAM xK FULL",
    "XINFO GROUPS xK",
    "XINFO CONSUMERS xK g",
    "XSETID xK 9999999999999-0",
    "PFADD pK M L L L L L L L L",
    "PFCOUNT pK pK",
    "PFMERGE pK pK",
    "GEOADD zK 13.S 38.S M",
    "GEODIST zK M M",
    "GEOSEARCH zK FROMLONLAT 13 38 BYRADIUS N km ASC WITHDIST",
    "GEOSEARCHSTORE zK zK FROMLONLAT 13 38 BYBOX N N km",
    "SORT lK ALPHA LIMIT S S",
    "SORT tK ALPHA STORE lK",
    "TYPE lK",
    "OBJECT ENCODING hK",
    "OBJECT ENCODING tK",
    "OBJECT ENCODING iK",
    "SPOP iK",
    "DEL iK",
    "SMEMBERS iK",
    "SADD iK L",
    "OBJECT ENCODING zK",
    "OBJECT ENCODING lK",
    "EXISTS sK zK",
    "DEL xK",
    "UNLINK lK",
    "DEL zK",
    "DEL hK",
    "DEL tK",
    "DEL sK",
    "PEXPIRE zK N",
    "EXPIRE hK N",
    "PERSIST zK",
    "PTTL zK",
    "PEXPIREAT tK 1",
    "RENAME lK lK",
    "RENAMENX hK hK",
    "COPY zK zK REPLACE",
    "COPY xK xK DB 1 REPLACE",
    "DUMP tK",
    "DUMP hK",
    "MEMORY USAGE zK",
    "MEMORY USAGE lK",
];

/// What leaves little of a value, and what is asked instead most of the time.
const SHRINKING: &[&str] = &[
    "DEL ",
    "UNLINK",
    "LTRIM",
    "PEXPIRE",
    "EXPIRE",
    "XTRIM",
    "XADD xK MAXLEN",
    "RENAME",
    "SORT tK",
    "LREM",
];
const GROWING: &[&str] = &[
    "RPUSH lK B B B B B B B B B B B B B B B B",
    "LPUSH lK B B B B B B B B",
    "SADD tK L L L L L L L L L L L L",
    "SADD iK N N N N N N N N N",
    "HSET hK L B L B L B L B L B L B L B",
    "ZADD zK F L F L F L F L F L F L F L",
    "XADD xK * M B L N",
];

fn word(template: &str, random: &mut Random) -> String {
    let mut word = String::new();
    for letter in template.chars() {
        match letter {
            'K' => word += &random.below(4).to_string(),
            'N' => word += &random.below(3000).to_string(),
            'S' => word += &random.below(9).to_string(),
            'M' => word += &format!("m{}", random.below(30)),
            'L' => word += &format!("member:{}", random.below(4000)),
            'F' => word += &format!("{}.{}", random.below(200), random.below(100)),
            'B' => {
                let longest = if random.below(300) == 0 { 5000 } else { 40 };
                word.extend(
                    (0..random.below(longest)).map(|_| (b'a' + random.below(26) as u8) as char),
                );
            }
            'I' => word += &format!("{}-{}", NOW_MS + random.below(20_000) as i64, random.below(2)),
            other => word.push(other),
        }
    }
    word
}

/// Words of three letters and more stand as they are.
fn request(random: &mut Random) -> Vec<String> {
    let mut template = REQUESTS[random.below(REQUESTS.len() as u64) as usize];
    // Values are to become large.
    if SHRINKING.iter().any(|name| template.starts_with(name)) && random.below(12) > 0 {
        template = GROWING[random.below(GROWING.len() as u64) as usize];
    }
    let fill = |word: &str, random: &mut Random| {
        let is_place = word.len() <= 2 || word.contains('.') || word.starts_with(['-', '[']);
        let is_place = is_place && !["NX", "DB"].contains(&word);
        if is_place { self::word(word, random) } else { word.to_owned() }
    };
    let mut words = template.split(' ');
    let name = words.next().map(str::to_owned);
    name.into_iter().chain(words.map(|word| fill(word, random))).collect()
}

fn run(
    keyspace: &mut Keyspace,
    words: &[String],
    database: u8,
    time_ms: i64,
    seed: u64,
) -> Vec<u8> {
    let owned: OwnedArguments = words.iter().map(|word| word.as_bytes()).collect();
    let arguments = owned.borrow();
    let command = table::resolve(arguments).unwrap_or_else(|| panic!("{words:?}"));
    assert!(matches!(command.run, Run::Write(_) | Run::Read(_) | Run::Block(_)), "{words:?}");
    assert!(command.arity.fits(arguments.count()), "{words:?}");
    let first = command.first_key(arguments, keyspace.hasher());
    let mut bytes = Vec::new();
    let mut reply = Reply::new(&mut bytes, Protocol::Resp3);
    keyspace.begin_entry();
    let mut edit = keyspace.edit(DatabaseIndex(database), time_ms);
    let outcome =
        run_operation(&mut edit, command, first, arguments, seed, STRING_BYTES_MAX, &mut reply);
    keyspace.forget_events();
    outcome.map_or_else(|refusal| refusal.line(), |()| bytes)
}

/// A replica that begins with a snapshot of another one, cut while that one goes on.
struct Cutting {
    writer: SnapshotWriter,
    /// What the other one has run since.
    behind: Vec<(Vec<String>, u8, i64, u64)>,
}

fn begin_cut(keyspace: &mut Keyspace, leader_time_ms: i64) -> Box<Cutting> {
    assert!(keyspace.begin_cut());
    let header = Header {
        slot_scheme: Default::default(),
        cluster: ClusterId(7),
        shard: ShardId(0),
        term: Term(1),
        index: Index(9),
        slots: vec![SlotRange::all()],
        key_hash_seed: HASH_SEED,
        created_ms: 0,
        leader_time_ms,
        membership: Membership::default(),
    };
    let mut writer = SnapshotWriter::new(header);
    writer.push_limits(keyspace.limits());
    Box::new(Cutting { writer, behind: Vec::new() })
}

impl Cutting {
    /// A bit more of it, or the replica, level with the other one.
    fn step(mut self: Box<Self>, keyspace: &mut Keyspace) -> Result<Keyspace, Box<Cutting>> {
        let writer = &mut self.writer;
        if !keyspace.cut_step(1, &mut |database, item, from| writer.push(database, item, from)) {
            return Err(self);
        }
        let (bytes, _) = self.writer.finish();
        let mut fresh = Keyspace::new(KeyHasher::new(HASH_SEED));
        let mut reader =
            SnapshotReader::open(&bytes[..], bytes.len() as u64).expect("just written");
        load(&mut reader, &mut fresh, &mut |_| {}).expect("it is whole");
        for (words, database, time_ms, seed) in &self.behind {
            run(&mut fresh, words, *database, *time_ms, *seed);
        }
        Ok(fresh)
    }
}

fn steps() -> u64 {
    std::env::var("RINGRAFT_TWIN_STEPS").map_or(60_000, |text| text.parse().expect("a number"))
}

#[test]
fn a_replica_from_a_snapshot_replies_as_one_that_was_there_from_the_start() {
    for seed in 1..=3 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut first = Keyspace::new(KeyHasher::new(HASH_SEED));
        let mut second: Option<Keyspace> = None;
        let mut cutting: Option<Box<Cutting>> = None;
        let (mut time_ms, mut refused, mut forms) = (NOW_MS, 0, BTreeSet::new());
        let steps = steps();
        for step in 0..steps {
            time_ms += i64::from(random.below(3) == 0);
            if cutting.is_none() && step % (steps / 6) == steps / 12 {
                cutting = Some(begin_cut(&mut first, time_ms));
            }
            let (words, database) = (request(&mut random), random.below(8 * DATABASES) as u8 / 15);
            let operation_seed = random.bits();
            let reply = run(&mut first, &words, database, time_ms, operation_seed);
            refused += u64::from(reply.starts_with(b"-") || reply.starts_with(b"ERR"));
            if words[0] == "OBJECT" {
                forms.insert(String::from_utf8_lossy(&reply).into_owned());
            }
            if let Some(second) = &mut second {
                let other = run(second, &words, database, time_ms, operation_seed);
                let shown = [&reply, &other].map(|reply| String::from_utf8_lossy(reply));
                assert_eq!(shown[0], shown[1], "step {step}: {words:?}");
            }
            if let Some(mut on) = cutting.take() {
                on.behind.push((words, database, time_ms, operation_seed));
                match on.step(&mut first) {
                    Ok(fresh) => second = Some(fresh),
                    Err(on) => cutting = Some(on),
                }
            }
            if let Some(second) = second.as_ref().filter(|_| step % 500 == 0) {
                assert_eq!(first.digest_all(), second.digest_all(), "step {step}");
            }
        }
        println!("{refused} of {steps} were refused; forms {forms:?}");
        assert!(second.is_some() && refused < steps / 4);
        for form in ["listpack", "quicklist", "intset", "hashtable", "skiplist"] {
            assert!(forms.iter().any(|reply| reply.contains(form)), "{form}");
        }
    }
}
