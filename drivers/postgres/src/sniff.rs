//! Follows the protocol as it passes by: which transaction status the server
//! last told, and how many answers it owes.
//!
//! Knows the framing of version 3 of PostgreSQL's protocol and the few message
//! types that matter. Does not know sockets, and keeps no message.

use std::collections::VecDeque;
use std::io;

/// Counts frames in both directions. Bytes may come in pieces of any size.
#[derive(Debug)]
pub(crate) struct Sniffer {
    from_server: Frames,
    from_client: Frames,
    /// The server has begun as PostgreSQL does.
    greeted: bool,
    /// Questions in the order of their answers.
    asked: VecDeque<Question>,
    /// Questions among them that somebody waits for.
    owed: u32,
    /// Messages of the extended protocol since the last `Sync` ask for an answer.
    open: bool,
    copy: Copy,
    /// A `COPY` from the client has failed since this was last asked.
    doubt: bool,
    status: u8,
    tag: [u8; 8],
    process: u32,
    parameters_changed: bool,
}

/// How far a `COPY` from the client has come, by the extended protocol: there the
/// server takes no notice of the `Sync` that came with the statement, and answers
/// the one after the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    None,
    /// The server waits for data.
    Open,
    /// The data have ended, but for their `Sync`.
    Ended,
    /// The server gave up before the data ended, and answered the first `Sync`.
    Refused,
}

/// What is answered by one `ReadyForQuery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// A statement of the simple protocol, or the login.
    Simple,
    /// A `Sync` after work.
    Extended,
    /// The same, of a `COPY` that the server has begun to take data for.
    Copy,
    /// A `Sync` after nothing but the end of a prepared statement, which the
    /// client sends by itself whenever one is dropped.
    Housekeeping,
}

impl Sniffer {
    /// At the start of a connection, before the startup message.
    pub(crate) fn new() -> Self {
        Self {
            from_server: Frames::default(),
            from_client: Frames { untyped: true, ..Frames::default() },
            greeted: false,
            asked: VecDeque::new(),
            owed: 0,
            open: false,
            copy: Copy::None,
            doubt: false,
            status: 0,
            tag: [0; 8],
            process: 0,
            parameters_changed: false,
        }
    }

    /// The status in the last `ReadyForQuery`; 0 before the first.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// How many answers the server owes, but for housekeeping.
    pub(crate) fn owed(&self) -> u32 {
        self.owed + u32::from(self.open) + u32::from(self.copy == Copy::Refused)
    }

    /// The first bytes of the tag of the last statement that completed:
    /// `INSERT 0`.
    pub(crate) fn tag(&self) -> [u8; 8] {
        self.tag
    }

    /// The number by which the session is to be cancelled: that of its process at
    /// the server, or whatever a pooler says in its place. 0 if it was not told.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Whether the server has told parameters since this was last asked.
    pub(crate) fn take_parameters_changed(&mut self) -> bool {
        std::mem::take(&mut self.parameters_changed)
    }

