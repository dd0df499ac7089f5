//! What every runtime adapter must do, claimed once and tried on each.
//!
//! Owns the claims of the `Runtime` contract that need a real clock, real
//! sockets and real threads. Does not know the pool. A suite is compiled for
//! each runtime feature that is on; with none, this file is empty.
#![cfg(any(feature = "tokio", feature = "smol", feature = "async-std"))]
#![expect(clippy::disallowed_methods, reason = "threads that belong to no runtime are the point")]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use event_listener::Event;
use millpond::runtime::{BoxFuture, Runtime};

/// Ends a future on this thread, outside every runtime.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A value that somebody else delivers, perhaps from another thread.
fn promise<T>() -> (impl FnOnce(T), impl Future<Output = T>) {
    let place = Arc::new((Mutex::new(None), Event::new()));
    let arrived = place.1.listen();
    let giver = place.clone();
    let give = move |value| {
        *giver.0.lock().unwrap() = Some(value);
        giver.1.notify(1);
    };
    let take = async move {
        arrived.await;
        place.0.lock().unwrap().take().expect("delivered before the event")
    };
    (give, take)
}

/// The claims, each an `async fn(Arc<dyn Runtime>)`.
mod claims {
    use std::future::poll_fn;
    use std::io::{IoSlice, Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use futures_io::{AsyncRead, AsyncWrite};
    use futures_util::FutureExt;
    use millpond::runtime::{ByteStream, SocketOptions, Target};
    use socket2::{Domain, Socket, Type};

    use super::*;

    type Boxed = Box<dyn ByteStream>;

    async fn write_all(stream: &mut Boxed, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written =
                poll_fn(|cx| pin!(&mut *stream).poll_write(cx, bytes)).await.expect("write");
            bytes = &bytes[written..];
        }
        poll_fn(|cx| pin!(&mut *stream).poll_flush(cx)).await.expect("flush");
    }

