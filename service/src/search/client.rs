//! The client of the search back end.
//!
//! It keeps the contract of the article's `httpDo`: if the context ends first, the request is cancelled and everything
//! it had hold of is let go of before the call returns. The time that is left goes along with the question.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use bequest::{Canceled, Context};
use bequest_http::client::{self, Client, Https, Tls};
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use serde_json::Value;

use super::Found;
use crate::domain::userip;

/// A client of one back end, with its pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct SearchClient {
    client: Client<Https>,
    base: Uri,
}

/// What a back end answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) found: Vec<Found>,
    /// How much time it had when it began, if it says so.
    pub(crate) budget: Option<String>,
    /// How much its index had of that, if it says so.
    pub(crate) budget_index: Option<String>,
}

/// Why a search failed.
#[derive(Debug)]
pub(crate) enum SearchError {
    /// The context ended first.
    Ended(Canceled),
    /// The back end could not be reached, or broke off.
    Exchange(Box<dyn Error + Send + Sync>),
    /// It answered, but with this status.
    Status(StatusCode),
    /// It answered something that is not in the schema.
    Schema(&'static str),
}

/// The longest answer that is read, in bytes.
const LONGEST: usize = 1 << 20;

impl SearchClient {
    /// A client of the back end at `base`, in clear or behind TLS.
    pub(crate) fn new(base: Uri, tls: Tls) -> SearchClient {
        SearchClient {
            client: Client::builder().build_tls(tls),
            base,
        }
    }

    /// What the back end finds for `query`. The user's address goes along if `ctx` carries one.
    ///
    /// # Cancel safety
    ///
    /// When the context ends, or the future is dropped, the connection is closed, so that the back end hears of it; the
    /// connection is not used again.
    pub(crate) async fn search(&self, ctx: &Context, query: &str) -> Result<Findings, SearchError> {
        let uri = question(&self.base, query, userip::from_context(ctx));
        let request = Request::get(uri).body(Empty::<Bytes>::new())?;
        let response = match self.client.send(ctx, request).await {
            // Less is left than the way there and back takes: how that ends is the answer.
            Err(error) if error.is_too_little_time() => return Err(SearchError::Ended(ctx.done().await)),
            sent => sent?,
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await?;
        if status != StatusCode::OK {
            return Err(SearchError::Status(status));
        }
        read_findings(&body.to_bytes())
    }
}

fn question(base: &Uri, query: &str, user: Option<IpAddr>) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    pairs.append_pair("v", "1.0").append_pair("q", query);
    if let Some(user) = user {
        pairs.append_pair("userip", &user.to_string());
    }
    format!("{base}?{}", pairs.finish())
}

fn read_findings(body: &[u8]) -> Result<Findings, SearchError> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|_| SearchError::Schema("the answer is not JSON"))?;
    let results = field(&answer, "responseData").and_then(|data| field(data, "results"));
    let results = results
        .and_then(Value::as_array)
        .ok_or(SearchError::Schema("no responseData.results"))?;
    let text = |name| field(&answer, name).and_then(Value::as_str).map(str::to_string);
    Ok(Findings {
        found: results.iter().map(read_result).collect::<Result<_, _>>()?,
        budget: text("budget"),
        budget_index: text("budgetIndex"),
    })
}

fn read_result(result: &Value) -> Result<Found, SearchError> {
    let text = |name| field(result, name).and_then(Value::as_str).map(str::to_string);
    match (text("titleNoFormatting"), text("url")) {
        (Some(title), Some(url)) => Ok(Found { title, url }),
        _ => Err(SearchError::Schema("a result without titleNoFormatting or url")),
    }
}

/// A field by its name, upper and lower case alike, as Go's decoder reads them; the exact one first.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let fields = value.as_object()?;
    fields.get(name).or_else(|| {
        fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

impl From<client::Error> for SearchError {
    fn from(error: client::Error) -> SearchError {
        match error.canceled() {
            Some(end) => SearchError::Ended(end.clone()),
            None => SearchError::Exchange(error.into()),
        }
    }
}

impl From<http::Error> for SearchError {
    fn from(error: http::Error) -> SearchError {
        SearchError::Exchange(error.into())
    }
}

impl From<Box<dyn Error + Send + Sync>> for SearchError {
    /// The error of a body: the client's own, or that it is longer than is read.
    fn from(error: Box<dyn Error + Send + Sync>) -> SearchError {
        match error.downcast::<client::Error>() {
            Ok(error) => SearchError::from(*error),
            Err(other) => SearchError::Exchange(other),
        }
    }
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SearchError::Ended(end) => write!(f, "{end}"),
            SearchError::Exchange(error) => write!(f, "the search back end could not be asked: {error}"),
            SearchError::Status(status) => write!(f, "the search back end answered {status}"),
            SearchError::Schema(what) => write!(
                f,
                "the search back end answered what is not in its schema: {what}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_as_the_article_does() {
        let base: Uri = "http://127.0.0.1:1/".parse().unwrap();
        assert_eq!(
            question(&base, "a b&c", None),
            "http://127.0.0.1:1/?v=1.0&q=a+b%26c"
        );
        let with_user = question(&base, "취소", Some([192, 0, 2, 1].into()));
        assert_eq!(
            with_user,
            "http://127.0.0.1:1/?v=1.0&q=%EC%B7%A8%EC%86%8C&userip=192.0.2.1"
        );
    }

    #[test]
    fn reads_results_whatever_the_case_of_their_names() {
        let body = br#"{"ResponseData":{"RESULTS":[{"TitleNoFormatting":"T","URL":"/u"}]}}"#;
        let found = vec![Found {
            title: "T".into(),
            url: "/u".into(),
        }];
        let findings = read_findings(body).unwrap();
        assert_eq!(
            (findings.found, findings.budget, findings.budget_index),
            (found, None, None)
        );
        for (bad, what) in [
            ("{}", "responseData"),
            ("[", "JSON"),
            (r#"{"responseData":{"results":[{}]}}"#, "title"),
        ] {
            assert!(
                read_findings(bad.as_bytes())
                    .unwrap_err()
                    .to_string()
                    .contains(what),
                "{bad}"
            );
        }
    }
}
