//! What a query allocates, beside the driver alone: row D17.
//!
//! Everything runs on the test's own thread, the driver's task too, and allocations are counted for each thread. The
//! ceilings may be lowered, not raised.

#![allow(unsafe_code)] // An allocator is `unsafe` by its trait; this one only counts and passes on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use bequest::Context;
use bequest_postgres::Options;
use bequest_postgres::tokio_postgres::{NoTls, connect};
use bequest_test::servers::Postgres;

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no count any more, and nobody asks for it.
        CALLS.try_with(|calls| calls.set(calls.get() + 1)).ok();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ROOT: Context = Context::background();

const SQL: &str = "SELECT $1::int8";
const QUERIES: usize = 200;

/// How often each of many queries allocates, once all that is kept has been made. Rounded down: a buffer on the way grows now and
/// then.
async fn allocations(query: impl AsyncFn(i64)) -> usize {
    for number in (0..).take(QUERIES) {
        query(number).await;
    }
    let before = CALLS.get();
    for number in (0..).take(QUERIES) {
        query(number).await;
    }
    (CALLS.get() - before) / QUERIES
}

#[tokio::test]
async fn d17_a_context_costs_a_query_no_allocation_of_its_own() {
    let Some(server) = Postgres::start_or_leave_out() else {
        return;
    };
    let (client, connection) = connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let statement = client.prepare(SQL).await.unwrap();
    let db = Options::from_url(&server.url())
        .unwrap()
        .connections(1)
        .open(&ROOT)
        .await
        .unwrap();
    let drivers = allocations(async |number| {
        client.query(&statement, &[&number]).await.unwrap();
    })
    .await;
    let query = async |ctx: &Context, number: i64| {
        db.query(ctx, SQL, &[&number]).await.unwrap();
    };
    let endless = allocations(async |number| query(&ROOT, number).await).await;
    let scope = ROOT.with_cancel();
    let endable = allocations(async |number| query(&scope, number).await).await;
    let limited = allocations(async |number| {
        query(&scope.with_timeout(Duration::from_secs(5)), number).await;
    })
    .await;
    assert_eq!(
        [endless, endable, limited],
        [drivers; 3],
        "without an end, with one, with a new deadline each"
    );
}
