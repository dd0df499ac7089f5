//! The idle connections: a lock-free stack of numbered slots.
//!
//! Owns who may touch a slot's content: the holder of its [`Index`], or the
//! stack while nobody holds it. Knows nothing of what the content is, of
//! waiting, or of time. This is the only file with `unsafe`; a faster free
//! list is a change of this file alone.
//!
//! The stack is Treiber's ("Systems Programming: Coping with Parallelism",
//! 1986) over indices in place of pointers, so nothing is ever freed under a
//! reader. One word holds top, length, a tag against ABA, and a flag:
//!
//! ```text
//! 63      62 … 32   31 … 16   15 … 0
//! flag    tag       length    top + 1 (0: empty)
//! ```
//!
//! The **flag** closes the fast path. While it is raised, [`pop`](Slots::pop)
//! and [`push`](Slots::push) do nothing but say so, and only the holder of the
//! pool's lock moves content. Flag and top are one atomic, hence one
//! modification order: a push either sees the flag and goes to the lock, or
//! comes before the flag and is seen by whoever raised it. That is why no
//! connection can lie idle unseen while a caller waits.
#![expect(
    unsafe_code,
    reason = "an uncontended take and give-back costs one atomic swap pair; a lock would double it"
)]

use std::sync::OnceLock;

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, CachePadded, Ordering, UnsafeCell};

/// Slots in the first segment; each further one has twice as many. Few under
/// the model checker, which makes a pool anew for each history.
const FIRST: usize = if cfg!(millpond_loom) { 2 } else { 32 };
const SEGMENTS: usize = 11;

/// The most slots there can be: 65 504.
pub(crate) const MAX_SLOTS: usize = FIRST * ((1 << SEGMENTS) - 1);

const FLAG: u64 = 1 << 63;
const TAG_ONE: u64 = 1 << 32;
const TAG_MASK: u64 = (FLAG - 1) & !(TAG_ONE - 1);
const LEN_ONE: u64 = 1 << 16;
const TOP_MASK: u64 = LEN_ONE - 1;
const LEN_MASK: u64 = (TAG_ONE - 1) & !TOP_MASK;

/// The right to touch one slot. Neither `Clone` nor constructible elsewhere:
/// there is exactly one per slot, and giving it to the stack gives the right
/// away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index(u16);

/// What [`Slots::pop`] found.
#[derive(Debug)]
pub(super) enum Pop<T> {
    Took(Index, T),
    Empty,
    Flagged,
}

/// Slots with content `T`, and beside each a note `N` that anyone may read.
#[derive(Debug)]
pub(super) struct Slots<T, N> {
    head: CachePadded<AtomicU64>,
    issued: AtomicU32,
    segments: [Segment<T, N>; SEGMENTS],
}

type Segment<T, N> = OnceLock<Box<[Slot<T, N>]>>;

/// Padded: the owners of neighbouring slots write their notes all the time.
#[derive(Debug)]
#[repr(align(128))]
struct Slot<T, N> {
    content: UnsafeCell<Option<T>>,
    /// The slot below in the stack, plus one. Written before the push that
    /// publishes it; a stale read is caught by the tag.
    below: AtomicU32,
    note: N,
}

// SAFETY: `content` is the only part that is not `Sync` by itself. It is
// touched only by the holder of the slot's unique `Index` (`T: Send`: it may
// be on any thread), and handing the index over through `head` is a
// release-acquire pair.
unsafe impl<T: Send, N: Sync> Sync for Slots<T, N> {}

impl<T, N: Default> Slots<T, N> {
    pub(super) fn new() -> Self {
        Self {
            head: CachePadded(AtomicU64::new(0)),
            issued: AtomicU32::new(0),
            segments: [const { OnceLock::new() }; SEGMENTS],
        }
    }

    /// A slot that nobody has had before; `None` when all are out. Called
    /// under the pool's lock.
    pub(super) fn issue(&self) -> Option<Index> {
        let number = self.issued.load(Ordering::Relaxed) as usize;
        if number >= MAX_SLOTS {
            return None;
        }
        let (segment, _) = place(number);
        self.segments[segment].get_or_init(|| {
            (0..FIRST << segment)
                .map(|_| Slot {
                    content: UnsafeCell::new(None),
                    below: AtomicU32::new(0),
                    note: N::default(),
                })
                .collect()
        });
        // Release: who sees the number sees the segment.
        self.issued.store(number as u32 + 1, Ordering::Release);
        Some(Index(number as u16))
    }
}

