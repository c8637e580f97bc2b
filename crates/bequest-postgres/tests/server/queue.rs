//! Waiting for a connection: in order, within the budget, without a trace; and making connections.

use std::time::Duration;

use bequest_postgres::Step;
use bequest_test::proxy::{Faults, Proxy};

use crate::common::{LONG, ROOT, Watcher, eventually, is_whole, options, polled, server, single, within};

#[tokio::test]
async fn d2_a_waiter_that_leaves_does_not_shrink_the_pool() {
    let Some(server) = server() else { return };
    let db = single(server, "d2").await;
    let mut rows = within(db.query_stream(&ROOT, "SELECT 1", &[])).await.unwrap();
    for _ in 0..20 {
        let request = ROOT.with_timeout(Duration::from_millis(1));
        let error = within(db.query(&request, "SELECT 1", &[])).await.unwrap_err();
        assert!(error.is_canceled());
        assert_eq!(error.step(), Step::Waiting);
        assert!(polled(db.query(&ROOT, "SELECT 1", &[]), 1).await.is_none());
    }
    let now = db.statistics();
    assert_eq!(
        (now.waiting, now.abandoned, now.connections),
        (0, 40, 1),
        "{now:?}"
    );
    while within(rows.next()).await.unwrap().is_some() {}
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    assert!(is_whole(&db) && db.statistics().opened == 1);
}

#[tokio::test]
async fn d2_waiters_are_served_in_the_order_in_which_they_came() {
    let Some(server) = server() else { return };
    let db = single(server, "d2_order").await;
    let mut rows = within(db.query_stream(&ROOT, "SELECT 1", &[])).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..20 {
        let (caller, tell) = (db.clone(), tell.clone());
        tokio::spawn(async move {
            caller.query(&ROOT, "SELECT 1", &[]).await.unwrap();
            tell.send(number).unwrap();
        });
        eventually("it waits", || db.statistics().waiting == number + 1).await;
    }
    drop(tell);
    while within(rows.next()).await.unwrap().is_some() {}
    let mut order = Vec::new();
    while let Some(number) = within(told.recv()).await {
        order.push(number);
    }
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn d3_no_limit_but_the_context() {
    let Some(server) = server() else { return };
    let db = single(server, "d3").await;
    let rows = within(db.query_stream(&ROOT, "SELECT 1", &[])).await.unwrap();
    let request = ROOT.with_timeout(Duration::from_millis(20));
    let error = within(db.query(&request, "SELECT 1", &[])).await.unwrap_err();
    assert!(error.canceled().unwrap().is_from(&request));
    drop(rows);
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    let now = db.statistics();
    assert_eq!(
        (now.waited, now.abandoned),
        (3, 1),
        "the opening, and the two: {now:?}"
    );
    assert!(now.wait_time >= Duration::from_millis(20));
}

/// DIFFERENCE: in Go the dial dies with the request.
#[tokio::test]
async fn d4_a_connection_that_nobody_waits_for_any_more_is_pooled() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.address()).await.unwrap();
    let url = server.url_through(proxy.address());
    let db = bequest_postgres::Options::from_url(&url)
        .unwrap()
        .connections(2)
        .open(&ROOT)
        .await
        .unwrap();
    let rows = within(db.query_stream(&ROOT, "SELECT 1", &[])).await.unwrap();

    proxy.to_client(Faults::none().latency(Duration::from_millis(100)));
    let request = ROOT.with_timeout(Duration::from_millis(20));
    let error = within(db.query(&request, "SELECT 1", &[])).await.unwrap_err();
    assert_eq!(error.step(), Step::Connecting);
    assert_eq!(db.statistics().connecting, 1);
    eventually("it is made all the same", || db.statistics().idle == 1).await;
    assert_eq!(db.statistics().opened, 2);
    drop(rows);
}

