//! CRC-64 of DUMP payloads and RDB files: the Jones polynomial, reflected, no initial value and no
//! final one.

use crc::{CRC_64_REDIS, Crc, Table};

/// Sixteen tables (32 KiB) take 16 bytes per step: one table alone is several times slower.
static JONES: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// Checksum of `bytes`. Cost: one pass.
pub fn crc64(bytes: &[u8]) -> u64 {
    JONES.checksum(bytes)
}

/// A checksum of what comes bit by bit.
pub type Digest = crc::Digest<'static, u64, Table<16>>;

/// The checksum of nothing, so far.
pub fn digest() -> Digest {
    JONES.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_the_published_one() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b""), 0);
    }
}
