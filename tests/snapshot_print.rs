//! `snapshot print` against what it feeds: commands to the byte, and a real redis-server through
//! `redis-cli --pipe`. Both come from the packages that `tests/run` installs.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use ringraft::snapshot_print::{Counts, print};
use ringraft_shards::ids::{ClusterId, DatabaseIndex, Deadline, Index, ShardId, Term};
use ringraft_shards::keyspace::{Guard, Key, KeyHasher, Keyspace, Shape, StringForm};
use ringraft_shards::rdb::{EncodedValue, ItemRecord, Piece, write_value};
use ringraft_shards::snapshot::{Header, Membership, SlotRange, SnapshotWriter};
use ringraft_shards::value::stream::{Pending, StreamId, StreamMut};
use ringraft_shards::value::{Form, ValueType};

/// Year 2100, in milliseconds.
const FUTURE_MS: i64 = 4_102_444_800_000;

type Record = ItemRecord<'static>;

fn item(database: u8, key: &[u8], value: &[u8], deadline: Option<i64>) -> Record {
    ItemRecord {
        database: DatabaseIndex(database),
        deadline: deadline.map(Deadline),
        shape: Shape::String(StringForm::Automatic),
        piece: Piece::Whole,
        key: Cow::Owned(key.to_vec()),
        value: EncodedValue::of_string(value),
    }
}

/// Writes a snapshot of these items, as one directory with its meta.
fn write_snapshot(directory: &Path, items: &[Record]) -> PathBuf {
    let mut writer = SnapshotWriter::new(Header {
        slot_scheme: Default::default(),
        cluster: ClusterId(1),
        shard: ShardId(0),
        term: Term(2),
        index: Index(3),
        slots: vec![SlotRange::all()],
        key_hash_seed: 4,
        created_ms: 5,
        leader_time_ms: 6,
        membership: Membership::default(),
    });
    items.iter().for_each(|item| writer.push_record(item));
    let (file, meta) = writer.finish();
    std::fs::write(directory.join("state.ring"), file).expect("writable");
    std::fs::write(directory.join("meta.json"), meta.to_json()).expect("writable");
    directory.join("state.ring")
}

fn kvnode_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    for part in [key, value] {
        record.extend_from_slice(&(part.len() as u64).to_le_bytes());
        record.extend_from_slice(part);
    }
    record
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

/// Printed text and error of a path that must not print to its end.
fn refused(path: &Path) -> (Vec<u8>, String) {
    let mut out = Vec::new();
    let error = print(path, &mut out).expect_err("a bad snapshot");
    (out, error.to_string())
}

fn printed(path: &Path) -> (String, Counts) {
    let mut out = Vec::new();
    let counts = print(path, &mut out).expect("a good snapshot");
    (String::from_utf8_lossy(&out).replace("\r\n", " "), counts)
}

#[test]
fn items_become_commands() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let items = [
        item(0, b"key", b"value", None),
        item(0, b"", b"", Some(FUTURE_MS)),
        item(15, b"n", b"-7", None),
        item(0, b"old", b"x", Some(-5)),
    ];
    let file = write_snapshot(scratch.path(), &items);
    let expected = "*2 $6 SELECT $1 0 *3 $3 SET $3 key $5 value \
                    *5 $3 SET $0  $0  $4 PXAT $13 4102444800000 \
                    *2 $6 SELECT $2 15 *3 $3 SET $1 n $2 -7 \
                    *2 $6 SELECT $1 0 *5 $3 SET $3 old $1 x $4 PXAT $1 1 ";
    assert_eq!(printed(&file), (expected.to_string(), Counts { items: 4, skipped: 0 }));
    assert_eq!(printed(scratch.path()).0, expected, "a directory is as good as its file");
    std::fs::remove_file(scratch.path().join("meta.json")).expect("removable");
    assert_eq!(printed(&file).0, expected, "a file alone will do");
}

