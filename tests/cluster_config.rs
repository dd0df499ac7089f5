//! Clusters as they are written down, in a URL or a document: what each node
//! gets, and that everything wrong is said at once and shows no URL.

#[cfg(feature = "postgres")]
#[path = "support/still.rs"]
mod still;

use millpond::balance::Member;
use millpond::drivers::fake::Fake;
use millpond::testing::sim::Sim;
use millpond::{Cluster, ClusterConfig, ErrorKind, Pool, Role, Route};

const SCHEMES: &str = "known are postgres, postgresql, mysql, mariadb, sqlite";
const STRATEGIES: &str =
    "must be least_cost, least_connections, round_robin, two_choices or weighted_random";

/// What is said of a URL.
fn refused(url: &str) -> String {
    let error = ClusterConfig::from_url(url).expect_err(url);
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    let said = error.to_string();
    said.strip_prefix("invalid cluster: ").expect("what is invalid").to_owned()
}

// URLs, whatever they name.

#[test]
fn every_fault_of_a_url_is_named_at_once_and_the_url_is_not_shown() {
    assert_eq!(
        refused(
            "oracle://user:secret@a,b,c/d?strategy=best&max_lag=soon&probe_interval=0&colour=red\
             &max_open_conns=many&probe_timeout=1s&probe_timeout=2s"
        ),
        format!(
            "strategy = \"best\": {STRATEGIES}; \
             max_lag = \"soon\": must be a duration with units, as in 1h30m, 2.5s or 250ms, or 0; \
             probe_timeout: given twice in the URL; \
             max_open_conns = \"many\": must be a whole number; \
             unknown scheme \"oracle\": {SCHEMES}; \
             probe_interval = 0ns: must be from 1ms to 24h"
        )
    );
}

#[test]
fn settings_that_contradict_each_other_are_found() {
    let said = refused("oracle://a,b/d?max_open_conns=4&max_idle_conns=5&max_lag=0");
    assert_eq!(
        said,
        format!(
            "unknown scheme \"oracle\": {SCHEMES}; max_lag = 0ns: must be above 0; \
             max_idle_conns = 5: must not exceed max_open_conns (4)"
        )
    );
}

#[test]
fn what_is_no_url_is_answered_as_for_a_pool() {
    let said = refused("user:secret@a,b");
    assert_eq!(said, format!("unknown scheme \"user\": {SCHEMES}"));
    assert!(refused("data.db").starts_with("the URL has no scheme: "));
}

// Nodes that are one.

#[test]
fn nodes_that_are_all_one_server_serve_as_it_says_or_as_the_application_says() {
    Sim::new(1).run(async |sim| {
        let server = Fake::new();
        let pool = || Pool::builder(server.clone()).max_open_conns(2);
        let alike = Cluster::builder().node("a", pool()).node("b", pool()).node("c", pool());
        let cluster = alike.runtime(sim.clone()).build().await.unwrap();
        for route in [Route::Primary, Route::Replica, Route::Any] {
            cluster.query(route, "SELECT 1", &[]).await.unwrap();
        }
        cluster.close().await;

        let divided = Cluster::builder()
            .member(Member::new("writer", pool()).role(Role::Primary))
            .member(Member::new("reader", pool()).role(Role::Replica));
        let cluster = divided.runtime(sim).build().await.unwrap();
        let of = async |route| cluster.acquire(route).await.unwrap().pool_name().to_owned();
        assert_eq!(of(Route::Primary).await, "writer");
        assert_eq!(of(Route::Replica).await, "reader");
        cluster.execute("INSERT 1", &[]).await.unwrap();
        let reader = &mut cluster.acquire(Route::Replica).await.unwrap();
        assert!(reader.query("INSERT 1", &[]).await.unwrap_err().to_string().contains("read-only"));
    });
}

// URLs that name servers. Nobody connects to them.

#[cfg(feature = "postgres")]
mod servers {
    use super::*;

    /// The cluster of a URL, without anybody asking its nodes.
    fn lazy(url: &str) -> Cluster<millpond::drivers::Any> {
        let builder = ClusterConfig::from_url(url).expect(url).builder();
        builder.runtime(still::Still::new()).build_lazy().expect(url)
    }