    async fn read_to_end(stream: &mut Boxed) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; 64];
            match poll_fn(|cx| pin!(&mut *stream).poll_read(cx, &mut part)).await.expect("read") {
                0 => return bytes,
                read => bytes.extend(&part[..read]),
            }
        }
    }

    async fn close(stream: &mut Boxed) {
        poll_fn(|cx| pin!(&mut *stream).poll_close(cx)).await.expect("close");
    }

    /// A peer that answers, once the other side has closed, with all it got.
    fn echo(mut peer: impl Read + Write) {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).expect("peer reads");
        peer.write_all(&bytes).expect("peer writes");
    }

    async fn connect(runtime: &dyn Runtime, address: SocketAddr) -> Boxed {
        runtime.connect(&Target::Tcp(address), &SocketOptions::default()).await.expect("connect")
    }

    pub(super) async fn a_task_spawned_from_a_foreign_thread_runs(runtime: Arc<dyn Runtime>) {
        let (give, taken) = promise();
        let spawn = move || runtime.spawn(Box::pin(async move { give(42) }));
        thread::spawn(spawn).join().expect("spawn does not panic");
        assert_eq!(taken.await, 42);
    }

    pub(super) async fn a_task_that_panics_does_not_stop_the_next(runtime: Arc<dyn Runtime>) {
        for _ in 0..4 {
            runtime.spawn(Box::pin(async { panic!("this panic is part of the test") }));
        }
        let (give, taken) = promise();
        runtime.spawn(Box::pin(async move { give(()) }));
        taken.await;
    }

    pub(super) async fn a_sleep_does_not_end_before_its_deadline(runtime: Arc<dyn Runtime>) {
        for millis in [1, 5] {
            let deadline = runtime.now() + Duration::from_millis(millis);
            runtime.sleep_until(deadline).await;
            assert!(runtime.now() >= deadline);
        }
    }

    pub(super) async fn a_sleep_to_the_past_ends_at_once(runtime: Arc<dyn Runtime>) {
        let now = runtime.now();
        assert_eq!(runtime.sleep_until(now).now_or_never(), Some(()));
    }

    pub(super) async fn a_sleep_may_be_dropped_midway(runtime: Arc<dyn Runtime>) {
        let far = runtime.now() + Duration::from_secs(3_600);
        let mut long = runtime.sleep_until(far);
        assert_eq!((&mut long).now_or_never(), None, "begun, not ended");
        drop(long);
        runtime.sleep_until(runtime.now() + Duration::from_millis(1)).await;
    }

    pub(super) async fn a_blocking_job_has_a_thread_of_its_own(runtime: Arc<dyn Runtime>) {
        let (give, taken) = promise();
        runtime.spawn_blocking(Box::new(move || give(thread::current().id())));
        assert_ne!(taken.await, thread::current().id());
    }

    pub(super) async fn a_blocking_job_that_panics_does_not_stop_the_next(
        runtime: Arc<dyn Runtime>,
    ) {
        runtime.spawn_blocking(Box::new(|| panic!("this panic is part of the test")));
        let (give, taken) = promise();
        runtime.spawn_blocking(Box::new(move || give(())));
        taken.await;
    }

    pub(super) async fn localhost_resolves_to_the_loopback(runtime: Arc<dyn Runtime>) {
        let addresses = runtime.resolve("localhost", 5432).await.expect("resolve");
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|it| it.ip().is_loopback() && it.port() == 5432));
    }

    pub(super) async fn a_name_that_does_not_exist_is_an_error(runtime: Arc<dyn Runtime>) {
        assert!(runtime.resolve("no such host", 1).await.is_err());
    }

    pub(super) async fn a_tcp_stream_carries_bytes_and_its_end(runtime: Arc<dyn Runtime>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || echo(listener.accept().unwrap().0));

        let mut stream = connect(&*runtime, address).await;
        write_all(&mut stream, b"mill").await;
        let parts = [IoSlice::new(b"po"), IoSlice::new(b"nd")];
        let written = poll_fn(|cx| pin!(&mut stream).poll_write_vectored(cx, &parts)).await;
        assert_eq!(written.expect("write"), 4, "all parts go in one write");
        close(&mut stream).await;

        assert_eq!(read_to_end(&mut stream).await, b"millpond");
        peer.join().unwrap();
    }

    #[cfg(unix)]
    pub(super) async fn a_unix_stream_carries_bytes_and_its_end(runtime: Arc<dyn Runtime>) {
        use std::os::unix::net::UnixListener;

        let name = format!("millpond-{}-{}.sock", std::process::id(), runtime.random());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let peer = thread::spawn(move || echo(listener.accept().unwrap().0));

        let target = Target::Unix(path.clone());
        let mut stream = runtime.connect(&target, &SocketOptions::default()).await.unwrap();
        write_all(&mut stream, b"millpond").await;
        close(&mut stream).await;

        assert_eq!(read_to_end(&mut stream).await, b"millpond");
        peer.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    pub(super) async fn a_refused_connect_says_so(runtime: Arc<dyn Runtime>) {
        // Bound, so that nobody else takes the port, but not listening.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let target = Target::Tcp(socket.local_addr().unwrap().as_socket().unwrap());
        let error = runtime.connect(&target, &SocketOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    /// The stream hides its socket, but the kernel lists the keepalive timers
    /// of all: `02` and when it fires, in hundredths of a second.
    #[cfg(target_os = "linux")]
    pub(super) async fn a_tcp_stream_probes_its_peer_after_ten_idle_seconds(
        runtime: Arc<dyn Runtime>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _stream = connect(&*runtime, listener.local_addr().unwrap()).await;
        let (_peer, address) = listener.accept().unwrap();

        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let local = format!("0100007F:{:04X}", address.port());
        let remote = format!("0100007F:{:04X}", listener.local_addr().unwrap().port());
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1..3] == [&local, &remote]).expect("our socket is listed");
        let (kind, when) = row[5].split_once(':').unwrap();
        let when = u64::from_str_radix(when, 16).unwrap();
        assert_eq!(kind, "02", "no keepalive timer: {row:?}");
        assert!((500..=1_100).contains(&when), "{when} is not about ten seconds");
    }

    pub(super) async fn coarse_time_is_close_behind_the_precise_one(runtime: Arc<dyn Runtime>) {
        let mut last = runtime.coarse_now();
        let mut lag = Duration::MAX;
        for _ in 0..1_000 {
            let before = runtime.now();
            let coarse = runtime.coarse_now();
            assert!(coarse <= runtime.now());
            assert!(coarse >= last);
            lag = lag.min(before.saturating_duration_since(coarse));
            last = coarse;
        }
        assert!(lag < Duration::from_millis(20), "{lag:?}");
    }

    pub(super) async fn the_executor_stays_the_same(runtime: Arc<dyn Runtime>) {
        let here = runtime.executor();
        let (give, taken) = promise();
        let inside = runtime.clone();
        runtime.spawn(Box::pin(async move { give(inside.executor()) }));
        assert_eq!(taken.await, here);
    }

    pub(super) async fn random_numbers_differ(runtime: Arc<dyn Runtime>) {
        assert_ne!(runtime.random(), runtime.random());
    }
}