impl<T, N> Slots<T, N> {
    /// Takes the content pushed last, unless the flag is raised.
    pub(super) fn pop(&self) -> Pop<T> {
        self.take(FLAG)
    }

    /// Takes the content pushed last. For the holder of the pool's lock, with
    /// the flag raised.
    pub(super) fn pop_locked(&self) -> Option<(Index, T)> {
        match self.take(0) {
            Pop::Took(index, content) => Some((index, content)),
            Pop::Empty | Pop::Flagged => None,
        }
    }

    #[inline]
    fn take(&self, barrier: u64) -> Pop<T> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if head & barrier != 0 {
                return Pop::Flagged;
            }
            let Some(top) = (head & TOP_MASK).checked_sub(1) else { return Pop::Empty };
            let slot = self.slot(top as usize);
            let below = u64::from(slot.below.load(Ordering::Relaxed));
            let without = (head & FLAG) | tagged(head) | ((head & LEN_MASK) - LEN_ONE) | below;
            match self.head.compare_exchange_weak(
                head,
                without,
                // Acquire: the content and note as its last holder left them.
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    let content = slot.content.with_mut(|content| {
                        // SAFETY: the exchange took this slot off the stack, so
                        // the index made below is the only right to it.
                        unsafe { (*content).take() }
                    });
                    let content = content.expect("a slot on the stack has content");
                    return Pop::Took(Index(top as u16), content);
                }
                Err(now) => head = now,
            }
        }
    }

    /// Gives content back to be taken first.
    ///
    /// # Errors
    ///
    /// The flag is raised: nothing has happened, and the content is returned.
    pub(super) fn push(&self, index: Index, content: T) -> Result<(), (Index, T)> {
        self.give(index, content, FLAG)
    }

    /// Gives content back to be taken first. For the holder of the pool's lock.
    pub(super) fn push_locked(&self, index: Index, content: T) {
        if self.give(index, content, 0).is_err() {
            unreachable!("no barrier, no refusal");
        }
    }

    #[inline]
    fn give(&self, index: Index, content: T, barrier: u64) -> Result<(), (Index, T)> {
        let mut head = self.head.load(Ordering::Relaxed);
        if head & barrier != 0 {
            return Err((index, content));
        }
        let slot = self.slot(index.0 as usize);
        slot.content.with_mut(|place| {
            // SAFETY: we hold the slot's unique index.
            unsafe { *place = Some(content) };
        });
        loop {
            slot.below.store((head & TOP_MASK) as u32, Ordering::Relaxed);
            let with = (head & FLAG)
                | tagged(head)
                | ((head & LEN_MASK) + LEN_ONE)
                | (u64::from(index.0) + 1);
            match self.head.compare_exchange_weak(
                head,
                with,
                // Release: publishes the content and note to whoever takes it.
                // Acquire: whoever lowered the flag before wrote notes that we
                // are to see now.
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) if now & barrier != 0 => {
                    let content = slot.content.with_mut(|place| {
                        // SAFETY: the exchange failed, so we still hold the index.
                        unsafe { (*place).take() }
                    });
                    return Err((index, content.expect("put there above")));
                }
                Err(now) => head = now,
            }
        }
    }

    /// Closes the fast path. For the holder of the pool's lock.
    pub(super) fn raise(&self) {
        self.head.fetch_or(FLAG, Ordering::AcqRel);
    }

    /// Opens the fast path. For the holder of the pool's lock.
    pub(super) fn lower(&self) {
        self.head.fetch_and(!FLAG, Ordering::Release);
    }

    /// How many are on the stack at this moment.
    pub(super) fn len(&self) -> usize {
        ((self.head.load(Ordering::Relaxed) & LEN_MASK) / LEN_ONE) as usize
    }

    /// How many slots have been issued.
    pub(super) fn issued(&self) -> usize {
        self.issued.load(Ordering::Acquire) as usize
    }

    /// The note beside a slot.
    #[inline]
    pub(super) fn note(&self, index: &Index) -> &N {
        &self.slot(index.0 as usize).note
    }

    /// All notes, in slot order.
    pub(super) fn notes(&self) -> impl Iterator<Item = &N> {
        (0..self.issued()).map(|number| &self.slot(number).note)
    }

    #[inline]
    fn slot(&self, number: usize) -> &Slot<T, N> {
        let (segment, offset) = place(number);
        let segment = self.segments[segment].get().expect("issued slots have a segment");
        &segment[offset]
    }
}

