//! What connections log in with, where a provider says so for each: when it is
//! asked, and what becomes of its errors.

use std::collections::VecDeque;
use std::error::Error as _;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::runtime::Runtime;
use millpond::testing::sim::Sim;
use millpond::{
    Builder, Cause, ConnectContext, Credentials, Driver, Error, ErrorKind, Outcome, Phase, Pool,
    Result,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const SECRET: &str = "correct horse";

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// The passwords that connects have been given, empty for none.
fn passwords(fake: &Fake) -> Vec<String> {
    let password = |given: Option<Credentials>| given.and_then(|given| given.password);
    fake.logins().into_iter().map(|given| password(given).unwrap_or_default()).collect()
}

/// A provider of passwords that end in the number of the call, from 1, and the
/// count of its calls.
fn numbered() -> (impl Fn() -> std::future::Ready<Result<Credentials>>, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let provider = move || {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        std::future::ready(Ok(Credentials::new().user("app").password(format!("p{number}"))))
    };
    (provider, calls)
}

/// A provider that answers in this order, and then with the secret.
fn answering(
    answers: impl IntoIterator<Item = Result<Credentials>>,
) -> impl Fn() -> std::future::Ready<Result<Credentials>> {
    let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
    move || {
        let answer = answers.lock().unwrap().pop_front();
        std::future::ready(answer.unwrap_or_else(|| Ok(Credentials::new().password(SECRET))))
    }
}

/// Everything an error says, its sources included.
fn told(error: &Error) -> String {
    let mut told = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(inner) = source {
        told += &format!(" {inner} {inner:?}");
        source = inner.source();
    }
    told
}

#[test]
fn the_provider_is_asked_once_for_each_connect_and_for_nothing_else() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let (provider, calls) = numbered();
        let pool = pool_of(&fake, &sim, 2).credentials(provider).build().await.unwrap();
        assert_eq!(passwords(&fake), ["p1"], "the first connect too");
        for _ in 0..5 {
            pool.query("SELECT 1", &[]).await.unwrap();
        }
        assert_eq!(passwords(&fake), ["p1"]);
        let both = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        assert_eq!(passwords(&fake), ["p1", "p2"]);
        drop(both);
        fake.restart();
        pool.acquire().await.unwrap().discard();
        pool.query("SELECT 1", &[]).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), fake.counts().connects);
        let user = |given: Option<Credentials>| given.and_then(|given| given.user);
        assert!(fake.logins().into_iter().all(|given| user(given).as_deref() == Some("app")));
    });
}

#[test]
fn a_pool_built_lazily_asks_when_it_connects() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let (provider, calls) = numbered();
        let pool = pool_of(&fake, &sim, 2).credentials(provider).build_lazy().unwrap();
        sim.sleep(SECOND * 10).await;
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        pool.query("SELECT 1", &[]).await.unwrap();
        assert_eq!(passwords(&fake), ["p1"]);
    });
}

/// Neither what an earlier connect was given, nor what another one beside it is.
#[test]
fn nothing_is_left_of_what_another_connect_was_given() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let full = Credentials::new().user("app").password("first");
        let provider = answering([Ok(full.clone()), Ok(Credentials::new())]);
        let pool = pool_of(&fake, &sim, 2).credentials(provider).build().await.unwrap();
        let _both = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        assert_eq!(fake.logins(), [Some(full), Some(Credentials::new())]);
        let runtime: Arc<dyn Runtime> = Arc::new(sim.clone());
        let context = ConnectContext::new(&runtime, runtime.now() + SECOND);
        pool.driver().connect(&context).await.unwrap();
        assert_eq!(fake.logins()[2], None, "the driver keeps nothing");
    });
}

#[test]
fn without_a_provider_no_credentials_are_given() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        pool_of(&fake, &sim, 1).build().await.unwrap();
        assert_eq!(fake.logins(), [None]);
    });
}

#[test]
fn an_error_of_the_provider_that_passes_is_retried_with_new_credentials() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let provider = answering([Err(Error::connect("the vault is sealed"))]);
        let pool = pool_of(&fake, &sim, 1).credentials(provider).build_lazy().unwrap();
        pool.query("SELECT 1", &[]).await.unwrap();
        assert_eq!(passwords(&fake), [SECRET], "the database was not asked in vain");
    });
}

#[test]
fn an_error_of_the_provider_is_what_a_caller_is_told_at_its_deadline() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let sealed = || async { Err(Error::connect("the vault is sealed")) };
        let builder = pool_of(&fake, &sim, 1).acquire_timeout(SECOND * 2).credentials(sealed);
        let pool = builder.build_lazy().unwrap();
        let error = pool.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        assert_eq!(error.source().expect("why").to_string(), "the vault is sealed");
        assert_eq!((sim.elapsed(), fake.counts().connects), (SECOND * 2, 0));
        let now = pool.snapshot();
        assert_eq!((now.open, now.opening, now.waiting), (0, 0, 0));
    });
}

