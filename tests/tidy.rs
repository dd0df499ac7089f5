//! Holds the house rules that no compiler knows: who may name what, where the
//! clock may be read, and that the documents agree with the code.
//!
//! Reads the repository's own files as text. Does not know what the code does,
//! and needs nothing but the standard library.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn only_the_drivers_module_names_a_database() {
    const DATABASES: &[&str] = &["postgres", "libpq", "mysql", "mariadb", "sqlite"];
    let mut broken = Vec::new();
    for file in sources(&["src"]) {
        if file.within("src/drivers") {
            continue;
        }
        for (number, line) in file.without_comments().lines().enumerate() {
            let line = line.to_ascii_lowercase();
            for name in DATABASES.iter().filter(|name| line.contains(*name)) {
                broken.push(format!("{}:{}: {name}", file.path, number + 1));
            }
        }
    }
    none(broken, "names a database; only src/drivers.rs and src/drivers/ may");
}

/// `observers -> balance -> pool -> {health, retry, metrics}`: a module sees what is below
/// it, never what is beside or above it.
#[test]
fn imports_between_pool_and_policies_go_down() {
    const LAYERS: &[(&str, &[&str])] = &[
        ("balance", &["observers"]),
        ("pool", &["balance", "observers"]),
        ("health", &["balance", "observers", "pool", "retry", "metrics"]),
        ("retry", &["balance", "observers", "pool", "health", "metrics"]),
        ("metrics", &["balance", "observers", "pool", "health", "retry"]),
    ];
    let mut broken = Vec::new();
    for (module, forbidden) in LAYERS {
        for file in sources(&["src"]).iter().filter(|file| file.within(&format!("src/{module}"))) {
            for named in crate_modules(&file.code()) {
                if forbidden.contains(&named.as_str()) {
                    broken.push(format!("{}: {module} imports {named}", file.path));
                }
            }
        }
    }
    none(
        broken,
        "goes against the arrows observers -> balance -> pool -> {health, retry, metrics}",
    );
}

#[test]
fn drivers_do_not_depend_on_the_pool() {
    let mut broken = Vec::new();
    for folder in driver_folders().into_iter().chain(["driver".to_owned()]) {
        for dependency in dependencies(&read(&format!("drivers/{folder}/Cargo.toml"))) {
            let ours = dependency.name.starts_with("millpond");
            if dependency.name == "millpond" || (folder == "driver" && ours) {
                broken.push(format!("drivers/{folder} depends on {}", dependency.name));
            }
        }
    }
    none(broken, "breaks the arrow driver <- {a database} <- millpond");
}

#[test]
fn a_driver_has_one_name_as_folder_crate_and_feature() {
    let features = features();
    for folder in driver_folders() {
        let manifest = read(&format!("drivers/{folder}/Cargo.toml"));
        assert!(
            manifest.lines().any(|line| line == format!("name = \"millpond-{folder}\"")),
            "drivers/{folder} holds another crate than millpond-{folder}"
        );
        let brings = features.get(&folder).unwrap_or_else(|| panic!("no feature {folder}"));
        let through = brings.iter().filter_map(|name| features.get(name)).flatten();
        assert!(
            brings.iter().chain(through).any(|item| *item == format!("dep:millpond-{folder}")),
            "feature {folder} does not bring millpond-{folder}"
        );
    }
}

#[test]
fn clocks_threads_and_tasks_belong_to_the_runtime() {
    const BANNED: &[&str] = &[
        "Instant::now",
        "SystemTime::now",
        "thread::sleep",
        "thread::spawn",
        "tokio::spawn",
        "tokio::time",
        "async_std::task",
        "smol::spawn",
        "smol::Timer",
        "Timer::after",
    ];
    let mut broken = Vec::new();
    for file in sources(&["src", "drivers"]) {
        // Tests of drivers bring a small runtime of their own.
        let of_a_driver = file.path.starts_with("drivers/") && file.path.contains("/tests/");
        // A test from its first line to its last.
        let histories = file.within("src/pool/histories");
        if file.within("src/runtime") || file.within("src/testing/sim") || of_a_driver || histories
        {
            continue;
        }
        for call in BANNED.iter().filter(|call| file.code().contains(*call)) {
            broken.push(format!("{}: {call}", file.path));
        }
    }
    none(broken, "asks another than the Runtime; the simulator could not stand in for it");
}

