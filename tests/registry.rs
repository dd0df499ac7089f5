//! Named pools: made once, told apart, and ended together.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::poll;
use millpond::drivers::Any;
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::{JoinHandle, Sim};
use millpond::{Error, ErrorKind, Pool, PoolConfig, PoolRegistry, Result};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A registry with one pool, `main`, and what it counts and commands.
struct World {
    registry: Arc<PoolRegistry>,
    fake: Fake,
    /// How often the pool has been set up.
    made: Arc<AtomicUsize>,
}

impl World {
    fn new(sim: &Sim) -> Self {
        let world = Self { registry: Arc::default(), fake: Fake::new(), made: Arc::default() };
        let made = Arc::clone(&world.made);
        let (fake, sim) = (world.fake.clone(), sim.clone());
        let make = move || {
            made.fetch_add(1, Ordering::Relaxed);
            Ok(Pool::builder(Any::new(fake.clone())).runtime(sim.clone()))
        };
        world.registry.register("main", make).expect("a new name");
        world
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Callers beside the test, that ask for the pool.
    fn callers(&self, sim: &Sim, count: usize) -> Vec<JoinHandle<Result<Pool<Any>>>> {
        let caller = |_| {
            let registry = Arc::clone(&self.registry);
            sim.task(async move { registry.get("main").await })
        };
        (0..count).map(caller).collect()
    }
}

/// Adds a pool over this server.
fn add(registry: &PoolRegistry, name: &str, fake: &Fake, sim: &Sim) {
    let (fake, sim) = (fake.clone(), sim.clone());
    let make = move || Ok(Pool::builder(Any::new(fake.clone())).runtime(sim.clone()));
    registry.register(name, make).expect("a new name");
}

// Making.

#[test]
fn a_pool_bears_the_name_it_is_registered_under_unless_it_has_one() {
    Sim::new(1).run(async |sim| {
        let registry = PoolRegistry::new();
        for (name, own) in [("main", None), ("cache", Some("mine"))] {
            let sim = sim.clone();
            let make = move || {
                let builder = Pool::builder(Any::new(Fake::new())).runtime(sim.clone());
                Ok(match own {
                    Some(own) => builder.name(own),
                    None => builder,
                })
            };
            registry.register(name, make).unwrap();
        }
        assert_eq!(registry.get("main").await.unwrap().name(), "main");
        assert_eq!(registry.get("cache").await.unwrap().name(), "mine");
    });
}

#[test]
fn a_pool_is_made_once_however_many_ask() {
    for seed in 0..100 {
        Sim::new(seed).run(async |sim| {
            let world = World::new(&sim);
            world.fake.always_connect(Act::After(SECOND));
            for pool in join_all(world.callers(&sim, 30)).await {
                pool.expect("built").query("SELECT 1", &[]).await.expect("works");
            }
            let again = world.registry.get("main").await.expect("built");
            assert_eq!((world.made(), again.snapshot().open), (1, 1));
            assert_eq!(sim.elapsed(), SECOND);
        });
    }
}

#[test]
fn nothing_is_made_before_it_is_asked_for() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        add(&world.registry, "cache", &world.fake, &sim);
        assert_eq!(world.registry.names(), ["cache", "main"]);
        assert_eq!((world.made(), world.fake.counts().connects), (0, 0));
        world.registry.get("cache").await.expect("built");
        assert_eq!((world.made(), world.fake.counts().connects), (0, 1));
    });
}

#[test]
fn a_pool_that_takes_long_holds_up_no_other() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        let cache = Fake::new();
        add(&world.registry, "cache", &cache, &sim);
        world.fake.always_connect(Act::Hang);
        let mut hangs = pin!(world.registry.get("main"));
        assert!(poll!(&mut hangs).is_pending());
        world.registry.get("cache").await.expect("built");
        assert_eq!(sim.elapsed(), Duration::ZERO);
    });
}

/// A database that hangs would else cost each waiter the connect timeouts of
/// all before it.
#[test]
fn a_failure_is_shared_by_those_who_waited_and_not_kept() {
    for seed in 0..100 {
        Sim::new(seed).run(async |sim| {
            let world = World::new(&sim);
            world.fake.next_connects([Act::Hang]);
            let callers = world.callers(&sim, 10);
            for result in join_all(callers).await {
                assert_eq!(
                    result.expect_err("no answer").to_string(),
                    "pool \"main\": no answer from the database within 5s"
                );
            }
            assert_eq!((sim.elapsed(), world.made()), (SECOND * 5, 1));
            world.registry.get("main").await.expect("built by the next to ask");
            assert_eq!(world.made(), 2);
        });
    }
}

