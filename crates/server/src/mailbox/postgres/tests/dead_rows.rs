//! Complaint T20: rows that are deleted pile up under a snapshot that somebody holds, and queues in PostgreSQL collapse, for they
//! search what is next among them. Nothing is searched here, which is judged by the pages that a statement reads, and by plans.

use jam_core::store::{MailboxStore as _, OutboundState, Seq, Write};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::setting::{Setting, create, id, user};
use crate::mailbox::postgres::connection::{Database, Purpose};
use crate::mailbox::postgres::reader;
use crate::mailbox::postgres::rows::Sql;
use crate::mailbox::postgres::runtime;
use crate::mailbox::tests::setting::append_of;
use crate::postgres::testing::{HasAddress as _, TestDatabase, TestServer, database};

const USERS: u64 = 20;
const EACH: u64 = 25;

/// A transaction that may still see everything that was there when it began, as long as this lives.
struct HeldSnapshot {
    runtime: Runtime,
    client: Client,
}

impl HeldSnapshot {
    fn take(database: &TestDatabase) -> Self {
        let runtime = Runtime::new().unwrap();
        let address = database.address();
        let client = runtime.block_on(crate::postgres::open(&address, "somebody"));
        let client = client.unwrap();
        let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM message";
        runtime.block_on(client.batch_execute(sql)).unwrap();
        Self { runtime, client }
    }

    fn release(self) {
        let ended = self.client.batch_execute("COMMIT");
        self.runtime.block_on(ended).unwrap();
    }
}

/// A server that counts the pages that each statement reads, and vacuums nothing by itself.
fn counting() -> TestServer {
    TestServer::start_with(&[
        ("shared_preload_libraries", "pg_stat_statements"),
        ("pg_stat_statements.track", "all"),
        ("autovacuum", "off"),
    ])
}

/// Pages that statements like this have read for each row, or call, since the last `pg_stat_statements_reset`.
fn pages(database: &TestDatabase, like: &str, each: &str) -> f64 {
    let pages = database.run(&format!(
        "SELECT sum(shared_blks_hit + shared_blks_read)::float8 / sum({each}) FROM pg_stat_statements
         WHERE query LIKE '{like}' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ));
    pages.parse().unwrap_or_else(|_| panic!("{like}: {pages}"))
}

/// Messages come, are read, sent, acknowledged and gone.
fn round(setting: &Setting, first: Seq) {
    let names: Vec<_> = (0..USERS).map(|number| number.to_string()).collect();
    let of = |number: u64| first + number * EACH..first + (number + 1) * EACH;
    for (number, name) in names.iter().enumerate() {
        for seq in of(number as u64) {
            setting.ask(seq, [append_of(seq, name, "x".repeat(300))]);
        }
    }
    for _ in 0..USERS * EACH {
        assert_eq!(setting.answer().1, Ok(()));
    }
    for (number, name) in names.iter().enumerate() {
        let seqs: Vec<_> = of(number as u64).collect();
        assert_eq!(setting.load_of(name, &seqs).len(), seqs.len());
        let sent = seqs.iter().map(|seq| {
            let packet_id = id(u16::try_from(seq % 60_000).unwrap() + 1);
            Write::InFlight(
                session(number),
                packet_id,
                OutboundState::AwaitsPubAck(*seq),
            )
        });
        setting.mailbox().write(&user(name), sent.collect(), None);
    }
    setting.flush();
    for (number, name) in names.iter().enumerate() {
        let gone = of(number as u64).flat_map(|seq| {
            let packet_id = id(u16::try_from(seq % 60_000).unwrap() + 1);
            [
                Write::EndInFlight(session(number), packet_id),
                Write::Remove(seq),
            ]
        });
        setting.mailbox().write(&user(name), gone.collect(), None);
    }
    setting.flush();
}

fn session(number: usize) -> u64 {
    number as u64 + 1
}

/// Fifty times the dead rows, and a batch reads as many pages for each row as before: those of one way down the index, and of
/// the row.
#[test]
fn t20_a_snapshot_that_is_held_costs_batches_no_pages() {
    let server = counting();
    let database = server.database();
    let setting = Setting::in_database(&database, None);
    database.run("CREATE EXTENSION pg_stat_statements");
    let held = HeldSnapshot::take(&database);
    // What is known of the tables is of when they were empty.
    database.run("ANALYZE message, in_flight, batch");
    let statements = [
        ("DELETE FROM message%", "rows"),
        ("INSERT INTO message%", "rows"),
        ("SELECT m.sender%", "rows"),
        ("DELETE FROM in_flight%packet_id%", "rows"),
        ("INSERT INTO in_flight%", "rows"),
        ("SELECT jam_begin%", "calls"),
    ];
    let mut first = 1;
    let mut rounds = |count: u64| {
        database.run("SELECT pg_stat_statements_reset()");
        for _ in 0..count {
            round(&setting, first);
            first += USERS * EACH;
        }
        statements.map(|(like, each)| pages(&database, like, each))
    };
    rounds(1);
    let before = rounds(1);
    rounds(47);
    let after = rounds(1);
    let dead = USERS * EACH * 49;
    let there =
        database.run("SELECT pg_relation_size('message') / 8192, (SELECT count(*) FROM message)");
    let (size, live) = there.split_once('|').unwrap();
    assert_eq!(live, "0");
    assert!(
        size.parse::<u64>().unwrap() > dead / 25,
        "they are there: {size} pages"
    );
    for (((like, _), before), after) in statements.iter().zip(before).zip(after) {
        assert!(
            after <= before * 1.5 + 1.0,
            "{like}: {before} pages, then {after}"
        );
        assert!(after < 20.0, "{like}: {after} pages");
    }
    held.release();
}

