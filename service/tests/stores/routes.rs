//! The other routes on servers: what is stored, reported and worked on.

use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bequest::Context;
use bequest_redis::redis;

use crate::servers::Stores;
use crate::support::client::{Client, ask};
use crate::support::instance::{Folder, Instance, command};
use crate::support::until;
use crate::{BINARY, SESSION, me, session, token};

fn service(stores: &Stores, flags: &[&str]) -> Instance {
    Instance::start(BINARY, &[&stores.flags()[..], flags].concat())
}

#[test]
fn a_fetch_is_written_and_one_whose_client_left_is_not() {
    let Some(stores) = Stores::new() else { return };
    let service = service(&stores, &[]);
    assert_eq!(service.get("/store?key=whole&ms=20").body, "whole:ab\n");
    let last = service.get("/store/last").json();
    assert_eq!(
        (&last["state"], &last["key_in_store"]),
        (&"written".into(), &true.into())
    );

    drop(Client::begin(service.public, "/store?key=left&ms=60000"));
    service.until_json("/store/last", |last| {
        last["key"] == "left" && last["state"] == "stopped"
    });
    let keys = stores.query("SELECT key FROM bequest.answers ORDER BY key", &[]);
    assert_eq!(keys.len(), 1, "nothing was written for who left");
    assert_eq!(keys[0].get::<_, String>(0), "whole");
}

#[test]
fn a_report_is_made_by_the_server_and_the_last_one_is_shared() {
    let Some(stores) = Stores::new() else { return };
    let (one, other) = (service(&stores, &[]), service(&stores, &[]));
    let first = one.get("/report?ms=20").json();
    assert!(
        first["report"].as_str().unwrap().contains("entries, balance"),
        "{first}"
    );
    let second = other.get("/report?ms=20").json();
    assert_eq!(
        second["last_report"], first["report"],
        "from the other node, by the cache"
    );
}

/// How many statements of this database the server is working on, other than the question itself.
fn active(stores: &Stores) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()";
    stores.query(sql, &[])[0].get(0)
}

#[test]
fn fifty_reports_die_with_their_clients() {
    let Some(stores) = Stores::new() else { return };
    let service = service(&stores, &[]);
    let begin = || -> Vec<Client> {
        let begin = |_| Client::begin(service.public, "/report?ms=60000&timeout=20s");
        (0..50).map(begin).collect()
    };
    let clients = begin();
    // The pool has ten places; the others wait for one.
    until("ten reports at work", || (active(&stores) == 10).then_some(()));
    let left = Instant::now();
    drop(clients);
    until("nothing at work", || (active(&stores) == 0).then_some(()));
    eprintln!(
        "nothing was at work {:?} after the last of 50 clients had left",
        left.elapsed()
    );
    service.until_metric("bequest_statements_running", 0);
    assert!(
        service.get("/report/last").json()["interrupted"]
            .as_u64()
            .unwrap()
            >= 10
    );

    // The control: the same statement, of which nobody says that it is not wanted any more.
    let naive = naive_report(&stores.database);
    until("the naive report at work", || {
        (active(&stores) == 1).then_some(())
    });
    naive.give_up();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(active(&stores), 1, "its client left long ago");
}

/// A client of the driver alone that asks for a long report.
struct Naive {
    _runtime: tokio::runtime::Runtime,
    request: tokio::task::JoinHandle<()>,
    /// As a pool would, it keeps the connection.
    _client: std::sync::Arc<bequest_postgres::tokio_postgres::Client>,
}

fn naive_report(url: &str) -> Naive {
    use bequest_postgres::tokio_postgres::{NoTls, connect};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, connection) = runtime.block_on(connect(url, NoTls)).unwrap();
    runtime.spawn(connection);
    let client = std::sync::Arc::new(client);
    let asking = std::sync::Arc::clone(&client);
    let request = runtime.spawn(async move {
        let answer = asking
            .query("SELECT * FROM bequest.ledger(interval '20 seconds')", &[])
            .await;
        drop(answer);
    });
    Naive {
        _runtime: runtime,
        request,
        _client: client,
    }
}

