//! The metrics page.

use crate::core::Core;
use crate::core::turn::Source;

impl Core {
    pub(super) fn take_metrics_request(&mut self, _index: u32, _source: Source) {}
}
