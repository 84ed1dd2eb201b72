//! Keys with values in a tree, in the order of the keys' bytes.

use super::pack::Record;
use super::tree::Tree;

/// A tree of keys and values.
pub(super) type SortedMap = Tree<2>;

/// A number that never falls from one key to the next: its first eight bytes.
fn lead(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = key.len().min(first.len());
    first[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(first)
}

fn number(record: &Record<'_, 2>) -> u64 {
    lead(record[0])
}

/// The rank of a key, or the one that it would have.
pub(super) fn find(map: &SortedMap, key: &[u8]) -> Result<u64, u64> {
    map.search(lead(key), &|record| record[0].cmp(key))
}

/// The value of a key.
pub(super) fn get<'a>(map: &'a SortedMap, key: &[u8]) -> Option<&'a [u8]> {
    map.get(find(map, key).ok()?).map(|[_, value]| value)
}

/// Gives a key a value. Is it new?
pub(super) fn put(map: &mut SortedMap, key: &[u8], value: &[u8]) -> bool {
    let found = find(map, key);
    match found {
        Ok(rank) => map.replace(rank, &[key, value], &number),
        Err(rank) => map.insert(rank, &[key, value], &number),
    }
    found.is_err()
}

/// Puts a key behind all others.
pub(super) fn push(map: &mut SortedMap, key: &[u8], value: &[u8]) {
    map.insert(map.count(), &[key, value], &number);
}

/// Takes out a key. Was there one?
pub(super) fn remove(map: &mut SortedMap, key: &[u8]) -> bool {
    let found = find(map, key);
    if let Ok(rank) = found {
        map.remove(rank);
    }
    found.is_ok()
}

/// Keys and values from a key on, that one included.
pub(super) fn from<'a>(
    map: &'a SortedMap,
    key: &[u8],
) -> impl Iterator<Item = Record<'a, 2>> + use<'a> {
    let (Ok(rank) | Err(rank)) = find(map, key);
    map.records_from(rank)
}
