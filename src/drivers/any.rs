//! A driver chosen at run time.
//!
//! Owns [`Any`], the object-safe twin of [`Driver`], and its connections. Does
//! not know which drivers exist: it carries whichever it is given.

use std::any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use millpond_driver::{
    Cancel, ConnectContext, Driver, NodeStatus, Position, Reset, Result, Role, Row, Rows,
    ServerInfo, Session, TransactionOptions, Value,
};

/// Some driver, known only at run time: one type for a pool whose database
/// comes from a URL or a configuration file.
///
/// It is an ordinary [`Driver`] and says everything its driver says. The price
/// is one small allocation per call.
///
/// ```
/// use millpond::Driver;
/// use millpond::drivers::Any;
///
/// fn choose(local: bool, file: impl Driver, server: impl Driver) -> Any {
///     if local { Any::new(file) } else { Any::new(server) }
/// }
/// ```
#[derive(Clone)]
pub struct Any(Arc<dyn DynDriver>);

impl Any {
    /// Forgets which driver this is.
    pub fn new(driver: impl Driver) -> Self {
        Self(Arc::new(driver))
    }
}

impl fmt::Debug for Any {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Any").field(&self.name()).finish()
    }
}

/// A connection of [`Any`].
///
/// It stays with the driver that opened it, so no other can be asked to work
/// on it. The driver's own connection is a downcast away.
pub struct AnyConnection(Box<dyn DynConnection>);

impl AnyConnection {
    /// Whether the driver's connection is a `C`.
    pub fn is<C: 'static>(&self) -> bool {
        self.downcast_ref::<C>().is_some()
    }

    /// The driver's connection, if it is a `C`.
    pub fn downcast_ref<C: 'static>(&self) -> Option<&C> {
        self.0.native().downcast_ref()
    }

    /// The driver's connection, if it is a `C`.
    pub fn downcast_mut<C: 'static>(&mut self) -> Option<&mut C> {
        self.0.native_mut().downcast_mut()
    }
}

impl fmt::Debug for AnyConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyConnection").field(&self.0.server().system).finish()
    }
}

impl Driver for Any {
    type Connection = AnyConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<AnyConnection> {
        Arc::clone(&self.0).open(cx).await.map(AnyConnection)
    }

    async fn ping(&self, conn: &mut AnyConnection) -> Result<()> {
        conn.0.ping().await
    }

    async fn query(&self, conn: &mut AnyConnection, sql: &str, params: &[Value]) -> Result<Rows> {
        conn.0.query(sql, params).await
    }

    fn name(&self) -> &'static str {
        self.0.system()
    }

    fn query_stream<'a>(
        &'a self,
        conn: &'a mut AnyConnection,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        conn.0.query_stream(sql, params)
    }

    async fn batch(&self, conn: &mut AnyConnection, sql: &str) -> Result<()> {
        conn.0.batch(sql).await
    }

    fn server(&self, conn: &AnyConnection) -> ServerInfo {
        conn.0.server()
    }

    fn session(&self, conn: &AnyConnection) -> Session {
        conn.0.session()
    }

    async fn reset(&self, conn: &mut AnyConnection, to: Reset) -> Result<()> {
        conn.0.reset(to).await
    }

    fn cancel(&self, conn: &AnyConnection) -> Option<Cancel> {
        conn.0.cancel()
    }

    async fn begin(&self, conn: &mut AnyConnection, options: &TransactionOptions) -> Result<()> {
        conn.0.begin(options).await
    }

    async fn commit(&self, conn: &mut AnyConnection) -> Result<()> {
        conn.0.commit().await
    }

    async fn rollback(&self, conn: &mut AnyConnection) -> Result<()> {
        conn.0.rollback().await
    }

    async fn status(&self, conn: &mut AnyConnection) -> Result<NodeStatus> {
        conn.0.status().await
    }

    async fn set_read_only(&self, conn: &mut AnyConnection, read_only: bool) -> Result<()> {
        conn.0.set_read_only(read_only).await
    }

    fn role(&self, conn: &AnyConnection) -> Option<Role> {
        conn.0.role()
    }

    async fn position(&self, conn: &mut AnyConnection) -> Result<Position> {
        conn.0.position().await
    }

    async fn reached(
        &self,
        conn: &mut AnyConnection,
        position: &Position,
        limit: Duration,
    ) -> Result<bool> {
        conn.0.reached(position, limit).await
    }

    async fn close(&self, conn: AnyConnection) {
        conn.0.close().await;
    }
}

