//! One connection through the proxy: two sockets, and a thread for each way.
//!
//! Carries out faults. Does not choose them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Cut, Direction, Fault, Shared};
use crate::listener::reset_on_close;

#[derive(Debug)]
pub(super) struct Line {
    client: TcpStream,
    /// None if the client is ignored.
    target: Option<SocketAddr>,
    server: OnceLock<TcpStream>,
    cut: AtomicBool,
    /// The way on which the next bytes cut the line. Set once, under the lock of
    /// the proxy, as everything that decides about bytes is.
    loses: OnceLock<(Direction, Cut)>,
}

/// What has gone one way under the current fault.
#[derive(Debug, Default)]
struct Passed {
    version: usize,
    bytes: usize,
    /// The last ones, in which a pattern may have begun.
    tail: Vec<u8>,
}

/// What is done with a piece that was read.
struct Verdict {
    /// So many bytes are forwarded,
    forward: usize,
    /// and then the line is cut.
    cut: Option<Cut>,
    /// The fault has done its work, here or on the way back.
    spent: bool,
}

impl Line {
    pub(super) fn new(client: TcpStream, target: Option<SocketAddr>) -> Self {
        Self {
            client,
            target,
            server: OnceLock::new(),
            cut: AtomicBool::new(false),
            loses: OnceLock::new(),
        }
    }

    /// Works until both ways have ended.
    pub(super) fn serve(&self, shared: &Shared) {
        let Some(target) = self.target else {
            // Its end shows that the client has given up; a reset is as good.
            let _ = io::copy(&mut &self.client, &mut io::sink());
            return;
        };
        let server = TcpStream::connect(target)
            .and_then(|server| tune(&server).map(|()| server))
            .and_then(|server| tune(&self.client).map(|()| server));
        let Ok(server) = server else {
            reset_on_close(&self.client);
            return;
        };
        let server = {
            // The lock, because whoever cuts all lines holds it.
            let _state = shared.lock();
            if self.cut.load(Ordering::SeqCst) {
                return;
            }
            self.server.get_or_init(|| server)
        };
        thread::scope(|scope| {
            scope.spawn(|| self.pump(shared, &self.client, server, Direction::ToServer));
            self.pump(shared, server, &self.client, Direction::ToClient);
        });
    }

    /// Ends the line. The sockets are closed by the threads that this wakes.
    pub(super) fn cut(&self, how: Cut) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in [Some(&self.client), self.server.get()].into_iter().flatten() {
            let sides = match how {
                Cut::Close => Shutdown::Both,
                Cut::Reset => {
                    reset_on_close(stream);
                    // Says nothing to the peer; ends our reads.
                    Shutdown::Read
                }
            };
            // Fails where the peer was first.
            let _ = stream.shutdown(sides);
        }
    }

    fn pump(
        &self,
        shared: &Shared,
        mut from: &TcpStream,
        mut to: &TcpStream,
        direction: Direction,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        let mut passed = Passed::default();
        loop {
            let piece = match from.read(&mut buffer) {
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // One side was reset, and so is the other.
                Err(_) => return self.cut_from_within(shared, Cut::Reset),
            };
            let Some(verdict) = self.judge(shared, direction, piece, &mut passed) else { return };
            if self.write(&mut to, &piece[..verdict.forward]).is_err() {
                return self.cut_from_within(shared, Cut::Reset);
            }
            if let Some(how) = verdict.cut {
                return self.cut_from_within(shared, how);
            }
            if piece.is_empty() {
                // Fails where the peer was first.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    fn cut_from_within(&self, shared: &Shared, how: Cut) {
        if !self.cut.load(Ordering::SeqCst) {
            self.cut(how);
        }
        // The other way may be waiting.
        drop(shared.lock());
        shared.changed.notify_all();
    }

    /// Waits until the piece may go. None if the line was cut meanwhile. The end
    /// of the stream is an empty piece.
    fn judge(
        &self,
        shared: &Shared,
        direction: Direction,
        piece: &[u8],
        passed: &mut Passed,
    ) -> Option<Verdict> {
        let arrived = Instant::now();
        let mut state = shared.lock();
        loop {
            if self.cut.load(Ordering::SeqCst) {
                return None;
            }
            if let Some((_, how)) = self.loses.get().filter(|(way, _)| *way == direction) {
                return Some(Verdict { forward: 0, cut: Some(*how), spent: false });
            }
            let switch = state.switch(direction);
            if passed.version != switch.version {
                *passed = Passed { version: switch.version, ..Passed::default() };
            }
            let wait = match &switch.fault {
                Fault::Stall => None,
                Fault::Delay(time) if arrived.elapsed() < *time => {
                    Some(time.saturating_sub(arrived.elapsed()))
                }
                fault => {
                    let verdict = self.forward(direction, piece, passed, fault);
                    if verdict.spent {
                        switch.set(Fault::Pass);
                    }
                    return Some(verdict);
                }
            };
            state = match wait {
                None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    let waited = shared.changed.wait_timeout(state, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn forward(
        &self,
        direction: Direction,
        piece: &[u8],
        passed: &mut Passed,
        fault: &Fault,
    ) -> Verdict {
        let all = Verdict { forward: piece.len(), cut: None, spent: false };
        let cut = |forward, how| Verdict { forward, cut: Some(how), spent: true };
        match fault {
            Fault::CutAfter(most, how) => {
                let left = most.saturating_sub(passed.bytes);
                passed.bytes += piece.len();
                if piece.len() < left { all } else { cut(left, *how) }
            }
            Fault::CutBefore(pattern, how) if passed.complete(pattern, piece) => cut(0, *how),
            Fault::CutAnswer(pattern, how) if passed.complete(pattern, piece) => {
                // The first of two patterns on one line decides.
                let _ = self.loses.set((direction.back(), *how));
                Verdict { spent: true, ..all }
            }
            _ => all,
        }
    }

    /// Writes all of it, or until the line is cut.
    fn write(&self, to: &mut &TcpStream, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            match to.write(piece) {
                Ok(length) => piece = &piece[length..],
                Err(error) if is_passing(error.kind()) && !self.cut.load(Ordering::SeqCst) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Passed {
    /// Whether `piece` completes `pattern`.
    fn complete(&mut self, pattern: &[u8], piece: &[u8]) -> bool {
        self.tail.extend_from_slice(piece);
        let found = self.tail.windows(pattern.len().max(1)).any(|window| window == pattern);
        let begun = pattern.len().saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - begun);
        found
    }
}

impl Direction {
    fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

/// A write to a peer that reads nothing gives up from time to time, to see
/// whether the line was cut.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_millis(20)))
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
