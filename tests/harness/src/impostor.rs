//! Listeners that are no databases.
//!
//! Know nothing of the client but that it may close.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use crate::listener::Listener;

/// A port of the loopback interface where something else than a database listens,
/// until dropped.
#[derive(Debug)]
pub struct Impostor {
    listener: Listener,
    guests: Arc<Mutex<Vec<Weak<TcpStream>>>>,
}

/// What a guest gets to hear.
#[derive(Debug, Clone, Copy)]
struct Manners {
    greeting: &'static str,
    /// After the guest has said something.
    answer: &'static str,
    waits: bool,
}

impl Impostor {
    /// Accepts, reads, and never says anything.
    pub fn silent() -> Self {
        Self::with(Manners { greeting: "", answer: "", waits: true })
    }

    /// Accepts, and closes at once.
    pub fn closing() -> Self {
        Self::with(Manners { greeting: "", answer: "", waits: false })
    }

    /// Answers whatever is said as a web server does, and closes.
    pub fn http() -> Self {
        let answer = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        Self::with(Manners { greeting: "", answer, waits: true })
    }

    /// Speaks first, as a secure shell does, and waits.
    pub fn ssh() -> Self {
        Self::with(Manners { greeting: "SSH-2.0-OpenSSH_9.2\r\n", answer: "", waits: true })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.port().address()
    }

    /// The port of that address.
    pub fn port(&self) -> u16 {
        self.listener.port().number()
    }

    fn with(manners: Manners) -> Self {
        let guests = Arc::new(Mutex::new(Vec::new()));
        let listener = Listener::new({
            let guests = Arc::clone(&guests);
            move |guest: TcpStream| {
                let guest = Arc::new(guest);
                let known = Arc::downgrade(&guest);
                guests.lock().unwrap_or_else(PoisonError::into_inner).push(known);
                // It fails when the guest leaves, which is its right.
                thread::spawn(move || manners.converse(&guest));
            }
        });
        Self { listener, guests }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.listener.shut();
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        for guest in guests.iter().filter_map(Weak::upgrade) {
            // Fails where the guest was first.
            let _ = guest.shutdown(Shutdown::Both);
        }
    }
}

impl Manners {
    fn converse(self, mut guest: &TcpStream) -> io::Result<()> {
        guest.write_all(self.greeting.as_bytes())?;
        if self.waits {
            let said = guest.read(&mut [0; 1024])?;
            if said > 0 && !self.answer.is_empty() {
                guest.write_all(self.answer.as_bytes())?;
                guest.shutdown(Shutdown::Write)?;
            }
            // Closing with something unread would be a reset, and lose the answer.
            io::copy(&mut guest, &mut io::sink())?;
        }
        guest.shutdown(Shutdown::Both)
    }
}
