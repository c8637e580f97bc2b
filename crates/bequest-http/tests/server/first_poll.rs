//! Where the streams of an HTTP/2 connection are polled: first in the connection's task, then in tasks of their own.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use bequest::Context;
use bequest_http::server::{RequestBody, Server, service_fn};
use http::Request;
use tokio::task;

use super::common::{Http2, TestClock, TestServer, full, guard};

async fn ask(client: &Http2, path: &str) -> String {
    let stream = client.request(path).await;
    guard("an answer", stream.answer()).await.expect("an answer").1
}

#[tokio::test]
async fn a_stream_that_answers_at_once_has_no_task_of_its_own() {
    // Answers with the id of the task in which the handler came to its end.
    let service = service_fn(|request: Request<RequestBody>| async move {
        if request.uri().path() == "/wait" {
            task::yield_now().await;
        }
        full(task::id().to_string())
    });
    // On a clock that stands still no poll is long.
    let server = TestServer::with(Server::builder(), TestClock::new().context(), service).await;
    let client = Http2::connect(server.addr).await;
    let of_connection = ask(&client, "/now").await;
    assert_eq!(ask(&client, "/now").await, of_connection);
    assert_ne!(ask(&client, "/wait").await, of_connection, "who waits has one");
    // After that some are not tried.
    assert_ne!(ask(&client, "/now").await, of_connection);
    assert_eq!(server.stop().await.statistics.served, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn streams_that_keep_their_thread_are_shared_out_among_the_threads() {
    let (meet, clock) = (Arc::new(Barrier::new(2)), TestClock::new());
    let ctx = clock.context();
    let service = service_fn(move |request: Request<RequestBody>| {
        let (meet, clock) = (meet.clone(), clock.clone());
        async move {
            match request.uri().path() {
                "/long" => clock.advance(Duration::from_millis(5)),
                // Two of these can only go on side by side.
                _ => drop(meet.wait()),
            }
            full("met")
        }
    });
    let server = TestServer::with(Server::builder(), ctx, service).await;
    let client = Http2::connect(server.addr).await;
    assert_eq!(ask(&client, "/long").await, "met");
    let both = tokio::join!(ask(&client, "/meet"), ask(&client, "/meet"));
    assert_eq!(both, ("met".to_owned(), "met".to_owned()));
}

#[tokio::test]
async fn what_many_streams_answer_at_once_reaches_the_client_whole() {
    let service = service_fn(|request: Request<RequestBody>| async move {
        // Some of the answers fit into what is gathered, some do not.
        let number: usize = request.uri().path()[1..].parse().expect("a number");
        full("x".repeat(number * 199))
    });
    let server = TestServer::with(Server::builder(), Context::background(), service).await;
    let client = Http2::connect(server.addr).await;
    let mut answers = Vec::new();
    for number in 0..100 {
        let stream = client.request(&format!("/{number}")).await;
        // Each is read for itself, as all share the window of the connection.
        answers.push((number, tokio::spawn(stream.answer())));
    }
    for (number, answer) in answers {
        let answer = guard("an answer", answer).await.expect("no panic");
        assert_eq!(answer.expect("an answer").1.len(), number * 199);
    }
}
