//! The embedded search back end: the schema of the article's web search, answered from the corpus.

use axum::Router;
use axum::extract::{Query, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bequest_http::axum::Ctx;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::corpus::Corpus;
use crate::answer::{self, Code, Refusal, go, json_response};
use crate::log::here;

/// What the back end is asked: `?v=1.0&q=…[&userip=…]`.
#[derive(Debug, Deserialize)]
struct Question {
    #[serde(default)]
    v: String,
    #[serde(default)]
    q: String,
}

/// The back end's routes.
pub(crate) fn router(corpus: Corpus) -> Router {
    Router::new()
        .route("/", get(answer))
        .layer(middleware::from_fn(answer::way_out))
        .with_state(corpus)
}

/// The handler's context has the time that the front end leaves it, and ends when the front end lets go of its request;
/// the query in the index ends with it.
async fn answer(Ctx(ctx): Ctx, State(corpus): State<Corpus>, Query(question): Query<Question>) -> Response {
    if question.v != "1.0" {
        return Refusal::new(here!(), Code::BadVersion, "this back end speaks v=1.0").into_response();
    }
    let budget = ctx.remaining().map(go);
    match corpus.search(&ctx, &question.q).await {
        Ok(looked) => {
            let results: Vec<_> = looked
                .found
                .iter()
                .map(|found| json!({ "titleNoFormatting": found.title, "url": found.url }))
                .collect();
            json_response(
                StatusCode::OK,
                &json!({
                    "responseData": { "results": results },
                    "responseStatus": 200,
                    "budget": budget,
                    "budgetIndex": looked.budget.map(go),
                }),
            )
        }
        Err(error) => match error.canceled() {
            Some(end) => Refusal::ended(here!(), &ctx, end).into_response(),
            None => Refusal::new(here!(), Code::Internal, error.to_string()).into_response(),
        },
    }
}