#[test]
fn a_permanent_error_of_the_provider_fails_the_caller_at_once() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let denied = || async { Err(Error::connect("no such role").with_cause(Cause::Auth)) };
        let pool = pool_of(&fake, &sim, 1).credentials(denied).build_lazy().unwrap();
        let error = pool.acquire().await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Connect, "no such role"));
        assert_eq!((sim.elapsed(), fake.counts().connects), (Duration::ZERO, 0));
        let error = pool_of(&fake, &sim, 1).credentials(denied).build().await.unwrap_err();
        assert_eq!(error.message(), "no such role");
    });
}

/// What a provider did elsewhere may have taken effect there; here nothing was
/// sent, so a statement may move to another connection.
#[test]
fn an_error_of_the_provider_says_that_nothing_was_sent() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let lost = || async { Err(Error::lost("the vault went away").with_cause(Cause::Auth)) };
        let error = pool_of(&fake, &sim, 1).credentials(lost).build().await.unwrap_err();
        assert_eq!((error.message(), error.outcome()), ("the vault went away", Outcome::NotSent));
    });
}

#[test]
fn a_provider_that_hangs_is_given_up_after_connect_timeout() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let builder = pool_of(&fake, &sim, 1).connect_timeout(SECOND).credentials(pending);
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        assert_eq!(error.message(), "no credentials within 1s");
        assert_eq!((sim.elapsed(), fake.counts().connects), (SECOND, 0));
    });
}

#[test]
fn the_provider_and_the_connect_share_one_limit() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 600));
        let clock = sim.clone();
        let slow = move || {
            let clock = clock.clone();
            async move {
                clock.sleep(MS * 600).await;
                Ok(Credentials::new())
            }
        };
        let builder = pool_of(&fake, &sim, 1).connect_timeout(SECOND).credentials(slow);
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        assert_eq!(error.message(), "no answer from the database within 1s");
        assert_eq!((sim.elapsed(), fake.counts().connects), (SECOND, 1));
    });
}

#[test]
fn a_provider_that_hangs_is_dropped_when_the_pool_closes() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).credentials(pending).build_lazy().unwrap();
        let caller = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await }
        });
        sim.sleep(MS).await;
        assert_eq!(pool.snapshot().opening, 1);
        assert!(pool.close().await.is_complete());
        assert_eq!(caller.await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!((sim.elapsed(), pool.snapshot().opening), (MS, 0));
    });
}

#[test]
fn a_panic_of_the_provider_is_an_error_and_loses_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let calls = AtomicU64::new(0);
        let panicking = move || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            assert!(call != 0, "before its future");
            async move {
                assert!(call != 1, "within its future");
                Ok(Credentials::new().password(SECRET))
            }
        };
        let panicking = Arc::new(panicking);
        let provider = || {
            let panicking = Arc::clone(&panicking);
            move || panicking()
        };
        for when in ["before its future", "within its future"] {
            let error = pool_of(&fake, &sim, 1).credentials(provider()).build().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Panicked);
            assert_eq!(error.message(), format!("the credentials provider panicked: {when}"));
        }
        let pool = pool_of(&fake, &sim, 1).credentials(provider()).build().await.unwrap();
        pool.query("SELECT 1", &[]).await.unwrap();
        assert_eq!(passwords(&fake), [SECRET]);
    });
}

#[test]
fn a_pool_whose_provider_panics_serves_its_callers_afterwards() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let calls = AtomicU64::new(0);
        let provider = move || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(call > 1, "not yet");
                Ok(Credentials::new())
            }
        };
        let pool = pool_of(&fake, &sim, 1).credentials(provider).build_lazy().unwrap();
        let conn = pool.acquire().await.unwrap();
        let now = pool.snapshot();
        assert_eq!((now.open, now.in_use, now.opening, now.waiting), (1, 1, 0, 0));
        drop(conn);
        assert!(pool.close().await.is_complete());
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn no_text_shows_the_password_of_a_provider() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let builder = pool_of(&fake, &sim, 1).credentials(answering([]));
        let mut texts = vec![format!("{builder:?} {builder:#?}")];
        let pool = builder.build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        texts.push(format!("{pool:?} {pool:#?} {conn:?} {fake:?} {}", pool.snapshot()));
        let given = fake.logins()[0].clone().expect("credentials");
        assert_eq!(given.password.as_deref(), Some(SECRET));
        let runtime: Arc<dyn Runtime> = Arc::new(sim.clone());
        let context = ConnectContext::new(&runtime, runtime.now()).with_credentials(&given);
        texts.push(format!("{given:?} {context:?} {context:#?}"));
        for act in [Act::deny(), Act::refuse(), Act::Hang, Act::Panic] {
            fake.always_connect(act);
            let builder = pool_of(&fake, &sim, 1).credentials(answering([]));
            texts.push(told(&builder.build().await.unwrap_err()));
        }
        for text in texts {
            assert!(!text.contains(SECRET), "{text}");
        }
    });
}