/// loom replaces what `src/sync.rs` exports, and nothing else.
#[test]
fn the_pool_takes_locks_and_atomics_from_sync() {
    let mut broken = Vec::new();
    for file in sources(&["src"]) {
        if !file.within("src/pool") {
            continue;
        }
        for line in file.code().lines() {
            let std_sync = line.contains("std::sync") || line.contains("core::sync");
            let replaced = ["atomic", "Mutex", "RwLock", "Condvar"];
            if word(line, "loom") || (std_sync && replaced.iter().any(|name| line.contains(name))) {
                broken.push(format!("{}: {}", file.path, line.trim()));
            }
        }
    }
    none(broken, "belongs into src/sync.rs");
}

#[test]
fn nothing_in_the_pool_depends_on_the_order_of_a_hash_map() {
    let broken = sources(&["src"])
        .into_iter()
        .filter(|file| file.within("src/pool"))
        .filter(|file| word(&file.code(), "HashMap") || word(&file.code(), "HashSet"))
        .map(|file| file.path)
        .collect();
    none(broken, "uses a hash map, whose order would break the replay of a seed");
}

#[test]
fn unsafe_code_lives_in_the_slots_alone() {
    let broken = sources(&["src", "drivers"])
        .into_iter()
        .filter(|file| file.path != "src/pool/slots.rs" && word(&file.code(), "unsafe"))
        .map(|file| file.path)
        .collect();
    none(broken, "has unsafe code");
}

#[test]
fn every_file_begins_with_what_it_owns() {
    let broken = sources(&["src", "drivers", "tests", "examples"])
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    none(broken, "does not begin with a `//!` line");
}

#[test]
fn no_file_is_longer_than_a_reader_likes() {
    const MOST: usize = 500;
    /// Longer ones, each with its reason.
    const EXEMPT: &[(&str, &str)] =
        &[("drivers/driver/src/driver.rs", "the contract is read in one place")];
    let mut broken = Vec::new();
    for file in sources(&["src", "drivers"]) {
        let lines = file.before_tests().lines().count();
        let exempt = EXEMPT.iter().any(|(path, _)| *path == file.path);
        if lines > MOST && !exempt {
            broken.push(format!("{}: {lines} lines", file.path));
        }
        if lines <= MOST && exempt {
            broken.push(format!("{}: {lines} lines, yet exempt", file.path));
        }
    }
    none(broken, &format!("is over {MOST} lines before its tests: split it by idea"));
}

#[test]
fn modules_lie_beside_their_folders() {
    let broken = sources(&["src", "drivers", "tests", "examples"])
        .into_iter()
        .filter(|file| file.path.ends_with("/mod.rs"))
        .map(|file| file.path)
        .collect();
    none(broken, "is a mod.rs; name it after its folder");
}

#[test]
fn nothing_is_left_for_later() {
    const CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
    // In two parts, or this line would be a find.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut broken = Vec::new();
    for file in sources(&["src", "drivers", "tests", "examples"]) {
        let code = file.without_strings();
        let found = CODE.iter().filter(|mark| code.contains(*mark));
        broken.extend(found.map(|mark| format!("{}: {mark}", file.path)));
        let found = marks.iter().filter(|mark| word(&file.text, mark));
        broken.extend(found.map(|mark| format!("{}: {mark}", file.path)));
    }
    none(broken, "is unfinished; finish it or open an issue");
}

#[test]
fn tests_are_named_as_claims() {
    let prefix = concat!("fn te", "st_");
    let broken = sources(&["src", "drivers", "tests", "examples"])
        .into_iter()
        .filter(|file| file.without_strings().contains(prefix))
        .map(|file| file.path)
        .collect();
    none(broken, "has a function with the prefix `test_`; name the claim");
}

#[test]
fn every_dependency_has_a_reason() {
    let manifests = driver_folders()
        .into_iter()
        .map(|folder| format!("drivers/{folder}/Cargo.toml"))
        .chain(["Cargo.toml".to_owned(), "drivers/driver/Cargo.toml".to_owned()]);
    let mut broken = Vec::new();
    for path in manifests {
        for dependency in dependencies(&read(&path)) {
            if !dependency.reason {
                broken.push(format!("{path}: {}", dependency.name));
            }
        }
    }
    none(broken, "has no `#` beside or above it that says why");
}

