//! The queue of callers, in arrival order.
//!
//! Owns who is next and what each has been answered. Joining, leaving and
//! being answered are constant time at any length, and after warm-up nothing
//! is allocated. Knows nothing of connections, and never runs a waker: it
//! hands them out for the caller to wake after its lock is gone.

use std::task::Waker;
use std::time::Instant;

use millpond_driver::Error;

use super::entry::Borrower;

/// A caller's place. Given back with [`Waiters::leave`], so it is neither
/// `Clone` nor lost.
#[derive(Debug)]
pub(super) struct Ticket(u32);

/// What a caller has been told.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// Still in the queue.
    Pending,
    /// Here it is.
    Granted(T),
    /// It failed.
    Failed(Error),
    /// The deadline has passed.
    Expired,
}

#[derive(Debug)]
pub(super) struct Waiters<T> {
    nodes: Vec<Node<T>>,
    /// Head of the list of unused nodes, through `next`.
    free: u32,
    first: u32,
    last: u32,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    answer: Answer<T>,
    borrower: Borrower,
    deadline: Option<Instant>,
    waker: Option<Waker>,
    before: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl<T> Waiters<T> {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), free: NONE, first: NONE, last: NONE, len: 0 }
    }

    /// Callers in the queue.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the place at the end.
    pub(super) fn join(&mut self, borrower: Borrower, deadline: Option<Instant>) -> Ticket {
        let node = Node {
            answer: Answer::Pending,
            borrower,
            deadline,
            waker: None,
            before: self.last,
            next: NONE,
        };
        let at = if self.free == NONE {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.nodes[at as usize].next;
            self.nodes[at as usize] = node;
            at
        };
        match self.last {
            NONE => self.first = at,
            last => self.nodes[last as usize].next = at,
        }
        self.last = at;
        self.len += 1;
        Ticket(at)
    }

    /// The oldest caller.
    pub(super) fn first(&self) -> Option<Borrower> {
        self.nodes.get(self.first as usize).map(|node| node.borrower)
    }

    /// Gives the oldest caller its answer and takes it out of the queue.
    /// Returns the waker to wake.
    ///
    /// # Panics
    ///
    /// If nobody waits.
    pub(super) fn answer_first(&mut self, answer: Answer<T>) -> Option<Waker> {
        let at = self.first;
        assert_ne!(at, NONE, "somebody waits");
        self.answer(at, answer)
    }

    /// Answers [`Answer::Expired`] to all whose deadline has come, giving each
    /// waker to `wake`.
    pub(super) fn expire(&mut self, now: Instant, mut wake: impl FnMut(Waker)) {
        let mut at = self.first;
        while at != NONE {
            let node = &self.nodes[at as usize];
            let next = node.next;
            if node.deadline.is_some_and(|deadline| now >= deadline) {
                if let Some(waker) = self.answer(at, Answer::Expired) {
                    wake(waker);
                }
            }
            at = next;
        }
    }

    /// The earliest deadline in the queue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.in_order().filter_map(|node| node.deadline).min()
    }

    /// Takes every waker of the queue without answering: its owner looks again.
    pub(super) fn nudge(&mut self, mut wake: impl FnMut(Waker)) {
        let mut at = self.first;
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            at = node.next;
            if let Some(waker) = node.waker.take() {
                wake(waker);
            }
        }
    }

    /// Whether a caller has been answered.
    pub(super) fn is_answered(&self, ticket: &Ticket) -> bool {
        !matches!(self.nodes[ticket.0 as usize].answer, Answer::Pending)
    }

    /// Sets who is to be woken, and returns the waker set before, to be dropped
    /// after the lock is gone.
    pub(super) fn set_waker(&mut self, ticket: &Ticket, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut self.nodes[ticket.0 as usize].waker, waker)
    }

    /// Gives the place up and returns what it was answered, with the waker to
    /// be dropped after the lock is gone.
    pub(super) fn leave(&mut self, ticket: Ticket) -> (Answer<T>, Option<Waker>) {
        let at = ticket.0;
        if matches!(self.nodes[at as usize].answer, Answer::Pending) {
            self.unlink(at);
        }
        let free = self.free;
        let node = &mut self.nodes[at as usize];
        node.next = free;
        self.free = at;
        (std::mem::replace(&mut node.answer, Answer::Pending), node.waker.take())
    }

    fn answer(&mut self, at: u32, answer: Answer<T>) -> Option<Waker> {
        self.unlink(at);
        let node = &mut self.nodes[at as usize];
        node.answer = answer;
        node.waker.take()
    }

    fn unlink(&mut self, at: u32) {
        let Node { before, next, .. } = self.nodes[at as usize];
        match before {
            NONE => self.first = next,
            before => self.nodes[before as usize].next = next,
        }
        match next {
            NONE => self.last = before,
            next => self.nodes[next as usize].before = before,
        }
        self.len -= 1;
    }

    fn in_order(&self) -> impl Iterator<Item = &Node<T>> {
        std::iter::successors(self.nodes.get(self.first as usize), |node| {
            self.nodes.get(node.next as usize)
        })
    }
}

