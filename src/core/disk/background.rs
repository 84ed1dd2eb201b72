//! Blocking work on files, done by glommio's helper thread one piece after the other.
//!
//! The helper is given one job for as long as the core lives: taking pieces of work from a channel.
//! What comes of them comes back by another channel and a ring of the core's bell, at once: of a
//! job that has ended glommio itself would tell the next time it looks, which is every 100 ms while
//! the core is busy.

use crate::core::disk::storage::Done;
use crate::core::mail::mailbox::Bell;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;

type Work = Box<dyn FnOnce() -> Done + Send>;

/// The helper of one core. What is under way is bounded by those who ask for it.
pub struct Background {
    /// Until it is told to stop.
    work: Option<Sender<Work>>,
    /// glommio's end of the job.
    job: Option<glommio::Task<()>>,
    done: Receiver<Done>,
    /// Pieces whose report was not taken yet.
    count: usize,
}

impl Background {
    /// Sets the helper to work, until [`Background::stop`]. Call it in an executor whose blocking
    /// pool has a thread.
    pub async fn start(bell: Arc<Bell>) -> Background {
        let (work, works) = unbounded::<Work>();
        let (reports, done) = unbounded();
        let job = move || {
            // Says that it is there.
            let mut report = Done::Nothing;
            while reports.send(report).is_ok() {
                bell.wake_sleeper();
                let Ok(work) = works.recv() else { return };
                report = work();
            }
        };
        let job = glommio::spawn_local(glommio::executor().spawn_blocking(job));
        // The executor hands the job over when it has its turn, and then never needs another.
        while done.is_empty() {
            glommio::executor().yield_task_queue_now().await;
        }
        Background { work: Some(work), done, count: 1, job: Some(job) }
    }

    /// Lets the helper finish what it has, and waits for it. Without that the executor might be
    /// gone when the helper tells it that the job has ended, and glommio panics there.
    pub async fn stop(&mut self) {
        self.work = None;
        if let Some(job) = self.job.take() {
            job.await;
        }
    }

    /// Starts a piece of work.
    pub fn begin(&mut self, work: impl FnOnce() -> Done + Send + 'static) {
        self.count += 1;
        let helper = self.work.as_ref().expect("nothing is begun after the end");
        helper.send(Box::new(work)).expect("the helper lives as long as the core");
    }

    /// A report, if there is one.
    pub fn take(&mut self) -> Option<Done> {
        if self.done.is_empty() {
            return None;
        }
        let done = self.done.try_recv().ok()?;
        self.count -= 1;
        Some(done)
    }

    /// Is there a report?
    pub fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Pieces of work whose reports were not taken yet.
    pub fn count(&self) -> usize {
        self.count
    }
}