#[test]
fn ci_runs_the_test_script_and_nothing_else() {
    let text = read(".ci/run");
    let commands: Vec<_> = shell_lines(&text).filter(|line| *line != "set -euo pipefail").collect();
    assert_eq!(commands, [r#"exec "$(dirname "$0")/../scripts/test""#]);
}

/// A script proves something, and then it is a stage and a job; or it brings
/// what another one needs; or it takes its time and is run by hand.
#[test]
fn every_script_is_a_stage_and_a_job() {
    const BRING: [&str; 2] = ["servers", "mysql-server"];
    const BY_HAND: [&str; 2] = ["promtool", "soak"];
    let stages = read("scripts/test");
    let stages = stages.lines().find_map(|line| line.strip_prefix("stages='")).expect("stages");
    let stages: BTreeSet<_> = stages.trim_end_matches('\'').split(' ').collect();
    let workflow = workflow_commands();
    for path in files_in("scripts", "") {
        let name = path.strip_prefix("scripts/").expect("in scripts/");
        if ["lib", "test", "boundary.txt"].contains(&name) {
            continue;
        }
        if BRING.contains(&name) {
            assert!(read("scripts/matrix").contains(&path), "scripts/matrix does not name {path}");
            continue;
        }
        if BY_HAND.contains(&name) {
            assert!(
                read("CONTRIBUTING.md").contains(&path),
                "CONTRIBUTING.md does not name {path}"
            );
            continue;
        }
        assert!(stages.contains(name), "scripts/test does not run {path}");
        assert!(
            workflow.iter().any(|command| command.split(' ').any(|part| part == path)),
            "no job of ci.yml runs {path}"
        );
        let text = read(&path);
        assert!(text.starts_with("#!/bin/sh\n# Proves "), "{path} does not say what it proves");
    }
}

#[test]
fn the_last_job_waits_for_all_others() {
    let text = read(".github/workflows/ci.yml");
    let (_, jobs) = text.split_once("\njobs:\n").expect("jobs");
    let names: Vec<_> = jobs
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.trim().strip_suffix(':'))
        .collect();
    let (last, others) = names.split_last().expect("a job");
    assert_eq!(*last, "all-green");
    let needs =
        jobs.rsplit("needs: [").next().and_then(|rest| rest.split_once(']')).expect("needs");
    let needs: Vec<_> = needs.0.split(',').map(str::trim).collect();
    assert_eq!(needs, others);
}

#[test]
fn every_test_that_the_mistakes_name_exists() {
    let files = sources(&["src", "tests", "drivers", "integrations"]);
    let text = read("docs/mistakes.md");
    let named = text.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() > 2);
    let missing = named.filter(|name| {
        let function = format!("fn {name}");
        !files.iter().any(|file| file.text.contains(&function))
    });
    none(missing.map(str::to_owned).collect(), "is named in docs/mistakes.md and not there");
}

#[test]
fn the_oldest_rust_is_the_same_everywhere() {
    let msrv = msrv();
    let workflow = read(".github/workflows/ci.yml");
    assert!(workflow.contains(&format!("cargo +{msrv} check")), "ci.yml checks another Rust");
    assert!(read("README.md").contains(&format!("Rust {msrv}")), "README.md names another Rust");
}

#[test]
fn the_readme_shows_how_to_test() {
    assert!(read("README.md").contains("scripts/test"));
}

#[test]
fn the_matrix_lists_each_feature_with_what_it_brings() {
    let features = features();
    let table = table_under("## Features");
    let rows: BTreeSet<_> = table.rows.iter().map(|row| bare(&row[0])).collect();
    assert_eq!(rows, features.keys().cloned().collect(), "features of Cargo.toml and their rows");
    for row in &table.rows {
        let listed: BTreeSet<_> = quoted(&row[table.column("brings")]).collect();
        let actual: BTreeSet<_> = features[&bare(&row[0])]
            .iter()
            .filter_map(|item| item.strip_prefix("dep:"))
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, actual, "what feature {} brings", row[0]);
        assert_eq!(row[table.column("oldest Rust")], msrv(), "oldest Rust of feature {}", row[0]);
    }
}

