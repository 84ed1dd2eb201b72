//! The families of commands on values.

use super::{
    Command, bit, bitfield, counter, database, dump, expire, geo, geo_search, hash, hash_expire,
    hyperloglog, keys, lcs, list, module, object, pattern, scan, set, set_operations, sort, stream,
    stream_group, stream_info, stream_read, string, zset, zset_operations, zset_range, zset_walk,
};

/// Their rows.
pub const FAMILIES: &[&[Command]] = &[
    string::COMMANDS,
    counter::COMMANDS,
    lcs::COMMANDS,
    bit::COMMANDS,
    bitfield::COMMANDS,
    hyperloglog::COMMANDS,
    list::COMMANDS,
    zset::COMMANDS,
    zset_range::COMMANDS,
    zset_operations::COMMANDS,
    zset_walk::COMMANDS,
    geo::COMMANDS,
    geo_search::COMMANDS,
    hash::COMMANDS,
    hash_expire::COMMANDS,
    stream::COMMANDS,
    stream_group::COMMANDS,
    stream_info::COMMANDS,
    stream_read::COMMANDS,
    set::COMMANDS,
    set_operations::COMMANDS,
    keys::COMMANDS,
    sort::COMMANDS,
    expire::COMMANDS,
    scan::COMMANDS,
    pattern::COMMANDS,
    database::COMMANDS,
    object::COMMANDS,
    dump::COMMANDS,
    module::COMMANDS,
];

/// A row of theirs that is no subcommand. `None` when there is none.
pub fn find(name: &str) -> Option<&'static Command> {
    FAMILIES.iter().copied().flatten().find(|row| row.name == name)
}