    #[test]
    fn each_host_is_a_node_with_the_name_that_is_written() {
        for (url, expected) in [
            ("postgres://user:pw@a,b:5433,c/db?sslmode=prefer", &["a", "b:5433", "c"][..]),
            ("postgresql://a", &["a"]),
            (
                "postgres://u%40:p%2C,w@[::1]:7,[fe80::1],10.0.0.1/db",
                &["[::1]:7", "[fe80::1]", "10.0.0.1"],
            ),
            ("postgres://%2Frun%2Fpg,u/db", &["%2Frun%2Fpg", "u"]),
            ("postgres:///db?host=/run/pg", &["/run/pg"]),
            ("postgres:///db", &["localhost"]),
        ] {
            assert_eq!(ClusterConfig::from_url(url).expect(url).names(), expected, "{url}");
        }
    }

    #[test]
    fn settings_of_pools_are_those_of_each_node() {
        let cluster = lazy("postgres://u:secret@a,b/db?max_open_conns=8&max_idle_conns=2");
        for name in ["a", "b"] {
            let pool = cluster.pool(name).expect("a node");
            assert_eq!((pool.snapshot().max_open, pool.name()), (Some(8), name));
        }
        assert!(!format!("{cluster:?}").contains("secret"));
    }

    #[test]
    fn settings_of_the_cluster_are_taken_from_the_url() {
        let url = "postgres://u:secret@a/db?strategy=least_connections&max_lag=5s\
                   &acquire_timeout=250ms&probe_interval=9s&probe_timeout=700ms";
        let config = ClusterConfig::from_url(url).expect("a good URL");
        let shown = format!("{:?}", config.builder());
        for part in ["LeastConnections", "max_lag: Some(5s)", "interval: 9s", "timeout: 700ms"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // Of the pools, and of the cluster.
        assert_eq!(shown.matches("acquire_timeout: Some(250ms)").count(), 1, "{shown}");
        assert_eq!(shown.matches("acquire_timeout: 250ms").count(), 1, "{shown}");
        assert!(!format!("{config:?} {shown}").contains("secret"));
        for strategy in ["least_cost", "round_robin", "two_choices", "weighted_random"] {
            let url = format!("postgres://a/db?strategy={strategy}");
            let shown = format!("{:?}", ClusterConfig::from_url(&url).expect(&url).builder());
            assert!(shown.replace('_', "").to_lowercase().contains(&strategy.replace('_', "")));
        }
    }

    #[test]
    fn what_chooses_a_server_is_left_to_the_cluster() {
        for parameter in ["target_session_attrs=read-write", "load_balance_hosts=random"] {
            let name = parameter.split('=').next().expect("a name");
            assert_eq!(
                refused(&format!("postgres://u:secret@a,b/db?{parameter}")),
                format!(
                    "{name}: must be left out: a cluster finds out by itself which node is the \
                     primary, and callers say by a Route what they need"
                )
            );
        }
        let said = refused("postgres://u:secret@a,b/db?host=c&port=1,2");
        assert!(said.starts_with("host: must be left out: it would lead all 2 nodes"), "{said}");
        assert!(said.contains("; port: must not be a list: "), "{said}");
    }

    #[test]
    fn two_hosts_that_are_alike_are_one_too_many() {
        assert_eq!(
            refused("postgres://u:secret@a,b:1,a,b:1,a/db"),
            "a: is given twice; b:1: is given twice"
        );
    }

    #[test]
    fn what_is_wrong_with_all_nodes_is_said_once() {
        let said = refused("postgres://u:secret@a,b:x/db?sslmode=maybe");
        let port = "port: \"x\" is not a number from 1 to 65535";
        let mode =
            "sslmode: \"maybe\" is not one of disable, prefer, require, verify-ca, verify-full";
        assert_eq!(said, format!("{mode}; {port}"));
        let said = refused("postgres://u:secret@a,b/db?max_lagg=5s");
        assert!(said.ends_with("; of the cluster there is max_lag"), "{said}");
    }

    #[test]
    fn a_password_that_divides_the_url_is_not_shown() {
        for url in [
            "postgres://u:sec,ret/secret@a,b/db",
            "postgres://u:secret?x@a,b/db",
            "postgres://u:secret,secret/x@a/db",
            "postgres://secret,secret/x@a/db?sslmode=maybe",
            "postgres://u:secret@a,b/db?password=secret%2",
            "postgres://u:secret%@a,b/db",
            "postgres://u:secret@a,a/db",
        ] {
            refused(url);
        }
    }
}

#[cfg(feature = "mysql")]
#[test]
fn each_host_of_mysql_and_mariadb_is_a_node() {
    for scheme in ["mysql", "mariadb"] {
        let url = format!("{scheme}://u:p@a,b:3307,[::1]/db?max_open_conns=8");
        let config = ClusterConfig::from_url(&url).expect("a good URL");
        assert_eq!(config.names(), ["a", "b:3307", "[::1]"]);
        let said = refused(&format!("{scheme}://u:secret@a,b/db?socket=/run/mysqld.sock"));
        assert_eq!(said, "socket: must be left out: it would lead all 2 nodes to one place");
    }
}

// Documents.

#[cfg(feature = "serde")]
mod documents {
    use super::*;