#[test]
fn what_keeps_a_pool_from_being_made_is_told_with_its_name() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        world.registry.register("bad", || Err(Error::config("no token"))).expect("a new name");
        let error = world.registry.get("bad").await.expect_err("no token");
        assert_eq!(error.to_string(), "pool \"bad\": no token");
        assert_eq!(error.kind(), ErrorKind::Config);

        world.fake.next_connects([Act::Fail(Error::connect("refused"))]);
        let error = world.registry.get("main").await.expect_err("refused");
        assert_eq!(error.to_string(), "pool \"main\": refused");
        assert_eq!(error.kind(), ErrorKind::Connect);
    });
}

#[test]
fn one_that_gives_up_half_way_lets_the_next_build() {
    for seed in 0..100 {
        Sim::new(seed).run(async |sim| {
            let world = World::new(&sim);
            world.fake.always_connect(Act::After(SECOND));
            let mut first = Box::pin(world.registry.get("main"));
            assert!(poll!(&mut first).is_pending());
            let callers = world.callers(&sim, 10);
            sim.sleep(MS).await;
            drop(first);
            for pool in join_all(callers).await {
                pool.expect("built");
            }
            assert_eq!((world.made(), sim.elapsed()), (2, SECOND + MS));
            assert_eq!(world.fake.counts().live, 1);
        });
    }
}

#[test]
fn callers_cancelled_anywhere_leave_the_name_to_others() {
    for seed in 0..200 {
        Sim::new(seed).run(async |sim| {
            let world = World::new(&sim);
            world.fake.always_connect(Act::After(MS));
            let mut callers = Vec::new();
            for _ in 0..20 {
                let (registry, polls) = (Arc::clone(&world.registry), sim.below(6));
                callers.push(sim.task(async move {
                    cancel_after(polls, registry.get("main")).await.map(|pool| pool.is_ok())
                }));
            }
            for result in join_all(callers).await {
                assert_ne!(result, Some(false));
            }
            let pool = world.registry.get("main").await.expect("built");
            sim.sleep(SECOND).await;
            assert_eq!((world.fake.counts().live, pool.snapshot().open), (1, 1));
        });
    }
}

#[test]
fn a_maker_that_panics_leaves_the_name_to_the_next() {
    Sim::new(1).run(async |sim| {
        let registry = Arc::new(PoolRegistry::new());
        let (fake, first, world) = (Fake::new(), AtomicUsize::new(0), sim.clone());
        let make = move || {
            assert!(first.fetch_add(1, Ordering::Relaxed) > 0, "no luck");
            Ok(Pool::builder(Any::new(fake.clone())).runtime(world.clone()))
        };
        registry.register("main", make).expect("a new name");
        let shared = Arc::clone(&registry);
        let unlucky = sim.task(async move { shared.get("main").await.is_ok() });
        sim.sleep(MS).await;
        registry.get("main").await.expect("built");
        drop(unlucky);
    });
}

// Names.

#[test]
fn a_name_is_taken_once_and_one_that_is_not_there_is_answered_with_the_nearest() {
    Sim::new(1).run(async |sim| {
        let registry = PoolRegistry::new();
        let unknown = async |name| registry.get(name).await.expect_err(name).to_string();
        assert_eq!(unknown("main").await, "no pool is named \"main\": there is none");
        add(&registry, "main", &Fake::new(), &sim);
        add(&registry, "cache", &Fake::new(), &sim);
        assert_eq!(unknown("mian").await, "no pool is named \"mian\": did you mean \"main\"?");
        assert_eq!(unknown("reports").await, "no pool is named \"reports\": there are cache, main");

        let error = registry.register("main", || unreachable!()).expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), "a pool named \"main\" is registered already");
        registry.get("main").await.expect("the first stays");
    });
}

#[test]
fn a_url_is_judged_when_it_is_registered_and_never_shown() {
    let registry = PoolRegistry::new();
    let refuse = |url| {
        let config = PoolConfig::new().connect_concurrency(0);
        let error = registry.register_url("main", url, config).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?} {registry:?}").contains("secret"));
        error.to_string()
    };
    assert_eq!(
        refuse("oracle://user:secret@host?max_open_conns=x&reset=all"),
        "invalid pool registry: \
         main.url: max_open_conns = \"x\": must be a whole number; \
         main.url: reset = \"all\": must be boundary or session; \
         main.url: unknown scheme \"oracle\": known are postgres, postgresql, mysql, mariadb, sqlite"
    );
    assert!(registry.names().is_empty());
}

