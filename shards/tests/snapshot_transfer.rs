//! Snapshots between two nodes: pieces, losses, restarts of either end, newer and older offers,
//! damaged files.

use std::collections::VecDeque;

use ringraft_shards::ids::{Index, NodeId, Term};
use ringraft_shards::limits::{
    SNAPSHOT_PATIENCE_TICKS, SNAPSHOT_PIECE_BYTES, SNAPSHOT_SEND_BYTES_PER_TICK,
    SNAPSHOT_WINDOW_BYTES,
};
use ringraft_shards::random::Random;
use ringraft_shards::snapshot::{
    AnswerTo, ReceiveWork, SendOutcome, SendStep, SnapshotName, SnapshotOffer, SnapshotReceiver,
    SnapshotSender, TransferAnswer, TransferFrame, TransferId,
};

fn offer(index: u64, size: usize) -> SnapshotOffer {
    let name = SnapshotName { term: Term(3), index: Index(index) };
    SnapshotOffer { name, size: size as u64, crc: index as u32 }
}

fn id(term: u64, number: u64) -> TransferId {
    TransferId { term, number }
}

/// Both ends of one transfer, a network that loses, and a disk that takes its time.
struct Pair {
    sender: SnapshotSender,
    receiver: SnapshotReceiver,
    source: Vec<u8>,
    file: Option<Vec<u8>>,
    stored: Option<Vec<u8>>,
    applied: u64,
    frames: VecDeque<TransferFrame>,
    answers: VecDeque<AnswerTo>,
    reads: VecDeque<(u64, usize)>,
    work: Option<ReceiveWork>,
    chance: Random,
    /// One in so many frames and answers is lost; 0 loses none.
    loss: u64,
    sent_bytes: usize,
    good: bool,
}

impl Pair {
    fn new(source: Vec<u8>, seed: u64, loss: u64) -> Pair {
        Pair {
            sender: SnapshotSender::new(id(5, 1), offer(40, source.len())),
            receiver: SnapshotReceiver::new(),
            source,
            file: None,
            stored: None,
            applied: 10,
            frames: VecDeque::new(),
            answers: VecDeque::new(),
            reads: VecDeque::new(),
            work: None,
            chance: Random::new(seed),
            loss,
            sent_bytes: 0,
            good: true,
        }
    }

    fn lost(&mut self) -> bool {
        self.loss > 0 && self.chance.below(self.loss) == 0
    }

    /// Something that can happen happens. False when nothing can.
    fn step(&mut self) -> bool {
        match self.chance.below(5) {
            0 => self.send(),
            1 if !self.reads.is_empty() => {
                let (offset, length) = self.reads.pop_front().expect("not empty");
                let bytes = self.source[offset as usize..][..length].to_vec();
                self.sender.read(offset, bytes);
            }
            2 => {
                if let Some(frame) = self.frames.pop_front() {
                    let (node, transfer) = (NodeId(1), self.sender.id());
                    self.receiver.take(node, transfer, frame, Index(self.applied));
                }
            }
            3 => self.work(),
            4 => {
                for answer in self.receiver.take_answers() {
                    if !self.lost() {
                        self.answers.push_back(answer);
                    }
                }
                if let Some(answer) = self.answers.pop_front()
                    && answer.transfer == self.sender.id()
                {
                    self.sender.answered(answer.answer);
                }
            }
            _ => {}
        }
        assert!(self.receiver.waiting_bytes() <= SNAPSHOT_WINDOW_BYTES, "memory is bounded");
        let under_way: usize = self.frames.iter().map(frame_bytes).sum();
        // A window that was set back may be sent twice before the first is taken.
        assert!(under_way as u64 <= 3 * SNAPSHOT_WINDOW_BYTES, "{under_way} bytes under way");
        !(self.frames.is_empty() && self.answers.is_empty() && self.reads.is_empty())
    }

    fn send(&mut self) {
        match self.sender.next_step() {
            Some(SendStep::Frame(frame)) => {
                self.sent_bytes += frame_bytes(&frame);
                if !self.lost() {
                    self.frames.push_back(frame);
                }
            }
            Some(SendStep::Read { offset, length }) => self.reads.push_back((offset, length)),
            None => {}
        }
    }