#[test]
fn collections_and_pieces_become_commands() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let collection = |value_type, type_byte, bytes: &'static [u8], deadline: Option<i64>| Record {
        shape: Shape::Collection(value_type, Form::Pack),
        value: EncodedValue::read(type_byte, bytes).expect("well-formed"),
        ..item(0, b"k", b"", deadline)
    };
    let piece = |piece, value: &[u8], deadline| Record { piece, ..item(0, b"s", value, deadline) };
    let score = b"\x02\x01a\0\0\0\0\0\0\xf8\x3f\x01b\0\0\0\0\0\0\xf0\xff";
    let items = [
        collection(ValueType::List, 1, b"\x02\x01a\xc0\x05", Some(FUTURE_MS)),
        piece(Piece::First(6), b"abcd", Some(-5)),
        collection(ValueType::Set, 2, b"\x01\x01a", None),
        collection(ValueType::Hash, 4, b"\x01\x01f\x01v", None),
        piece(Piece::Next(4), b"ef", None),
        collection(ValueType::SortedSet, 5, score, None),
    ];
    let file = write_snapshot(scratch.path(), &items);
    let expected = "*2 $6 SELECT $1 0 *4 $5 RPUSH $1 k $1 a $1 5 \
                    *3 $9 PEXPIREAT $1 k $13 4102444800000 \
                    *3 $3 SET $1 s $4 abcd *3 $4 SADD $1 k $1 a *4 $4 HSET $1 k $1 f $1 v \
                    *3 $6 APPEND $1 s $2 ef *6 $4 ZADD $1 k $3 1.5 $1 a $4 -inf $1 b \
                    *3 $9 PEXPIREAT $1 s $2 -5 ";
    assert_eq!(printed(&file), (expected.to_string(), Counts { items: 5, skipped: 0 }));
    for wrong in [
        &[piece(Piece::Next(0), b"ab", None)][..],
        &[piece(Piece::First(6), b"abcd", None)],
        &[piece(Piece::First(6), b"abcd", None), piece(Piece::Next(3), b"def", None)],
        &[piece(Piece::First(6), b"abcd", None), piece(Piece::Next(4), b"efg", None)],
    ] {
        let file = write_snapshot(scratch.path(), wrong);
        let error = refused(&file).1;
        assert!(error.contains("a piece of a value that does not follow"), "{error}");
    }
}

#[test]
fn streams_become_commands() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let id = |ms, sequence| StreamId { ms, sequence };
    let record = |change: &dyn Fn(&mut StreamMut<Guard<'_, '_>>)| {
        let hasher = KeyHasher::new(1);
        let mut keyspace = Keyspace::new(hasher);
        let mut edit = keyspace.edit(DatabaseIndex(0), 0);
        let key = Key::new(b"k", hasher.hash(b"k"));
        change(&mut edit.stream_mut(&key).expect("nothing is there"));
        let mut bytes = Vec::new();
        write_value(&mut bytes, edit.view().peek(&key).expect("just made").value());
        let value = EncodedValue::read(bytes[0], &bytes[1..]).expect("just written").into_owned();
        let shape = Shape::Collection(ValueType::Stream, Form::Tree);
        Record { shape, value, ..item(0, b"k", b"", None) }
    };
    let full = record(&|stream| {
        stream.append(id(1, 2), [(&b"f"[..], &b"v"[..])].into_iter());
        stream.append(id(3, 0), [(&b"f"[..], &b"w"[..])].into_iter());
        stream.delete(id(1, 2));
        stream.add_group(b"g", id(1, 2), Some(1));
        let mut group = stream.group_mut(b"g").expect("just made");
        group.add_consumer(b"c", 5, None);
        group.give(Pending { id: id(3, 0), consumer: b"c", delivered_ms: 7, count: 2 });
    });
    let empty = record(&|stream| stream.set_last_id(id(9, 9), Some(4), None));
    let file = write_snapshot(scratch.path(), &[full, empty]);
    let expected = "*2 $6 SELECT $1 0 *5 $4 XADD $1 k $3 3-0 $1 f $1 w \
                    *7 $6 XSETID $1 k $3 3-0 $12 ENTRIESADDED $1 2 $12 MAXDELETEDID $3 1-2 \
                    *7 $6 XGROUP $6 CREATE $1 k $1 g $3 1-2 $11 ENTRIESREAD $1 1 \
                    *5 $6 XGROUP $14 CREATECONSUMER $1 k $1 g $1 c \
                    *12 $6 XCLAIM $1 k $1 g $1 c $1 0 $3 3-0 $4 TIME $1 7 $10 RETRYCOUNT $1 2 \
                    $5 FORCE $6 JUSTID \
                    *6 $6 XGROUP $6 CREATE $1 k $4 none $1 0 $8 MKSTREAM \
                    *4 $6 XGROUP $7 DESTROY $1 k $4 none \
                    *7 $6 XSETID $1 k $3 9-9 $12 ENTRIESADDED $1 4 $12 MAXDELETEDID $3 0-0 ";
    assert_eq!(printed(&file), (expected.to_string(), Counts { items: 2, skipped: 0 }));
}