// The end.

#[test]
fn the_close_reports_each_pool_and_names_what_is_still_out() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        for name in ["cache", "unused"] {
            add(&world.registry, name, &world.fake, &sim);
        }
        let main = world.registry.get("main").await.expect("built");
        world.registry.get("cache").await.expect("built");
        let held = main.acquire().label("checkout").await.expect("free");
        sim.sleep(SECOND).await;

        let report = world.registry.close_all().await;
        let of = |name| report.pools().find(|(pool, _)| *pool == name).map(|(_, report)| report);
        assert!(of("cache").expect("it was built").is_complete());
        assert!(of("unused").is_none());
        assert!(!report.is_complete());
        assert_eq!(report.failures().map(|(name, _)| name).collect::<Vec<_>>(), ["main"]);
        let said = report.to_string();
        let expected = "main: 1 connection still held: for 1s by \"checkout\" at ";
        assert!(said.starts_with(expected), "{said}");

        drop(held);
        let report = world.registry.drain_all(SECOND).await;
        assert_eq!((report.is_complete(), report.to_string().as_str()), (true, "all pools closed"));
        assert_eq!(world.fake.counts().live, 0);
    });
}

#[test]
fn a_drain_waits_for_all_pools_at_a_time() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        add(&world.registry, "cache", &world.fake, &sim);
        let mut held = Vec::new();
        for name in ["main", "cache"] {
            let pool = world.registry.get(name).await.expect("built");
            held.push(pool.acquire().await.expect("free"));
        }
        let release = async {
            sim.sleep(SECOND * 3).await;
            drop(held);
        };
        let (report, ()) = join(world.registry.drain_all(SECOND * 5), release).await;
        assert!(report.is_complete(), "{report}");
        assert_eq!((sim.elapsed(), world.fake.counts().live), (SECOND * 3, 0));
    });
}

#[test]
fn a_closed_registry_gives_nothing_and_takes_nothing() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        let pool = world.registry.get("main").await.expect("built");
        assert!(world.registry.close_all().await.is_complete());
        assert!(world.registry.close_all().await.is_complete(), "twice is harmless");
        assert!(world.registry.is_closed() && pool.is_closed());
        for error in [
            world.registry.get("main").await.expect_err("closed"),
            world.registry.get("other").await.expect_err("closed"),
            world.registry.register("other", || unreachable!()).expect_err("closed"),
        ] {
            assert_eq!(error.kind(), ErrorKind::Closed);
            assert_eq!(error.to_string(), "pool registry: the pool is closed");
        }
    });
}

#[test]
fn a_build_under_way_ends_with_the_close() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        let gate = Gate::new();
        world.fake.always_connect(Act::Wait(gate.clone()));
        let callers = world.callers(&sim, 5);
        sim.sleep(MS).await;
        assert!(world.registry.close_all().await.is_complete());
        for result in join_all(callers).await {
            assert_eq!(result.expect_err("closed").kind(), ErrorKind::Closed);
        }
        gate.open();
        sim.sleep(SECOND).await;
        let counts = world.fake.counts();
        assert_eq!((counts.live, counts.opened, world.made()), (0, 0, 1));
    });
}

/// The build ends at the very moment of the close, before or after it.
#[test]
fn a_build_that_ends_with_the_close_leaves_no_pool() {
    for seed in 0..100 {
        Sim::new(seed).run(async |sim| {
            let world = World::new(&sim);
            let gate = Gate::new();
            world.fake.always_connect(Act::Wait(gate.clone()));
            let callers = world.callers(&sim, 5);
            sim.sleep(MS).await;
            gate.open();
            let registry = Arc::clone(&world.registry);
            let close = sim.task(async move { registry.close_all().await });
            let pools = join_all(callers).await;
            close.await;
            for pool in pools.into_iter().flatten() {
                assert!(pool.is_closed());
            }
            sim.sleep(SECOND).await;
            assert_eq!(world.fake.counts().live, 0);
        });
    }
}

#[test]
fn a_close_that_is_dropped_has_closed_everything() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        add(&world.registry, "cache", &world.fake, &sim);
        let main = world.registry.get("main").await.expect("built");
        let cache = world.registry.get("cache").await.expect("built");
        assert!(cancel_after(1, world.registry.close_all()).await.is_none());
        assert!(main.is_closed() && cache.is_closed() && world.registry.is_closed());
    });
}