    /// Whether a `COPY` from the client has failed since this was last asked: its
    /// end may be answered once more than the client expects.
    pub(crate) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }

    /// Bytes from the client to the server.
    ///
    /// # Errors
    ///
    /// The client has lost its place: it would take answers for those to other
    /// questions.
    pub(crate) fn sent(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { from_client, asked, owed, open, copy, .. } = self;
        from_client.feed(bytes, |kind, body| {
            if body.is_some() {
                return Ok(());
            }
            match (*copy, kind) {
                // Of a statement that was refused, or may be: its answer came, or
                // comes, with the first `Sync`, and another would follow.
                (Copy::None, b'c' | b'f') => return Err(astray()),
                (Copy::None, _) => {}
                (Copy::Open | Copy::Refused, b'd') | (Copy::Open, b'H' | b'X') => return Ok(()),
                (Copy::Open, b'c' | b'f') => {
                    *copy = Copy::Ended;
                    return Ok(());
                }
                (Copy::Ended, b'S') => {
                    *copy = Copy::None;
                    return Ok(());
                }
                (Copy::Open | Copy::Ended, _) | (Copy::Refused, b'c' | b'f') => {
                    return Err(astray());
                }
                (Copy::Refused, _) => *copy = Copy::None,
            }
            match kind {
                STARTUP | b'Q' | b'F' => {
                    asked.push_back(Question::Simple);
                    *owed += 1;
                }
                b'S' if std::mem::take(open) => {
                    asked.push_back(Question::Extended);
                    *owed += 1;
                }
                b'S' => asked.push_back(Question::Housekeeping),
                b'P' | b'B' | b'D' | b'E' => *open = true,
                _ => {}
            }
            Ok(())
        })
    }

    /// Bytes from the server to the client.
    ///
    /// # Errors
    ///
    /// They are not PostgreSQL's.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self {
            from_server,
            greeted,
            asked,
            owed,
            copy,
            doubt,
            status,
            tag,
            process,
            parameters_changed,
            ..
        } = self;
        let was_greeted = *greeted;
        from_server.feed(bytes, |kind, body| {
            match (kind, body) {
                (kind, None) if !*greeted => {
                    *greeted = is_greeting(kind);
                    if !*greeted {
                        return Err(foreign());
                    }
                }
                (b'Z', Some(body)) => {
                    *status = body[0];
                    match copy {
                        Copy::Open => *copy = Copy::Refused,
                        Copy::Ended => return Err(astray()),
                        Copy::None | Copy::Refused => {}
                    }
                    match asked.pop_front() {
                        Some(Question::Housekeeping) | None => {}
                        Some(_) => *owed -= 1,
                    }
                }
                (b'C', Some(body)) => *tag = body,
                (b'K', Some([a, b, c, d, ..])) => *process = u32::from_be_bytes([a, b, c, d]),
                (b'G', None) if asked.front() == Some(&Question::Extended) => {
                    asked[0] = Question::Copy;
                    *copy = Copy::Open;
                }
                (b'E', None) if asked.front() == Some(&Question::Copy) => *doubt = true,
                (b'S', None) => *parameters_changed = true,
                _ => {}
            }
            Ok(())
        })?;
        match from_server.left > LONGEST_GREETING && !was_greeted {
            // So says a server that cannot even start a session: in plain text.
            true if from_server.header[0] == b'E' => {
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the server refused it"))
            }
            true => Err(foreign()),
            false => Ok(()),
        }
    }
}

/// What is longer is text whose first letters look like a message. The client
/// would make room for all of it.
const LONGEST_GREETING: usize = 30_000;

/// Whether a server may begin with this: authentication, an error, a notice,
/// another version of the protocol.
fn is_greeting(kind: u8) -> bool {
    matches!(kind, b'R' | b'E' | b'N' | b'v')
}

fn astray() -> io::Error {
    io::Error::other("a COPY from the client did not end as it must")
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, NotPostgres)
}

/// The peer speaks something else.
#[derive(Debug)]
pub(crate) struct NotPostgres;

impl std::fmt::Display for NotPostgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this is not a PostgreSQL server")
    }
}

impl std::error::Error for NotPostgres {}

/// Stands for the type of the first message, which has none.
const STARTUP: u8 = 0;

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 5],
    /// Bytes of the header that are here.
    filled: usize,
    /// Bytes of the body that are not here yet.
    left: usize,
    /// The first bytes of the body.
    body: [u8; 8],
    kept: usize,
    /// The next message has no type.
    untyped: bool,
}