#[cfg(all(test, not(millpond_loom)))]
mod tests {
    use super::*;
    use std::panic::Location;
    use std::time::Duration;

    fn join(waiters: &mut Waiters<u32>) -> Ticket {
        waiters.join(Borrower { place: Location::caller(), label: None }, None)
    }

    fn granted(waiters: &mut Waiters<u32>, ticket: Ticket) -> Option<u32> {
        match waiters.leave(ticket).0 {
            Answer::Granted(value) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn answers_go_out_in_arrival_order() {
        let mut waiters = Waiters::new();
        let tickets: Vec<_> = (0..5).map(|_| join(&mut waiters)).collect();
        for value in 0..5 {
            waiters.answer_first(Answer::Granted(value));
        }
        let got: Vec<_> = tickets.into_iter().map(|ticket| granted(&mut waiters, ticket)).collect();
        assert_eq!(got, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn leaving_from_anywhere_keeps_the_order_of_the_rest() {
        for gone in 0..3 {
            let mut waiters = Waiters::new();
            let mut tickets: Vec<_> = (0..3).map(|_| join(&mut waiters)).collect();
            waiters.leave(tickets.remove(gone));
            assert_eq!(waiters.len(), 2);
            for (value, ticket) in tickets.into_iter().enumerate() {
                waiters.answer_first(Answer::Granted(value as u32));
                assert_eq!(granted(&mut waiters, ticket), Some(value as u32), "without {gone}");
            }
            assert!(waiters.is_empty());
        }
    }

    #[test]
    fn only_those_due_expire() {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        let now = Instant::now();
        let mut waiters = Waiters::<u32>::new();
        let tickets: Vec<_> = [30, 10, 20]
            .into_iter()
            .map(|ms| {
                let borrower = Borrower { place: Location::caller(), label: None };
                waiters.join(borrower, Some(now + Duration::from_millis(ms)))
            })
            .collect();
        assert_eq!(waiters.deadline(), Some(now + Duration::from_millis(10)));
        waiters.expire(now + Duration::from_millis(20), |_| {});
        let expired: Vec<_> = tickets.iter().map(|ticket| waiters.is_answered(ticket)).collect();
        assert_eq!(expired, [false, true, true]);
        assert_eq!(waiters.len(), 1);
    }

    #[test]
    fn places_are_reused_without_growing() {
        let mut waiters = Waiters::new();
        for round in 0..100 {
            let tickets: Vec<_> = (0..8).map(|_| join(&mut waiters)).collect();
            for ticket in tickets {
                if round % 2 == 0 {
                    waiters.answer_first(Answer::Granted(0));
                }
                waiters.leave(ticket);
            }
        }
        assert_eq!(waiters.nodes.len(), 8);
    }
}