#[test]
fn the_matrix_pairs_each_driver_with_each_runtime() {
    let table = table_under("## Drivers and runtimes");
    let runtimes: BTreeSet<_> = table.columns[1..].iter().map(|column| bare(column)).collect();
    assert_eq!(runtimes, runtime_features(), "runtimes in src/runtime/ and columns");
    rows_are_the_drivers(&table);

    let script = read("scripts/matrix");
    let run: BTreeSet<_> = shell_lines(&script)
        .filter(|line| line.starts_with("pair ") && !line.contains('$'))
        .map(str::to_owned)
        .collect();
    let mut promised = BTreeSet::new();
    for row in &table.rows {
        for (column, cell) in table.columns.iter().zip(row).skip(1) {
            if cell.starts_with("tested") {
                let line = format!("pair {} {}", bare(&row[0]), bare(column));
                assert!(quoted(cell).eq([line.clone()]), "{}: `{cell}`, not `{line}`", row[0]);
                promised.insert(line);
            }
        }
    }
    assert_eq!(promised, run, "pairs tested by feature-matrix.md and run by scripts/matrix");
}

#[test]
fn the_matrix_knows_four_words_and_names_the_line_that_tests() {
    let matrix = read("scripts/matrix");
    let mut lines: BTreeSet<_> = shell_lines(&matrix).map(str::to_owned).collect();
    lines.extend(workflow_commands());
    rows_are_the_drivers(&table_under("## Drivers and abilities"));
    for heading in ["## Drivers and runtimes", "## Drivers and abilities"] {
        for row in table_under(heading).rows {
            for cell in &row[1..] {
                let (state, rest) = cell.split_once(' ').unwrap_or((cell, ""));
                match state {
                    "tested" => {
                        let named: Vec<_> = quoted(rest).collect();
                        assert!(!named.is_empty(), "{}: `{cell}` names no line", row[0]);
                        for line in named {
                            assert!(lines.contains(&line), "{}: no CI line `{line}`", row[0]);
                        }
                    }
                    "builds" | "no" | "planned" => assert_eq!(rest, "", "{}: `{cell}`", row[0]),
                    _ => panic!("{}: `{cell}` is not tested, builds, no or planned", row[0]),
                }
            }
        }
    }
}

/// An invariant without a check is a wish.
#[test]
fn each_invariant_is_held_by_something_that_exists() {
    let text = read("ARCHITECTURE.md");
    let code: String =
        sources(&["src", "drivers", "tests"]).iter().map(Source::without_strings).collect();
    let mut expected = 1;
    for paragraph in text.split("\n\n") {
        let start = paragraph.trim_start_matches(['*', '-', '#', ' ', '\n']);
        let Some((number, _)) = start.strip_prefix('I').and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else { continue };
        assert_eq!(number, expected, "the invariants are numbered from 1 without a gap");
        expected += 1;
        let holder = paragraph.split_once("Held by");
        let (_, holders) = holder.unwrap_or_else(|| panic!("I{number} says not what holds it"));
        let named: Vec<_> = quoted(&holders.replace('\n', " ")).collect();
        assert!(!named.is_empty(), "I{number} names no test, function or file in backticks");
        for name in named {
            let last = name.rsplit("::").next().expect("a name").trim_end_matches("()");
            let exists = if name.contains('/') {
                root().join(&name).exists()
            } else {
                ["fn", "struct", "trait", "enum", "mod"]
                    .iter()
                    .any(|item| word(&code, &format!("{item} {last}")))
            };
            assert!(exists, "I{number} is held by `{name}`, which does not exist");
        }
    }
    assert!(expected > 1, "ARCHITECTURE.md has no paragraph that begins with `I1.`");
}

#[test]
fn no_document_is_missing() {
    for path in [
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "drivers/driver/CHANGELOG.md",
    ] {
        assert!(!read(path).trim().is_empty(), "{path} is empty");
    }
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let text = concat!(
        "a // b \" c\n",
        "/* d /* e */ f */ g('\"', 'h', '\\'') \"i // j \\\" k\" l\n",
        "r#\"m \" n\"# 'life o\n",
    );
    let words = |text: &str| {
        text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect::<String>()
    };
    assert_eq!(words(&blank(text, false)), "aghijklrmnlifeo");
    assert_eq!(words(&blank(text, true)), "agllifeo");
    assert_eq!(blank(text, true).lines().count(), 3);
}

