//! Lua's libraries and the bridge to them: whatever bytes a script hands over, nothing panics, and what was read is written as
//! something that reads alike.
//!
//! Input: a byte that chooses what is done, then the bytes that it is done with.

use ringraft::script::interpreter::Interpreter;
use ringraft::script::library::Library;
use std::sync::Arc;

/// Memory of an interpreter.
const MEMORY_BYTES: usize = 64 << 20;

/// What is done with `text`. Errors are as good as anything, but for those that say that a property is broken.
const SCRIPTS: [&str; 7] = [
    "local once = cjson.encode(cjson.decode(text)) \
     assert(cjson.encode(cjson.decode(once)) == once, 'BROKEN json')",
    "local once = cmsgpack.pack(cmsgpack.unpack(text)) \
     assert(cmsgpack.pack(cmsgpack.unpack(once)) == once, 'BROKEN pack')",
    "local at = 0 repeat at = cmsgpack.unpack_one(text, at) until at < 0",
    "cmsgpack.unpack_limit(text, 3, 1)",
    "local bar = string.find(text, '|', 1, true) or 1 \
     struct.unpack(string.sub(text, 1, bar - 1), string.sub(text, bar + 1))",
    "local packed = struct.pack(text, 1, 'abc', 2, 'def', -3, 'x', 4.5) \
     assert(#packed < 2^20, 'BROKEN size')",
    "assert(cjson.decode(cjson.encode({text}))[1] == text, 'BROKEN string') \
     assert(cmsgpack.unpack(cmsgpack.pack(text)) == text, 'BROKEN bytes')",
];

/// Checks one input.
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let script = SCRIPTS[usize::from(*choice) % SCRIPTS.len()];
    let mut code = b"#!lua name=fuzz\nlocal text = '".to_vec();
    bytes.iter().for_each(|byte| code.extend(format!("\\{byte:03}").bytes()));
    code.extend(b"' ");
    code.extend(script.bytes());
    thread_local! {
        static INTERPRETER: Interpreter =
            Interpreter::new(Arc::new(Library::new()), MEMORY_BYTES).expect("there is memory");
    }
    INTERPRETER.with(|interpreter| {
        let refusal = interpreter.load_library(&code).err().expect("it registers nothing");
        let line = refusal.line();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains("BROKEN"), "{script}: {line}: {}", bytes.escape_ascii());
    });
}

/// Some bytes for each of them.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 7] = [
        b"{\"a\":[1,2.5,-3e9,\"\\u00e9\\ud83d\\ude00\",null,true],\"b\":{}}",
        b"\x93\x01\xa3abc\x82\xa1k\xcb\x40\x09\x21\xfb\x54\x44\x2d\x18\xa1l\xc3",
        b"\x01\xd9\x02ab\xdc\x00\x02\xc0\xcd\x01\x00\xd3\xff\xff\xff\xff\xff\xff\xff\xfe",
        b"\x01\x02\x03\xc4\x02ab",
        b">I2i4!8dsc3|\x00\x01\xff\xff\xff\xfe\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00abc\x00xyz",
        b"<i4s!4Hc0b3",
        b"plain \x00\xff\"\\\n",
    ];
    let with_choice = |(choice, text): (usize, &&[u8])| [&[choice as u8][..], text].concat();
    texts.iter().enumerate().map(with_choice).collect()
}
