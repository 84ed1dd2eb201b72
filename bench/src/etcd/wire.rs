//! What a gRPC client of etcd sends and receives: frames of HTTP/2 (RFC 9113) with a protobuf
//! message each.
//!
//! Headers are sent as literals that change no table (RFC 7541, 6.2.2), so nothing has to be
//! remembered, and those that come are passed over: a call has succeeded when a message came and
//! its stream has ended.

/// What a client sends first: the preface, no settings, and a window that a run does not use up.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const WINDOW_MORE: u32 = 0x7fff_0000 - 65_535;

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RESET: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GO_AWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

/// A call of etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A value for a key.
    Put,
    /// The value of a key, linearizable.
    Range,
}

impl Call {
    fn path(self) -> &'static [u8] {
        match self {
            Call::Put => b"/etcdserverpb.KV/Put",
            Call::Range => b"/etcdserverpb.KV/Range",
        }
    }
}

/// What has become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has succeeded.
    Done,
    /// It was refused.
    Refused,
    /// The server ends the connection.
    Gone,
}

/// One connection's frames, in both directions.
#[derive(Default)]
pub struct Wire {
    stream: u32,
    received: Vec<u8>,
    has_message: bool,
}

impl Wire {
    /// What opens a connection.
    pub fn open(out: &mut Vec<u8>) -> Wire {
        out.extend_from_slice(PREFACE);
        frame(out, kind::SETTINGS, 0, 0, &[]);
        frame(out, kind::WINDOW_UPDATE, 0, 0, &WINDOW_MORE.to_be_bytes());
        Wire::default()
    }

    /// Appends a call. There is one at a time.
    pub fn call(&mut self, out: &mut Vec<u8>, call: Call, key: &[u8], value: &[u8]) {
        // Streams of clients have odd numbers, each greater than the one before.
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.has_message = false;
        frame(out, kind::HEADERS, flag::END_HEADERS, self.stream, &headers(call));
        let mut message = Vec::with_capacity(key.len() + value.len() + 16);
        // gRPC: not compressed, then the length.
        message.extend_from_slice(&[0; 5]);
        field(&mut message, 1, key);
        if call == Call::Put {
            field(&mut message, 2, value);
        }
        let length = (message.len() - 5) as u32;
        message[1..5].copy_from_slice(&length.to_be_bytes());
        frame(out, kind::DATA, flag::END_STREAM, self.stream, &message);
    }

    /// Takes what came, and appends to `out` what must be answered at once. The call's event, if it
    /// has ended.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        self.received.extend_from_slice(bytes);
        let mut event = None;
        let mut taken = 0;
        while let Some((head, body)) = next(&self.received[taken..]) {
            taken += HEAD_BYTES + body.len();
            match head.kind {
                kind::SETTINGS if head.flags & flag::ACK == 0 => {
                    frame(out, kind::SETTINGS, flag::ACK, 0, &[]);
                }
                kind::PING if head.flags & flag::ACK == 0 => {
                    frame(out, kind::PING, flag::ACK, 0, body);
                }
                kind::DATA if head.stream == self.stream => self.has_message |= !body.is_empty(),
                kind::GO_AWAY => event = Some(Event::Gone),
                kind::RESET if head.stream == self.stream => event = Some(Event::Refused),
                _ => {}
            }
            let ends = matches!(head.kind, kind::DATA | kind::HEADERS)
                && head.flags & flag::END_STREAM != 0
                && head.stream == self.stream;
            if ends {
                event = Some(if self.has_message { Event::Done } else { Event::Refused });
            }
        }
        self.received.drain(..taken);
        event
    }
}

struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// The first frame, if it is whole.
fn next(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let head = bytes.get(..HEAD_BYTES)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let body = bytes.get(HEAD_BYTES..HEAD_BYTES + length)?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    Some((Head { kind: head[3], flags: head[4], stream }, body))
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

fn headers(call: Call) -> Vec<u8> {
    // Whole entries of the static table: POST, http.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &[u8]| {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
    };
    // Names of the static table (4, 1 and 31), then one that is not in it.
    literal(&[0x04], call.path());
    literal(&[0x01], b"etcd");
    literal(&[0x0f, 0x10], b"application/grpc");
    literal(b"\x00\x02te", b"trailers");
    block
}

/// A protobuf field of bytes.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(parts: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, flags, stream, body) in parts {
            frame(&mut bytes, *kind, *flags, *stream, body);
        }
        bytes
    }

    #[test]
    fn a_call_is_done_when_a_message_came_and_the_stream_ended() {
        let mut out = Vec::new();
        let mut wire = Wire::open(&mut out);
        wire.call(&mut out, Call::Put, b"key", &[b'v'; 200]);
        let reply = frames(&[
            (kind::SETTINGS, 0, 0, &[]),
            (kind::PING, 0, 0, &[7; 8]),
            (kind::HEADERS, flag::END_HEADERS, 1, &[0x88]),
            (kind::DATA, 0, 1, &[0; 9]),
            (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x88]),
        ]);
        let mut answers = Vec::new();
        let (last, rest) = reply.split_last().expect("not empty");
        // In whatever pieces it comes.
        for byte in rest {
            assert_eq!(wire.receive(&[*byte], &mut answers), None);
        }
        assert_eq!(wire.receive(&[*last], &mut answers), Some(Event::Done));
        let expected =
            frames(&[(kind::SETTINGS, flag::ACK, 0, &[]), (kind::PING, flag::ACK, 0, &[7; 8])]);
        assert_eq!(answers, expected);
    }

    #[test]
    fn an_answer_of_headers_alone_is_a_refusal() {
        let mut wire = Wire::open(&mut Vec::new());
        wire.call(&mut Vec::new(), Call::Range, b"key", &[]);
        let flags = flag::END_HEADERS | flag::END_STREAM;
        let refusal = frames(&[(kind::HEADERS, flags, 1, &[0x88])]);
        assert_eq!(wire.receive(&refusal, &mut Vec::new()), Some(Event::Refused));
        let end = frames(&[(kind::GO_AWAY, 0, 0, &[0; 8])]);
        assert_eq!(wire.receive(&end, &mut Vec::new()), Some(Event::Gone));
    }

    #[test]
    fn lengths_above_127_take_two_bytes() {
        let mut bytes = Vec::new();
        field(&mut bytes, 2, &[1; 300]);
        assert_eq!(bytes[..3], [0x12, 0xac, 0x02]);
        assert_eq!(bytes.len(), 303);
    }
}
