//! A thread that accepts connections on a held port, and can refuse them.
//!
//! Does not know what becomes of a connection.

use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::port::Port;

/// Accepts until dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: Port,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    door: Door,
    /// What the thread has made of it.
    listening: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Door {
    Open,
    Shut,
    Gone,
}

impl Listener {
    /// Hands every connection to `guest`, on the thread that accepts.
    pub(crate) fn new(guest: impl Fn(TcpStream) + Send + 'static) -> Self {
        let state = Mutex::new(State { door: Door::Open, listening: false });
        let shared = Arc::new(Shared { port: Port::hold(), state, changed: Condvar::new() });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(guest)
        });
        let listener = Self { shared, thread: Some(thread) };
        listener.open();
        listener
    }

    pub(crate) fn port(&self) -> &Port {
        &self.shared.port
    }

    /// From when this returns connections are accepted.
    pub(crate) fn open(&self) {
        self.turn(Door::Open);
    }

    /// From when this returns connections are refused.
    pub(crate) fn shut(&self) {
        self.turn(Door::Shut);
    }

    fn turn(&self, door: Door) {
        let mut state = self.shared.lock();
        state.door = door;
        self.shared.changed.notify_all();
        if state.listening && door != Door::Open {
            // The thread waits for a connection. It sees the door when it has one.
            drop(TcpStream::connect(self.shared.port.address()));
        }
        while door != Door::Gone && state.listening != (door == Door::Open) {
            state = wait(&self.shared.changed, state);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.turn(Door::Gone);
        if let Some(thread) = self.thread.take() {
            // It panics only if a guest did, who has been heard then.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, guest: impl Fn(TcpStream)) {
        let mut state = self.lock();
        loop {
            match state.door {
                Door::Open => {}
                Door::Shut => {
                    state = wait(&self.changed, state);
                    continue;
                }
                Door::Gone => return,
            }
            let listener = self.port.listen();
            state.listening = true;
            self.changed.notify_all();
            while state.door == Door::Open {
                drop(state);
                let accepted = listener.accept();
                state = self.lock();
                match accepted {
                    Ok((stream, _)) if state.door == Door::Open => {
                        drop(state);
                        guest(stream);
                        state = self.lock();
                    }
                    Ok((stream, _)) => reset_on_close(&stream),
                    // No descriptor is free; it may be the next moment.
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
            drop(listener);
            state.listening = false;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Makes the peer see a reset, and not an end, when the stream is closed.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // Fails on a stream that is dead already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
