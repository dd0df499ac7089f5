//! A cluster on any servers, each behind a line that can fail.
//!
//! Owns the lines and what the cluster has told. Knows neither the servers'
//! database nor how many there are.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use millpond::balance::Member;
use millpond::{Cluster, Driver, Pool, Result, Role};
use millpond_harness::{Proxy, Server};

use crate::site::NAMES;

/// Lines to servers, which are the nodes `a`, `b` and `c` in this order.
pub(crate) struct Lines {
    pub(crate) proxies: Vec<Proxy>,
    urls: Vec<String>,
    role: Option<Role>,
    told: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Lines {
    pub(crate) fn to<'s>(servers: impl IntoIterator<Item = &'s Server>) -> Self {
        let line = |server: &Server| {
            let proxy = Proxy::to(server.address());
            let url = server.url_at(proxy.address());
            (proxy, url)
        };
        let (proxies, urls) = servers.into_iter().map(line).unzip();
        Self { proxies, urls, role: None, told: Arc::default() }
    }

    /// All of them take writes, which they do not say of themselves.
    pub(crate) fn of_peers(self) -> Self {
        Self { role: Some(Role::Peer), ..self }
    }

    /// A cluster of pools of at most ten.
    pub(crate) async fn cluster<D: Driver>(
        &self,
        driver: impl Fn(&str) -> Result<D>,
    ) -> Cluster<D> {
        let told = Arc::clone(&self.told);
        let builder = Cluster::builder().on_event(move |event| {
            told.lock().expect("no panic").push((Instant::now(), event.to_string()));
        });
        let builder = self.urls.iter().zip(NAMES).fold(builder, |builder, (url, name)| {
            let pool = Pool::builder(driver(url).expect("a URL of the harness"));
            let member = Member::new(name, pool.max_open_conns(10));
            builder.member(match self.role {
                Some(role) => member.role(role),
                None => member,
            })
        });
        builder.build().await.expect("a cluster")
    }

    pub(crate) fn told_since(&self, start: Instant) -> Vec<String> {
        let told = self.told.lock().expect("no panic");
        let since = told.iter().filter(|(at, _)| *at >= start);
        since.map(|(at, line)| format!("{:>5} ms: {line}", (*at - start).as_millis())).collect()
    }
}
