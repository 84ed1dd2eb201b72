//! FUNCTION DUMP payloads: for each library an opcode and its text, then the footer of every
//! payload.

use super::encoding::{Decoder, write_string};
use super::payload::{PayloadError, checked, sign};

/// Comes before the text of a library: Redis 7.0's `RDB_OPCODE_FUNCTION2`.
const LIBRARY: u8 = 245;
/// RDB version in which it came.
const VERSION_LIBRARIES: u16 = 10;

/// Why the libraries of a payload are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibrariesError {
    /// The payload as a whole is wrong.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Something else than a library stands there.
    #[error("{0} is not the opcode of a library")]
    Opcode(u8),
}

/// The payload of these texts.
pub fn write_libraries<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        out.push(LIBRARY);
        write_string(&mut out, text);
    }
    sign(&mut out, 0, VERSION_LIBRARIES);
    out
}

/// The texts of a payload.
pub fn read_libraries(payload: &[u8]) -> Result<Vec<Vec<u8>>, LibrariesError> {
    let mut decoder = Decoder::new(checked(payload)?.0);
    let mut texts = Vec::new();
    while !decoder.rest().is_empty() {
        match decoder.byte().map_err(PayloadError::Value)? {
            LIBRARY => {
                texts.push(decoder.string().map_err(PayloadError::Value)?.into_owned());
            }
            opcode => return Err(LibrariesError::Opcode(opcode)),
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for texts in [vec![], vec![&b"#!lua name=a\n"[..]], vec![b"12", &[b'x'; 70_000]]] {
            let payload = write_libraries(texts.iter().copied());
            assert_eq!(read_libraries(&payload), Ok(texts.iter().map(|t| t.to_vec()).collect()));
            for at in 0..payload.len().min(40) {
                let mut torn = payload.clone();
                torn[at] ^= 1;
                assert!(read_libraries(&torn).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn other_things_are_refused_by_their_opcode() {
        let mut payload = vec![246, 1, b'x'];
        sign(&mut payload, 0, VERSION_LIBRARIES);
        assert_eq!(read_libraries(&payload), Err(LibrariesError::Opcode(246)));
        let mut payload = vec![LIBRARY, 9, b'x'];
        sign(&mut payload, 0, VERSION_LIBRARIES);
        let error = read_libraries(&payload);
        assert!(matches!(error, Err(LibrariesError::Payload(PayloadError::Value(_)))));
    }
}