#[test]
fn damage_is_named_and_what_precedes_it_is_saved() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let big = vec![b'x'; 300_000];
    let file =
        write_snapshot(scratch.path(), &[item(0, b"a", &big, None), item(0, b"b", b"1", None)]);
    let good = std::fs::read(&file).expect("readable");

    let mut damaged = good.clone();
    let at = good.len() - 50;
    damaged[at] ^= 1;
    std::fs::write(&file, &damaged).expect("writable");
    let (out, error) = refused(&file);
    assert!(
        error.contains("state.ring: damaged at byte 3") && error.contains("checksum"),
        "{error}"
    );
    assert!(out.len() > big.len() && out.ends_with(b"xx\r\n"), "{} bytes", out.len());

    std::fs::write(&file, &good[..good.len() - 10]).expect("writable");
    assert!(refused(&file).1.contains("the file ends within the footer"));
    std::fs::write(&file, b"GARBAGE GARBAGE GARBAGE").expect("writable");
    assert!(refused(&file).1.contains("damaged at byte 0: it does not begin as a snapshot does"));
    let mut other = std::fs::read_to_string(scratch.path().join("meta.json")).expect("readable");
    other = other.replace("\"term\": 2", "\"term\": 9");
    std::fs::write(scratch.path().join("meta.json"), other).expect("writable");
    std::fs::write(&file, &good).expect("writable");
    let error = refused(&file).1;
    assert!(error.contains("meta.json says term = 9 where the file has 2"), "{error}");
    let error = refused(&scratch.path().join("none")).1;
    assert!(error.contains("neither a snapshot file nor a directory"), "{error}");
}

#[test]
fn kvnode_snapshots_are_read() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let records = [
        kvnode_record(b"kkey", b"value"),
        kvnode_record(b"meta", b"of kvnode's own"),
        kvnode_record(b"", b""),
        kvnode_record(b"k", b""),
        kvnode_record(b"k\x00\xff\r\n", b"\r\n"),
    ];
    let plain = records.concat();
    let file = scratch.path().join("state.bin");
    let packed = gzip(&plain);
    std::fs::write(&file, &packed).expect("writable");
    let expected = "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n\
                    *3\r\n$3\r\nSET\r\n$0\r\n\r\n$0\r\n\r\n\
                    *3\r\n$3\r\nSET\r\n$4\r\n\x00?\r\n\r\n$2\r\n\r\n\r\n";
    let expected: Vec<u8> =
        expected.bytes().map(|byte| if byte == b'?' { 0xff } else { byte }).collect();
    for path in [file.as_path(), scratch.path()] {
        let mut out = Vec::new();
        let counts = print(path, &mut out).expect("good");
        assert_eq!((out, counts), (expected.clone(), Counts { items: 3, skipped: 2 }));
    }

    // Cut anywhere but between two records, it is refused.
    let mut ends = vec![0];
    records.iter().for_each(|record| ends.push(ends[ends.len() - 1] + record.len()));
    for size in 0..plain.len() {
        std::fs::write(&file, gzip(&plain[..size])).expect("writable");
        let result = print(&file, &mut Vec::new());
        assert_eq!(result.is_ok(), ends.contains(&size), "cut at {size}");
    }
    for size in 2..packed.len() {
        std::fs::write(&file, &packed[..size]).expect("writable");
        let error = refused(&file).1;
        assert!(error.contains("of the uncompressed stream"), "cut at {size}: {error}");
    }
    std::fs::write(&file, gzip(&u64::MAX.to_le_bytes())).expect("writable");
    assert!(
        refused(&file).1.contains("at byte 0 of the uncompressed stream: a key's length cannot be")
    );
}

