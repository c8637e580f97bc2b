//! The client of the authentication server: small answers, each under a context.

use std::error::Error;
use std::fmt;

use bequest::{Canceled, Context};
use bequest_http::client::{self, Client, Https, Tls};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};

/// A client with its pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct AuthClient(Client<Https>);

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
    /// A client of servers in clear or behind TLS.
    pub(crate) fn new(tls: Tls) -> AuthClient {
        AuthClient(Client::builder().build_tls(tls))
    }

    /// What is at `uri`.
    ///
    /// # Cancel safety
    ///
    /// When the context ends, or the future is dropped, the connection is closed; a dial goes on for the next request.
    ///
    /// # Errors
    ///
    /// The end of `ctx`; the server cannot be asked; it answers anything but 200.
    pub(crate) async fn get(&self, ctx: &Context, uri: &Uri) -> Result<Bytes, FetchError> {
        self.exchange(ctx, Method::GET, uri, Bytes::new()).await
    }

    /// What `uri` answers to a form.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](AuthClient::get).
    ///
    /// # Errors
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
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(form))
            .map_err(|error| FetchError::Exchange(error.into()))?;
        let response = match self.0.send(ctx, request).await {
            // Less is left than the way there and back takes: how that ends is the answer.
            Err(error) if error.is_too_little_time() => return Err(FetchError::Ended(ctx.done().await)),
            sent => sent?,
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await?;
        match status {
            StatusCode::OK => Ok(body.to_bytes()),
            other => Err(FetchError::Status(other)),
        }
    }
}

impl From<client::Error> for FetchError {
    fn from(error: client::Error) -> FetchError {
        match error.canceled() {
            Some(end) => FetchError::Ended(end.clone()),
            None => FetchError::Exchange(error.into()),
        }
    }
}

impl From<Box<dyn Error + Send + Sync>> for FetchError {
    /// The error of a body: the client's own, or that it is longer than is read.
    fn from(error: Box<dyn Error + Send + Sync>) -> FetchError {
        match error.downcast::<client::Error>() {
            Ok(error) => FetchError::from(*error),
            Err(other) => FetchError::Exchange(other),
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Ended(end) => write!(f, "{end}"),
            FetchError::Exchange(error) => write!(f, "the authentication server could not be asked: {error}"),
            FetchError::Status(status) => write!(f, "the authentication server answered {status}"),
        }
    }
}

impl Error for FetchError {}
