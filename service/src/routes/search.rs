//! `/search`: the web search, whose deadline and user travel in the context.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bequest::{CancelScope, Context};
use bequest_http::axum::Ctx;
use bequest_http::server::ConnInfo;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::answer::{self, Code, Refusal, escaped, go};
use crate::app::App;
use crate::domain::budget;
use crate::domain::duration::GoDuration;
use crate::domain::userip;
use crate::log::{Place, here};
use crate::search::Found;
use crate::search::client::{Findings, SearchError};

#[derive(Debug, Deserialize)]
pub(super) struct Question {
    q: Option<String>,
    timeout: Option<String>,
}

/// With less than this left of the request, no search is begun.
const WORTH_STARTING: Duration = Duration::from_millis(5);

/// `GET /search?q=Q[&timeout=1s]`.
///
/// It derives from the request, so a client that leaves stops it. `timeout` shortens the service's limit and never
/// lengthens it; one that is no duration is refused, where the article goes on without one.
pub(super) async fn search(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    conn: ConnInfo,
    headers: HeaderMap,
    Query(question): Query<Question>,
) -> Result<Response, Refusal> {
    let query = question.q.filter(|query| !query.trim().is_empty());
    let query = query.ok_or_else(|| Refusal::new(here!(), Code::NoQuery, "no query"))?;
    let timeout = question.timeout.as_deref().map(GoDuration::parse).transpose();
    let timeout =
        timeout.map_err(|error| Refusal::new(here!(), Code::BadTimeout, format!("timeout: {error}")))?;
    let user = userip::from_request(&conn.peer_addr().to_string());
    let user = user.map_err(|error| Refusal::new(here!(), Code::BadAddress, error.to_string()))?;
    budget::at_least(&ctx, WORTH_STARTING).map_err(|little| Refusal::too_little_time(here!(), little))?;

    let begun = Instant::now();
    let scope = limited(
        &userip::new_context(&ctx, user),
        app.settings.search_limit,
        timeout,
    );
    let budget = scope.remaining();
    let findings = app
        .search
        .search(&scope, &query)
        .await
        .map_err(|error| refusal(here!(), &ctx, &scope, error))?;
    let results = Results {
        query: &query,
        findings: &findings,
        budget,
        elapsed: begun.elapsed(),
        timeout,
        left: scope.remaining(),
    };
    Ok(if answer::wants_page(&headers) {
        results.page()
    } else {
        results.json()
    })
}

/// `GET /a/…`: a passage that the embedded back end finds.
pub(super) async fn passage(
    Ctx(ctx): Ctx,
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    let missing = || Refusal::new(here!(), Code::NotFound, "there is no passage of that name");
    let corpus = app.corpus.as_ref().ok_or_else(missing)?;
    let found = corpus.passage(&ctx, format!("/a/{path}")).await;
    let found = found.map_err(|error| match error.canceled() {
        Some(end) => Refusal::ended(here!(), &ctx, end),
        None => Refusal::new(here!(), Code::Internal, error.to_string()),
    })?;
    let (title, text) = found.ok_or_else(missing)?;
    let (title, text) = (escaped(&title), escaped(&text));
    Ok(answer::page(format!(
        "<!doctype html><meta charset=utf-8><title>{title}</title><link rel=stylesheet href=/style.css>\
         <main><h1>{title}</h1><p>{text}</p><p><a href=/>bequest</a></p></main>\n"
    )))
}

/// The scope of one search: the service's limit, or the client's if that is shorter.
fn limited(ctx: &Context, limit: Duration, timeout: Option<GoDuration>) -> CancelScope {
    match timeout.map(GoDuration::to_wait) {
        Some(asked) if asked < limit => ctx
            .with_timeout(asked)
            .named("search timeout")
            .caused_by(format!("timeout={} in the query", go_exact(asked))),
        _ => ctx
            .with_timeout(limit)
            .named("search limit")
            .caused_by(format!("the service's limit of {}", go(limit))),
    }
}

fn go_exact(span: Duration) -> String {
    GoDuration::from_std(span).to_string()
}

