//! A line to a server, in which faults are switched on and off.
//!
//! Forwards bytes of TCP. Does not know what they mean: it finds a pattern in
//! them only where they are not encrypted.

mod line;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::listener::Listener;
use line::Line;

/// A port of the loopback interface that leads to another address.
///
/// Every fault may be switched at any time, and holds for the connections there
/// are and those to come, each direction by itself. Dropping the proxy closes
/// all.
#[derive(Debug)]
pub struct Proxy {
    listener: Listener,
    shared: Arc<Shared>,
}

/// What happens to the bytes that go one way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Each piece is forwarded this much later.
    Delay(Duration),
    /// They are held back, and so is the end of the connection, which stays open.
    Stall,
    /// Once: the first connection on which this many bytes have gone this way,
    /// counted from now or from its beginning, is cut there.
    CutAfter(usize, Cut),
    /// Once: the first connection on which these bytes come is cut before the
    /// piece with them is forwarded.
    CutBefore(Vec<u8>, Cut),
    /// Once: the first connection on which these bytes come is cut when the other
    /// side has answered them, before any of the answer is forwarded.
    CutAnswer(Vec<u8>, Cut),
}

/// How a connection is cut, to both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// As by a program that closes it: `FIN`.
    Close,
    /// As by a host that knows nothing of it: `RST`.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    /// Faults, ends of connections.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    to_server: Switch,
    to_client: Switch,
    ignores: bool,
    /// By the order in which they came.
    lines: HashMap<usize, Arc<Line>>,
    accepted: usize,
}

#[derive(Debug)]
struct Switch {
    fault: Fault,
    /// Counts the changes: what was counted under an earlier fault is void.
    version: usize,
}

impl Proxy {
    /// A proxy in front of `target`, without a fault.
    ///
    /// A client finds its connection reset when the target refuses it.
    pub fn to(target: SocketAddr) -> Self {
        let switch = || Switch { fault: Fault::Pass, version: 0 };
        let state = State {
            to_server: switch(),
            to_client: switch(),
            ignores: false,
            lines: HashMap::new(),
            accepted: 0,
        };
        let shared = Arc::new(Shared { target, state: state.into(), changed: Condvar::new() });
        let listener = Listener::new({
            let shared = Arc::clone(&shared);
            move |client| shared.connect(client)
        });
        Self { listener, shared }
    }

    /// Its own address, for clients.
    pub fn address(&self) -> SocketAddr {
        self.listener.port().address()
    }

    /// The port of that address.
    pub fn port(&self) -> u16 {
        self.listener.port().number()
    }

    /// How many connections are open. One that is [stalled](Fault::Stall) stays
    /// open whatever its client does.
    pub fn connections(&self) -> usize {
        self.shared.lock().lines.len()
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Sets what happens to bytes from clients to the server.
    pub fn to_server(&self, fault: Fault) {
        self.shared.lock().to_server.set(fault);
        self.shared.changed.notify_all();
    }

    /// Sets what happens to bytes from the server to clients.
    pub fn to_client(&self, fault: Fault) {
        self.shared.lock().to_client.set(fault);
        self.shared.changed.notify_all();
    }

    /// Makes all connections half-open: [`Fault::Stall`], both ways.
    pub fn stall(&self) {
        self.to_server(Fault::Stall);
        self.to_client(Fault::Stall);
    }

    /// Refuses new connections, from when this returns.
    pub fn refuse(&self) {
        self.listener.shut();
    }

    /// Accepts new connections, and never answers them.
    pub fn ignore(&self) {
        self.shared.lock().ignores = true;
        self.listener.open();
    }

    /// Switches all faults off, from when this returns. What was held back is
    /// forwarded. Connections that are [ignored](Self::ignore) remain so.
    pub fn pass(&self) {
        self.to_server(Fault::Pass);
        self.to_client(Fault::Pass);
        self.shared.lock().ignores = false;
        self.listener.open();
    }

    /// Closes all connections there are. They are closed when this returns.
    pub fn cut(&self) {
        self.shared.cut_all(Cut::Close);
    }

    /// Resets all connections there are. They are reset when this returns.
    pub fn reset(&self) {
        self.shared.cut_all(Cut::Reset);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.shut();
        self.shared.cut_all(Cut::Close);
    }
}

impl Switch {
    fn set(&mut self, fault: Fault) {
        self.fault = fault;
        self.version += 1;
    }
}

impl State {
    fn switch(&mut self, direction: Direction) -> &mut Switch {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let mut state = self.lock();
        let line = Arc::new(Line::new(client, (!state.ignores).then_some(self.target)));
        let number = state.accepted;
        state.accepted += 1;
        state.lines.insert(number, Arc::clone(&line));
        let shared = Arc::clone(self);
        thread::spawn(move || {
            line.serve(&shared);
            drop(line);
            // The last handle: the sockets are closed when it is gone.
            shared.lock().lines.remove(&number);
            shared.changed.notify_all();
        });
    }

    fn cut_all(&self, how: Cut) {
        let mut state = self.lock();
        let numbers: Vec<_> = state.lines.keys().copied().collect();
        for line in state.lines.values() {
            line.cut(how);
        }
        self.changed.notify_all();
        while numbers.iter().any(|number| state.lines.contains_key(number)) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