#[test]
fn kvnode_meta_is_checked() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let file = scratch.path().join("state.bin");
    // The stored form of deflate, written by hand: the checksum does not depend on a compressor.
    let record = kvnode_record(b"ka", b"1");
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1];
    packed.extend_from_slice(&(record.len() as u16).to_le_bytes());
    packed.extend_from_slice(&(!(record.len() as u16)).to_le_bytes());
    packed.extend_from_slice(&record);
    packed.extend_from_slice(&crc32(&record).to_le_bytes());
    packed.extend_from_slice(&(record.len() as u32).to_le_bytes());
    std::fs::write(&file, &packed).expect("writable");
    let meta = |size: usize, crc: &str| {
        let text = format!(
            r#"{{"ID":"1-2-3","Index":2,"Term":1,"Peers":"kA==","Size":{size},"CRC":"{crc}"}}"#
        );
        std::fs::write(scratch.path().join("meta.json"), text).expect("writable");
    };
    let crc = crc::Crc::<u64>::new(&crc::CRC_64_XZ).checksum(&packed);
    let good = base64(&crc.to_be_bytes());
    meta(packed.len(), &good);
    assert_eq!(printed(&file).0, "*3 $3 SET $1 a $1 1 ");
    meta(packed.len() + 1, &good);
    let (out, error) = refused(&file);
    assert!(out.is_empty() && error.contains("the size is 42 where meta.json says 43"), "{error}");
    meta(packed.len(), "AAAAAAAAAAA=");
    let (out, error) = refused(&file);
    assert!(out.is_empty() && error.contains("where meta.json says 0000000000000000"), "{error}");
    meta(packed.len(), "AAAA");
    assert!(refused(&file).1.contains("is not eight bytes in base64"));
}