impl Naive {
    /// The future is dropped, and nothing else happens.
    fn give_up(&self) {
        self.request.abort();
    }
}

#[test]
fn jobs_are_kept_and_those_of_a_killed_node_are_interrupted() {
    let Some(stores) = Stores::new() else { return };
    let (mut killed, stays) = (service(&stores, &[]), service(&stores, &[]));
    let begin = |service: &Instance| {
        let begun = ask(service.public, "POST", "/jobs", &[]);
        assert_eq!(begun.status, 202, "{}", begun.body);
        begun.json()["Result"]["job"].as_i64().unwrap()
    };
    let (lost, kept) = (begin(&killed), begin(&stays));
    killed.signal("KILL");
    killed.ended();
    let state = |service: &Instance, job| service.get(&format!("/jobs/{job}")).json()["state"].clone();

    // The server lets go of a node's lock when it sees the end of its connection.
    let mut third = None;
    until("the job of the killed node is interrupted", || {
        let node = service(&stores, &[]);
        let is_seen = state(&node, lost) == "interrupted";
        third = Some(node);
        is_seen.then_some(())
    });
    let third = third.unwrap();
    assert_eq!(state(&third, kept), "running", "its node is alive");
    let cancelled = ask(
        stays.public,
        "DELETE",
        &format!("/jobs/{kept}?reason=enough"),
        &[],
    );
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    assert_eq!(state(&third, kept), "cancelled", "and every node knows");
}

/// Starts a job; its path.
fn begin(service: &Instance) -> String {
    let begun = ask(service.public, "POST", "/jobs", &[]);
    assert_eq!(begun.status, 202, "{}", begun.body);
    begun.header("location").expect("a Location").to_string()
}

/// Whom the server tells of jobs that are to end, in this database.
const LISTENERS: &str = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";

/// Waits until so many nodes listen.
fn until_listening(stores: &Stores, nodes: i64) {
    let sql = format!("SELECT count(*) {LISTENERS}");
    until("every node listens", || {
        (stores.query(&sql, &[])[0].get::<_, i64>(0) == nodes).then_some(())
    });
}

#[test]
fn a_job_is_cancelled_by_whichever_node_is_asked() {
    let Some(stores) = Stores::new() else { return };
    let (one, other) = (service(&stores, &[]), service(&stores, &[]));
    until_listening(&stores, 2);
    let (job, stays) = (begin(&one), begin(&one));
    let asked = Instant::now();
    let answer = ask(other.public, "DELETE", &format!("{job}?reason=not+needed"), &[]);
    eprintln!("cancelled by way of another node after {:?}", asked.elapsed());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = answer.json();
    assert_eq!(
        (&told["state"], &told["reason"]),
        (&"cancelled".into(), &"not needed".into())
    );
    assert_eq!(one.get(&job).json(), told, "and its own node says the same");
    assert_eq!(one.get(&stays).json()["state"], "running");
    let again = ask(other.public, "DELETE", &job, &[]);
    assert_eq!((again.status, &again.json()["Code"]), (409, &"job_over".into()));

    // The word is lost with the connection; what is written is found when somebody listens again.
    stores.query(&format!("SELECT pg_terminate_backend(pid) {LISTENERS}"), &[]);
    let answer = ask(other.public, "DELETE", &stays, &[]);
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (200, &"cancelled".into()),
        "{}",
        answer.body
    );
    one.event("nobody hears what other nodes ask of jobs");
    until_listening(&stores, 2);
}

#[test]
fn a_job_whose_node_hangs_is_cancelled_when_it_goes_on_and_one_whose_node_is_gone_is_interrupted() {
    let Some(stores) = Stores::new() else { return };
    let mut one = service(&stores, &["--job-limit", "1h"]);
    let other = service(&stores, &["--request-limit", "300ms"]);
    let patient = service(&stores, &[]);
    until_listening(&stores, 3);
    let job = begin(&one);
    one.signal("STOP");
    let answer = ask(other.public, "DELETE", &format!("{job}?reason=not+needed"), &[]);
    assert_eq!(
        answer.status, 504,
        "nobody can say that it has ended: {}",
        answer.body
    );
    assert_eq!(other.get(&job).json()["state"], "running");
    one.signal("CONT");
    let ended = other.until_json(&job, |job| job["state"] != "running");
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&"cancelled".into(), &"not needed".into())
    );

    let lost = begin(&one);
    one.signal("KILL");
    one.ended();
    let answer = ask(patient.public, "DELETE", &lost, &[]);
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (200, &"interrupted".into()),
        "{}",
        answer.body
    );
    patient.event("jobs were interrupted");
}

