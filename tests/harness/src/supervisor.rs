//! Makes sure that no server outlives the test process, and sends signals.
//!
//! A shell script reads a pipe whose other end this process holds. However this
//! process ends, even killed, even with the server in a static that is never
//! dropped, the kernel closes the pipe, and the script ends the server. Does not
//! know what the server is.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The script at work. Dropping it kills the server, removes its folder and
/// waits until both is done.
#[derive(Debug)]
pub(crate) struct Supervisor {
    script: Child,
    talk: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
}

impl Supervisor {
    pub(crate) fn of(folder: &Path, leftovers: &str) -> Self {
        let mut script = Command::new("sh")
            .args(["-c", include_str!("supervisor.sh"), "supervisor"])
            .arg(folder)
            .arg(leftovers)
            .current_dir("/")
            // Ctrl-C in a terminal goes to a whole group, and must not end this.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("sh: {error}"));
        let input = script.stdin.take().expect("piped");
        let output = BufReader::new(script.stdout.take().expect("piped"));
        Self { script, talk: Mutex::new(Some((input, output))) }
    }

    /// Has this process killed in the end, or none.
    pub(crate) fn watch(&self, server: Option<u32>) {
        self.tell(&server.map_or_else(|| "watch".to_owned(), |pid| format!("watch {pid}")));
    }

    /// Sends a signal to the server process alone.
    pub(crate) fn signal(&self, name: &str) {
        self.tell(&format!("server {name}"));
    }

    /// Sends a signal to the server and to all processes it started; after `KILL`
    /// those are gone.
    pub(crate) fn signal_everything(&self, name: &str) {
        self.tell(&format!("everything {name}"));
    }

    fn tell(&self, line: &str) {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let (input, output) = talk.as_mut().expect("there until dropped");
        let mut answer = String::new();
        let heard = writeln!(input, "{line}").and_then(|()| output.read_line(&mut answer));
        assert!(matches!(heard, Ok(1..)), "the supervisor of the server is gone: {heard:?}");
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let talk = self.talk.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(talk.take());
        // The script ends by itself; it cannot fail in a way to act upon.
        let _ = self.script.wait();
    }
}