#[test]
fn the_program_prints_commands_and_nothing_else() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let file =
        write_snapshot(scratch.path(), &[item(0, b"a", b"1", None), item(1, b"b", b"2", None)]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringraft"));
        let output = command.args(arguments).arg(&file).output().expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let mut expected = Vec::new();
    print(&file, &mut expected).expect("good");
    for arguments in [["snapshot", "print"].as_slice(), &["--parse-snapshot"]] {
        let (code, out, error) = run(arguments);
        assert_eq!((code, out.as_bytes()), (Some(0), expected.as_slice()), "{error}");
    }
    let mut bytes = std::fs::read(&file).expect("readable");
    bytes.truncate(30);
    std::fs::write(&file, bytes).expect("writable");
    for arguments in [["snapshot", "print"].as_slice(), &["--parse-snapshot"]] {
        let (code, out, error) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
        assert!(
            error.contains("state.ring: damaged at byte 16: the file ends within the header"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

fn base64(bytes: &[u8; 8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u128::from(u64::from_be_bytes(*bytes)) << 2;
    let digit = |i: u32| DIGITS[(bits >> (6 * (10 - i)) & 63) as usize] as char;
    (0..11).map(digit).chain(['=']).collect()
}

#[test]
fn redis_takes_what_is_printed() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let mut chance =
        Chance(seed.unwrap_or_else(|| getrandom::u64().expect("the kernel gives bits")));
    println!("SEED={}", chance.0);
    let mut items = random_items(&mut chance);
    items.push(item(3, &vec![b'K'; 1 << 20], &chance.bytes(1 << 20), Some(FUTURE_MS)));
    items.push(item(3, b"gone", b"x", Some(1_000)));
    write_snapshot(scratch.path(), &items);

    let server = Redis::start(scratch.path());
    let mut pipe =
        server.cli().arg("--pipe").stdin(Stdio::piped()).spawn().expect("redis-cli runs");
    let counts = print(scratch.path(), pipe.stdin.as_mut().expect("piped")).expect("good");
    assert_eq!(counts.items, items.len() as u64);
    drop(pipe.stdin.take());
    assert!(pipe.wait().expect("redis-cli ends").success(), "redis-cli --pipe saw errors");

    let mut client = server.connect();
    for item in &items {
        let database = item.database.0.to_string();
        client.ask(&[b"SELECT", database.as_bytes()]);
        let value = item.value.string().expect("all are strings");
        let (value, deadline) = match item.deadline {
            Some(Deadline(at)) if at < FUTURE_MS => (None, -2),
            Some(Deadline(at)) => (Some(value.to_vec()), at),
            None => (Some(value.to_vec()), -1),
        };
        assert_eq!(client.ask(&[b"GET", &item.key]), value, "{:?}", item.key);
        let found = client.ask(&[b"PEXPIRETIME", &item.key]).expect("an integer");
        assert_eq!(found, deadline.to_string().into_bytes(), "{:?}", item.key);
    }
    let alive =
        items.iter().filter(|item| item.deadline.is_none_or(|at| at.0 >= FUTURE_MS)).count();
    let mut total = 0;
    for database in 0..16 {
        client.ask(&[b"SELECT", database.to_string().as_bytes()]);
        let count = client.ask(&[b"DBSIZE"]).expect("an integer");
        total += String::from_utf8_lossy(&count).parse::<usize>().expect("a number");
    }
    assert!(
        (alive..=alive + 1).contains(&total),
        "{total} of {alive}: the one that is gone may count"
    );
}

/// Items with different keys in all databases.
fn random_items(chance: &mut Chance) -> Vec<Record> {
    (0..3_000)
        .map(|i: u32| {
            let mut key = chance.some_bytes(20);
            key.extend_from_slice(&i.to_be_bytes());
            let value = match chance.below(3) {
                0 => chance.next().to_string().into_bytes(),
                1 => (chance.below(500) as i64 - 250).to_string().into_bytes(),
                _ => chance.some_bytes(300),
            };
            let deadline = (chance.below(3) == 0).then(|| FUTURE_MS + chance.below(1 << 40) as i64);
            item(chance.below(16) as u8, &key, &value, deadline)
        })
        .collect()
}

/// Pseudo-random numbers (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Fewer bytes than the limit.
    fn some_bytes(&mut self, limit: usize) -> Vec<u8> {
        let count = self.below(limit);
        self.bytes(count)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A redis-server of this test's own, on a socket file.
struct Redis {
    child: Child,
    socket: PathBuf,
}

impl Redis {
    fn start(directory: &Path) -> Redis {
        let socket = directory.join("redis.sock");
        let mut child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .current_dir(directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect(
                "redis-server is installed: tests/run does it, or apt-get install redis-server",
            );
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let ready =
            output.lines().map_while(Result::ok).any(|line| line.contains("ready to accept"));
        assert!(ready, "redis-server did not start");
        Redis { child, socket }
    }

    fn cli(&self) -> Command {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(&self.socket).stdout(Stdio::null());
        command
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).expect("redis-server listens");
        Client { stream: BufReader::new(stream) }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Only a server that ended by itself cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Sends a command; the bytes of its reply, `None` for the null.
    fn ask(&mut self, arguments: &[&[u8]]) -> Option<Vec<u8>> {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).expect("redis-server reads");
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("redis-server answers");
        let (kind, text) = line.trim_end().split_at(1);
        assert_ne!(kind, "-", "{text}");
        if kind != "$" {
            return Some(text.as_bytes().to_vec());
        }
        let length = usize::try_from(text.parse::<i64>().expect("a length")).ok()?;
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).expect("redis-server answers in full");
        bytes.truncate(length);
        Some(bytes)
    }
}
