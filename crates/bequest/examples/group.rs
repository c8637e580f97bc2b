//! A group: tasks that are waited for together, and told to stop when one of them fails.
//!
//! Run it with `cargo run -p bequest --features tokio --example group`; it says nothing if every assertion holds.

use bequest::{Canceled, Context, Group, GroupError, Reason};

#[derive(Debug)]
enum Failure {
    NotFound(&'static str),
    Ended(Canceled),
}

/// The sizes of all pages, fetched side by side, two at a time; the first failure stops the others.
async fn sizes(ctx: &Context, pages: &[&'static str]) -> Result<Vec<usize>, GroupError<Failure>> {
    let mut group = Group::new(ctx).limit(2);
    for &page in pages {
        group.spawn(move |ctx| async move { fetch(&ctx, page).await });
    }
    group.wait().await
}

/// Pages that are slow take until somebody ends them.
async fn fetch(ctx: &Context, page: &'static str) -> Result<usize, Failure> {
    match page {
        "/missing" => Err(Failure::NotFound(page)),
        "/slow" => Err(Failure::Ended(ctx.done().await)),
        page => Ok(page.len()),
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() {
    let request = Context::background().with_cancel();
    assert_eq!(
        sizes(&request, &["/a", "/bcd", "/ef"]).await.unwrap(),
        [2, 4, 3],
        "in the order of spawning"
    );

    let failed = sizes(&request, &["/slow", "/missing"]).await.unwrap_err();
    assert!(matches!(failed.error(), Some(Failure::NotFound("/missing"))));
    let [Failure::Ended(end)] = failed.others() else {
        panic!("the slow one was told, and its error is not lost")
    };
    assert_eq!(end.reason(), Reason::Sibling);
    assert!(!request.is_done(), "the request itself lives on");

    request.cancel_for(Reason::ClientGone);
    let failed = sizes(&request, &["/a"]).await.unwrap_err();
    assert_eq!(
        failed.canceled().unwrap().reason(),
        Reason::ClientGone,
        "not even begun"
    );
}
