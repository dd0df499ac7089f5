//! A web service on a pool, with what an operator wants of it: `/healthz`,
//! `/readyz`, `/metrics`, and a line every ten seconds.
//!
//!     cargo run --manifest-path examples/observability/Cargo.toml
//!     curl localhost:3000/metrics
//!
//! Listens on 127.0.0.1:3000, or on the address given. Its database is a SQLite
//! file in memory.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use millpond::health::{HealthChecker, HealthConfig};
use millpond::metrics::{self, Monitor};
use millpond::{Pool, drivers::Any, params};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder(Any::from_url("sqlite::memory:")?)
        .name("shop")
        .max_open_conns(4)
        .build()
        .await?;
    let monitor = Monitor::start(&pool, Duration::from_secs(10), |report| println!("{report}"))?;
    // It asks the database on a connection of its own, so a pool that is used up
    // is no reason to send the traffic elsewhere.
    let checker = Arc::new(HealthChecker::start(&pool, HealthConfig::new())?);
    println!("{}", checker.check_now().await);
    let readyz = {
        let checker = Arc::clone(&checker);
        move || async move { ready(&checker) }
    };
    let app = Router::new()
        .route("/", get(index))
        // A database that is down is no reason to restart this process.
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .with_state(pool.clone());
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
        .await?;
    checker.stop().await;
    monitor.stop();
    println!("{}", pool.drain(Duration::from_secs(5)).await);
    Ok(())
}

async fn index(State(pool): State<Pool<Any>>) -> Result<String, (StatusCode, String)> {
    let answer = pool.query("SELECT 'sold ' || ?1 || ' today'", &params![7]).await;
    let text = answer.and_then(|rows| rows.scalar::<String>());
    text.map(|text| text + "\n").map_err(unavailable)
}

/// Whether this process should get traffic, and why.
fn ready(checker: &HealthChecker) -> (StatusCode, String) {
    let (code, body) = checker.answer();
    (StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body + "\n")
}

async fn exposition(State(pool): State<Pool<Any>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::OPENMETRICS)], metrics::openmetrics(&[&pool]))
}

/// The public is not told what the database said; it may quote values.
fn unavailable(error: millpond::Error) -> (StatusCode, String) {
    eprintln!("{error}");
    (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n".to_owned())
}
