//! A cluster in a document.
//!
//! Owns the form of the document, and that everything wrong with it is found.
//! Shows no value that is not a setting's, for it may be a URL with a password.

use millpond_driver::Role;
use millpond_driver::url::nearest;
use serde::de::{Deserialize, Deserializer, Error as _};

use super::config::{Choice, ClusterConfig, NodeConfig, Settings};
use super::node::{check_weight, refuse};
use crate::config::document::{self, Node};
use crate::config::text::{self, Setting};
use crate::config::{PoolConfig, Unset, fault, url};
use crate::drivers::{self, Any};

/// The fields of a document.
const FIELDS: [&str; 8] = [
    "nodes",
    "url",
    "pool",
    "acquire_timeout",
    "max_lag",
    "strategy",
    "probe_interval",
    "probe_timeout",
];

impl<'de> Deserialize<'de> for ClusterConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Node::Map(fields) = Node::deserialize(deserializer)? else {
            return Err(D::Error::custom(
                "invalid cluster: must be a map with the nodes or the url of a cluster",
            ));
        };
        let mut faults = Vec::new();
        let config = read(&fields, &mut faults);
        refuse(&faults).map_err(D::Error::custom)?;
        Ok(config)
    }
}

/// The cluster that these fields describe, every fault noted.
fn read(fields: &[(String, Node)], faults: &mut Vec<String>) -> ClusterConfig {
    let mut settings = Settings::default();
    let (mut nodes, mut url, mut pool) = (None, None, None);
    for (n, (name, node)) in fields.iter().enumerate() {
        if fields[..n].iter().any(|(earlier, _)| earlier == name) {
            faults.push(format!("{name}: is given twice"));
            continue;
        }
        match name.as_str() {
            "nodes" => nodes = Some(node),
            "url" => url = Some(node),
            "pool" => pool = Some(node),
            _ => match set(&mut settings, name, node) {
                Ok(()) => {}
                Err(Unset::Not(form)) => faults.push(fault(name, node, form)),
                Err(Unset::NoSuchName) => faults.push(unknown(name)),
            },
        }
    }
    let pool = pool.map_or_else(PoolConfig::new, |pool| pool_of(pool, faults));
    match (nodes, url) {
        (Some(_), Some(_)) => faults.push("nodes, url: must not be given both".to_owned()),
        (None, None) => faults.push("nodes: is missing; or url, if one names all nodes".to_owned()),
        (None, Some(Node::Text(url))) => {
            return ClusterConfig::on(url, settings, pool, "url: ", faults);
        }
        (None, Some(_)) => faults.push("url: must be text".to_owned()),
        (Some(nodes), None) => {
            settings.check(faults);
            let pool = settings.complete(pool);
            let nodes = all(nodes, &pool, faults);
            return ClusterConfig { nodes, settings: settings.with_deadline_of(&pool) };
        }
    }
    settings.check(faults);
    ClusterConfig { nodes: Vec::new(), settings }
}

/// Makes the setting `name` of a cluster.
fn set(settings: &mut Settings, name: &str, node: &Node) -> Result<(), Unset> {
    match (name, node) {
        ("strategy", Node::Text(name)) => settings.strategy = Some(text::read(name)?),
        ("strategy", _) => return Err(Unset::Not(Choice::FORM)),
        ("acquire_timeout", node) => settings.acquire_timeout = Some(document::read(node)?),
        ("max_lag", node) => settings.max_lag = Some(document::read(node)?),
        ("probe_interval", node) => settings.probe_interval = Some(document::read(node)?),
        ("probe_timeout", node) => settings.probe_timeout = Some(document::read(node)?),
        _ => return Err(Unset::NoSuchName),
    }
    Ok(())
}

/// What is said of a field that is not known. Its value may be a password.
fn unknown(name: &str) -> String {
    if PoolConfig::SETTINGS.contains(&name) {
        return format!("{name}: is a setting of pools, and belongs into pool");
    }
    match nearest(name, &FIELDS) {
        Some(meant) => format!("{name}: is not a setting; did you mean {meant}?"),
        None => format!("{name}: is not a setting"),
    }
}

