//! Messages between cores.
//!
//! Each core has one bounded mailbox. In a turn a core gathers what it has for another core and
//! sends it as one message; when the mailbox is full the message waits in the sender's outbox,
//! which grows no further than its connections' bounds allow. An awake core is never signalled: a
//! core says that it sleeps before it does, looks into its mailbox once more, and only then is rung
//! by eventfd.

use crate::core::Core;
use crate::core::client::answers::{Origin, Target};
use crate::core::client::connection::Connection;
use crate::core::place::moving::Moved;
use crate::core::push::{Message, News};
use crate::core::transact::participate::TransactionMessage;
use crate::limits::{MAILBOX_MESSAGES_MAX, SPARE_MESSAGE_BYTES_MAX, SPARE_MESSAGES_MAX};
use crate::resp::listing::Rest;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ringraft_shards::batch::BatchBuilder;
use ringraft_shards::ids::ShardId;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One message.
pub enum Mail {
    /// Requests for shards of the receiver.
    Requests(Box<Requests>),
    /// Replies to requests of the receiver's connections.
    Replies(Box<RepliesMail>),
    /// A connection that moves to the receiver.
    Connection(Box<Connection>),
    /// A shard that moves to the receiver.
    Shard(Box<Moved>),
    /// A message for subscribers of the receiver, and who wants to know how many they were.
    Message(Arc<Message>, Origin),
    /// Changes that the receiver's clients may have copies of.
    News(Arc<News>),
    /// Something to do on the receiver, for commands that concern all cores.
    Task(Box<dyn FnOnce(&mut Core) + Send>),
}

/// The requests that one core has for another in one turn.
#[derive(Default)]
pub struct Requests {
    /// Their commands and arguments.
    pub batch: BatchBuilder,
    /// For each of them, where it goes and where its reply goes.
    pub routes: Vec<(ShardId, Origin)>,
    /// Messages of transactions, each before the request with this number.
    pub transactions: Vec<(u32, TransactionMessage)>,
}

/// The replies that one core has for another in one turn.
#[derive(Default)]
pub struct RepliesMail {
    /// RESP bytes of all of them.
    pub bytes: Vec<u8>,
    /// For each of them, whose it is and its length.
    pub targets: Vec<(Target, usize)>,
    /// Rests of some of them, each with its reply's place among them, in order.
    pub rests: Vec<(usize, Box<Rest>)>,
}

/// The way into a core, as others see it.
#[derive(Clone)]
pub struct MailboxSender {
    sender: Sender<Mail>,
    bell: Arc<Bell>,
}

/// Wakes a sleeping core. What was rung is never read: each ring is an event for the multishot poll
/// on the descriptor, whatever it counts, and it does not count to its end.
pub struct Bell {
    eventfd: OwnedFd,
    asleep: AtomicBool,
}

impl Bell {
    #[allow(unsafe_code)]
    fn new() -> std::io::Result<Bell> {
        // SAFETY: eventfd takes no pointers; the descriptor it returns is owned by nobody else.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Bell { eventfd, asleep: AtomicBool::new(false) })
    }

    #[allow(unsafe_code)]
    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes are read from an array of eight.
        unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Wakes the core when it sleeps. Call it when there is something for the core to find.
    pub fn wake_sleeper(&self) {
        // Pairs with the fence in `Mailbox::sleep`: either this sees the sleeper or it sees what
        // there is.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    /// The descriptor that becomes readable.
    pub fn descriptor(&self) -> i32 {
        self.eventfd.as_raw_fd()
    }
}

impl MailboxSender {
    /// Sends a message, and wakes the core when it sleeps.
    /// Errors: the mailbox is full; the message comes back.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        self.sender.try_send(mail).map_err(|error| match error {
            TrySendError::Full(mail) | TrySendError::Disconnected(mail) => mail,
        })?;
        self.bell.wake_sleeper();
        Ok(())
    }
}

/// The receiving end, owned by its core.
pub struct Mailbox {
    receiver: Receiver<Mail>,
    bell: Arc<Bell>,
}

