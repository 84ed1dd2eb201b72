//! What clients of the simulation say and hear. Used by the shards (through bytes) and by the
//! checker (as it is).

/// Number of a key in the run's list of keys.
pub type KeyNumber = u8;

/// What SET asks of the key before it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    Absent,
    Present,
    /// It holds exactly this.
    Equals(Vec<u8>),
}

/// A command of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Get(KeyNumber),
    /// Answers OK, or nil when the condition does not hold.
    Set(KeyNumber, Vec<u8>, Condition),
    /// Sets and answers what was there.
    Exchange(KeyNumber, Vec<u8>),
    /// Answers how many keys there were.
    Delete(Vec<KeyNumber>),
    Increment(KeyNumber),
    /// Answers the new length.
    Append(KeyNumber, Vec<u8>),
    MGet(Vec<KeyNumber>),
    MSet(Vec<(KeyNumber, Vec<u8>)>),
    /// Sets all or none; answers 1 or 0.
    MSetAbsent(Vec<(KeyNumber, Vec<u8>)>),
    Rename(KeyNumber, KeyNumber),
    /// Answers 1, or 0 when there is no source or the target is taken and not to be replaced.
    Copy {
        from: KeyNumber,
        to: KeyNumber,
        replace: bool,
    },
    /// Answers how many elements there are then.
    Push(KeyNumber, Vec<u8>),
    /// Waits for the first element of the first of these queues that has one; answers it, or nil
    /// when its time is over.
    Pop(Vec<KeyNumber>),
    /// The same of one queue, and pushes the element to another.
    Move(KeyNumber, KeyNumber),
    /// Adds an element with this name and value to a shelf; answers 1 when it is new. Of a stream:
    /// an entry with this value; answers its id.
    Add(KeyNumber, Vec<u8>, Vec<u8>),
    /// Removes the element of a name; of a stream, the entry of an id. Answers 1, or 0 when there
    /// is none.
    Remove(KeyNumber, Vec<u8>),
    /// Gives the next entry of a stream to a consumer of its group; answers its id and its value,
    /// or nil.
    Give(KeyNumber, Vec<u8>),
    /// Acknowledges the entry of an id; answers 1, or 0 when nobody had it.
    Acknowledge(KeyNumber, Vec<u8>),
    /// Waits for entries of a stream behind an id, or behind the last one that is there; answers
    /// the id and the entries, or nil when its time is over.
    AwaitEntries(KeyNumber, Option<u64>),
    /// MULTI/EXEC: all of these, alone.
    Exec(Vec<Command>),
}

/// What a client hears when its command was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Ok,
    Integer(i64),
    Bytes(Vec<u8>),
    Error,
    List(Vec<Reply>),
}

impl Reply {
    /// Is it where a read of entries began, and none of them?
    pub fn is_start_alone(&self) -> bool {
        matches!(self, Reply::List(parts) if parts.len() == 1)
    }
}

impl Command {
    /// Does it change nothing, and is answered at once?
    pub fn is_read(&self) -> bool {
        match self {
            Command::Get(_) | Command::MGet(_) => true,
            Command::Exec(commands) => commands.iter().all(Command::is_read),
            _ => false,
        }
    }

    /// Is it one of those that push to queues and wait for them? They have a judge of their own.
    pub fn is_queue(&self) -> bool {
        match self {
            Command::Push(..) | Command::Pop(_) | Command::Move(..) => true,
            Command::Exec(commands) => commands.iter().all(Command::is_queue),
            _ => false,
        }
    }

    /// May it wait?
    pub fn waits(&self) -> bool {
        matches!(self, Command::Pop(_) | Command::Move(..))
    }

    /// Does it wait for entries of a stream? It has a judge of its own.
    pub fn awaits_entries(&self) -> bool {
        matches!(self, Command::AwaitEntries(..))
    }

    /// Its keys, each once, and whether it may write them.
    pub fn access(&self) -> Vec<(KeyNumber, bool)> {
        let mut all: Vec<(KeyNumber, bool)> = match self {
            Command::Get(key) | Command::AwaitEntries(key, _) => vec![(*key, false)],
            Command::MGet(keys) => keys.iter().map(|key| (*key, false)).collect(),
            Command::Copy { from, to, .. } => vec![(*from, false), (*to, true)],
            Command::Exec(commands) => commands.iter().flat_map(Command::access).collect(),
            other => other.keys().into_iter().map(|key| (key, true)).collect(),
        };
        // Of two accesses to a key the writing one counts.
        all.sort_unstable_by_key(|(key, exclusive)| (*key, !exclusive));
        all.dedup_by_key(|(key, _)| *key);
        all
    }

