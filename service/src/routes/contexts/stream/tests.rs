//! The body by hand, on a clock that the test moves. Other tests of this process make contexts as well.

use std::task::Waker;

use bequest::{Reason, inspect};

use super::*;

fn follow(ctx: &Context) -> (Pin<Box<Events>>, Arc<Pictures>) {
    inspect::enable();
    let pictures = Arc::new(Pictures::new());
    let place = pictures.follow().unwrap();
    (Box::pin(Events::new(ctx, pictures.clone(), place)), pictures)
}

/// What comes of one poll: an event, an end, or nothing yet.
fn poll(events: &mut Pin<Box<Events>>) -> Poll<Option<String>> {
    let frame = events
        .as_mut()
        .poll_frame(&mut TaskContext::from_waker(Waker::noop()));
    frame.map(|frame| {
        let bytes = frame?.unwrap().into_data().unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    })
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_takes_its_time_is_sent_one_event_for_all_it_has_missed() {
    let request = Context::background().with_cancel();
    let (mut events, _) = follow(&request);
    let Poll::Ready(Some(first)) = poll(&mut events) else {
        panic!("the state comes at once")
    };
    assert!(
        first.starts_with("retry: 1000\nid: 1\nevent: contexts\ndata: {"),
        "{first}"
    );
    for _ in 0..1000 {
        drop(Context::background().with_cancel());
        tokio::time::advance(TICK).await;
    }
    let Poll::Ready(Some(change)) = poll(&mut events) else {
        panic!("something has changed")
    };
    assert!(change.starts_with("id: 2\nevent: change\ndata: {"), "{change}");
    assert_eq!(poll(&mut events), Poll::Pending, "nothing has been queued");
}

#[tokio::test(start_paused = true)]
async fn each_event_is_one_line_of_data_and_ends_with_an_empty_one() {
    let request = Context::background().with_cancel();
    let (mut events, _) = follow(&request);
    let broken = Context::background().with_cancel();
    broken.cancel_with("two\nlines\r\n\r\ndata: {}");
    let Poll::Ready(Some(first)) = poll(&mut events) else {
        panic!("the state comes at once")
    };
    assert!(first.contains("two\\nlines"), "{first}");
    assert_eq!(first.lines().count(), 5);
    assert!(first.ends_with("}\n\n") && !first.contains('\r'));
}

#[tokio::test(start_paused = true)]
async fn the_last_event_says_why_and_nothing_follows() {
    let request = Context::background().with_cancel();
    let (mut events, _) = follow(&request);
    assert!(poll(&mut events).is_ready());
    request.cancel_for(Reason::Shutdown);
    let Poll::Ready(Some(last)) = poll(&mut events) else {
        panic!("the end is told at once")
    };
    let (changes, end) = last.split_once("event: end\ndata: ").unwrap();
    // That it has ended is a change as well.
    assert!(changes.starts_with("id: 2\nevent: change\ndata: {"), "{last}");
    assert!(changes.contains("shutting down"), "{changes}");
    let end: serde_json::Value = serde_json::from_str(end).unwrap();
    assert_eq!(end["reason"], "shutting down");
    assert_eq!(poll(&mut events), Poll::Ready(None));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_gone_leaves_nothing() {
    let request = Context::background().with_cancel();
    let (mut events, pictures) = follow(&request);
    assert!(poll(&mut events).is_ready());
    let row = |live: &[inspect::Live]| live.iter().find(|row| row.id == request.id()).unwrap().children;
    assert_eq!(row(&inspect::snapshot().live), 1);
    assert_eq!(pictures.followers(), 1);
    drop(events);
    assert_eq!(row(&inspect::snapshot().live), 0);
    assert_eq!(pictures.followers(), 0);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_comment() {
    let request = Context::background().with_cancel();
    let (mut events, _) = follow(&request);
    let mut spoke = Instant::now();
    // Until the other tests of this process have been silent for so long.
    let comment = loop {
        match poll(&mut events) {
            Poll::Ready(Some(text)) if text.starts_with(':') => break text,
            Poll::Ready(Some(_)) => spoke = Instant::now(),
            Poll::Ready(None) => panic!("nobody has ended it"),
            Poll::Pending => tokio::time::advance(TICK).await,
        }
    };
    assert_eq!(comment.as_bytes(), COMMENT);
    assert!(spoke.elapsed() >= KEEP_ALIVE);
}
