//! Passwords are kept and compared as the hexadecimal SHA-256 of what the client sends, as in
//! Redis' ACL files.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A password's digest: 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Nobody reads it in a log by accident.
impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(redacted)")
    }
}

impl Password {
    /// Of a password as it is typed.
    pub fn of(clear: &[u8]) -> Password {
        Password(Sha256::digest(clear).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Of the digest in an ACL rule; `None` when that is none.
    pub fn of_digest(digits: &[u8]) -> Option<Password> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = digits.len() == 64 && digits.iter().all(is_digit);
        fits.then(|| Password(String::from_utf8_lossy(digits).into_owned()))
    }

    /// The digits.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

/// Is the password one of these? How long it takes does not tell which, nor how much of it was
/// right.
pub fn is_among(passwords: &[Password], clear: &[u8]) -> bool {
    let given = Password::of(clear);
    let equal = |known: &Password| known.0.as_bytes().ct_eq(given.0.as_bytes());
    passwords.iter().fold(Choice::from(0), |any, known| any | equal(known)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_redis() {
        let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(Password::of(b"hello").digits(), hello);
        assert_eq!(Password::of_digest(hello.as_bytes()), Some(Password::of(b"hello")));
        for wrong in [&hello[1..], &hello.to_uppercase(), &hello.replace('2', "g"), ""] {
            assert_eq!(Password::of_digest(wrong.as_bytes()), None, "{wrong}");
        }
        let known = [Password::of(b"a"), Password::of(b"hello")];
        assert!(is_among(&known, b"hello") && is_among(&known, b"a"));
        assert!(!is_among(&known, b"hell") && !is_among(&[], b""));
        assert!(!format!("{known:?}").contains("2cf24"));
    }
}