    fn refuse(document: &str) -> String {
        let error = serde_json::from_str::<ClusterConfig>(document).expect_err(document);
        let said = error.to_string();
        assert!(!said.contains("secret"), "{said}");
        said.rsplit_once(" at line ").map_or(&*said, |(said, _)| said).to_owned()
    }

    #[test]
    fn every_fault_of_every_field_is_named_at_once() {
        let said = refuse(
            r#"{
                "nodes": {
                    "a": { "url": "oracle://user:secret@host?max_retries=x", "weight": 0,
                           "role": "leader", "max_open_conns": "x", "wait": 2 },
                    "b": "oracle://user:secret@host",
                    "c": { "weight": "2", "password": "secret" },
                    "d": { "url": 5 },
                    "e": ["x://user:secret@host"],
                    "b": "oracle://user:secret@one,two",
                    "": "oracle://user:secret@host"
                },
                "strategy": 5,
                "max_lag": "soon",
                "probe_interval": 0,
                "probe_timeuot": "1s",
                "max_open_conns": 8,
                "acquire_timeout": "1s",
                "acquire_timeout": "2s",
                "pool": { "max_idle_conn": 3, "reset": "all" }
            }"#,
        );
        let duration = "a duration: nanoseconds, or text with units as in 1h30m, 2.5s or 250ms";
        let whole = "must be a whole number, 0 or more";
        let scheme = format!("unknown scheme \"oracle\": {SCHEMES}");
        assert_eq!(
            said,
            format!(
                "invalid cluster: \
                 strategy = 5: {STRATEGIES}; \
                 max_lag = \"soon\": must be {duration}; \
                 probe_timeuot: is not a setting; did you mean probe_timeout?; \
                 max_open_conns: is a setting of pools, and belongs into pool; \
                 acquire_timeout: is given twice; \
                 pool.max_idle_conn: is not a setting; did you mean max_idle_conns?; \
                 pool.reset = \"all\": must be boundary or session; \
                 probe_interval = 0ns: must be from 1ms to 24h; \
                 nodes.a.max_open_conns = \"x\": {whole}; \
                 nodes.a.wait: is not a setting; \
                 nodes.a.role = \"leader\": must be primary or replica; \
                 nodes.a.weight = 0.0: must be from 0.001 to 1000; \
                 nodes.a.url: max_retries = \"x\": must be a whole number from 0 to 4294967295; \
                 nodes.a.url: {scheme}; \
                 nodes.b.url: {scheme}; \
                 nodes.c.password: is not a setting; \
                 nodes.c.url: is missing; \
                 nodes.c.weight = \"2\": must be a number from 0.001 to 1000; \
                 nodes.d.url: must be text; \
                 nodes.e: must be a URL, or a map with a url; \
                 nodes.b: is given twice; \
                 nodes.b.url: host: must be one, as a node is one server, and not 2; \
                 nodes: a name must not be empty; \
                 nodes..url: {scheme}"
            )
        );
    }

