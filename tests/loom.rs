//! The real pool under the model checker: every interleaving of a few threads,
//! up to a bound on preemptions (`scripts/loom`). What is checked is the part
//! that one simulated thread cannot show: the stack, the flag, and the hand-over
//! between a thread that gives back and one that goes to sleep. A lost wake-up
//! is a deadlock, which loom reports.
#![cfg(millpond_loom)]

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use millpond::drivers::fake::Fake;
use millpond::runtime::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};
use millpond::{ErrorKind, Pool};

/// Time stands still. A task runs on the thread that spawns it, as far as it
/// gets; what waits for time waits for ever.
#[derive(Debug)]
struct Still {
    now: Instant,
    parked: Mutex<Parked>,
}

#[derive(Default)]
struct Parked(Vec<BoxFuture<'static, ()>>);

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tasks", self.0.len())
    }
}

impl Runtime for Still {
    fn now(&self) -> Instant {
        self.now
    }

    fn sleep_until(&self, _deadline: Instant) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn spawn(&self, mut task: BoxFuture<'static, ()>) {
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.parked.lock().unwrap().0.push(task);
        }
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(pending())
    }

    fn connect<'a>(
        &'a self,
        _target: &'a Target,
        _options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(pending())
    }

    fn random(&self) -> u64 {
        0
    }
}

fn pool_of(connections: usize) -> Pool<Fake> {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let now = Instant::now();
    let pool = Pool::builder(Fake::new())
        .max_open_conns(connections)
        .conn_max_lifetime(std::time::Duration::ZERO)
        .conn_max_idle_time(std::time::Duration::ZERO)
        .runtime(Still { now, parked: Mutex::default() })
        .build_lazy()
        .unwrap();
    // All of them open and idle, so that threads meet on the fast path.
    let held: Vec<_> = (0..connections).map(|_| block_on(pool.acquire()).unwrap()).collect();
    drop(held);
    pool
}

/// Acquires, and shows that nobody else holds the same connection.
fn use_one(pool: &Pool<Fake>, in_use: &[AtomicBool]) {
    let conn = block_on(pool.acquire()).unwrap();
    let mine = &in_use[(conn.id() - 1) as usize];
    assert!(!mine.swap(true, Ordering::Relaxed), "one connection, two borrowers");
    mine.store(false, Ordering::Relaxed);
    drop(conn);
}

fn race(threads: usize, connections: usize) {
    loom::model(move || {
        let pool = pool_of(connections);
        let in_use: Arc<Vec<_>> =
            Arc::new((0..connections).map(|_| AtomicBool::new(false)).collect());
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let (pool, in_use) = (pool.clone(), Arc::clone(&in_use));
                thread::spawn(move || use_one(&pool, &in_use))
            })
            .collect();
        use_one(&pool, &in_use);
        for other in others {
            other.join().unwrap();
        }
        let now = pool.snapshot();
        assert_eq!((now.in_use, now.idle, now.waiting), (0, connections, 0), "{now}");
    });
}

#[test]
fn two_threads_share_one_connection() {
    race(2, 1);
}

#[test]
fn three_threads_share_one_connection() {
    race(3, 1);
}

#[test]
fn three_threads_share_two_connections() {
    race(3, 2);
}

#[test]
fn a_waiter_dropped_at_any_moment_passes_its_turn_on() {
    loom::model(|| {
        let pool = pool_of(1);
        let held = block_on(pool.acquire()).unwrap();
        let fickle = thread::spawn({
            let pool = pool.clone();
            move || {
                let mut acquire = pin!(pool.acquire());
                let mut cx = Context::from_waker(Waker::noop());
                if let Poll::Ready(conn) = acquire.as_mut().poll(&mut cx) {
                    drop(conn.unwrap());
                }
                // Dropped here, handed a connection or not.
            }
        });
        let patient = thread::spawn({
            let pool = pool.clone();
            move || drop(block_on(pool.acquire()).unwrap())
        });
        drop(held);
        fickle.join().unwrap();
        patient.join().unwrap();
        let now = pool.snapshot();
        assert_eq!((now.in_use, now.idle, now.waiting), (0, 1, 0), "{now}");
    });
}

#[test]
fn nobody_is_served_once_a_close_has_ended() {
    loom::model(|| {
        let pool = pool_of(1);
        let borrower = thread::spawn({
            let pool = pool.clone();
            move || match block_on(pool.acquire()) {
                Ok(conn) => drop(conn),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
            }
        });
        {
            let mut close = pin!(pool.close());
            let _ = close.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        borrower.join().unwrap();
        assert_eq!(pool.driver().counts().live, 0, "a connection was published after the close");
        assert!(pool.try_acquire().is_none());
        assert_eq!(block_on(pool.acquire()).unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_try_never_takes_what_is_promised_to_a_waiter() {
    loom::model(|| {
        let pool = pool_of(1);
        let held = block_on(pool.acquire()).unwrap();
        let waiter = thread::spawn({
            let pool = pool.clone();
            move || drop(block_on(pool.acquire()).unwrap())
        });
        let giver = thread::spawn(move || drop(held));
        if let Some(conn) = pool.try_acquire() {
            assert_eq!(pool.snapshot().in_use, 1);
            drop(conn);
        }
        giver.join().unwrap();
        waiter.join().unwrap();
        assert_eq!(pool.snapshot().idle, 1);
    });
}

#[test]
fn a_snapshot_taken_amid_loans_adds_up() {
    loom::model(|| {
        let pool = pool_of(1);
        let borrower = thread::spawn({
            let pool = pool.clone();
            move || drop(block_on(pool.acquire()).unwrap())
        });
        let now = pool.snapshot();
        assert_eq!(now.open, now.in_use + now.idle, "{now:?}");
        assert_eq!(now.acquired - now.released, now.in_use as u64, "{now:?}");
        borrower.join().unwrap();
    });
}
