//! The caller's future is dropped after each number of polls: whatever it was doing then, the next user finds the pool
//! whole.

use std::time::Duration;

use crate::common::{ROOT, Watcher, eventually, is_whole, options, polled, server, single, within};

/// As often as a query is polled at most, when each piece of the answer comes alone.
const POLLS: usize = 12;

#[tokio::test]
async fn a_future_dropped_in_any_state_leaves_the_pool_whole() {
    let Some(server) = server() else { return };
    let db = single(server, "dropped_anywhere").await;
    let watcher = Watcher::new(server, "dropped_anywhere").await;
    watcher
        .run("CREATE TABLE dropped_anywhere (n int8 PRIMARY KEY)")
        .await;
    let (mut finished, mut number) = (0, 0i64);
    for polls in 1..=POLLS {
        for _ in 0..20 {
            number += 1;
            // A text of its own, so that it is prepared every time.
            let sql = format!("INSERT INTO dropped_anywhere VALUES ({number}) RETURNING pg_sleep(0.001)");
            let inserted = polled(db.query(&ROOT, &sql, &[]), polls).await;
            if let Some(answer) = inserted {
                answer.unwrap();
                finished += 1;
            }
            within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
        }
    }
    assert!(
        finished > 0 && finished < number,
        "{finished} of {number} finished"
    );
    eventually("the pool is whole", || is_whole(&db)).await;
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded), (1, 0), "{now:?}");
    watcher.until("idle", 1).await;
    assert!(watcher.number("SELECT count(*) FROM dropped_anywhere").await >= finished);
}

#[tokio::test]
async fn five_hundred_clients_leave_at_once_and_the_cancels_stay_bounded() {
    let Some(server) = server() else { return };
    let db = options(server, "storm")
        .connections(40)
        .cancels(4)
        .open(&ROOT)
        .await
        .unwrap();
    let watcher = Watcher::new(server, "storm").await;
    let everybody = ROOT.with_cancel();
    let clients: Vec<_> = (0..500)
        .map(|_| {
            let (db, ctx) = (db.clone(), everybody.context());
            tokio::spawn(async move { db.query(&ctx, "SELECT pg_sleep(600)", &[]).await.map(|_| ()) })
        })
        .collect();
    watcher.until("active", 40).await;
    eventually("the others wait", || db.statistics().waiting == 460).await;
    everybody.cancel();
    for client in clients {
        assert!(within(client).await.unwrap().unwrap_err().is_canceled());
    }
    eventually("the pool is whole", || is_whole(&db)).await;
    watcher.until("active", 0).await;
    let now = db.statistics();
    assert!(now.most_cancels <= 4 && now.cancels_sent >= 40, "{now:?}");
    assert_eq!(
        (now.opened, now.discarded, now.abandoned),
        (40, 0, 460),
        "{now:?}"
    );
    within(db.query(&ROOT.with_timeout(Duration::from_secs(10)), "SELECT 1", &[]))
        .await
        .unwrap();
}
