//! Opens a connection: finds the hosts, tries them in turn, logs in.
//!
//! Decides how long each may take and what is said when none will do. Does not
//! know what the connection is for.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use millpond_driver::{Cause, ConnectContext, Error, Phase, Result, Target};
use tokio_postgres::{Config, SimpleQueryMessage};

use crate::PostgresConnection;
use crate::error;
use crate::link::Link;
use crate::options::{Host, Options, Place, TargetSession};
use crate::task::{drive, look};
use crate::tls::{self, TlsMode};
use crate::way::Way;
use crate::wire::{Negotiated, Wire};

pub(crate) async fn open(options: &Options, cx: &ConnectContext<'_>) -> Result<PostgresConnection> {
    options.tls.check()?;
    let login = options.startup(cx.credentials());
    let mut failures = Failures::default();
    let passes: &[TargetSession] = match options.session {
        TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
        _ => std::slice::from_ref(&options.session),
    };
    for (pass, &session) in passes.iter().enumerate() {
        for (index, host) in options.hosts.iter().enumerate() {
            let hosts_left =
                (passes.len() - pass - 1) * options.hosts.len() + (options.hosts.len() - index - 1);
            let share = deadline(options.connect_timeout, 1 + hosts_left as u32, cx);
            let targets = match bounded(targets(host, cx), share, cx).await {
                Ok(targets) => targets,
                Err(error) if error.is_timeout() => {
                    let said = format!("the name is not found: {}", error.message());
                    failures.note(host, Error::timeout(Phase::Connecting, said));
                    continue;
                }
                Err(error) => {
                    failures.note(host, error);
                    continue;
                }
            };
            for (number, target) in targets.iter().enumerate() {
                let attempts = (targets.len() - number + hosts_left) as u32;
                let deadline = deadline(options.connect_timeout, attempts, cx);
                let attempt = attempt(options, &login, session, host, target, cx);
                match bounded(Box::pin(attempt), deadline, cx).await {
                    Ok(conn) => return Ok(conn),
                    Err(error) => failures.note(host, error),
                }
            }
        }
    }
    Err(failures.into_error())
}

async fn targets(host: &Host, cx: &ConnectContext<'_>) -> Result<Vec<Target>> {
    let found = match &host.place {
        Place::Folder(folder) => {
            return Ok(vec![Target::Unix(folder.join(format!(".s.PGSQL.{}", host.port)))]);
        }
        Place::Name(_, Some(address)) => vec![(*address, host.port).into()],
        Place::Name(name, None) => {
            let found = cx.runtime().resolve(name, host.port).await;
            found.map_err(|failure| {
                Error::connect(format!("the name is not found: {failure}")).with_source(failure)
            })?
        }
    };
    match found.is_empty() {
        true => Err(Error::connect("the name has no address")),
        false => Ok(found.into_iter().map(Target::Tcp).collect()),
    }
}

/// Until when this attempt of so many may take: each its share of what is left,
/// but no longer than the options say.
fn deadline(
    limit: Option<Duration>,
    attempts: u32,
    cx: &ConnectContext<'_>,
) -> (Instant, Duration) {
    let now = cx.runtime().now();
    let share = cx.deadline().saturating_duration_since(now) / attempts.max(1);
    let limit = limit.map_or(share, |limit| limit.min(share));
    (now + limit, limit)
}

async fn bounded<T>(
    attempt: impl Future<Output = Result<T>>,
    (deadline, limit): (Instant, Duration),
    cx: &ConnectContext<'_>,
) -> Result<T> {
    match select(pin!(attempt), cx.runtime().sleep_until(deadline)).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => {
            Err(Error::timeout(Phase::Connecting, format!("no answer within {limit:.1?}")))
        }
    }
}

async fn attempt(
    options: &Options,
    login: &Config,
    session: TargetSession,
    host: &Host,
    target: &Target,
    cx: &ConnectContext<'_>,
) -> Result<PostgresConnection> {
    let runtime = cx.runtime();
    let io = runtime.connect(target, &options.socket).await.map_err(error::unreachable)?;
    // A socket of this machine needs no encryption.
    let mut tls = options.tls.clone();
    let name = match &host.place {
        Place::Name(name, _) => name.as_str(),
        Place::Folder(_) => {
            tls.mode = TlsMode::Disable;
            ""
        }
    };
    let secured = tls::negotiate(io, &tls, name).await?;
    let link = Link::new();
    let wire = Wire::new(secured.stream, Arc::clone(&link), secured.binding);
    let (client, connection) = login.connect_raw(wire, Negotiated).await.map_err(error::refused)?;
    let version = connection.parameter("server_version").unwrap_or_default().to_owned();
    look(&connection, &link);
    let standby = link.is_standby();
    let read_only = connection.parameter("default_transaction_read_only").map(|told| told == "on");
    runtime.spawn(Box::pin(drive(connection, Arc::clone(&link))));
    let way = Way {
        runtime: Arc::clone(runtime),
        target: target.clone(),
        socket: options.socket.clone(),
        tls: secured.encrypted.then(|| (tls, name.to_owned())),
    };
    let mut conn = PostgresConnection::new(client, link, &version, way, options.statement_cache);
    if session != TargetSession::Any {
        let (standby, read_only) = match (standby, read_only) {
            (Some(standby), Some(read_only)) if !conn.may_be_pooled() => (standby, read_only),
            // A server before version 14 does not tell by itself, and a pooler
            // repeats what it was told once.
            _ => ask(&mut conn).await?,
        };
        if let Some(unfit) = unfit(session, standby, read_only) {
            conn.close().await;
            return Err(Error::connect(unfit).with_cause(Cause::WrongRole));
        }
    }
    Ok(conn)
}