fn refusal(place: Place, request: &Context, scope: &CancelScope, error: SearchError) -> Refusal {
    match error {
        SearchError::Ended(end) => Refusal::ended(place, request, &end).with("mine", end.is_from(scope)),
        // The scope's end may reach the client as a broken exchange; the reason is the scope's.
        other => match scope.err() {
            Some(end) => Refusal::ended(place, request, &end).with("mine", end.is_from(scope)),
            None => Refusal::new(place, Code::SearchBackEnd, other.to_string()),
        },
    }
}

/// What was found, to be shown.
struct Results<'r> {
    query: &'r str,
    findings: &'r Findings,
    /// The time that was left when the search began.
    budget: Option<Duration>,
    elapsed: Duration,
    timeout: Option<GoDuration>,
    left: Option<Duration>,
}

impl Results<'_> {
    fn timeout(&self) -> String {
        self.timeout
            .map_or_else(|| "0s".into(), |timeout| timeout.to_string())
    }

    fn json(&self) -> Response {
        let results: Vec<_> = self
            .findings
            .found
            .iter()
            .map(|found| json!({ "title": found.title, "url": found.url }))
            .collect();
        let body = json!({
            "query": self.query,
            "results": results,
            "count": self.findings.found.len(),
            "elapsed": go(self.elapsed),
            "timeout": self.timeout(),
            "budget": self.budget.map(go),
            "budget_back_end": self.findings.budget,
            "budget_index": self.findings.budget_index,
            "budget_left": self.left.map(go),
        });
        answer::json_response(StatusCode::OK, &body)
    }

    fn page(&self) -> Response {
        let items: String = self.findings.found.iter().map(item).collect();
        let budget = self
            .budget
            .map(|budget| format!("; budget {} here", go(budget)))
            .unwrap_or_default();
        let budget_back_end = self
            .findings
            .budget
            .as_ref()
            .map(|budget| format!(", {} at the back end", escaped(budget)))
            .unwrap_or_default();
        let budget_index = self
            .findings
            .budget_index
            .as_ref()
            .map(|budget| format!(", {} in its index", escaped(budget)))
            .unwrap_or_default();
        let left = self
            .left
            .map(|left| format!("; budget left {}", go(left)))
            .unwrap_or_default();
        let (query, count) = (escaped(self.query), self.findings.found.len());
        let (elapsed, timeout) = (go(self.elapsed), escaped(&self.timeout()));
        answer::page(format!(
            "<!doctype html><meta charset=utf-8><title>{query}</title><link rel=stylesheet href=/style.css>\
             <main><h1>{query}</h1><ol>{items}</ol>\
             <p>{count} results in {elapsed}; timeout {timeout}{budget}{budget_back_end}{budget_index}{left}</p><p><a href=/>bequest</a></p></main>\n"
        ))
        .into_response()
    }
}

/// A result as a line of the list. Only links that stay here or go to the web are made.
fn item(found: &Found) -> String {
    let (title, url) = (escaped(&found.title), escaped(&found.url));
    let is_link =
        found.url.starts_with('/') || found.url.starts_with("http://") || found.url.starts_with("https://");
    if is_link {
        format!("<li>{title} - <a href=\"{url}\">{url}</a></li>")
    } else {
        format!("<li>{title} - {url}</li>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_timeout_can_only_shorten() {
        let ctx = Context::background();
        let limit = Duration::from_secs(5);
        let longer = limited(&ctx, limit, Some(GoDuration::parse("1h").unwrap()));
        assert!(longer.remaining().unwrap() <= limit);
        let shorter = limited(&ctx, limit, Some(GoDuration::parse("-1s").unwrap()));
        assert_eq!(shorter.err().unwrap().scope().0, Some("search timeout"));
        assert!(limited(&ctx, limit, None).remaining().unwrap() <= limit);
    }

    #[test]
    fn a_result_cannot_smuggle_a_script() {
        let found = |url: &str| Found {
            title: "<b>".into(),
            url: url.into(),
        };
        assert_eq!(
            item(&found("/a/x")),
            "<li>&lt;b&gt; - <a href=\"/a/x\">/a/x</a></li>"
        );
        assert_eq!(
            item(&found("javascript:alert(1)")),
            "<li>&lt;b&gt; - javascript:alert(1)</li>"
        );
    }
}
