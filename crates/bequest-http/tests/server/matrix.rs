//! The disconnect matrix: every way to leave, noticed with its reason, beside what bare hyper notices.
//!
//! The cases, the clients and the servers are those of the example `disconnect_matrix`, which measures what is only
//! asserted here. That something is *not* noticed is shown without waiting for a time: clients that leave later are
//! noticed first.

#[path = "../../examples/disconnect_matrix/cases.rs"]
mod cases;
#[path = "../../examples/disconnect_matrix/go.rs"]
mod go;
#[path = "../../examples/disconnect_matrix/servers.rs"]
mod servers;
#[path = "../../examples/disconnect_matrix/stream.rs"]
mod stream;

use std::time::Instant;

use bequest::Reason;

use cases::{Case, Client, Leaves, Sends};
use servers::{Kind, Notice, Serving};

use super::common::guard;

/// Plays a case. Says how it was noticed, or `None` if later departures were noticed and this one was not.
async fn play(kind: Kind, case: &Case) -> Option<Notice> {
    // One server for each case, so that no handler but its own is there to be met.
    let mut server = Serving::start(kind, case.tls).await.expect("a free port");
    let mut client = Client::begin(server.addr, case).await.expect("a server");
    let mut running = guard("the handler", server.next()).await;
    client.go_on(case).await.expect("an open connection");
    let _remains = client.leave(case.leaves);
    let sentinel = Case {
        name: "sentinel",
        leaves: Leaves::Close,
        ..Case::ordinary(case.tls)[0]
    };
    for _ in 0..5 {
        if let Ok(notice) = running.try_recv() {
            return Some(notice);
        }
        let other = Client::begin(server.addr, &sentinel).await.expect("a server");
        let noticed = guard("the sentinel's handler", server.next()).await;
        let _remains = other.leave(Leaves::Close);
        guard("the sentinel's end", noticed).await.expect("noticed");
    }
    running.try_recv().ok()
}

/// Plays a case that is to be noticed, however long that takes.
async fn noticed(kind: Kind, case: &Case) -> Notice {
    let mut server = Serving::start(kind, case.tls).await.expect("a free port");
    let mut client = Client::begin(server.addr, case).await.expect("a server");
    let running = guard("the handler", server.next()).await;
    client.go_on(case).await.expect("an open connection");
    let left = Instant::now();
    let _remains = client.leave(case.leaves);
    let what = format!("{kind:?} to notice: {} that leaves by {}", case.name, case.leaves);
    let notice = guard(&what, running).await.expect("the handler is told");
    assert!(notice.at >= left, "not before it has happened: {case:?}");
    notice
}

async fn assert_noticed(kind: Kind, case: &Case) {
    let reason = match case.leaves {
        Leaves::StreamReset => Reason::StreamReset,
        Leaves::Close | Leaves::Reset | Leaves::CloseNotify => Reason::ClientGone,
    };
    assert_eq!(noticed(kind, case).await.reason, Some(reason), "{case:?}");
}

#[tokio::test]
async fn every_departure_is_noticed_with_its_reason() {
    all_are_noticed(false).await;
}

#[tokio::test]
async fn every_departure_is_noticed_with_its_reason_over_tls() {
    all_are_noticed(true).await;
}

async fn all_are_noticed(tls: bool) {
    for case in Case::all(tls) {
        if case.is_beyond() && tls && case.leaves == Leaves::Close {
            // TLS holds a part of what is offered back, so a FIN may find room or not.
            continue;
        }
        if case.is_beyond() && case.leaves != Leaves::Reset {
            assert!(
                play(Kind::Bequest, &case).await.is_none(),
                "the crate page says that this one is not seen"
            );
        } else {
            assert_noticed(Kind::Bequest, &case).await;
        }
    }
}

#[tokio::test]
async fn without_the_watch_all_is_noticed_but_what_lies_behind_too_much_unread() {
    most_are_noticed_unwatched(false).await;
}

#[tokio::test]
async fn without_the_watch_all_is_noticed_but_what_lies_behind_too_much_unread_over_tls() {
    most_are_noticed_unwatched(true).await;
}

async fn most_are_noticed_unwatched(tls: bool) {
    for case in Case::all(tls) {
        match (case.is_beyond(), case.leaves) {
            (false, _) => assert_noticed(Kind::BequestUnwatched, &case).await,
            // Met if it comes while there is still room to read ahead, and not met afterwards.
            (true, Leaves::Reset) => {}
            (true, _) => assert!(play(Kind::BequestUnwatched, &case).await.is_none(), "{case:?}"),
        }
    }
}

#[tokio::test]
async fn control_bare_hyper_misses_what_it_does_not_read() {
    hyper_is_blind(false).await;
}

#[tokio::test]
async fn control_bare_hyper_misses_what_it_does_not_read_over_tls() {
    hyper_is_blind(true).await;
}

async fn hyper_is_blind(tls: bool) {
    for case in Case::ordinary(tls) {
        let blind = match case.sends {
            Sends::Pipelined | Sends::PipelinedLate => true,
            Sends::Post { announced, .. } => announced > 10,
            _ => false,
        };
        // A small body that is ignored, or comes late, may be noticed or not: it is a race.
        if blind {
            assert!(play(Kind::Hyper, &case).await.is_none(), "{case:?}");
        }
    }
    assert!(
        play(Kind::Hyper, &Case::ordinary(tls)[0]).await.is_some(),
        "a plain GET"
    );
}
