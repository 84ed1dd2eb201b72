//! What a piece of work is, to those that time it and those that count it.

/// A piece of work, ready to run.
pub type Step = Box<dyn FnMut()>;

/// One kind of work.
pub struct Work {
    /// Its name.
    pub name: &'static str,
    /// Operations in one step.
    pub operations: u64,
    /// Sets it up.
    pub begin: fn() -> Step,
}
