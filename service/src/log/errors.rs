//! The error log: one JSON line for each answer that the setting names, with the keys of the Go service it comes from.

use std::sync::Arc;

use bequest::Context;
use bequest_http::server::client_closed_request;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::escape::{capped, push_json};
use super::handler::{Handler, Level, Record};
use super::request::{self, Request};
use super::sink::Sink;
use super::time::timestamp;
use crate::domain::session::Session;

/// Which answers get a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Which {
    /// Each that is not 200
    #[value(name = "non200")]
    Non200,
    /// 400 and up
    #[value(name = "4xx")]
    From400,
    /// 500 and up
    #[value(name = "5xx")]
    From500,
}

/// Writes the lines.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    pub(super) sink: Arc<Sink>,
    pub(super) which: Which,
    /// Whether gender and age of a session are written.
    pub(super) personal: bool,
}

impl Handler for ErrorLog {
    /// A client that has left gets no answer, so there is none to report: 499 stands in the access log and the metrics.
    fn enabled(&self, _ctx: &Context, status: StatusCode) -> bool {
        status != client_closed_request()
            && match self.which {
                Which::Non200 => status != StatusCode::OK,
                Which::From400 => status.as_u16() >= 400,
                Which::From500 => status.as_u16() >= 500,
            }
    }

    fn handle(&self, ctx: &Context, record: &Record) {
        let mut out = String::with_capacity(512);
        push_json(&mut out, &line(request::of(ctx), record, self.personal));
        out.push('\n');
        self.sink.write(&out);
    }
}

/// The keys that the source has, in its order, and then ours.
fn line(request: Option<&Request>, record: &Record, personal: bool) -> Value {
    let session = request.and_then(Request::session);
    json!({
        "Date": timestamp(record.at),
        "FuncName": record.place.function(),
        "FileName": record.place.file_name(),
        "FileLine": record.place.line(),
        "Method": request.map_or("", |request| request.method.as_str()),
        "API": capped(request.map_or("", |request| request.uri.path())),
        "StatusCode": record.status.as_u16(),
        "AppCode": record.code.word(),
        "Message": capped(&record.message),
        "Item": session.map_or_else(Map::new, |session| item(session, personal)),
        "Level": Level::of(record.status).as_str(),
        "RequestID": request.map(|request| request.id().to_string()),
        "TraceID": request.map(Request::trace_id),
    })
}

/// The session as the log may show it.
fn item(session: &Session, personal: bool) -> Map<String, Value> {
    let mut item = Map::new();
    item.insert("Session".into(), session.id.to_string().into());
    item.insert("UserID".into(), capped(&session.user.id).into());
    item.insert("LoginTime".into(), timestamp(session.login_time).into());
    if personal {
        item.insert("Gender".into(), session.user.gender.as_str().into());
        item.insert("Age".into(), session.user.age.into());
    }
    item
}