/// Whether it is a standby, and whether its sessions refuse writes.
async fn ask(conn: &mut PostgresConnection) -> Result<(bool, bool)> {
    const SQL: &str =
        "SELECT pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only')";
    let answer = conn.run(async |client| client.simple_query(SQL).await).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0) == Some("t"), row.get(1) == Some("on"))),
        _ => None,
    });
    Ok(row.unwrap_or_default())
}

/// Why a server will not do.
fn unfit(wanted: TargetSession, standby: bool, read_only: bool) -> Option<&'static str> {
    match wanted {
        TargetSession::ReadWrite if standby || read_only => {
            Some("its sessions refuse writes, and read-write is asked for")
        }
        TargetSession::ReadOnly if !(standby || read_only) => {
            Some("its sessions take writes, and read-only is asked for")
        }
        TargetSession::Primary if standby => Some("it is a standby, and a primary is asked for"),
        TargetSession::Standby if !standby => Some("it is a primary, and a standby is asked for"),
        _ => None,
    }
}

/// What each host failed of.
#[derive(Default)]
struct Failures(Vec<(String, Error)>);

impl Failures {
    /// Of a host with several addresses what counts is what it answered, at
    /// whichever: often it listens on one of them only.
    fn note(&mut self, host: &Host, error: Error) {
        let host = host.to_string();
        if error.is_permanent() {
            self.0.retain(|(known, told)| *known != host || told.is_permanent());
        }
        let is_told = self.0.iter().any(|(known, told)| {
            *known == host && (told.is_permanent() || told.message() == error.message())
        });
        if !is_told {
            self.0.push((host, error));
        }
    }

    /// One error for all. It is as good as the best of them: only if all are
    /// permanent, trying again is of no use.
    fn into_error(self) -> Error {
        let said: Vec<String> =
            self.0.iter().map(|(host, error)| format!("{host}: {}", error.message())).collect();
        let best = self.0.iter().position(|(_, error)| !error.is_permanent()).unwrap_or(0);
        let Some((_, error)) = self.0.into_iter().nth(best) else {
            return Error::config("host: there is none");
        };
        let told = match error.is_timeout() {
            true => Error::timeout(Phase::Connecting, said.join("; ")),
            false => Error::connect(said.join("; ")).with_cause(error.cause()),
        };
        let told = match error.code() {
            Some(code) => told.with_code(code.clone()),
            None => told,
        };
        told.with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(errors: impl IntoIterator<Item = Error>) -> Error {
        let mut failures = Failures::default();
        for (port, error) in (1..).zip(errors) {
            failures.note(&Host::new("db", port), error);
        }
        failures.into_error()
    }

    #[test]
    fn when_all_hosts_fail_the_error_names_the_cause_of_each() {
        let refused = || Error::connect("connection refused");
        let denied = || Error::connect("wrong password").with_cause(Cause::Auth);
        let error = failures([denied(), refused()]);
        assert_eq!(error.to_string(), "db:1: wrong password; db:2: connection refused");
        assert!(!error.is_permanent());
        assert!(failures([denied(), denied()]).is_permanent());
    }

    #[test]
    fn of_a_host_with_several_addresses_its_answer_counts() {
        let refused = || Error::connect("connection refused");
        let denied = || Error::connect("wrong password").with_cause(Cause::Auth);
        for errors in [[refused(), denied()], [denied(), refused()], [denied(), denied()]] {
            let mut failures = Failures::default();
            errors.into_iter().for_each(|error| failures.note(&Host::new("db", 1), error));
            let error = failures.into_error();
            assert!(error.is_permanent());
            assert_eq!(error.to_string(), "db:1: wrong password");
        }
    }

    #[test]
    fn a_server_is_judged_by_what_is_asked_for() {
        use TargetSession::{Any, Primary, ReadOnly, ReadWrite, Standby};

        for (session, fits) in [
            (Any, [true, true, true]),
            (ReadWrite, [true, false, false]),
            (ReadOnly, [false, true, true]),
            (Primary, [true, false, true]),
            (Standby, [false, true, false]),
        ] {
            let servers = [(false, false), (true, true), (false, true)];
            let judged = servers.map(|(standby, only)| unfit(session, standby, only).is_none());
            assert_eq!(judged, fits, "{session:?}");
        }
    }
}