type Claim = fn(Arc<dyn Runtime>) -> BoxFuture<'static, ()>;

macro_rules! suite {
    ($($(#[$attr:meta])* $claim:ident,)*) => {
        suite!(@on "tokio" tokio_inside_its_context [$($(#[$attr])* $claim)*]);
        suite!(@on "tokio" tokio_outside_its_context [$($(#[$attr])* $claim)*]);
        suite!(@on "smol" smol [$($(#[$attr])* $claim)*]);
        suite!(@on "async-std" async_std [$($(#[$attr])* $claim)*]);
    };
    (@on $feature:literal $drive:ident [$($(#[$attr:meta])* $claim:ident)*]) => {
        #[cfg(feature = $feature)]
        mod $drive {
            $(
                #[test]
                $(#[$attr])*
                fn $claim() {
                    super::drive::$drive(|runtime| Box::pin(super::claims::$claim(runtime)));
                }
            )*
        }
    };
}

suite! {
    a_task_spawned_from_a_foreign_thread_runs,
    a_task_that_panics_does_not_stop_the_next,
    a_sleep_does_not_end_before_its_deadline,
    a_sleep_to_the_past_ends_at_once,
    a_sleep_may_be_dropped_midway,
    a_blocking_job_has_a_thread_of_its_own,
    a_blocking_job_that_panics_does_not_stop_the_next,
    localhost_resolves_to_the_loopback,
    a_name_that_does_not_exist_is_an_error,
    a_tcp_stream_carries_bytes_and_its_end,
    #[cfg(unix)]
    a_unix_stream_carries_bytes_and_its_end,
    a_refused_connect_says_so,
    #[cfg(target_os = "linux")]
    a_tcp_stream_probes_its_peer_after_ten_idle_seconds,
    coarse_time_is_close_behind_the_precise_one,
    the_executor_stays_the_same,
    random_numbers_differ,
}

/// How a claim gets its runtime, and what polls it meanwhile.
mod drive {
    use super::*;

    #[cfg(feature = "tokio")]
    pub(super) fn tokio_inside_its_context(claim: Claim) {
        use millpond::runtime::{Tokio, block_on};

        block_on(async { claim(Arc::new(Tokio::current().expect("inside"))).await });
    }

    #[cfg(feature = "tokio")]
    pub(super) fn tokio_outside_its_context(claim: Claim) {
        let runtime = super::tokio_only::Background::start();
        assert!(millpond::runtime::Tokio::current().is_none());
        wait(claim(Arc::new(runtime.adapter())));
    }

    #[cfg(feature = "smol")]
    pub(super) fn smol(claim: Claim) {
        wait(claim(Arc::new(millpond::runtime::Smol)));
    }

    #[cfg(feature = "async-std")]
    pub(super) fn async_std(claim: Claim) {
        wait(claim(Arc::new(millpond::runtime::AsyncStd)));
    }
}

/// What only a runtime that can end must do.
#[cfg(feature = "tokio")]
mod tokio_only {
    use std::net::TcpListener;
    use std::time::Duration;

    use futures_util::FutureExt;
    use millpond::runtime::{SocketOptions, Target, Tokio, block_on};
    use tokio::runtime::{Builder, Handle};

    use super::*;

    /// A tokio runtime that runs on a thread of its own until this is dropped.
    pub(super) struct Background {
        handle: Handle,
        stop: Arc<Event>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Background {
        pub(super) fn start() -> Self {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.handle().clone();
            let stop = Arc::new(Event::new());
            let stopped = stop.listen();
            let thread = Some(thread::spawn(move || runtime.block_on(stopped)));
            Self { handle, stop, thread }
        }

        pub(super) fn adapter(&self) -> Tokio {
            Tokio::new(self.handle.clone())
        }
    }

    impl Drop for Background {
        fn drop(&mut self) {
            self.stop.notify(1);
            self.thread.take().unwrap().join().expect("the runtime ends in peace");
        }
    }

    /// An adapter whose runtime has ended.
    fn bereft() -> Tokio {
        Background::start().adapter()
    }

    /// Whether a task or job that owns the returned value was dropped.
    fn witness() -> (Arc<()>, impl Fn() -> bool) {
        let owned = Arc::new(());
        let seen = Arc::downgrade(&owned);
        (owned, move || seen.strong_count() == 0)
    }

    #[test]
    fn a_task_spawned_after_the_end_is_dropped() {
        let (owned, dropped) = witness();
        bereft().spawn(Box::pin(async move {
            let _owned = owned;
            unreachable!("nothing runs it");
        }));
        assert!(dropped());
    }

    #[test]
    fn a_job_spawned_after_the_end_is_dropped() {
        let (owned, dropped) = witness();
        bereft().spawn_blocking(Box::new(move || {
            let _owned = owned;
            unreachable!("nothing runs it");
        }));
        assert!(dropped());
    }

    #[test]
    fn a_sleep_begun_after_the_end_keeps_its_deadline() {
        let runtime = bereft();
        let deadline = runtime.now() + Duration::from_millis(5);
        wait(runtime.sleep_until(deadline));
        assert!(runtime.now() >= deadline);
    }

    #[test]
    fn a_sleep_begun_before_the_end_keeps_its_deadline() {
        let background = Background::start();
        let runtime = background.adapter();
        let deadline = runtime.now() + Duration::from_millis(10);
        let mut outside = runtime.sleep_until(deadline);
        assert_eq!((&mut outside).now_or_never(), None, "begun, not ended");
        drop(background);
        wait(outside);
        assert!(runtime.now() >= deadline);
    }

    #[test]
    fn a_sleep_carried_out_of_its_runtime_keeps_its_deadline() {
        let (runtime, deadline, inside) = block_on(async {
            let runtime = Tokio::current().unwrap();
            let deadline = runtime.now() + Duration::from_millis(10);
            let mut inside = runtime.sleep_until(deadline);
            assert_eq!((&mut inside).now_or_never(), None, "begun, not ended");
            (runtime, deadline, inside)
        });
        wait(inside);
        assert!(runtime.now() >= deadline);
    }

    #[test]
    fn connecting_after_the_end_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let error = wait(bereft().connect(&target, &SocketOptions::default())).unwrap_err();
        assert_eq!(error.to_string(), "the tokio runtime has ended");
    }

    #[test]
    fn resolving_after_the_end_is_an_error() {
        assert!(wait(bereft().resolve("localhost", 1)).is_err());
    }

    #[test]
    fn in_the_context_of_a_new_runtime_work_goes_there() {
        let runtime = bereft();
        let before = runtime.executor();
        block_on(async {
            assert_ne!(runtime.executor(), before);

            let (give, taken) = promise();
            runtime.spawn(Box::pin(async move { give(Handle::current().id()) }));
            assert_eq!(taken.await, Handle::current().id());

            let (give, taken) = promise();
            runtime.spawn_blocking(Box::new(move || give(())));
            taken.await;

            let deadline = runtime.now() + Duration::from_millis(2);
            runtime.sleep_until(deadline).await;
            assert!(runtime.now() >= deadline);

            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let target = Target::Tcp(listener.local_addr().unwrap());
            runtime.connect(&target, &SocketOptions::default()).await.expect("connect");
        });
        assert_eq!(runtime.executor(), before);
    }
}