/// The next tag after the one in `head`. It wraps after 2³¹ operations, so a
/// thread would have to sleep through exactly a multiple of that many, and
/// find the same top and length, to be fooled.
#[inline]
fn tagged(head: u64) -> u64 {
    (head & TAG_MASK).wrapping_add(TAG_ONE) & TAG_MASK
}

/// Segment and offset of a slot: segment `k` starts at slot `FIRST·(2ᵏ − 1)`.
#[inline]
fn place(number: usize) -> (usize, usize) {
    let shifted = number + FIRST;
    let segment = (shifted / FIRST).ilog2() as usize;
    (segment, shifted - (FIRST << segment))
}

/// A `&'static T` that one thread writes while others read. Here because this
/// is the file with `unsafe`; plain stores keep the fast path free of a lock.
#[derive(Debug)]
pub(super) struct StaticRef<T: 'static>(AtomicPtr<T>);

impl<T: Sync> StaticRef<T> {
    pub(super) fn none() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(super) fn set(&self, to: &'static T) {
        self.0.store(std::ptr::from_ref(to).cast_mut(), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<&'static T> {
        let pointer = self.0.load(Ordering::Relaxed);
        // SAFETY: null, or made from a `&'static T` by `set`. Relaxed is enough:
        // statics are not written after threads can share them.
        unsafe { pointer.as_ref() }
    }
}

#[cfg(all(test, not(millpond_loom)))]
mod tests {
    use super::*;

    fn filled(count: u32) -> Slots<u32, ()> {
        let slots = Slots::new();
        for content in 0..count {
            let index = slots.issue().expect("room");
            slots.push(index, content).expect("flag down");
        }
        slots
    }

    #[test]
    fn the_last_pushed_is_the_first_popped() {
        let slots = filled(3);
        let mut seen = Vec::new();
        while let Pop::Took(_, content) = slots.pop() {
            seen.push(content);
        }
        assert_eq!(seen, [2, 1, 0]);
    }

    #[test]
    fn length_counts_what_lies_on_the_stack() {
        let slots = filled(40);
        assert_eq!(slots.len(), 40);
        let Pop::Took(index, content) = slots.pop() else { panic!("40 are there") };
        assert_eq!(slots.len(), 39);
        slots.push(index, content).expect("flag down");
        assert_eq!(slots.len(), 40);
    }

    #[test]
    fn a_raised_flag_stops_pop_and_returns_what_is_pushed() {
        let slots = filled(2);
        let Pop::Took(index, content) = slots.pop() else { panic!("two are there") };
        slots.raise();
        assert!(matches!(slots.pop(), Pop::Flagged));
        let (index, content) = slots.push(index, content).expect_err("flag is up");
        assert_eq!(content, 1);
        slots.push_locked(index, content);
        assert_eq!(slots.pop_locked().map(|(_, content)| content), Some(1));
        slots.lower();
        assert!(matches!(slots.pop(), Pop::Took(_, 0)));
        assert!(matches!(slots.pop(), Pop::Empty));
    }

    #[test]
    fn every_slot_has_its_own_place() {
        let mut next = (0, 0);
        for number in 0..MAX_SLOTS {
            assert_eq!(place(number), next, "slot {number}");
            next =
                if next.1 + 1 == FIRST << next.0 { (next.0 + 1, 0) } else { (next.0, next.1 + 1) };
        }
        assert_eq!(next, (SEGMENTS, 0), "the last segment is full at MAX_SLOTS");
    }

    #[test]
    fn no_slot_is_issued_beyond_the_most_there_can_be() {
        let slots = Slots::<(), ()>::new();
        for number in 0..MAX_SLOTS {
            assert_eq!(slots.issue(), Some(Index(number as u16)));
        }
        assert_eq!(slots.issue(), None);
    }

    #[test]
    fn threads_never_hold_the_same_slot() {
        let slots = filled(3);
        let held = [const { std::sync::atomic::AtomicBool::new(false) }; 3];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Pop::Took(index, content) = slots.pop() {
                            let mine = &held[content as usize];
                            assert!(!mine.swap(true, Ordering::SeqCst), "held twice");
                            mine.store(false, Ordering::SeqCst);
                            slots.push(index, content).expect("flag down");
                        }
                    }
                });
            }
        });
        assert_eq!(slots.len(), 3);
    }
}
