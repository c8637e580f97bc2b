//! A response that is written step by step, and a recorder of it that forgets no touch.
//!
//! A recorder that only keeps status, headers and body cannot tell a handler that wrote nothing from one that wrote
//! an empty answer: both leave an empty body and the status that is sent by default. To a client that has left they
//! are the same, too; but the second handler did not notice.
//!
//! What lives here: the smallest writer that a handler needs, without a server and without a dependency. Handlers that
//! answer with a value are recorded by `http::record` (feature `http`).

use std::io;

/// Where a handler writes its response, step by step.
///
/// The status is 200 unless another is set first; what is set after the first byte comes too late.
///
/// # Example: a handler that is generic over it
///
/// ```
/// use bequest_test::{Recorder, ResponseWriter};
/// use std::io;
///
/// fn hello(response: &mut impl ResponseWriter) -> io::Result<()> {
///     response.headers_mut().set("content-type", "text/plain");
///     response.write(b"hello, world")
/// }
///
/// let mut response = Recorder::new();
/// hello(&mut response).unwrap();
/// assert_eq!(response.status(), Some(200));
/// assert_eq!(response.header("Content-Type"), Some("text/plain"));
/// assert_eq!(response.text(), "hello, world");
/// ```
pub trait ResponseWriter {
    /// Sets the status, and with it sends the headers as they are.
    fn set_status(&mut self, status: u16);

    /// The headers, to be changed.
    fn headers_mut(&mut self) -> &mut Headers;

    /// Writes all of `bytes` to the body. An empty write sends status and headers.
    ///
    /// # Errors
    ///
    /// What the connection says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// The headers of a response, in the order in which they were set. Names are compared without regard to case.
///
/// ```
/// use bequest_test::Headers;
///
/// let mut headers = Headers::default();
/// headers.set("Content-Type", "text/html");
/// headers.set("content-type", "text/plain");
/// assert_eq!(headers.get("CONTENT-TYPE"), Some("text/plain"));
/// assert_eq!(headers.iter().count(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Sets the header, in place of what it was.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.0.push((name.into(), value.into()));
    }

    /// The header's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// One touch of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// The status was set.
    Status(u16),
    /// The headers were asked for, to be changed, whether they then were or not.
    Headers,
    /// Bytes were written; an empty write is one, too.
    Write(Vec<u8>),
}

/// A response in memory that records every touch.
///
/// # Example: an empty write is a touch
///
/// ```
/// use bequest_test::{Recorder, ResponseWriter, Touch};
///
/// let mut response = Recorder::new();
/// assert!(response.is_untouched());
/// response.write(b"").unwrap();
/// assert!(!response.is_untouched());
/// assert_eq!(response.touches(), [Touch::Write(vec![])]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    touches: Vec<Touch>,
    status: Option<u16>,
    /// As the handler has them.
    headers: Headers,
    /// As they were sent, with the status.
    sent: Option<Headers>,
    body: Vec<u8>,
}

impl Recorder {
    /// A response that nobody has touched.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// Whether status, headers and body were never touched, not even by an empty write.
    pub fn is_untouched(&self) -> bool {
        self.touches.is_empty()
    }

    /// Fails the test if the response was touched.
    ///
    /// ```should_panic
    /// use bequest_test::{Recorder, ResponseWriter};
    ///
    /// let mut response = Recorder::new();
    /// response.headers_mut();
    /// response.assert_untouched();
    /// ```
    ///
    /// # Panics
    ///
    /// If it was, with the list of touches.
    #[track_caller]
    pub fn assert_untouched(&self) {
        assert!(
            self.is_untouched(),
            "the response was touched: {:?}",
            self.touches
        );
    }

    /// Every touch, in order.
    pub fn touches(&self) -> &[Touch] {
        &self.touches
    }

    /// The status as sent: `None` if nothing was sent, 200 if a body was written without one.
    ///
    /// ```
    /// # use bequest_test::{Recorder, ResponseWriter};
    /// let mut response = Recorder::new();
    /// assert_eq!(response.status(), None);
    /// response.set_status(404);
    /// response.set_status(500);
    /// assert_eq!(response.status(), Some(404), "the second came too late");
    /// ```
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// A header as sent, or, as long as nothing was sent, as set.
    ///
    /// ```
    /// # use bequest_test::{Recorder, ResponseWriter};
    /// let mut response = Recorder::new();
    /// response.write(b"hello").unwrap();
    /// response.headers_mut().set("etag", "1");
    /// assert_eq!(response.header("etag"), None, "it came too late");
    /// ```
    pub fn header(&self, name: &str) -> Option<&str> {
        self.sent.as_ref().unwrap_or(&self.headers).get(name)
    }

    /// The body's bytes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// ```
    /// # use bequest_test::{Recorder, ResponseWriter};
    /// let mut response = Recorder::new();
    /// response.write("grüß ".as_bytes()).unwrap();
    /// response.write("Gott".as_bytes()).unwrap();
    /// assert_eq!(response.text(), "grüß Gott");
    /// assert_eq!(response.body().len(), 11);
    /// ```
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        match std::str::from_utf8(&self.body) {
            Ok(text) => text,
            Err(error) => panic!("the body is not text: {error}"),
        }
    }

    fn send_head(&mut self, status: u16) {
        if self.status.is_none() {
            self.status = Some(status);
            self.sent = Some(self.headers.clone());
        }
    }
}

impl ResponseWriter for Recorder {
    fn set_status(&mut self, status: u16) {
        self.touches.push(Touch::Status(status));
        self.send_head(status);
    }

    fn headers_mut(&mut self) -> &mut Headers {
        self.touches.push(Touch::Headers);
        &mut self.headers
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.touches.push(Touch::Write(bytes.to_vec()));
        self.send_head(200);
        self.body.extend_from_slice(bytes);
        Ok(())
    }
}
