//! A connection that waits in place of many.

use std::collections::VecDeque;
use std::sync::Arc;

use super::wish::{Queue, Shape};

/// What the lines of a carrier have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Carries {
    /// Lines on one key each, taken from in the same way: one command names all keys.
    United(Arc<Shape>),
    /// One line.
    Only(Queue),
    /// The streams that clients read.
    Streams,
}

/// What a carrier does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Is being opened.
    Opening,
    /// Has nothing outstanding, since this time.
    Ready(u64),
    /// Waits for these lines, in the order of the keys.
    Blocked { lines: Vec<usize>, wish: Interrupt },
    /// Takes as much as these lines can use, without waiting.
    Sweeping(Vec<(usize, usize)>),
    /// Was lost or refused; tried again at this time.
    Resting(u64),
}

/// Whether the wait is to be ended from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interrupt {
    /// No need.
    No,
    /// As soon as that is possible.
    Wanted,
    /// Has been asked for.
    Asked,
}

/// One carrier.
#[derive(Debug)]
pub(super) struct Carrier {
    pub carries: Carries,
    pub stage: Stage,
    /// In the order in which their keys are named next: who was served goes to the end, so
    /// that a busy queue does not starve the others.
    pub lines: VecDeque<usize>,
    /// Tells one wait from the next.
    pub issue: u64,
    /// How often in a row the node did not find it blocked.
    pub missed: u32,
    /// Since when it can not be opened.
    pub failing_since: Option<u64>,
    /// Others can do without it.
    pub optional: bool,
}

impl Carrier {
    pub fn new(carries: Carries, optional: bool) -> Carrier {
        Carrier {
            carries,
            stage: Stage::Opening,
            lines: VecDeque::new(),
            issue: 0,
            missed: 0,
            failing_since: None,
            optional,
        }
    }
}
