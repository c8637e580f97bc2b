//! The client of the search back end.
//!
//! It keeps the contract of the article's `httpDo`: if the context ends first, the request is cancelled and everything
//! it had hold of is let go of before the call returns. There a goroutine has to be waited for; here the future that
//! does the exchange is dropped, with its connection, before [`Context::run`] answers.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use bequest::{Canceled, Context};
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Found;
use crate::domain::userip;

/// A client of one back end, with its pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct SearchClient {
    client: Client<HttpConnector, Empty<Bytes>>,
    base: Uri,
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
    pub(crate) fn new(base: Uri) -> SearchClient {
        SearchClient {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base,
        }
    }

    /// What the back end finds for `query`. The user's address goes along if `ctx` carries one.
    ///
    /// # Cancel safety
    ///
    /// When the context ends, or the future is dropped, the connection is closed, so that the back end hears of it; the
    /// connection is not used again.
    pub(crate) async fn search(&self, ctx: &Context, query: &str) -> Result<Vec<Found>, SearchError> {
        let uri = question(&self.base, query, userip::from_context(ctx));
        let exchange = async {
            let request = Request::get(uri).body(Empty::new())?;
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await?;
            Ok((status, body.to_bytes()))
        };
        let (status, body) = ctx
            .run(exchange)
            .await
            .map_err(SearchError::Ended)?
            .map_err(SearchError::Exchange)?;
        if status != StatusCode::OK {
            return Err(SearchError::Status(status));
        }
        read_results(&body)
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

fn read_results(body: &[u8]) -> Result<Vec<Found>, SearchError> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|_| SearchError::Schema("the answer is not JSON"))?;
    let results = field(&answer, "responseData").and_then(|data| field(data, "results"));
    let results = results
        .and_then(Value::as_array)
        .ok_or(SearchError::Schema("no responseData.results"))?;
    results.iter().map(read_result).collect()
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

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SearchError::Ended(end) => write!(f, "{end}"),
            SearchError::Exchange(error) => {
                write!(f, "the search back end could not be asked: {error}")?;
                // What the system said, such as a refused connection, is the last of the chain.
                let mut source = error.source();
                while let Some(deeper) = source {
                    write!(f, ": {deeper}")?;
                    source = deeper.source();
                }
                Ok(())
            }
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
        assert_eq!(
            read_results(body).unwrap(),
            [Found {
                title: "T".into(),
                url: "/u".into()
            }]
        );
        for (bad, what) in [
            ("{}", "responseData"),
            ("[", "JSON"),
            (r#"{"responseData":{"results":[{}]}}"#, "title"),
        ] {
            assert!(
                read_results(bad.as_bytes())
                    .unwrap_err()
                    .to_string()
                    .contains(what),
                "{bad}"
            );
        }
    }
}