/// Everything that is in the database and in the cache, as text.
fn everything(stores: &Stores) -> String {
    let sql = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'bequest'";
    let tables = stores.query(sql, &[]);
    assert!(tables.len() >= 6, "there are tables");
    let mut text = String::new();
    for table in tables {
        let table: String = table.get(0);
        let sql = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM bequest.{table} AS t");
        text += &stores.query(&sql, &[])[0].get::<_, String>(0);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (ctx, client) = (
            Context::background(),
            bequest_redis::Client::open(&*stores.cache).unwrap(),
        );
        let mut keys = redis::cmd("KEYS");
        let keys: Vec<String> = client.cmd(&ctx, keys.arg("*")).await.unwrap();
        for key in keys {
            let mut get = redis::cmd("GET");
            // It may have expired since.
            let value: Option<Vec<u8>> = client.cmd(&ctx, get.arg(&key)).await.unwrap();
            text.push_str(&key);
            text.push_str(&String::from_utf8_lossy(&value.unwrap_or_default()));
        }
    });
    text
}

#[test]
fn no_id_and_no_token_is_in_the_database_or_in_the_cache() {
    let Some(stores) = Stores::new() else { return };
    let service = service(&stores, &[]);
    let token = token(&service, "ann");
    let bearer = format!("Bearer {token}");
    let begun = ask(service.public, "POST", "/sessions", &[("authorization", &bearer)]);
    let id = begun.json()["Result"]["id"].as_str().unwrap().to_string();
    assert_eq!(me(&service, &id), 200);
    ask(service.public, "POST", "/jobs", &[(SESSION, &id)]);
    let text = everything(&stores);
    for secret in [&id, &token] {
        assert!(!text.contains(secret.as_str()));
    }
    // What is there in their place, twice: a row, and an entry of the cache.
    let bytes = URL_SAFE_NO_PAD.decode(&id).unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text.matches(&hash).count(), 2);
}

#[test]
fn a_password_is_neither_printed_nor_logged() {
    let Some(stores) = Stores::new() else { return };
    // The server trusts everybody, so any password does.
    let database = stores.database.replace("postgres@", "postgres:s3cret@");
    let mut service = Instance::start(BINARY, &["--database", &database, "--cache", &stores.cache]);
    session(&service, "ann");
    service.signal("TERM");
    assert!(service.ended().success());
    let logged = service.logged();
    assert!(
        !logged.contains("s3cret") && logged.contains("/service_"),
        "{logged}"
    );

    let nowhere = "postgres://ann:s3cret@127.0.0.1:9/shop";
    let cases: [(&str, &[&str]); 4] = [
        ("nobody there", &["--database", nowhere]),
        (
            "no such scheme",
            &["--database", "mysql://ann:s3cret@127.0.0.1/shop"],
        ),
        ("no URL", &["--cache", "s3cret"]),
        ("no cache there", &["--cache", "redis://:s3cret@127.0.0.1:9"]),
    ];
    for (what, flags) in cases {
        let folder = Folder::new();
        let mut command = command(BINARY.as_ref());
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
        command.arg(folder.path().join("data")).args(flags);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success(), "{what}: {said}");
        assert!(
            said.contains(flags[0]) || said.contains("127.0.0.1:9"),
            "{what}: {said}"
        );
        assert!(!said.contains("s3cret"), "{what}: {said}");
    }

    let mut command = command(BINARY.as_ref());
    command.env("BEQUEST_DATABASE", nowhere).arg("--help");
    let help = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(
        help.contains("BEQUEST_DATABASE") && !help.contains("s3cret"),
        "{help}"
    );
}
