//! MySQL, unpacked into a folder: its programs and its settings.
//!
//! Runs it by the loader in that folder, because its libraries are newer than
//! those of the machine. Says about itself what MariaDB says.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Engine, Table};
use crate::mariadb::{
    client_options, count_sessions, greets, options, table, tls_options, user_and_database,
};
use crate::place::{Place, run};

/// The folder that `scripts/mysql-server` filled.
#[derive(Debug)]
pub(crate) struct Mysql {
    root: PathBuf,
    /// That of its libraries: `usr/lib/x86_64-linux-gnu`.
    libraries: PathBuf,
    loader: PathBuf,
}

impl Mysql {
    /// # Panics
    ///
    /// When the folder holds no MySQL.
    pub(crate) fn new(root: PathBuf) -> Self {
        let find = |folder: &Path, name: &str| {
            let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.find(|entry| entry.file_name().to_string_lossy().contains(name))
        };
        let libraries = find(&root.join("usr/lib"), "-linux-gnu").map(|entry| entry.path());
        let loader = libraries.as_ref().and_then(|folder| find(folder, "ld-linux"));
        let (Some(libraries), Some(loader)) = (libraries, loader) else {
            panic!("MILLPOND_MYSQL={}: no MySQL is there: run scripts/mysql-server", root.display())
        };
        Self { root, libraries, loader: loader.path() }
    }

    /// The words that run one of its programs.
    fn program(&self, name: &str) -> Vec<OsString> {
        let mut libraries = self.libraries.clone().into_os_string();
        libraries.push(":");
        libraries.push(self.root.join("usr/lib/mysql"));
        let loader = self.loader.clone().into();
        vec![loader, "--library-path".into(), libraries, self.root.join(name).into()]
    }

    fn server(&self) -> Vec<OsString> {
        let mut words = self.program("usr/sbin/mysqld");
        words.push("--no-defaults".into());
        let folders = [
            ("basedir", "usr"),
            ("lc-messages-dir", "usr/share/mysql"),
            ("plugin-dir", "usr/lib/mysql/plugin"),
            ("character-sets-dir", "usr/share/mysql/charsets"),
        ];
        words.extend(folders.map(|(option, folder)| {
            format!("--{option}={}", self.root.join(folder).display()).into()
        }));
        words.extend(["--secure-file-priv=", "--mysqlx=OFF", "--disable-log-bin"].map(Into::into));
        words.push("--innodb-redo-log-capacity=8M".into());
        words
    }
}

impl Engine for Mysql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn scheme(&self) -> &'static str {
        "mysql"
    }

    fn version(&self) -> String {
        let words = self.program("usr/sbin/mysqld");
        let mut version = Command::new(&words[0]);
        version.args(&words[1..]).args(["--no-defaults", "--version"]);
        run(&mut version, "").unwrap_or_else(|error| panic!("{error}"))
    }

    fn recipe(&self) -> &'static str {
        concat!(include_str!("mysql.rs"), include_str!("mariadb.rs"))
    }

    fn account(&self) -> &'static str {
        "mysql"
    }

    fn install(&self, place: &Place) {
        let statements = user_and_database().map(|statement| statement + ";\n").concat();
        let file = place.folder.join("accounts.sql");
        fs::write(&file, statements).expect("the folder can be written to");
        let words = self.server();
        let mut install = place.command(&words[0]);
        install
            .args(&words[1..])
            .args(["--initialize-insecure", "--innodb-flush-method=nosync"])
            .arg(format!("--datadir={}", place.data().display()))
            .arg(format!("--init-file={}", file.display()));
        run(&mut install, "").unwrap_or_else(|error| panic!("{error}"));
    }

    fn command_line(
        &self,
        place: &Place,
        tls: bool,
        settings: &[(String, String)],
    ) -> Vec<OsString> {
        let mut words = self.server();
        words.extend(options(place));
        words.extend(if tls { tls_options(place) } else { vec!["--tls-version=".into()] });
        words.extend(settings.iter().map(|(name, value)| format!("--{name}={value}").into()));
        words
    }

    fn is_ready(&self, place: &Place, _process: u32) -> bool {
        greets(place)
    }

    fn stop_signal(&self) -> &'static str {
        "TERM"
    }

    fn client(&self, place: &Place, database: &str) -> Command {
        let words = self.program("usr/bin/mysql");
        let mut client = place.command(&words[0]);
        client.args(&words[1..]);
        client_options(&mut client, place, database);
        client
    }

    fn table(&self, output: &str) -> Table {
        table(output)
    }

    fn count_sessions(&self, of: &str, running: bool) -> String {
        count_sessions(of, running)
    }
}