/// The settings of all pools.
fn pool_of(node: &Node, faults: &mut Vec<String>) -> PoolConfig {
    let Node::Map(fields) = node else {
        faults.push("pool: must be a map of settings".to_owned());
        return PoolConfig::new();
    };
    let mut wrong = Vec::new();
    let pool = PoolConfig::from_fields(fields, &mut [], &mut wrong);
    faults.extend(wrong.iter().map(|fault| format!("pool.{fault}")));
    // What is wrong already contradicts nothing.
    if wrong.is_empty() { pool } else { PoolConfig::new() }
}

/// The nodes of a document.
fn all(nodes: &Node, pool: &PoolConfig, faults: &mut Vec<String>) -> Vec<NodeConfig> {
    let Node::Map(nodes) = nodes else {
        faults.push("nodes: must be a map from names to nodes".to_owned());
        return Vec::new();
    };
    if nodes.is_empty() {
        faults.push("nodes: there must be at least one".to_owned());
    }
    let of_pool = pool.contradictions();
    let mut known = Vec::new();
    let mut read = Vec::new();
    for (n, (name, node)) in nodes.iter().enumerate() {
        if name.is_empty() {
            faults.push("nodes: a name must not be empty".to_owned());
        }
        if nodes[..n].iter().any(|(earlier, _)| earlier == name) {
            faults.push(format!("nodes.{name}: is given twice"));
        }
        let mut wrong = Vec::new();
        if let Some(one) = one(name, node, &mut known, &mut wrong) {
            let one = NodeConfig { pool: one.pool.or(pool.clone()), ..one };
            if wrong.is_empty() {
                // Those of all nodes are told once.
                let own = one.pool.contradictions().into_iter();
                wrong.extend(
                    own.filter(|fault| !of_pool.contains(fault)).map(|it| format!(".{it}")),
                );
            }
            read.push(one);
        }
        faults.extend(wrong.iter().map(|fault| format!("nodes.{name}{fault}")));
    }
    let shared =
        |fault: &&String| read.iter().any(|node| node.pool.contradictions().contains(fault));
    faults.extend(of_pool.iter().filter(shared).map(|fault| format!("pool.{fault}")));
    read
}

/// One node, every fault noted, each with what divides it from the name. `known`:
/// the databases of the URLs before it.
fn one(
    name: &str,
    node: &Node,
    known: &mut Vec<(String, Any)>,
    faults: &mut Vec<String>,
) -> Option<NodeConfig> {
    let mut others = [("url", None), ("weight", None), ("role", None)];
    let mut wrong = Vec::new();
    let (url, pool) = match node {
        Node::Text(url) => (Some(url), PoolConfig::new()),
        Node::Map(fields) => {
            let pool = PoolConfig::from_fields(fields, &mut others, &mut wrong);
            let url = match others[0].1 {
                Some(Node::Text(url)) => Some(url),
                Some(_) => {
                    wrong.push("url: must be text".to_owned());
                    None
                }
                None => {
                    wrong.push("url: is missing".to_owned());
                    None
                }
            };
            (url, pool)
        }
        _ => {
            faults.push(": must be a URL, or a map with a url".to_owned());
            return None;
        }
    };
    let weight = match others[1].1 {
        None => 1.0,
        Some(Node::Whole(weight)) => *weight as f64,
        Some(Node::Float(weight)) => *weight,
        Some(other) => {
            wrong.push(fault("weight", other, "a number from 0.001 to 1000"));
            1.0
        }
    };
    let role = match others[2].1 {
        None => None,
        Some(Node::Text(role)) if role == "primary" => Some(Role::Primary),
        Some(Node::Text(role)) if role == "replica" => Some(Role::Replica),
        Some(other) => {
            wrong.push(fault("role", other, "primary or replica"));
            None
        }
    };
    faults.extend(wrong.iter().map(|fault| format!(".{fault}")));
    check_weight("", weight, faults);

    let mut in_url = Vec::new();
    let (pool_of_url, url) = url::take(url?, &mut in_url);
    let same = known.iter().find(|(other, _)| *other == url).map(|(_, driver)| driver.clone());
    let driver = match same {
        Some(driver) => Some(driver),
        None => match drivers::node(&url) {
            Ok(driver) => {
                known.push((url, driver.clone()));
                Some(driver)
            }
            Err(wrong) => {
                in_url.extend(wrong.into_iter().map(|it| url::hint(&url, it).to_string()));
                None
            }
        },
    };
    faults.extend(in_url.iter().map(|fault| format!(".url: {fault}")));
    let node = NodeConfig::new(name, driver?, pool.or(pool_of_url));
    Some(NodeConfig { weight, role, ..node })
}