#[test]
fn a_dropped_registry_closes_the_pools_that_nobody_else_has() {
    Sim::new(1).run(async |sim| {
        let registry = PoolRegistry::new();
        let (main, cache) = (Fake::new(), Fake::new());
        add(&registry, "main", &main, &sim);
        add(&registry, "cache", &cache, &sim);
        let kept = registry.get("main").await.expect("built");
        registry.get("cache").await.expect("built");
        drop(registry);
        sim.sleep(SECOND).await;
        assert_eq!((main.counts().live, cache.counts().live), (1, 0));
        kept.query("SELECT 1", &[]).await.expect("it is still open");
    });
}

#[test]
fn the_debug_form_tells_which_pools_are_open() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        add(&world.registry, "cache", &world.fake, &sim);
        world.registry.get("main").await.expect("built");
        assert_eq!(
            format!("{:?}", world.registry),
            "PoolRegistry {\"cache\": None, \"main\": Some(Pool { driver: \"fake\", state: \
             1 of 25 open: 0 in use, 1 idle; 0 waiting, .. })}"
        );
    });
}

#[test]
fn everything_asynchronous_runs_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    let registry = PoolRegistry::new();
    is_send(registry.get("main"));
    is_send(registry.close_all());
    is_send(registry.drain_all(SECOND));
    is_send(Arc::new(PoolRegistry::new()));
}

// Documents.

#[cfg(feature = "serde")]
mod documents {
    use super::*;

    fn refuse(document: &str) -> String {
        let error = serde_json::from_str::<PoolRegistry>(document).expect_err(document);
        let said = error.to_string();
        said.rsplit_once(" at line ").map_or(&*said, |(said, _)| said).to_owned()
    }

    #[test]
    fn every_fault_of_every_pool_is_named_at_once() {
        let said = refuse(
            r#"{
                "main": { "url": "oracle://user:secret@host?max_retries=x", "max_open_conns": "x",
                          "ulr": "x://user:secret@host" },
                "cache": { "max_idle_conns": 3 },
                "reports": { "url": { "password": "secret" } },
                "short": "x://user:secret@host",
                "again": { "url": "oracle://" },
                "again": { "url": "oracle://" }
            }"#,
        );
        let scheme = "unknown scheme \"oracle\": known are postgres, postgresql, mysql, mariadb, \
                      sqlite";
        assert_eq!(
            said,
            format!(
                "invalid pool registry: \
                 main.max_open_conns = \"x\": must be a whole number, 0 or more; \
                 main.ulr: is not a setting; did you mean url?; \
                 main.url: max_retries = \"x\": must be a whole number from 0 to 4294967295; \
                 main.url: {scheme}; \
                 cache.url: is missing; \
                 reports.url: must be text; \
                 short: must be a map with a url; \
                 again.url: {scheme}; \
                 again.url: {scheme}; \
                 again: is given twice"
            )
        );
    }

    #[test]
    fn a_document_that_is_no_map_is_refused_and_an_empty_one_is_an_empty_registry() {
        let expected = "invalid pool registry: must be a map from names to pools";
        assert_eq!(refuse("\"x://user:secret@host\""), expected);
        assert_eq!(refuse("[]"), expected);
        let registry: PoolRegistry = toml::from_str("").expect("nothing is wrong");
        assert!(registry.names().is_empty());
    }

    #[cfg(feature = "sqlite-system")]
    #[test]
    fn settings_that_contradict_each_other_are_found_across_url_and_document() {
        let said = refuse(
            r#"{ "a": { "url": "sqlite::memory:?max_open_conns=4", "max_idle_conns": 5 } }"#,
        );
        assert_eq!(
            said,
            "invalid pool registry: a.max_idle_conns = 5: must not exceed max_open_conns (4)"
        );
    }

    #[cfg(all(
        feature = "sqlite-system",
        any(feature = "tokio", feature = "smol", feature = "async-std")
    ))]
    #[test]
    fn a_setting_in_the_document_goes_before_the_same_in_the_url() {
        millpond::runtime::block_on(async {
            let registry: PoolRegistry = toml::from_str(
                "[main]\n\
                 url = 'sqlite::memory:?max_open_conns=4&max_idle_conns=2&min_idle_conns=0'\n\
                 max_open_conns = 8\n\
                 [cache]\n\
                 url = 'sqlite::memory:?max_open_conns=3'",
            )
            .expect("nothing is wrong");
            assert_eq!(registry.names(), ["cache", "main"]);
            for (name, max_open) in [("main", 8), ("cache", 3)] {
                let pool = registry.get(name).await.expect("built");
                assert_eq!(pool.snapshot().max_open, Some(max_open));
            }
            assert!(registry.close_all().await.is_complete());
        });
    }
}