    fn work(&mut self) {
        if self.work.is_none() {
            self.work = self.receiver.next_work();
            return;
        }
        match self.work.take().expect("looked") {
            ReceiveWork::Begin { .. } => self.file = Some(Vec::new()),
            ReceiveWork::Write { offset, bytes } => {
                let file = self.file.as_mut().expect("begun");
                assert_eq!(offset as usize, file.len(), "in order");
                file.extend(bytes);
            }
            ReceiveWork::Finish => {
                let file = self.file.take().expect("begun");
                if self.good && file == self.source {
                    self.stored = Some(file);
                }
                let good = self.stored.is_some();
                return self.receiver.work_done(good);
            }
            ReceiveWork::Abandon => self.file = None,
        }
        self.receiver.work_done(true);
    }

    /// Ticks and steps until the sender has an outcome.
    fn run(&mut self) -> SendOutcome {
        for _ in 0..20 * SNAPSHOT_PATIENCE_TICKS {
            for _ in 0..60 {
                if let Some(outcome) = self.sender.outcome() {
                    return outcome;
                }
                self.step();
            }
            self.sender.tick();
            self.receiver.tick();
        }
        panic!("never ends");
    }

    /// The connection is lost, and with it what was on its way.
    fn cut(&mut self) {
        self.frames.clear();
        self.answers.clear();
    }
}

fn frame_bytes(frame: &TransferFrame) -> usize {
    match frame {
        TransferFrame::Offer(_) => 0,
        TransferFrame::Piece { bytes, .. } => bytes.len(),
    }
}

fn source(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| ((n * 31) >> 5) as u8).collect()
}

#[test]
fn files_of_every_size_arrive_whatever_is_lost() {
    let piece = SNAPSHOT_PIECE_BYTES;
    let sizes = [1, 100, piece - 1, piece, piece + 1, 9 * piece + 7, 20 * piece];
    for (n, size) in sizes.into_iter().enumerate() {
        for loss in [0, 20, 4] {
            let mut pair = Pair::new(source(size), n as u64 + 10 * loss, loss);
            assert_eq!(pair.run(), SendOutcome::Delivered, "{size} bytes, loss {loss}");
            assert_eq!(pair.stored.as_ref(), Some(&pair.source));
            assert!(loss > 0 || pair.sent_bytes == size, "nothing is sent twice");
        }
    }
}

#[test]
fn a_transfer_goes_on_where_it_was_cut() {
    for seed in 0..20 {
        let mut pair = Pair::new(source(30 * SNAPSHOT_PIECE_BYTES), seed, 0);
        while pair.sender.acknowledged() < 12 << 18 {
            pair.step();
            pair.sender.tick();
        }
        pair.cut();
        // Another attempt, by another leader with the same file.
        pair.sender = SnapshotSender::new(id(6, 1), offer(40, pair.source.len()));
        pair.reads.clear();
        assert_eq!(pair.run(), SendOutcome::Delivered);
        assert_eq!(pair.stored.as_ref(), Some(&pair.source));
        // What was under way, and perhaps a window that took too long for the sender's patience.
        let again = (pair.sent_bytes - pair.source.len()) as u64;
        assert!(again <= 2 * SNAPSHOT_WINDOW_BYTES, "seed {seed}: {again} bytes twice");
    }
}

#[test]
fn a_receiver_that_restarts_gets_all_of_it_anew() {
    for seed in 0..20 {
        let mut pair = Pair::new(source(30 * SNAPSHOT_PIECE_BYTES), seed, 0);
        while pair.sender.acknowledged() < 12 << 18 {
            pair.step();
            pair.sender.tick();
        }
        pair.cut();
        (pair.receiver, pair.file, pair.work) = (SnapshotReceiver::new(), None, None);
        assert_eq!(pair.run(), SendOutcome::Delivered, "seed {seed}");
        assert_eq!(pair.stored.as_ref(), Some(&pair.source));
    }
}

#[test]
fn a_damaged_file_is_refused_and_can_be_sent_again() {
    let mut pair = Pair::new(source(3 * SNAPSHOT_PIECE_BYTES), 1, 0);
    pair.good = false;
    assert_eq!(pair.run(), SendOutcome::Failed);
    assert_eq!((pair.stored.take(), pair.file.take()), (None, None), "nothing is left of it");
    pair.good = true;
    pair.sender = SnapshotSender::new(id(5, 2), offer(40, pair.source.len()));
    assert_eq!(pair.run(), SendOutcome::Delivered);
}

#[test]
fn what_is_applied_already_is_not_sent() {
    let mut pair = Pair::new(source(3 * SNAPSHOT_PIECE_BYTES), 1, 0);
    pair.applied = 40;
    assert_eq!(pair.run(), SendOutcome::Delivered, "Raft's message is enough");
    assert_eq!(pair.sent_bytes, 0);
}

