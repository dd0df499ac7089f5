//! Where one server lives: its folder, its port and the account it runs under.
//!
//! Does not know what lies in the folder but the data, nor what runs there.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::port::Port;

/// A new folder, readable by the server's account alone. The
/// [supervisor](crate::supervisor) removes it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) port: Port,
    /// User and group of the server, when the tests run as root: servers refuse to.
    account: Option<(u32, u32)>,
}

impl Place {
    /// # Panics
    ///
    /// When the temporary folder cannot be written to.
    pub(crate) fn new(account: &str) -> Self {
        let folder = new_folder();
        let owner = fs::metadata(&folder).expect("it was just made").uid();
        let account = (owner == 0).then(|| lookup(account));
        if let Some((user, group)) = account {
            chown(&folder, Some(user), Some(group)).expect("root may give folders away");
        }
        Self { folder, port: Port::hold(), account }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The user who owns the folder.
    pub(crate) fn owner(&self) -> u32 {
        fs::metadata(&self.folder).expect("the folder is there").uid()
    }

    /// A command in the folder, under the server's account, that sees nothing of
    /// the environment of whoever runs the tests but the search path.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("TZ", "UTC").current_dir(&self.folder);
        // MariaDB clears the temporary folder of tables that are not its own.
        command.env("TMPDIR", &self.folder);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }
}

/// The folder's path is short, because that of a Unix socket must be.
fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("millpond-{}-{count}", process::id()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return folder,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("cannot make {}: {error}", folder.display()),
        }
    }
}

/// User and group of the first of `account` and `nobody` that exists.
fn lookup(account: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    find(account).or_else(|| find("nobody")).unwrap_or((65534, 65534))
}

/// Runs `command` to its end with `input` as its standard input.
///
/// # Errors
///
/// What it wrote to its standard error, or why it did not run.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<String, String> {
    run_with_log(command, input).map(|(output, _)| output)
}

/// As [`run`], with what it wrote to its standard error beside its output.
///
/// # Errors
///
/// As those of [`run`].
pub(crate) fn run_with_log(command: &mut Command, input: &str) -> Result<(String, String), String> {
    let name = Path::new(command.get_program()).display().to_string();
    let spawned =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("{name}: {error}"))?;
    let mut stdin = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        // A thread, because the program may write more than a pipe holds before it
        // has read everything. One that ends early need not read it.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    let [out, log] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() {
        Ok((out, log))
    } else {
        Err(format!("{name} failed ({}): {}", output.status, log.trim()))
    }
}