    /// All keys that it names, in order.
    pub fn keys(&self) -> Vec<KeyNumber> {
        match self {
            Command::Get(key)
            | Command::Set(key, ..)
            | Command::Exchange(key, _)
            | Command::Increment(key)
            | Command::Append(key, _)
            | Command::Push(key, _)
            | Command::Add(key, ..)
            | Command::Remove(key, _)
            | Command::Give(key, _)
            | Command::Acknowledge(key, _)
            | Command::AwaitEntries(key, _) => vec![*key],
            Command::Delete(keys) | Command::MGet(keys) | Command::Pop(keys) => keys.clone(),
            Command::MSet(pairs) | Command::MSetAbsent(pairs) => {
                pairs.iter().map(|(key, _)| *key).collect()
            }
            Command::Rename(from, to)
            | Command::Copy { from, to, .. }
            | Command::Move(from, to) => vec![*from, *to],
            Command::Exec(commands) => commands.iter().flat_map(Command::keys).collect(),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs = |pairs: &[(KeyNumber, Vec<u8>)]| -> String {
            pairs.iter().map(|(key, value)| format!(" k{key}={}", text(value))).collect()
        };
        let keys =
            |keys: &[KeyNumber]| -> String { keys.iter().map(|key| format!(" k{key}")).collect() };
        match self {
            Command::Get(key) => write!(f, "GET k{key}"),
            Command::Set(key, value, condition) => {
                write!(f, "SET k{key} {}", text(value))?;
                match condition {
                    Condition::Always => Ok(()),
                    Condition::Absent => write!(f, " NX"),
                    Condition::Present => write!(f, " XX"),
                    Condition::Equals(old) => write!(f, " IFEQ {}", text(old)),
                }
            }
            Command::Exchange(key, value) => write!(f, "GETSET k{key} {}", text(value)),
            Command::Delete(list) => write!(f, "DEL{}", keys(list)),
            Command::Increment(key) => write!(f, "INCR k{key}"),
            Command::Append(key, value) => write!(f, "APPEND k{key} {}", text(value)),
            Command::MGet(list) => write!(f, "MGET{}", keys(list)),
            Command::MSet(list) => write!(f, "MSET{}", pairs(list)),
            Command::MSetAbsent(list) => write!(f, "MSETNX{}", pairs(list)),
            Command::Rename(from, to) => write!(f, "RENAME k{from} k{to}"),
            Command::Copy { from, to, replace } => {
                write!(f, "COPY k{from} k{to}{}", if *replace { " REPLACE" } else { "" })
            }
            Command::Push(key, element) => write!(f, "PUSH k{key} {}", text(element)),
            Command::Pop(list) => write!(f, "BPOP{}", keys(list)),
            Command::Move(from, to) => write!(f, "BMOVE k{from} k{to}"),
            Command::Add(key, name, value) => {
                write!(f, "ADD k{key} {}={}", text(name), text(value))
            }
            Command::Remove(key, name) => write!(f, "REM k{key} {}", text(name)),
            Command::Give(key, consumer) => write!(f, "XREADGROUP k{key} {}", text(consumer)),
            Command::Acknowledge(key, id) => write!(f, "XACK k{key} {}", text(id)),
            Command::AwaitEntries(key, None) => write!(f, "XREAD k{key} $"),
            Command::AwaitEntries(key, Some(id)) => write!(f, "XREAD k{key} {id}"),
            Command::Exec(commands) => {
                let all: Vec<String> = commands.iter().map(|one| one.to_string()).collect();
                write!(f, "EXEC[{}]", all.join("; "))
            }
        }
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Nil => write!(f, "nil"),
            Reply::Ok => write!(f, "OK"),
            Reply::Integer(number) => write!(f, ":{number}"),
            Reply::Bytes(bytes) => write!(f, "\"{}\"", text(bytes)),
            Reply::Error => write!(f, "error"),
            Reply::List(replies) => {
                let all: Vec<String> = replies.iter().map(|one| one.to_string()).collect();
                write!(f, "[{}]", all.join(", "))
            }
        }
    }
}