#[test]
fn modules_are_found_in_grouped_imports() {
    let code = "use crate::{pool::Pool, health}; use super::retry::{self, x}; crate::metrics::y()";
    let found: Vec<_> = crate_modules(code).into_iter().collect();
    assert_eq!(found, ["health", "metrics", "pool", "retry"]);
}

/// A Rust file, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Whether this is `module.rs` or in the folder `module/`.
    fn within(&self, module: &str) -> bool {
        self.path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    fn before_tests(&self) -> &str {
        match self.text.find("#[cfg(test)]\nmod ").or_else(|| self.text.find("#[cfg(all(test")) {
            Some(start) => &self.text[..start],
            None => &self.text,
        }
    }

    /// Code before the tests, without comments and the contents of strings.
    fn code(&self) -> String {
        blank(self.before_tests(), true)
    }

    fn without_comments(&self) -> String {
        blank(&self.text, false)
    }

    fn without_strings(&self) -> String {
        blank(&self.text, true)
    }
}

/// `text` with comments, and on request the contents of strings and characters,
/// replaced by spaces. Lines stay where they are.
fn blank(text: &str, strings: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let (length, erase) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true)
        } else if rest.starts_with("/*") {
            (block_comment(rest), true)
        } else if let Some(length) = string(rest, at > 0 && is_word(bytes[at - 1])) {
            (length, strings)
        } else {
            (rest.chars().next().map_or(1, char::len_utf8), false)
        };
        if erase {
            for byte in &mut out[at..at + length] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at += length;
    }
    String::from_utf8(out).expect("whole characters are replaced by spaces")
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string or character literal that `text` begins with.
fn string(text: &str, inside_word: bool) -> Option<usize> {
    if text.starts_with('r') && !inside_word {
        let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
        if text[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            return Some(text[body..].find(&end).map_or(text.len(), |at| body + at + end.len()));
        }
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    // A lifetime has no closing quote one character on.
    if quote == '\'' && !text[1..].starts_with('\\') && text[1..].chars().nth(1) != Some('\'') {
        return None;
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The modules that follow `crate::` or `super::`, in groups as well.
fn crate_modules(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            match rest.strip_prefix('{') {
                None => found.insert(first_word(rest)),
                Some(group) => {
                    let mut depth = 0;
                    let mut item = String::new();
                    for c in group.chars() {
                        match c {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => {
                                found.insert(first_word(&std::mem::take(&mut item)));
                                continue;
                            }
                            _ => {}
                        }
                        item.push(c);
                    }
                    found.insert(first_word(&item))
                }
            };
        }
    }
    found.remove("");
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `text` has `wanted` as a whole word.
fn word(text: &str, wanted: &str) -> bool {
    let bytes = text.as_bytes();
    text.match_indices(wanted).any(|(at, _)| {
        let end = at + wanted.len();
        (at == 0 || !is_word(bytes[at - 1])) && (end == bytes.len() || !is_word(bytes[end]))
    })
}

#[track_caller]
fn none(broken: Vec<String>, what: &str) {
    assert!(broken.is_empty(), "{what}:\n  {}", broken.join("\n  "));
}

fn root() -> PathBuf {
    // Without cargo, the folder it would have been run in.
    option_env!("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Rust files under `folders`, or nothing but a failure.
#[track_caller]
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        paths.extend(files_in(folder, ".rs"));
    }
    assert!(!paths.is_empty(), "no file in {folders:?}");
    paths.into_iter().map(|path| Source { text: read(&path), path }).collect()
}

/// The files under `folder` that end in `ending`, by their paths from the root.
fn files_in(folder: &str, ending: &str) -> Vec<String> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}")) {
            let path = entry.expect("a folder entry").path();
            if !path.is_dir() {
                files.push(path);
            } else if !path.ends_with("target") {
                walk(&path, files);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files);
    files.sort();
    files
        .iter()
        .map(|path| path.strip_prefix(root()).expect("under the root"))
        .map(|path| path.to_string_lossy().replace('\\', "/"))
        .filter(|path| path.ends_with(ending))
        .collect()
}

