//! Holds the promise that a warm pool lends and takes back without the heap.
//!
//! Counts the allocations of this thread alone, so that tests beside it do not
//! disturb. Polls by hand on a runtime that stands still: what a real runtime
//! allocates is not the pool's. A cluster is asked between two moves of the
//! simulator, for it needs its background task once.

#[path = "support/still.rs"]
mod still;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use millpond::drivers::fake::Fake;
use millpond::testing::sim::Sim;
use millpond::{Cluster, Pool, PooledConnection, Route};
use still::Still;

#[test]
fn a_warm_acquire_and_release_allocates_nothing() {
    let pool = warm();
    assert_eq!(allocations(|| drop(at_once(pool.acquire()))), 0);
}

/// What is measured takes no more memory after a million loans than after one.
#[test]
fn measuring_allocates_nothing_however_often() {
    let pool = warm();
    let often = || (0..50_000).for_each(|_| drop(at_once(pool.acquire())));
    assert_eq!(allocations(often), 0);
    assert!(pool.snapshot().holds.is_some_and(|holds| holds.count > 50_000));
}

#[test]
fn a_label_and_a_timeout_allocate_nothing() {
    let pool = warm();
    let limit = Duration::from_millis(1);
    let cycle = || drop(at_once(pool.acquire().label("checkout").timeout(limit)));
    assert_eq!(allocations(cycle), 0);
}

#[test]
fn a_clone_of_the_pool_allocates_nothing() {
    let pool = warm();
    assert_eq!(allocations(|| drop(at_once(pool.clone().acquire()))), 0);
}

#[test]
fn trying_for_a_connection_allocates_nothing() {
    let pool = warm();
    let cycle = || {
        let held = pool.try_acquire().expect("it lies idle");
        drop(held);
    };
    assert_eq!(allocations(cycle), 0);
}

#[test]
fn a_warm_acquire_from_a_cluster_and_its_release_allocate_nothing() {
    Sim::new(1).run(async |sim| {
        let mut builder = Cluster::builder().runtime(sim.clone());
        for name in ["a", "b", "c"] {
            builder = builder.node(name, Pool::builder(Fake::new()).max_open_conns(2));
        }
        let cluster = builder.build().await.expect("three nodes that answer");
        let mut all = Vec::new();
        for _ in 0..6 {
            all.push(cluster.acquire(Route::Any).await.expect("nothing refuses it"));
        }
        drop(all);
        let often = || (0..1000).for_each(|_| drop(at_once(cluster.acquire(Route::Any))));
        often();
        assert_eq!(allocations(often), 0);
    });
}

/// Once as many have waited before, and the keeper that minds their deadlines
/// is at its post.
#[test]
fn waiting_and_being_served_by_a_release_allocates_nothing() {
    let pool = warm();
    hand_over(&pool);
    assert_eq!(allocations(|| hand_over(&pool)), 0);
}

#[test]
fn giving_up_a_place_in_the_queue_allocates_nothing() {
    let pool = warm();
    let give_up = || {
        let held = at_once(pool.acquire());
        {
            let mut waiter = pin!(pool.acquire());
            assert!(poll(waiter.as_mut()).is_pending());
        }
        drop(held);
    };
    give_up();
    assert_eq!(allocations(give_up), 0);
}

fn hand_over(pool: &Pool<Fake>) {
    let held = at_once(pool.acquire());
    let mut waiter = pin!(pool.acquire());
    assert!(poll(waiter.as_mut()).is_pending());
    drop(held);
    let Poll::Ready(Ok(served)) = poll(waiter.as_mut()) else { panic!("the release serves it") };
    drop(served);
}

/// A pool of one connection, open and lent before.
fn warm() -> Pool<Fake> {
    let builder = Pool::builder(Fake::new()).max_open_conns(1).runtime(Still::new());
    let Poll::Ready(pool) = poll(pin!(builder.build())) else {
        panic!("the scripted database answers at once")
    };
    let pool = pool.expect("valid settings");
    drop(at_once(pool.acquire()));
    pool
}

fn at_once(
    acquire: impl Future<Output = millpond::Result<PooledConnection<Fake>>>,
) -> PooledConnection<Fake> {
    match poll(pin!(acquire)) {
        Poll::Ready(conn) => conn.expect("nothing refuses it"),
        Poll::Pending => panic!("a connection lies idle"),
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// How often `work` asks for memory.
fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator can be written in no other way")]
// SAFETY: every call goes to the system's allocator with the caller's promises.
// Counting neither allocates nor unwinds: the cell needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises; `at` came from `System`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promises; `at` came from `System`.
        unsafe { System.realloc(at, layout, size) }
    }
}
