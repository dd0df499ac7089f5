//! Several databases from one document: each pool by its name, opened once
//! however many ask, all closed together.
//!
//!     cargo run --example named_pools --features sqlite,tokio,serde_json

use millpond::{PoolRegistry, Result, params, runtime};

const DOCUMENT: &str = r#"{
    "shop":     { "url": "sqlite::memory:", "max_open_conns": 8, "acquire_timeout": "2s" },
    "sessions": { "url": "sqlite::memory:", "max_open_conns": 2, "conn_max_lifetime": 600000000000 }
}"#;

fn main() -> Result<()> {
    // Everything wrong with a document is said at once.
    let typo = DOCUMENT.replace("max_open_conns", "max_open_conn").replace("2s", "2");
    let refused = serde_json::from_str::<PoolRegistry>(&typo).expect_err("three faults");
    println!("a document with mistakes: {refused}\n");

    let pools: PoolRegistry = serde_json::from_str(DOCUMENT).expect("a good document");
    runtime::block_on(async {
        let shop = pools.get("shop").await?;
        shop.batch("CREATE TABLE item (name TEXT)").await?;
        shop.execute("INSERT INTO item VALUES (?)", &params!["pond"]).await?;
        let rows = shop.query("SELECT count(*) FROM item", &[]).await?;
        println!("items: {}; {}", rows.scalar::<i64>()?, shop.snapshot());

        let missing = pools.get("shops").await.expect_err("no such pool");
        println!("no such pool: {missing}");
        println!("{}", pools.close_all().await);
        Ok(())
    })
}
