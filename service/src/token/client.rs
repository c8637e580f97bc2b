//! The client of the authentication server: small answers, each under a context.

use std::error::Error;
use std::fmt;

use bequest::{Canceled, Context};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A client with its pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct AuthClient(Client<HttpConnector, Full<Bytes>>);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The context ended first.
    Ended(Canceled),
    /// The server could not be reached, broke off, or said too much.
    Exchange(Box<dyn Error + Send + Sync>),
    /// It answered, but with this status.
    Status(StatusCode),
}

/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 * 1024;

impl AuthClient {
    pub(crate) fn new() -> AuthClient {
        AuthClient(Client::builder(TokioExecutor::new()).build_http())
    }

    /// What is at `uri`.
    ///
    /// # Cancel safety
    ///
    /// When the context ends, or the future is dropped, the connection is closed.
    pub(crate) async fn get(&self, ctx: &Context, uri: &Uri) -> Result<Bytes, FetchError> {
        self.exchange(ctx, Method::GET, uri, Bytes::new()).await
    }

    /// What `uri` answers to a form.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](AuthClient::get).
    pub(crate) async fn post(&self, ctx: &Context, uri: &Uri, form: Bytes) -> Result<Bytes, FetchError> {
        self.exchange(ctx, Method::POST, uri, form).await
    }

    async fn exchange(
        &self,
        ctx: &Context,
        method: Method,
        uri: &Uri,
        form: Bytes,
    ) -> Result<Bytes, FetchError> {
        let exchange = async {
            let request = Request::builder()
                .method(method)
                .uri(uri)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::new(form))?;
            let response = self.0.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await?;
            Ok((status, body.to_bytes()))
        };
        let exchanged = ctx.run(exchange).await.map_err(FetchError::Ended)?;
        match exchanged.map_err(FetchError::Exchange)? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(FetchError::Status(status)),
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Ended(end) => write!(f, "{end}"),
            FetchError::Exchange(error) => {
                write!(f, "the authentication server could not be asked: {error}")?;
                match error.source() {
                    Some(source) => write!(f, ": {source}"),
                    None => Ok(()),
                }
            }
            FetchError::Status(status) => write!(f, "the authentication server answered {status}"),
        }
    }
}

impl Error for FetchError {}