impl Frames {
    /// Calls `on` at the header of each message, and at its end with the first
    /// bytes of its body.
    fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(u8, Option<[u8; 8]>) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (here, rest) = bytes.split_at(self.left.min(bytes.len()));
                let room = &mut self.body[self.kept..];
                let kept = room.len().min(here.len());
                room[..kept].copy_from_slice(&here[..kept]);
                self.kept += kept;
                self.left -= here.len();
                bytes = rest;
            } else {
                if std::mem::take(&mut self.untyped) {
                    self.header[0] = STARTUP;
                    self.filled = 1;
                }
                let (here, rest) = bytes.split_at((5 - self.filled).min(bytes.len()));
                self.header[self.filled..self.filled + here.len()].copy_from_slice(here);
                self.filled += here.len();
                bytes = rest;
                if self.filled < 5 {
                    break;
                }
                let [kind, length @ ..] = self.header;
                on(kind, None)?;
                self.left =
                    (u32::from_be_bytes(length) as usize).checked_sub(4).ok_or_else(foreign)?;
                self.body = [0; 8];
                self.kept = 0;
            }
            if self.left == 0 {
                self.filled = 0;
                on(self.header[0], Some(self.body))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn messages(kinds: &[u8]) -> Vec<u8> {
        kinds.iter().flat_map(|&kind| message(kind, b"")).collect()
    }

    fn ready(status: u8) -> Vec<u8> {
        message(b'Z', &[status])
    }

    /// Logged in.
    fn sniffer() -> Sniffer {
        let mut sniffer = Sniffer::new();
        let mut startup = 13_u32.to_be_bytes().to_vec();
        startup.extend(b"\0\x03\0\0QZ\0\0\0");
        sniffer.sent(&startup).unwrap();
        assert_eq!((sniffer.status(), sniffer.owed()), (0, 1));
        // A password; then the server lets us in.
        sniffer.sent(&message(b'p', b"QQQ\0")).unwrap();
        sniffer.received(&message(b'R', &[0; 4])).unwrap();
        sniffer.received(&ready(b'I')).unwrap();
        assert_eq!((sniffer.status(), sniffer.owed()), (b'I', 0));
        sniffer
    }

    #[test]
    fn a_statement_is_owed_from_its_first_byte_to_ready() {
        for question in [messages(b"Q"), messages(b"PDS"), messages(b"BES"), messages(b"B")] {
            let mut sniffer = sniffer();
            sniffer.sent(&question).unwrap();
            assert_eq!(sniffer.owed(), 1);
            sniffer.received(&message(b'C', b"INSERT 0 3\0")).unwrap();
            assert_eq!((sniffer.owed(), &sniffer.tag()), (1, b"INSERT 0"));
        }
        let mut sniffer = sniffer();
        sniffer.sent(&message(b'Q', b"BEGIN\0")).unwrap();
        sniffer.received(&[message(b'C', b"BEGIN\0"), ready(b'T')].concat()).unwrap();
        assert_eq!((sniffer.owed(), sniffer.status()), (0, b'T'));
        assert_eq!(&sniffer.tag(), b"BEGIN\0\0\0");
    }

    #[test]
    fn bytes_may_come_in_any_pieces() {
        let question = [message(b'Q', b"SELECT 1\0"), messages(b"PBDES")].concat();
        let rows = message(b'D', &[0; 40]);
        let answer = [&rows[..], &message(b'C', b"SELECT 1\0"), &ready(b'E'), &rows, &ready(b'T')];
        let answer = answer.concat();
        for piece in 1..9 {
            let mut sniffer = sniffer();
            question.chunks(piece).for_each(|bytes| sniffer.sent(bytes).unwrap());
            assert_eq!(sniffer.owed(), 2);
            answer.chunks(piece).for_each(|bytes| sniffer.received(bytes).unwrap());
            assert_eq!((sniffer.owed(), sniffer.status()), (0, b'T'));
            assert_eq!(&sniffer.tag(), b"SELECT 1");
        }
    }

    #[test]
    fn the_end_of_a_prepared_statement_is_owed_to_nobody() {
        let mut sniffer = sniffer();
        sniffer.sent(&messages(b"CSQ")).unwrap();
        assert_eq!(sniffer.owed(), 1);
        sniffer.received(&[messages(b"3"), ready(b'I')].concat()).unwrap();
        assert_eq!(sniffer.owed(), 1);
        sniffer.received(&ready(b'I')).unwrap();
        assert_eq!(sniffer.owed(), 0);
    }

    #[test]
    fn a_copy_into_a_table_is_owed_until_its_data_are_answered() {
        for end in [b"dcS", b"dfS"] {
            let mut sniffer = sniffer();
            sniffer.sent(&messages(b"BES")).unwrap();
            sniffer.received(&messages(b"2G")).unwrap();
            assert_eq!(sniffer.owed(), 1);
            sniffer.sent(&messages(b"d")).unwrap();
            assert_eq!(sniffer.owed(), 1);
            sniffer.sent(&messages(end)).unwrap();
            assert_eq!(sniffer.owed(), 1);
            sniffer.received(&ready(b'I')).unwrap();
            assert_eq!(sniffer.owed(), 0);
        }
    }

    /// A `COPY` whose data the server waits for.
    fn copying() -> Sniffer {
        let mut sniffer = sniffer();
        sniffer.sent(&messages(b"BES")).unwrap();
        sniffer.received(&messages(b"2G")).unwrap();
        sniffer
    }

    #[test]
    fn a_copy_that_fails_leaves_a_doubt() {
        let mut sniffer = copying();
        sniffer.sent(&messages(b"ddcS")).unwrap();
        assert!(!sniffer.take_doubt());
        sniffer.received(&[messages(b"E"), ready(b'I')].concat()).unwrap();
        assert_eq!(sniffer.owed(), 0);
        assert!(sniffer.take_doubt() && !sniffer.take_doubt());
    }

    /// The end of its data is answered as well, and the client does not know.
    #[test]
    fn the_data_of_a_copy_that_was_refused_before_must_not_end() {
        for end in [b'c', b'f'] {
            let mut sniffer = copying();
            sniffer.received(&[messages(b"E"), ready(b'I')].concat()).unwrap();
            sniffer.sent(&messages(b"d")).unwrap();
            assert_eq!(sniffer.owed(), 1);
            assert!(sniffer.sent(&messages(&[end, b'S'])).is_err());
        }
        let mut sniffer = copying();
        sniffer.sent(&messages(b"c")).unwrap();
        assert!(sniffer.received(&[messages(b"E"), ready(b'I')].concat()).is_err());
    }

    /// Its end was taken for housekeeping, and its answer for that to the next
    /// question.
    #[test]
    fn a_copy_that_never_began_must_not_end() {
        for end in [b'c', b'f'] {
            let mut refused = sniffer();
            refused.sent(&messages(b"BES")).unwrap();
            refused.received(&[messages(b"2E"), ready(b'I')].concat()).unwrap();
            assert_eq!(refused.owed(), 0);
            assert!(refused.sent(&messages(&[end, b'S'])).is_err());
            // Given up before its answer came, whatever that will be.
            let mut early = sniffer();
            early.sent(&messages(b"BES")).unwrap();
            assert!(early.sent(&messages(&[end, b'S'])).is_err());
        }
    }

    /// The client has given the statement up, and no data will come.
    #[test]
    fn a_copy_that_waits_for_data_takes_no_other_request() {
        for question in [&b"S"[..], b"Q", b"CS", b"PDS", b"BES"] {
            assert!(copying().sent(&messages(question)).is_err());
            let mut refused = copying();
            refused.received(&[messages(b"E"), ready(b'I')].concat()).unwrap();
            refused.sent(&messages(question)).unwrap();
            refused.received(&ready(b'I')).unwrap();
            assert_eq!(refused.owed(), 0);
        }
        copying().sent(&messages(b"X")).unwrap();
    }

    #[test]
    fn the_process_of_a_session_is_the_first_half_of_its_key() {
        let mut sniffer = sniffer();
        assert_eq!(sniffer.process(), 0);
        sniffer.received(&message(b'K', &[0, 0, 0x12, 0x34, 9, 9, 9, 9])).unwrap();
        assert_eq!(sniffer.process(), 0x1234);
    }

    #[test]
    fn a_change_of_parameters_is_told_once() {
        let mut sniffer = sniffer();
        sniffer.received(&message(b'S', b"in_hot_standby\0off\0")).unwrap();
        assert!(sniffer.take_parameters_changed());
        assert!(!sniffer.take_parameters_changed());
    }

    #[test]
    fn another_protocol_is_known_by_its_first_bytes() {
        for greeting in [&b"HTTP/1.1 400"[..], b"\x4a\0\0\0\x0a5.5.5", b"SSH-2.0-OpenSSH\r\n"] {
            let error = Sniffer::new().received(greeting).unwrap_err();
            assert_eq!(error.to_string(), "this is not a PostgreSQL server");
        }
        assert!(Sniffer::new().received(b"E\0\0\0\x01").is_err());
        // A remote screen, and a server that could not start a session.
        for (greeting, kind) in [
            (&b"RFB 003.008\n"[..], io::ErrorKind::InvalidData),
            (b"Ecould not fork new process\n\0", io::ErrorKind::ConnectionRefused),
        ] {
            assert_eq!(Sniffer::new().received(greeting).unwrap_err().kind(), kind);
        }
    }
}
