//! Keeps what a new server begins with, because making it takes seconds.
//!
//! Decides where it is kept and when it fits. Does not know how it is made; the
//! engine does.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::Engine;
use crate::place::{Place, run};
use crate::tls;

/// Fills the folder of a new server: from the template if there is one, else by
/// making everything, and a template of it.
pub(crate) fn furnish(place: &Place, engine: &dyn Engine) {
    let template = path(place, engine);
    if template.is_dir() {
        copy(&template, &place.folder).unwrap_or_else(|error| panic!("{error}"));
    } else {
        tls::make(place);
        engine.install(place);
        if let Err(error) = publish(&place.folder, &template) {
            eprintln!("no template for the next {} server: {error}", engine.name());
        }
    }
}

/// Several processes may do this at once: each makes a copy of its own, and the
/// first to rename it wins.
fn publish(folder: &Path, template: &Path) -> Result<(), String> {
    // The name of the folder is nobody else's.
    let own = template.with_file_name(folder.file_name().expect("a name"));
    let shelf = template.parent().expect("under the target folder");
    let made = fs::create_dir_all(shelf)
        .and_then(|()| fs::create_dir(&own))
        .map_err(|error| error.to_string())
        .and_then(|()| copy(folder, &own));
    let renamed = made.and_then(|()| fs::rename(&own, template).map_err(|error| error.to_string()));
    if renamed.is_err() {
        drop(fs::remove_dir_all(&own));
    }
    if template.is_dir() { Ok(()) } else { renamed }
}

/// Copies what is in `from`, with its owners and permissions.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    run(Command::new("cp").arg("-Rp").arg(from.join(".")).arg(to), "").map(drop)
}

/// Where the template is, keyed by all that it depends on.
fn path(place: &Place, engine: &dyn Engine) -> PathBuf {
    let mut key = DefaultHasher::new();
    (engine.version(), engine.recipe(), include_str!("tls.rs"), place.owner()).hash(&mut key);
    shelf().join(format!("{}-{:016x}", engine.name(), key.finish()))
}

/// A folder under cargo's target folder, which `cargo clean` empties.
fn shelf() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    // Cargo marks its target folder with this file.
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.map_or_else(env::temp_dir, Path::to_path_buf).join("millpond-servers")
}