#[test]
fn nobody_there_ends_it() {
    let mut pair = Pair::new(source(100), 1, 1);
    assert_eq!(pair.run(), SendOutcome::Failed);
    // And a receiver whose sender has gone gives up too.
    let mut receiver = SnapshotReceiver::new();
    receiver.take(NodeId(1), id(5, 1), TransferFrame::Offer(offer(40, 100)), Index(1));
    assert!(matches!(receiver.next_work(), Some(ReceiveWork::Begin { size: 100, .. })));
    receiver.work_done(true);
    for _ in 0..SNAPSHOT_PATIENCE_TICKS {
        assert_eq!(receiver.next_work(), None);
        receiver.tick();
    }
    assert_eq!(receiver.next_work(), Some(ReceiveWork::Abandon));
}

#[test]
fn the_newest_leader_is_heard_and_the_stale_one_refused() {
    let answer = |receiver: &mut SnapshotReceiver| {
        let answers = receiver.take_answers();
        answers.iter().map(|to| (to.sender.0, to.answer)).collect::<Vec<_>>()
    };
    let mut receiver = SnapshotReceiver::new();
    receiver.take(NodeId(1), id(5, 1), TransferFrame::Offer(offer(40, 100)), Index(1));
    let begin = receiver.next_work();
    assert!(matches!(begin, Some(ReceiveWork::Begin { .. })));
    receiver.work_done(true);
    assert_eq!(answer(&mut receiver), [(1, TransferAnswer::Has(0))]);
    // A write is under way when the new leader comes with another file.
    let piece = |offset, count| TransferFrame::Piece { offset, bytes: vec![1; count] };
    receiver.take(NodeId(1), id(5, 1), piece(0, 60), Index(1));
    assert!(matches!(receiver.next_work(), Some(ReceiveWork::Write { offset: 0, .. })));
    receiver.take(NodeId(2), id(6, 1), TransferFrame::Offer(offer(50, 80)), Index(1));
    receiver.take(NodeId(1), id(5, 1), piece(60, 40), Index(1));
    receiver.work_done(true);
    assert_eq!(receiver.next_work(), Some(ReceiveWork::Abandon), "the old one ends first");
    receiver.work_done(true);
    let name = offer(50, 80).name;
    assert_eq!(receiver.next_work(), Some(ReceiveWork::Begin { name, size: 80 }));
    receiver.work_done(true);
    assert_eq!(answer(&mut receiver), [(2, TransferAnswer::Has(0))]);
    receiver.take(NodeId(1), id(5, 2), TransferFrame::Offer(offer(41, 100)), Index(1));
    assert_eq!(answer(&mut receiver), [(1, TransferAnswer::Refused)]);
    // Pieces that leave a gap, or reach beyond the end, are not taken.
    for (offset, count) in [(10, 10), (0, 81), (u64::MAX, 10)] {
        receiver.take(NodeId(2), id(6, 1), piece(offset, count), Index(1));
        assert_eq!(receiver.next_work(), None);
    }
    receiver.take(NodeId(2), id(6, 1), piece(0, 50), Index(1));
    receiver.take(NodeId(2), id(6, 1), piece(20, 60), Index(1));
    let write = |offset, count| Some(ReceiveWork::Write { offset, bytes: vec![1; count] });
    assert_eq!(receiver.next_work(), write(0, 50));
    receiver.work_done(true);
    assert_eq!(receiver.next_work(), write(50, 30), "what overlaps is taken once");
    receiver.work_done(false);
    assert_eq!(
        answer(&mut receiver),
        [(2, TransferAnswer::Has(50)), (2, TransferAnswer::Refused)],
        "the disk failed"
    );
    assert_eq!(receiver.next_work(), Some(ReceiveWork::Abandon));
}

#[test]
fn no_more_goes_in_a_tick_than_is_allowed() {
    let size = 3 * SNAPSHOT_SEND_BYTES_PER_TICK as usize;
    let mut pair = Pair::new(source(size), 3, 0);
    let mut ticks = 0;
    while pair.sender.outcome().is_none() {
        let before = pair.sent_bytes;
        for _ in 0..2000 {
            pair.step();
        }
        let sent = (pair.sent_bytes - before) as u64;
        assert!(sent <= SNAPSHOT_SEND_BYTES_PER_TICK, "{sent}");
        pair.sender.tick();
        ticks += 1;
    }
    assert!(ticks >= 3);
}