#[tokio::test]
async fn d4_a_connection_that_can_not_be_made_is_one_callers_error() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.address()).await.unwrap();
    let url = server.url_through(proxy.address());
    let db = bequest_postgres::Options::from_url(&url)
        .unwrap()
        .connections(1)
        .open(&ROOT)
        .await
        .unwrap();
    proxy.both(Faults::none().cut_after(0));
    proxy.reset();
    eventually("it is lost", || db.statistics().idle == 0 || proxy.open() == 0).await;
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move { db.query(&ROOT, "SELECT 1", &[]).await.map(|_| ()) })
        })
        .collect();
    for call in calls {
        assert!(within(call).await.unwrap().unwrap_err().is_unreachable());
    }
    proxy.both(Faults::none());
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    let now = db.statistics();
    assert_eq!(
        (now.connections, now.waiting, now.connecting),
        (1, 0, 0),
        "{now:?}"
    );
}

#[tokio::test]
async fn d14_a_connection_that_was_lost_while_idle_is_replaced() {
    let Some(server) = server() else { return };
    let db = single(server, "d14").await;
    let watcher = Watcher::new(server, "d14").await;
    watcher
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'd14'")
        .await;
    watcher.until("%", 0).await;
    // Whether the loss was noticed in time or not, the caller after the one who notices it has a new connection.
    if let Err(error) = within(db.query(&ROOT, "SELECT 1", &[])).await {
        assert!(error.is_unreachable(), "{error}");
        within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    }
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded, now.connections), (2, 1, 1), "{now:?}");
}

#[tokio::test]
async fn d14_an_idle_connection_is_asked_before_it_is_given_out() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.address()).await.unwrap();
    let options = bequest_postgres::Options::from_url(&server.url_through(proxy.address())).unwrap();
    let db = options
        .connections(1)
        .idle_check(Duration::ZERO)
        .open(&ROOT)
        .await
        .unwrap();
    within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    assert_eq!(db.statistics().opened, 1, "it was sound");
    // The connection hangs, and is given up for a new one, which does not: the hole is healed meanwhile.
    proxy.to_client(Faults::none().black_hole());
    let heal = async {
        eventually("it is given up", || proxy.accepted() == 2).await;
        proxy.to_client(Faults::none());
    };
    let (answer, ()) = within(async { tokio::join!(db.query(&ROOT, "SELECT 1", &[]), heal) }).await;
    answer.unwrap();
    let now = db.statistics();
    assert_eq!((now.opened, now.discarded), (2, 1), "{now:?}");
}

#[tokio::test]
async fn an_old_connection_is_replaced() {
    let Some(server) = server() else { return };
    let db = options(server, "age")
        .connections(1)
        .max_age(Duration::ZERO)
        .open(&ROOT)
        .await
        .unwrap();
    for _ in 0..3 {
        within(db.query(&ROOT, "SELECT 1", &[])).await.unwrap();
    }
    let now = db.statistics();
    assert_eq!((now.opened, now.expired, now.discarded), (4, 4, 0), "{now:?}");
    Watcher::new(server, "age").await.until("%", 0).await;
}

#[tokio::test]
async fn a_closed_pool_refuses_and_waits_for_those_inside() {
    let Some(server) = server() else { return };
    let db = single(server, "close").await;
    let watcher = Watcher::new(server, "close").await;
    let request = ROOT.with_cancel();
    let inside = tokio::spawn({
        let (db, ctx) = (db.clone(), request.context());
        async move { db.query(&ctx, LONG, &[]).await.map(|_| ()) }
    });
    watcher.until("active", 1).await;
    let mut waiting = Box::pin(db.query(&ROOT, "SELECT 1", &[]));
    assert!(polled(&mut waiting, 1).await.is_none());

    let impatient = ROOT.with_timeout(Duration::from_millis(20));
    let error = within(db.close(&impatient)).await.unwrap_err();
    assert!(error.is_canceled());
    assert_eq!(error.step(), Step::Closing);
    assert!(within(waiting).await.unwrap_err().is_closed());
    assert!(
        within(db.query(&ROOT, "SELECT 1", &[]))
            .await
            .unwrap_err()
            .is_closed()
    );

    request.cancel();
    within(db.close(&ROOT)).await.unwrap();
    assert!(within(inside).await.unwrap().unwrap_err().is_canceled());
    watcher.until("%", 0).await;
    assert_eq!(db.statistics().connections, 0);
}