impl Mailbox {
    /// A mailbox and the way into it.
    /// Errors: no descriptor for its bell.
    pub fn new() -> std::io::Result<(Mailbox, MailboxSender)> {
        let (sender, receiver) = bounded(MAILBOX_MESSAGES_MAX);
        let bell = Arc::new(Bell::new()?);
        Ok((Mailbox { receiver, bell: bell.clone() }, MailboxSender { sender, bell }))
    }

    /// Its bell.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// The next message. Cost: half a nanosecond when there is none.
    pub fn take(&self) -> Option<Mail> {
        if self.receiver.is_empty() { None } else { self.receiver.try_recv().ok() }
    }

    /// Is there no mail? Cost: half a nanosecond.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Announces that the core is about to sleep; look then for everything that rings the bell.
    /// False: there is mail, stay awake.
    pub fn sleep(&self) -> bool {
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.receiver.is_empty() {
            return true;
        }
        self.wake();
        false
    }

    /// The core is awake again.
    pub fn wake(&self) {
        self.bell.asleep.store(false, Ordering::Relaxed);
    }
}

impl Requests {
    fn clear(&mut self) {
        self.batch.clear();
        self.routes.clear();
        self.transactions.clear();
    }
}

impl RepliesMail {
    fn clear(&mut self) {
        self.bytes.clear();
        self.targets.clear();
        self.rests.clear();
    }
}

/// Messages that were read, kept for their memory: what this core sends next is written into them.
/// Cores that talk to each other get about as many as they send, so that hops allocate nothing.
#[derive(Default)]
#[allow(clippy::vec_box)] // They came in boxes and leave in boxes; only the boxes move.
pub struct Spares {
    requests: Vec<Box<Requests>>,
    replies: Vec<Box<RepliesMail>>,
}

impl Spares {
    /// Keeps a message whose requests were all taken.
    pub fn keep_requests(&mut self, mut requests: Box<Requests>) {
        if self.requests.len() < SPARE_MESSAGES_MAX
            && requests.batch.size() <= SPARE_MESSAGE_BYTES_MAX
        {
            requests.clear();
            self.requests.push(requests);
        }
    }

    /// Keeps a message whose replies were all delivered.
    pub fn keep_replies(&mut self, mut replies: Box<RepliesMail>) {
        if self.replies.len() < SPARE_MESSAGES_MAX && replies.bytes.len() <= SPARE_MESSAGE_BYTES_MAX
        {
            replies.clear();
            self.replies.push(replies);
        }
    }

    /// Gives one of each kind back to the allocator. To be called each tick: what is kept follows
    /// the load.
    pub fn shed(&mut self) {
        self.requests.pop();
        self.replies.pop();
    }
}

/// What a core has for another one.
#[derive(Default)]
pub struct Outbox {
    /// Requests of this turn.
    pub requests: Box<Requests>,
    /// Replies of this turn.
    pub replies: Box<RepliesMail>,
    /// Messages that found the mailbox full, and others in order.
    waiting: std::collections::VecDeque<Mail>,
}

impl Outbox {
    /// Adds a message behind those that wait.
    pub fn push(&mut self, mail: Mail, spares: &mut Spares) {
        self.close(spares);
        self.waiting.push_back(mail);
    }

    /// Appends a reply.
    #[inline]
    pub fn reply(&mut self, target: Target, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.replies.bytes.len();
        write(&mut self.replies.bytes);
        self.replies.targets.push((target, self.replies.bytes.len() - start));
    }

    /// The last reply has a rest.
    #[cold]
    pub fn put_rest(&mut self, rest: Box<Rest>) {
        self.replies.rests.push((self.replies.targets.len() - 1, rest));
    }

    /// Appends a message of a transaction, behind the requests so far.
    pub fn transaction(&mut self, message: TransactionMessage) {
        let position = self.requests.routes.len() as u32;
        self.requests.transactions.push((position, message));
    }