/// What [`Any`] asks of a driver. The rest it asks of the connection, which
/// knows its driver.
#[async_trait]
trait DynDriver: Send + Sync {
    fn system(&self) -> &'static str;
    async fn open(self: Arc<Self>, cx: &ConnectContext<'_>) -> Result<Box<dyn DynConnection>>;
}

#[async_trait]
impl<D: Driver> DynDriver for D {
    fn system(&self) -> &'static str {
        self.name()
    }

    async fn open(self: Arc<Self>, cx: &ConnectContext<'_>) -> Result<Box<dyn DynConnection>> {
        let conn = self.connect(cx).await?;
        Ok(Box::new(Bound { driver: self, conn }))
    }
}

/// The methods of [`Driver`] that take a connection, on the connection.
#[async_trait]
trait DynConnection: Send {
    fn native(&self) -> &dyn any::Any;
    fn native_mut(&mut self) -> &mut dyn any::Any;

    async fn ping(&mut self) -> Result<()>;
    async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows>;
    fn query_stream<'a>(
        &'a mut self,
        sql: &'a str,
        params: &'a [Value],
    ) -> BoxStream<'a, Result<Row>>;
    async fn batch(&mut self, sql: &str) -> Result<()>;
    fn server(&self) -> ServerInfo;
    fn session(&self) -> Session;
    async fn reset(&mut self, to: Reset) -> Result<()>;
    fn cancel(&self) -> Option<Cancel>;
    async fn begin(&mut self, options: &TransactionOptions) -> Result<()>;
    async fn commit(&mut self) -> Result<()>;
    async fn rollback(&mut self) -> Result<()>;
    async fn status(&mut self) -> Result<NodeStatus>;
    async fn set_read_only(&mut self, read_only: bool) -> Result<()>;
    fn role(&self) -> Option<Role>;
    async fn position(&mut self) -> Result<Position>;
    async fn reached(&mut self, position: &Position, limit: Duration) -> Result<bool>;
    async fn close(self: Box<Self>);
}

/// A connection and the driver that opened it.
struct Bound<D: Driver> {
    driver: Arc<D>,
    conn: D::Connection,
}

#[async_trait]
impl<D: Driver> DynConnection for Bound<D> {
    fn native(&self) -> &dyn any::Any {
        &self.conn
    }

    fn native_mut(&mut self) -> &mut dyn any::Any {
        &mut self.conn
    }

    async fn ping(&mut self) -> Result<()> {
        self.driver.ping(&mut self.conn).await
    }

    async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows> {
        self.driver.query(&mut self.conn, sql, params).await
    }

