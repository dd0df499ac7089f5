//! A registry in a document.
//!
//! Owns the form of the document: names, and for each a URL among the settings.
//! Shows no value that is not a setting's, for it may be a URL with a password.

use serde::de::{Deserialize, Deserializer, Error as _};

use super::{Entry, PoolRegistry, refuse};
use crate::config::PoolConfig;
use crate::config::document::Node;

impl<'de> Deserialize<'de> for PoolRegistry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Node::Map(pools) = Node::deserialize(deserializer)? else {
            return Err(D::Error::custom(
                "invalid pool registry: must be a map from names to pools",
            ));
        };
        let registry = Self::new();
        let mut faults = Vec::new();
        for (name, pool) in pools {
            if let Some(entry) = entry(&name, &pool, &mut faults) {
                if registry.insert(name.clone(), entry).is_err() {
                    faults.push(format!("{name}: is given twice"));
                }
            }
        }
        refuse(&faults).map_err(D::Error::custom)?;
        Ok(registry)
    }
}

/// One pool, every fault noted with its name.
fn entry(name: &str, pool: &Node, faults: &mut Vec<String>) -> Option<Entry> {
    let Node::Map(fields) = pool else {
        faults.push(format!("{name}: must be a map with a url"));
        return None;
    };
    let mut others = [("url", None)];
    let mut wrong = Vec::new();
    let config = PoolConfig::from_fields(fields, &mut others, &mut wrong);
    let url = match others {
        [(_, Some(Node::Text(url)))] => Some(url),
        [(_, Some(_))] => {
            wrong.push("url: must be text".to_owned());
            None
        }
        [(_, None)] => {
            wrong.push("url: is missing".to_owned());
            None
        }
    };
    // What is wrong already contradicts nothing.
    let config = if wrong.is_empty() { config } else { PoolConfig::new() };
    faults.extend(wrong.iter().map(|fault| format!("{name}.{fault}")));
    Some(Entry::on(name, url?, config, faults))
}
