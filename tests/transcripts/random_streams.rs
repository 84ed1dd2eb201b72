//! Random requests to streams and their groups, without what depends on time or on the bounds of
//! blocks. How many consumers there are is not compared: 7.2 makes those too that claimed nothing.

use crate::random::{Dice, compare};

const REQUESTS: u64 = 20_000;

#[test]
fn transcripts_of_random_streams_agree_with_redis() {
    compare(REQUESTS, Dice::stream_request);
}

impl Dice {
    fn stream_request(&mut self) -> Vec<String> {
        const TEMPLATES: &[&str] = &[
            "xadd Stream Id f v g w",
            "xadd Stream Id f v g w h x",
            "xadd Stream nomkstream Id f Id",
            "xadd Stream maxlen Few Id f v",
            "xadd Stream minid = Id Id f v",
            "xlen Stream",
            "xrange Stream Id Id",
            "xrange Stream Edge Edge count Few",
            "xrevrange Stream Id Id",
            "xrevrange Stream Edge Edge count Few",
            "xdel Stream Id Id Id",
            "xdel Stream Id",
            "xtrim Stream maxlen Few",
            "xtrim Stream minid Id",
            "xread streams Stream Stream Id Id",
            "xread count Few streams Stream Stream $ Id",
            "xgroup create Stream Group Id",
            "xgroup create Stream Group $ mkstream entriesread Few",
            "xgroup create Stream Group 0 mkstream",
            "xgroup setid Stream Group Id",
            "xgroup setid Stream Group $ entriesread Few",
            "xgroup destroy Stream Group",
            "xgroup delconsumer Stream Group Consumer",
            "xreadgroup group Group Consumer count Few streams Stream >",
            "xreadgroup group Group Consumer streams Stream Stream > >",
            "xreadgroup group Group Consumer count Few noack streams Stream >",
            "xreadgroup group Group Consumer count Few streams Stream Id",
            "xreadgroup group Group Consumer streams Stream 0",
            "xack Stream Group Id Id Id",
            "xclaim Stream Group Consumer 0 Id Id Id",
            "xclaim Stream Group Consumer 0 Id Id force justid",
            "xclaim Stream Group Consumer 0 Id force retrycount Few",
            "xclaim Stream Group Consumer 100000 Id lastid Id",
            "xautoclaim Stream Group Consumer 0 Id count Few",
            "xautoclaim Stream Group Consumer 0 0 justid",
            "xautoclaim Stream Group Consumer 100000 Id",
            "xpending Stream Group",
            "xinfo groups Stream",
            "xinfo groups Stream",
            "copy Stream Stream replace",
            "rename Stream Stream",
            "type Stream",
            "object encoding Stream",
        ];
        let template = match self.below(200) {
            0 => "set Stream v",
            1 | 2 => "del Stream",
            3..=80 => "xadd Stream Next f v g w",
            _ => self.one_of(TEMPLATES),
        };
        template.split(' ').map(|word| self.stream_word(word)).collect()
    }

    fn stream_word(&mut self, word: &str) -> String {
        match word {
            "Stream" => self.one_of(&["a", "b", "c"]).to_owned(),
            "Group" => self.one_of(&["g", "h"]).to_owned(),
            "Consumer" => self.one_of(&["x", "y", "z"]).to_owned(),
            "Few" => self.below(12).to_string(),
            "Next" => {
                // Mostly behind all others.
                self.stream_clock += self.below(2);
                format!("{}-*", self.stream_clock)
            }
            "Id" => {
                let ms = self.stream_clock.saturating_sub(self.below(8));
                match self.below(3) {
                    0 => ms.to_string(),
                    _ => format!("{ms}-{}", self.below(4)),
                }
            }
            "Edge" => match self.below(5) {
                0 => "-".to_owned(),
                1 => "+".to_owned(),
                2 => format!("({}", self.stream_word("Id")),
                _ => self.stream_word("Id"),
            },
            other => other.to_owned(),
        }
    }
}