    /// Ends the message of requests: what follows goes into the next one. Nothing overtakes:
    /// replies that are older go after it, which no order forbids.
    #[cold]
    pub fn close_requests(&mut self) {
        self.waiting.push_back(Mail::Requests(std::mem::take(&mut self.requests)));
    }

    fn close(&mut self, spares: &mut Spares) {
        if self.requests.batch.count() > 0 || !self.requests.transactions.is_empty() {
            let fresh = spares.requests.pop().unwrap_or_default();
            self.waiting.push_back(Mail::Requests(std::mem::replace(&mut self.requests, fresh)));
        }
        if !self.replies.targets.is_empty() {
            let fresh = spares.replies.pop().unwrap_or_default();
            self.waiting.push_back(Mail::Replies(std::mem::replace(&mut self.replies, fresh)));
        }
    }

    /// Takes everything, in order.
    pub fn take_all(&mut self, spares: &mut Spares) -> std::collections::VecDeque<Mail> {
        self.close(spares);
        std::mem::take(&mut self.waiting)
    }

    /// Does a message wait for a full mailbox?
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what there is, as far as the mailbox takes it. Returns how many messages went.
    pub fn flush(&mut self, to: &MailboxSender, spares: &mut Spares) -> u64 {
        self.close(spares);
        let mut count = 0;
        while let Some(mail) = self.waiting.pop_front() {
            if let Err(mail) = to.send(mail) {
                self.waiting.push_front(mail);
                break;
            }
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back_and_order_is_kept() {
        let (mailbox, sender) = Mailbox::new().expect("an eventfd");
        let (mut outbox, mut spares) = (Outbox::default(), Spares::default());
        for n in 0..MAILBOX_MESSAGES_MAX + 2 {
            outbox.reply(Target::Gather { index: n as u32, part: 0 }, |out| out.push(b'x'));
            outbox.close(&mut spares);
        }
        assert_eq!(outbox.flush(&sender, &mut spares), MAILBOX_MESSAGES_MAX as u64);
        assert!(outbox.is_waiting());
        let mut expected = 0;
        let mut take = |mailbox: &Mailbox| {
            while let Some(Mail::Replies(replies)) = mailbox.take() {
                assert_eq!(replies.targets[0].0, Target::Gather { index: expected, part: 0 });
                expected += 1;
            }
            expected as usize
        };
        assert_eq!(take(&mailbox), MAILBOX_MESSAGES_MAX);
        assert_eq!(outbox.flush(&sender, &mut spares), 2);
        assert!(!outbox.is_waiting());
        assert!(!mailbox.sleep(), "there is mail");
        assert_eq!(take(&mailbox), MAILBOX_MESSAGES_MAX + 2);
        assert!(mailbox.sleep());
    }

    #[test]
    fn a_read_message_is_written_again_and_an_unused_one_goes() {
        let (mut outbox, mut spares) = (Outbox::default(), Spares::default());
        let mut replies = Box::<RepliesMail>::default();
        replies.bytes = Vec::with_capacity(1000);
        replies.bytes.push(b'x');
        replies.targets.push((Target::Nobody, 1));
        spares.keep_replies(replies);
        outbox.reply(Target::Nobody, |out| out.push(b'y'));
        outbox.close(&mut spares);
        assert_eq!((outbox.replies.bytes.capacity(), outbox.replies.bytes.len()), (1000, 0));
        assert!(outbox.replies.targets.is_empty() && spares.replies.is_empty());
        for _ in 0..SPARE_MESSAGES_MAX + 1 {
            spares.keep_requests(Box::default());
        }
        assert_eq!(spares.requests.len(), SPARE_MESSAGES_MAX);
        for _ in 0..SPARE_MESSAGES_MAX {
            spares.shed();
        }
        assert!(spares.requests.is_empty());
        let mut long = Box::<RepliesMail>::default();
        long.bytes = vec![b'x'; SPARE_MESSAGE_BYTES_MAX + 1];
        spares.keep_replies(long);
        assert!(spares.replies.is_empty());
    }
}
