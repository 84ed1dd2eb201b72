//! Something that runs on a stack of its own, so that it can rest in the middle of a call and go on
//! later.
//!
//! Lua's own coroutines do not yield across `pcall`, metamethods and functions like `table.sort`; a
//! stack does not mind.

#![allow(unsafe_code)]

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;

/// Bytes of a stack: address space, of which memory is what was used. Lua's limit of nested calls
/// comes first.
const STACK_BYTES: usize = 4 << 20;

/// A stack that nothing runs on.
pub struct Stack(DefaultStack);

impl Stack {
    /// Errors: no address space.
    pub fn new() -> std::io::Result<Stack> {
        DefaultStack::new(STACK_BYTES).map(Stack)
    }
}

/// Lets what runs on a fiber rest. A handle belongs to one fiber at a time, and to none between
/// two.
#[derive(Clone, Default)]
pub struct Pause(Rc<Cell<Option<NonNull<Way>>>>);

/// The way back from a fiber.
type Way = Yielder<(), ()>;

impl Pause {
    /// Rests until the fiber is resumed; without a fiber not at all. To be called by what runs on
    /// the fiber alone.
    pub fn rest(&self) {
        if let Some(yielder) = self.0.get() {
            // SAFETY: it was put there by `start`, on the stack of the fiber that still runs:
            // `start` takes it out when the work on it has ended, and the stack is not
            // given back before.
            unsafe { yielder.as_ref() }.suspend(());
        }
    }
}

/// Runs `work`, which does not rest, to its end on a stack. Cost: two switches.
pub fn run_whole<T>(stack: &mut Stack, work: impl FnOnce() -> T) -> T {
    corosensei::on_stack(&mut stack.0, work)
}

/// How far a fiber has come.
pub enum Step<T> {
    /// To its end; its stack can be used again.
    Ended(T, Stack),
    /// It rests.
    Rests(Fiber<T>),
}

/// A fiber that rests.
pub struct Fiber<T>(Option<Coroutine<(), (), T, DefaultStack>>);

/// Runs `work` until it ends or rests.
pub fn start<T: 'static>(
    stack: Stack,
    pause: Pause,
    work: impl FnOnce() -> T + 'static,
) -> Step<T> {
    let coroutine = Coroutine::with_stack(stack.0, move |yielder: &Way, ()| {
        pause.0.set(Some(NonNull::from(yielder)));
        let result = work();
        pause.0.set(None);
        result
    });
    Fiber(Some(coroutine)).resume()
}

impl<T: 'static> Fiber<T> {
    /// Goes on until it ends or rests again.
    pub fn resume(mut self) -> Step<T> {
        let coroutine = self.0.as_mut().expect("it is there until it ends");
        match coroutine.resume(()) {
            CoroutineResult::Yield(()) => Step::Rests(self),
            CoroutineResult::Return(result) => {
                let coroutine = self.0.take().expect("just resumed");
                Step::Ended(result, Stack(coroutine.into_stack()))
            }
        }
    }
}

impl<T> Drop for Fiber<T> {
    fn drop(&mut self) {
        if let Some(coroutine) = &mut self.0 {
            // SAFETY: the process ends, and frames of Lua's C code cannot be unwound. What lies on
            // the stack is leaked; nothing outside refers to it but a `Pause`, whose
            // owner is leaked with it.
            unsafe { coroutine.force_reset() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rests_goes_on_where_it_was() {
        let pause = Pause::default();
        pause.rest();
        let own = pause.clone();
        let work = move || {
            let mut sum = 0;
            for n in 0..3 {
                sum += n;
                own.rest();
            }
            sum
        };
        let mut step = start(Stack::new().expect("address space"), pause.clone(), work);
        let mut rests = 0;
        let (sum, stack) = loop {
            match step {
                Step::Rests(fiber) => {
                    rests += 1;
                    step = fiber.resume();
                }
                Step::Ended(sum, stack) => break (sum, stack),
            }
        };
        assert_eq!((sum, rests), (3, 3));
        let own = pause.clone();
        let Step::Ended(again, mut stack) = start(stack, pause, || 7) else {
            panic!("it does not rest")
        };
        assert_eq!(again, 7);
        let sum = &mut sum.clone();
        run_whole(&mut stack, || {
            own.rest();
            *sum += 1;
        });
        assert_eq!(*sum, 4, "it has gone on");
    }

    #[test]
    fn what_rests_can_be_given_up() {
        let pause = Pause::default();
        let own = pause.clone();
        let step = start(Stack::new().expect("address space"), pause, move || own.rest());
        assert!(matches!(step, Step::Rests(_)));
    }
}