/// Whatever is known of the tables when a plan is made: the one for tables that are full.
#[test]
fn t20_every_statement_goes_by_primary_key() {
    let database = database();
    create(&database);
    let fill = "INSERT INTO message (part, seq, \"user\", sender, flags, waits_for, acknowledged, received_at, size, body)
        SELECT 1, n, '1', '7', 0, 1, false, 0, 1, '' FROM generate_series(1, 20000) n; ANALYZE";
    for sql in ["ANALYZE", fill] {
        database.run(sql);
        for (purpose, statements) in [
            (Purpose::Writer, Sql::ALL),
            (Purpose::Reader, &[reader::SELECT]),
        ] {
            for (statement, plan) in plans(&database, purpose, statements) {
                for line in plan.lines() {
                    let line = line.trim().trim_start_matches("->").trim();
                    let is_search = line.starts_with("Filter:")
                        || line.contains(" Scan")
                            && !line.starts_with("Index Scan using ")
                            && !line.starts_with("Index Only Scan using ")
                            && !line.starts_with("Function Scan on ");
                    assert!(!is_search, "{statement}\n{plan}");
                }
            }
        }
    }
}

/// How each would be run, with the settings of such a connection.
fn plans<'a>(
    database: &TestDatabase,
    purpose: Purpose,
    statements: &[&'a str],
) -> Vec<(&'a str, String)> {
    let address = database.address();
    let planned = runtime(&address).unwrap().block_on(async {
        let connection = Database::connect(&address, "plans", purpose).await?;
        let client = connection.client();
        let mut plans = Vec::new();
        for (number, statement) in statements.iter().enumerate() {
            client
                .batch_execute(&format!("PREPARE s{number} AS {statement}"))
                .await?;
            let count = client.prepare(statement).await?.params().len();
            let nulls = vec!["NULL"; count].join(", ");
            let explain = format!("EXPLAIN (COSTS off) EXECUTE s{number}({nulls})");
            let lines = client.query(&explain, &[]).await?;
            let lines: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
            plans.push((*statement, lines.join("\n")));
        }
        connection.close().await;
        Ok::<_, crate::postgres::PostgresError>(plans)
    });
    planned.unwrap()
}

/// Old numbers are deleted without walking over those that were deleted before, and the last one is found without.
#[test]
fn t20_the_chain_is_not_walked() {
    let server = counting();
    let database = server.database();
    create(&database);
    database.run("CREATE EXTENSION pg_stat_statements");
    database.run(
        "INSERT INTO fence (incarnation) VALUES (7);
         INSERT INTO batch SELECT 7, n FROM generate_series(1, 100000) n",
    );
    let held = HeldSnapshot::take(&database);
    database.run("DELETE FROM batch WHERE n < 98000; ANALYZE batch");
    let address = database.address();
    let done = runtime(&address).unwrap().block_on(async {
        let connection = Database::connect(&address, "chain", Purpose::Writer).await?;
        let client = connection.client();
        let trim = client.prepare(Sql::ALL[Sql::Trim as usize]).await?;
        let mut trimmed = 0;
        // What a connection reads first of all to know the tables is not counted.
        for (n, below) in [(100_001, 98_010_i64), (100_002, 98_020)] {
            let reset = "SELECT pg_stat_statements_reset()";
            client.batch_execute(reset).await?;
            let begin = format!("BEGIN READ WRITE; SELECT jam_begin(7, {n})");
            client.batch_execute(&begin).await?;
            trimmed = client
                .execute(&trim, &[&7_i64, &(below - 10), &below])
                .await?;
            client.batch_execute("COMMIT").await?;
        }
        connection.close().await;
        Ok::<_, crate::postgres::PostgresError>(trimmed)
    });
    assert_eq!(done.unwrap(), 10);
    let trim = pages(&database, "DELETE FROM batch WHERE incarnation%", "calls");
    let begin = pages(&database, "SELECT jam_begin%", "calls");
    assert!(begin < 30.0, "{begin} pages for the last number");
    // All that are dead are 530 pages of rows and 270 of the index.
    assert!(trim < 60.0, "{trim} pages for 10 numbers");
    held.release();
}

/// CLUSTER.md's settings of the tables that change with messages: cleared after 20,000 dead rows whatever is in them, without
/// pauses. Others are cleared by the server's own rules.
#[test]
fn t20_tables_that_change_with_messages_are_vacuumed_early() {
    let database = database();
    create(&database);
    let early = "ARRAY['autovacuum_vacuum_scale_factor=0', 'autovacuum_vacuum_threshold=20000',
        'autovacuum_vacuum_cost_delay=0']";
    let found = database.run(&format!(
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
         WHERE relnamespace = current_schema()::regnamespace AND reloptions @> {early}"
    ));
    assert_eq!(found, "batch in_flight message push received session");
    // A content that is large stands there, in pieces, and is never compressed.
    let found = database.run(&format!(
        "SELECT t.reloptions @> {early}, a.attstorage FROM pg_class m JOIN pg_class t ON t.oid = m.reltoastrelid
         JOIN pg_attribute a ON a.attrelid = m.oid AND a.attname = 'body' WHERE m.relname = 'message'"
    ));
    assert_eq!(found, "t|e");
}