fn driver_folders() -> BTreeSet<String> {
    fs::read_dir(root().join("drivers"))
        .expect("drivers/")
        .map(|entry| entry.expect("a folder entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "driver")
        .collect()
}

/// The runtime adapters, one file each, by the name of their feature.
fn runtime_features() -> BTreeSet<String> {
    let features = features();
    files_in("src/runtime", ".rs")
        .iter()
        .filter_map(|path| path.strip_prefix("src/runtime/")?.strip_suffix(".rs"))
        .map(|name| name.replace('_', "-"))
        .filter(|name| features.contains_key(name))
        .collect()
}

/// The features of the facade with what each switches on.
fn features() -> BTreeMap<String, Vec<String>> {
    let text = read("Cargo.toml");
    let (_, section) = text.split_once("\n[features]\n").expect("features");
    let section = section.split("\n[").next().expect("a section");
    let plain: String =
        section.lines().map(|line| line.split('#').next().expect("a part")).collect();
    plain
        .split_inclusive(']')
        .filter_map(|feature| feature.split_once('='))
        .map(|(name, list)| (name.trim().to_owned(), list.split('"')))
        .map(|(name, list)| (name, list.skip(1).step_by(2).map(str::to_owned).collect()))
        .filter(|(name, _)| name != "default")
        .collect()
}

fn msrv() -> String {
    let text = read("Cargo.toml");
    let line = text.lines().find_map(|line| line.strip_prefix("rust-version = \""));
    line.expect("rust-version").trim_end_matches('"').to_owned()
}

/// A dependency of a manifest, and whether a comment says why it is there.
struct Dependency {
    name: String,
    reason: bool,
}

/// Reads the dependency sections of a manifest. The reason stands on the line,
/// or above the group of lines without a blank one. `[workspace.dependencies]`
/// is left out: it holds versions, and the reason is where they are used.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    let mut section = Section::Other;
    let mut reason_above = false;
    for line in manifest.lines() {
        let (start, comment) = match line.split_once('#') {
            Some((start, _)) => (start.trim(), true),
            None => (line.trim(), false),
        };
        if start.starts_with('[') {
            let name = start.trim_matches(['[', ']']);
            let last = name.rsplit('.').next().expect("a part");
            section = if name.starts_with("workspace") {
                Section::Other
            } else if last.ends_with("dependencies") {
                Section::List
            } else if name.contains("dependencies.") {
                found.push(Dependency { name: last.to_owned(), reason: comment || reason_above });
                Section::One
            } else {
                Section::Other
            };
        } else if start.is_empty() {
            reason_above = comment;
        } else if section == Section::One {
            found.last_mut().expect("its header").reason |= comment || reason_above;
        } else if let (Section::List, Some((name, _))) = (&section, start.split_once('=')) {
            let name = name.trim().split('.').next().expect("a part").to_owned();
            found.push(Dependency { name, reason: comment || reason_above });
        }
    }
    found
}

#[derive(PartialEq)]
enum Section {
    List,
    One,
    Other,
}

/// The lines of a script that do something.
fn shell_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What the public workflow runs, one-line steps only.
fn workflow_commands() -> BTreeSet<String> {
    read(".github/workflows/ci.yml")
        .lines()
        .map(|line| line.trim().trim_start_matches("- "))
        .filter_map(|line| line.strip_prefix("run: "))
        .map(str::to_owned)
        .collect()
}

struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    #[track_caller]
    fn column(&self, name: &str) -> usize {
        self.columns.iter().position(|column| column == name).expect("the column")
    }
}

/// The first table under a heading of feature-matrix.md.
#[track_caller]
fn table_under(heading: &str) -> Table {
    let text = read("feature-matrix.md");
    let (_, section) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("feature-matrix.md has no heading {heading}"));
    let cells = |line: &str| {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let columns: Vec<String> = cells(lines.next().expect("a table"));
    let rows: Vec<Vec<String>> = lines.skip(1).map(cells).collect();
    assert!(!rows.is_empty() && rows.iter().all(|row| row.len() == columns.len()), "{heading}");
    Table { columns, rows }
}

/// A driver is *planned* until it has a folder.
#[track_caller]
fn rows_are_the_drivers(table: &Table) {
    let mut folders = driver_folders();
    for row in &table.rows {
        let there = folders.remove(&bare(&row[0]));
        let planned = row[1..].iter().all(|cell| cell == "planned");
        assert!(there != planned, "{}: a driver is planned until drivers/ has its folder", row[0]);
    }
    assert!(folders.is_empty(), "drivers without a row: {folders:?}");
}

fn bare(cell: &str) -> String {
    cell.replace('`', "")
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}