#[test]
fn a_pool_that_was_closed_by_hand_is_not_given_out_as_if_it_were_good() {
    Sim::new(1).run(async |sim| {
        let registry = PoolRegistry::new();
        let sim = sim.clone();
        registry
            .register("main", move || Ok(Pool::builder(Any::new(Fake::new())).runtime(sim.clone())))
            .unwrap();
        registry.get("main").await.unwrap().close().await;
        let again = registry.get("main").await.unwrap();
        again.acquire().await.expect("built anew, or an error of the registry");
    });
}

#[test]
fn a_name_that_is_taken_out_can_be_given_again() {
    Sim::new(1).run(async |sim| {
        let registry = PoolRegistry::new();
        let make = move || Ok(Pool::builder(Any::new(Fake::new())).runtime(sim.clone()));
        registry.register("main", make.clone()).unwrap();
        let pool = registry.get("main").await.unwrap();
        assert!(registry.remove("main").is_some() && registry.remove("main").is_none());
        registry.register("main", make).unwrap();
        registry.get("main").await.unwrap().close().await;
        assert!(!pool.is_closed(), "it is its holder's");
    });
}

#[test]
fn a_scheme_that_is_not_known_hides_no_contradiction() {
    let config = millpond::PoolConfig::new().max_open_conns(2).max_idle_conns(9);
    let refused = PoolRegistry::new().register_url("main", "nosql://u:secret@h", config);
    let said = refused.unwrap_err().to_string();
    let both = said.contains("main.max_idle_conns = 9") && said.contains("unknown scheme");
    assert!(both && !said.contains("secret"), "{said}");
}

/// The pool of the database before took the name over.
#[test]
fn a_pool_that_was_being_built_when_its_name_was_given_away_is_not_found_under_it() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        world.fake.next_connects([Act::After(SECOND)]);
        let [early] = <[_; 1]>::try_from(world.callers(&sim, 1)).unwrap();
        sim.sleep(MS * 100).await;
        world.registry.remove("main");
        let next = Fake::new();
        add(&world.registry, "main", &next, &sim);
        drop(early.await.unwrap());
        let pool = world.registry.get("main").await.unwrap();
        pool.query("SELECT 1", &[]).await.unwrap();
        assert_eq!(next.statements(), ["SELECT 1"]);
    });
}

/// It made room for another build beside the one under way.
#[test]
fn a_build_that_fails_after_its_name_was_given_away_disturbs_no_other() {
    Sim::new(1).run(async |sim| {
        let world = World::new(&sim);
        world.fake.next_connects([Act::FailAfter(SECOND, Error::connect("refused"))]);
        let [early] = <[_; 1]>::try_from(world.callers(&sim, 1)).unwrap();
        sim.sleep(MS * 100).await;
        world.registry.remove("main");
        let next = Fake::new();
        next.next_connects([Act::After(SECOND * 2)]);
        add(&world.registry, "main", &next, &sim);
        let [one] = <[_; 1]>::try_from(world.callers(&sim, 1)).unwrap();
        early.await.unwrap_err();
        let [two] = <[_; 1]>::try_from(world.callers(&sim, 1)).unwrap();
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        assert_eq!((next.counts().opened, one.name(), two.name()), (1, "main", "main"));
    });
}

/// What the application's own code holds is dropped without the lock.
#[test]
fn what_is_dropped_with_a_name_may_use_the_registry() {
    struct Asks(std::sync::Weak<PoolRegistry>);
    impl Drop for Asks {
        fn drop(&mut self) {
            if let Some(registry) = self.0.upgrade() {
                assert!(registry.names().is_empty());
            }
        }
    }
    let registry = Arc::new(PoolRegistry::new());
    let asks = Asks(Arc::downgrade(&registry));
    let make = move || {
        let _ = &asks;
        Err(Error::config("never"))
    };
    registry.register("main", make).unwrap();
    let (done, is_done) = std::sync::mpsc::channel();
    let at = Arc::clone(&registry);
    #[expect(clippy::disallowed_methods, reason = "one that waits for itself is left behind")]
    std::thread::spawn(move || done.send(at.remove("main").is_none()));
    assert_eq!(is_done.recv_timeout(SECOND * 10), Ok(true), "it waits for its own lock");
}