    #[test]
    fn a_document_names_its_nodes_in_one_of_two_ways() {
        let no = |rest: &str| format!("invalid cluster: {rest}");
        let both = r#"{ "nodes": { "a": "x://secret" }, "url": "x://secret" }"#;
        assert_eq!(refuse(both), no("nodes, url: must not be given both"));
        assert_eq!(refuse("{}"), no("nodes: is missing; or url, if one names all nodes"));
        assert_eq!(refuse(r#"{ "nodes": {} }"#), no("nodes: there must be at least one"));
        assert_eq!(
            refuse(r#"{ "nodes": ["x://secret"] }"#),
            no("nodes: must be a map from names to nodes")
        );
        assert_eq!(refuse(r#"{ "url": ["x://secret"] }"#), no("url: must be text"));
        assert_eq!(
            refuse(r#"{ "url": "oracle://secret", "pool": 5 }"#),
            no(&format!(
                "pool: must be a map of settings; url: unknown scheme \"oracle\": {SCHEMES}"
            ))
        );
        let map = no("must be a map with the nodes or the url of a cluster");
        for document in ["\"x://secret\"", "[]", "5", "null"] {
            assert_eq!(refuse(document), map);
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn what_a_node_sets_goes_before_its_url_and_that_before_what_all_have() {
        let config: ClusterConfig = toml::from_str(
            "strategy = 'round_robin'\n\
             max_lag = '5s'\n\
             acquire_timeout = '10s'\n\
             [pool]\n\
             max_open_conns = 3\n\
             [nodes]\n\
             b = 'postgres://u:secret@b/db'\n\
             c = 'postgres://u:secret@c/db?max_open_conns=5'\n\
             [nodes.a]\n\
             url = 'postgres://u:secret@a/db?max_open_conns=5'\n\
             max_open_conns = 7\n\
             acquire_timeout = '1s'\n\
             weight = 2\n\
             role = 'replica'",
        )
        .expect("nothing is wrong");
        let shown = format!("{:?}", config.builder());
        for part in ["RoundRobin", "max_lag: Some(5s)", "acquire_timeout: 10s", "weight: 2.0"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // Those of the pools: of `a` its own, of the others the cluster's.
        assert_eq!(shown.matches("acquire_timeout: Some(10s)").count(), 2, "{shown}");
        assert_eq!(shown.matches("acquire_timeout: Some(1s)").count(), 1, "{shown}");
        assert_eq!(shown.matches("role: Some(Replica)").count(), 1, "{shown}");
        for (name, most) in [("a", 7), ("b", 3), ("c", 5)] {
            assert!(config.names().contains(&name));
            assert_eq!(shown.matches(&format!("max_open_conns: Some({most})")).count(), 1);
        }
        assert!(!format!("{config:?} {shown}").contains("secret"));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn what_a_document_sets_goes_before_the_same_in_its_url() {
        let config: ClusterConfig = serde_json::from_str(
            r#"{ "url": "postgres://u:secret@a,b/db?max_open_conns=8&max_lag=1s&max_retries=1",
                 "pool": { "max_open_conns": 4, "acquire_timeout": "3s" }, "max_lag": "2s" }"#,
        )
        .expect("nothing is wrong");
        assert_eq!(config.names(), ["a", "b"]);
        let shown = format!("{:?}", config.builder());
        for (part, times) in [
            ("max_open_conns: Some(4)", 2),
            ("max_retries: Some(1)", 2),
            ("max_lag: Some(2s)", 1),
            ("acquire_timeout: 3s", 1),
        ] {
            assert_eq!(shown.matches(part).count(), times, "{part}: {shown}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn settings_that_contradict_each_other_are_found_where_they_meet() {
        let said = refuse(
            r#"{ "nodes": { "a": { "url": "postgres://a/db", "max_idle_conns": 9 },
                            "b": "postgres://b/db?max_open_conns=2",
                            "c": "postgres://c/db?target_session_attrs=any" },
                 "pool": { "max_open_conns": 4, "max_idle_conns": 4, "connect_concurrency": 0 } }"#,
        );
        assert_eq!(
            said,
            "invalid cluster: \
             nodes.a.max_idle_conns = 9: must not exceed max_open_conns (4); \
             nodes.b.max_idle_conns = 4: must not exceed max_open_conns (2); \
             nodes.c.url: target_session_attrs: must be left out: a cluster finds out by itself \
             which node is the primary, and callers say by a Route what they need; \
             pool.connect_concurrency = 0: must be at least 1"
        );
    }
}