    fn query_stream<'a>(
        &'a mut self,
        sql: &'a str,
        params: &'a [Value],
    ) -> BoxStream<'a, Result<Row>> {
        Box::pin(self.driver.query_stream(&mut self.conn, sql, params))
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        self.driver.batch(&mut self.conn, sql).await
    }

    fn server(&self) -> ServerInfo {
        self.driver.server(&self.conn)
    }

    fn session(&self) -> Session {
        self.driver.session(&self.conn)
    }

    async fn reset(&mut self, to: Reset) -> Result<()> {
        self.driver.reset(&mut self.conn, to).await
    }

    fn cancel(&self) -> Option<Cancel> {
        self.driver.cancel(&self.conn)
    }

    async fn begin(&mut self, options: &TransactionOptions) -> Result<()> {
        self.driver.begin(&mut self.conn, options).await
    }

    async fn commit(&mut self) -> Result<()> {
        self.driver.commit(&mut self.conn).await
    }

    async fn rollback(&mut self) -> Result<()> {
        self.driver.rollback(&mut self.conn).await
    }

    async fn status(&mut self) -> Result<NodeStatus> {
        self.driver.status(&mut self.conn).await
    }

    async fn set_read_only(&mut self, read_only: bool) -> Result<()> {
        self.driver.set_read_only(&mut self.conn, read_only).await
    }

    fn role(&self) -> Option<Role> {
        self.driver.role(&self.conn)
    }

    async fn position(&mut self) -> Result<Position> {
        self.driver.position(&mut self.conn).await
    }

    async fn reached(&mut self, position: &Position, limit: Duration) -> Result<bool> {
        self.driver.reached(&mut self.conn, position, limit).await
    }

    async fn close(self: Box<Self>) {
        let Self { driver, conn } = *self;
        driver.close(conn).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::time::Instant;

    use futures_util::{FutureExt, StreamExt, stream};
    use millpond_driver::{BoxFuture, ByteStream, Error, Runtime, SocketOptions, Target};

    use super::*;

    /// Notes each call in the connection, and never waits.
    #[derive(Clone, Default)]
    struct Diary {
        closed: Arc<Mutex<Vec<&'static str>>>,
    }

    #[derive(Debug, Default)]
    struct Page(Vec<&'static str>);

    impl Page {
        fn note(&mut self, call: &'static str) -> Result<()> {
            self.0.push(call);
            Ok(())
        }
    }

    impl Driver for Diary {
        type Connection = Page;

        async fn connect(&self, _cx: &ConnectContext<'_>) -> Result<Page> {
            Ok(Page::default())
        }
        async fn ping(&self, page: &mut Page) -> Result<()> {
            page.note("ping")
        }
        async fn query(&self, page: &mut Page, sql: &str, params: &[Value]) -> Result<Rows> {
            page.note("query")?;
            Ok(Rows::one("echo", format!("{sql} {params:?}")))
        }
        fn name(&self) -> &'static str {
            "diary"
        }
        fn query_stream<'a>(
            &'a self,
            page: &'a mut Page,
            _sql: &'a str,
            _params: &'a [Value],
        ) -> impl Stream<Item = Result<Row>> + Send + 'a {
            page.0.push("query_stream");
            stream::iter([Err(Error::decode("one")), Err(Error::decode("two"))])
        }
        async fn batch(&self, page: &mut Page, _sql: &str) -> Result<()> {
            page.note("batch")
        }
        fn server(&self, page: &Page) -> ServerInfo {
            ServerInfo::new("paper", page.0.len().to_string())
        }
        fn session(&self, page: &Page) -> Session {
            if page.0.last() == Some(&"begin") { Session::InTransaction } else { Session::Clean }
        }
        async fn reset(&self, page: &mut Page, _to: Reset) -> Result<()> {
            page.note("reset")
        }
        fn cancel(&self, _page: &Page) -> Option<Cancel> {
            Some(Cancel::new(async { Err(Error::unsupported("erasers")) }))
        }
        async fn begin(&self, page: &mut Page, _options: &TransactionOptions) -> Result<()> {
            page.note("begin")
        }
        async fn commit(&self, page: &mut Page) -> Result<()> {
            page.note("commit")
        }
        async fn rollback(&self, page: &mut Page) -> Result<()> {
            page.note("rollback")
        }
        async fn status(&self, page: &mut Page) -> Result<NodeStatus> {
            page.note("status")?;
            let mut status = NodeStatus::default();
            status.role = Role::Replica;
            Ok(status)
        }
        async fn set_read_only(&self, page: &mut Page, _read_only: bool) -> Result<()> {
            page.note("set_read_only")
        }
        fn role(&self, _page: &Page) -> Option<Role> {
            Some(Role::Peer)
        }
        async fn position(&self, page: &mut Page) -> Result<Position> {
            page.note("position")?;
            Ok(Position::new("line 3"))
        }
        async fn reached(&self, page: &mut Page, to: &Position, limit: Duration) -> Result<bool> {
            page.note("reached")?;
            Ok(to.as_str() == "line 3" && limit == Duration::from_secs(1))
        }
        async fn close(&self, page: Page) {
            *self.closed.lock().expect("a test's lock") = page.0;
        }
    }

    /// A runtime nobody calls.
    #[derive(Debug)]
    struct Nowhere;

    impl Runtime for Nowhere {
        fn now(&self) -> Instant {
            unreachable!()
        }
        fn sleep_until(&self, _deadline: Instant) -> BoxFuture<'static, ()> {
            unreachable!()
        }
        fn spawn(&self, _task: BoxFuture<'static, ()>) {
            unreachable!()
        }
        fn spawn_blocking(&self, _job: Box<dyn FnOnce() + Send>) {
            unreachable!()
        }
        fn resolve<'a>(
            &'a self,
            _host: &'a str,
            _port: u16,
        ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            unreachable!()
        }
        fn connect<'a>(
            &'a self,
            _target: &'a Target,
            _options: &'a SocketOptions,
        ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
            unreachable!()
        }
        fn random(&self) -> u64 {
            unreachable!()
        }
    }

    fn done<T>(work: impl Future<Output = T>) -> T {
        work.now_or_never().expect("the diary never waits")
    }

    #[expect(clippy::disallowed_methods, reason = "a deadline nobody looks at")]
    async fn open(any: &Any) -> AnyConnection {
        let runtime: Arc<dyn Runtime> = Arc::new(Nowhere);
        any.connect(&ConnectContext::new(&runtime, Instant::now())).await.expect("a page")
    }

    #[test]
    fn every_call_reaches_the_method_of_the_same_name() {
        let diary = Diary::default();
        let any = Any::new(diary.clone());
        let calls = [
            "ping",
            "query",
            "query_stream",
            "batch",
            "reset",
            "begin",
            "commit",
            "rollback",
            "status",
            "set_read_only",
            "position",
            "reached",
        ];
        done(async {
            let mut conn = open(&any).await;
            any.ping(&mut conn).await?;
            any.query(&mut conn, "", &[]).await?;
            drop(any.query_stream(&mut conn, "", &[]));
            any.batch(&mut conn, "").await?;
            any.reset(&mut conn, Reset::Session).await?;
            any.begin(&mut conn, &TransactionOptions::new()).await?;
            any.commit(&mut conn).await?;
            any.rollback(&mut conn).await?;
            any.status(&mut conn).await?;
            any.set_read_only(&mut conn, true).await?;
            let position = any.position(&mut conn).await?;
            assert!(any.reached(&mut conn, &position, Duration::from_secs(1)).await?);
            any.close(conn).await;
            Ok::<_, Error>(())
        })
        .expect("the diary never fails");
        assert_eq!(*diary.closed.lock().expect("a test's lock"), calls);
    }

    #[test]
    fn what_the_driver_says_is_said_unchanged() {
        let any = Any::new(Diary::default());
        let mut conn = done(open(&any));
        assert_eq!(any.name(), "diary");
        assert_eq!(any.server(&conn), ServerInfo::new("paper", "0"));
        assert_eq!(any.session(&conn), Session::Clean);
        done(any.begin(&mut conn, &TransactionOptions::new())).expect("a note");
        assert_eq!(any.session(&conn), Session::InTransaction);
        assert_eq!(done(any.status(&mut conn)).expect("a note").role, Role::Replica);
        assert_eq!(any.role(&conn), Some(Role::Peer));
        let cancel = any.cancel(&conn).expect("a handle");
        assert!(done(cancel.run()).is_err());
    }

    #[test]
    fn rows_and_stream_are_the_drivers_own() {
        let any = Any::new(Diary::default());
        let mut conn = done(open(&any));
        let params = [Value::from("x")];
        let rows = done(any.query(&mut conn, "SELECT", &params)).expect("rows");
        assert_eq!(rows.scalar::<String>().expect("text"), r#"SELECT [Text("x")]"#);
        let errors: Vec<String> = done(
            any.query_stream(&mut conn, "SELECT", &params)
                .map(|row| row.expect_err("two errors").to_string())
                .collect(),
        );
        assert_eq!(errors, ["one", "two"]);
    }

    #[test]
    fn the_native_connection_is_a_downcast_away() {
        let mut conn = done(open(&Any::new(Diary::default())));
        assert!(conn.is::<Page>());
        assert!(!conn.is::<Vec<u8>>());
        conn.downcast_mut::<Page>().expect("a page").0.push("mine");
        assert_eq!(conn.downcast_ref::<Page>().expect("a page").0, ["mine"]);
        assert!(conn.downcast_mut::<String>().is_none());
    }

    #[test]
    fn a_connection_stays_with_its_driver() {
        let diary = Diary::default();
        let conn = done(open(&Any::new(diary.clone())));
        let stranger = Diary::default();
        done(async {
            let mut conn = conn;
            Any::new(stranger.clone()).ping(&mut conn).await.expect("a note");
            Any::new(stranger.clone()).close(conn).await;
        });
        assert_eq!(*diary.closed.lock().expect("a test's lock"), ["ping"]);
        assert!(stranger.closed.lock().expect("a test's lock").is_empty());
    }

    #[test]
    fn erased_twice_is_still_a_driver() {
        let any = Any::new(Any::new(Diary::default()));
        let mut conn = done(open(&any));
        done(any.ping(&mut conn)).expect("a note");
        let inner = conn.downcast_ref::<AnyConnection>().expect("the inner twin");
        assert_eq!(inner.downcast_ref::<Page>().expect("a page").0, ["ping"]);
    }

    #[test]
    fn a_spawned_task_may_hold_it() {
        fn spawn(_task: impl Future<Output = ()> + Send + 'static) {}
        let any = Any::new(Diary::default());
        spawn(async move {
            let mut conn = open(&any).await;
            let sql = String::from("SELECT");
            let params = [Value::from("x")];
            any.query(&mut conn, &sql, &params).await.expect("rows");
            any.query_stream(&mut conn, &sql, &params).for_each(async |_| ()).await;
            any.begin(&mut conn, &TransactionOptions::new()).await.expect("a note");
            any.close(conn).await;
        });
    }

    #[test]
    fn debug_prints_the_name_and_nothing_secret() {
        let any = Any::new(Diary::default());
        assert_eq!(format!("{any:?}"), r#"Any("diary")"#);
        assert_eq!(format!("{:?}", done(open(&any))), r#"AnyConnection("paper")"#);
    }
}
