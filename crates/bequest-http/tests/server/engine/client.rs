//! A client on bare frames that keeps a record of all that it is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::super::common::{Frame, RawHttp2, guard, http2_bytes};
use super::blocks::{FRAME, block, decode, read};
use super::record::{Event, Record};

/// The window of each stream, and of the connection, before anybody has said anything of it.
const WINDOW: i64 = 65_535;

/// What a PING says, and so its answer.
const PING: &[u8] = b"are you?";

pub(super) struct Client {
    stream: TcpStream,
    /// What the server has said.
    pub(super) record: Record,
    /// What its handlers say.
    told: UnboundedReceiver<String>,
    /// What they wait for.
    cues: Arc<Semaphore>,
    /// What is to be sent in one piece.
    held: Option<Vec<u8>>,
    /// How much may be sent on a stream that is new, on the connection, and on each stream.
    initial: i64,
    of_connection: i64,
    of_streams: HashMap<u32, i64>,
    /// How large a frame may be, and how large the largest one with data was.
    frame_size: usize,
    pub(super) largest: usize,
    /// How many PINGs were answered.
    pongs: usize,
    /// Whether the server's are to wait, and what waits.
    holds_pongs: Option<Vec<u8>>,
    /// A header block that is not whole yet, and whether nothing follows it.
    block: (Vec<u8>, bool),
    /// Has the server begin its shutdown.
    shutdown: Option<Box<dyn FnOnce()>>,
}

impl Client {
    /// Begins a connection: the coding of header fields has no memory, so that each block can be read for itself.
    pub(super) async fn connect(
        stream: TcpStream,
        told: UnboundedReceiver<String>,
        cues: Arc<Semaphore>,
        shutdown: Box<dyn FnOnce()>,
    ) -> Client {
        stream.set_nodelay(true).expect("an open socket");
        let mut client = Client {
            stream,
            record: Record::default(),
            told,
            cues,
            held: None,
            initial: WINDOW,
            of_connection: WINDOW,
            of_streams: HashMap::new(),
            frame_size: FRAME,
            largest: 0,
            pongs: 0,
            holds_pongs: None,
            block: (Vec::new(), false),
            shutdown: Some(shutdown),
        };
        client.send(RawHttp2::PREFACE).await;
        client.settings(&[(1, 0)]).await;
        client
            .until("the server's settings", |seen| !seen.settings.is_empty())
            .await;
        client
    }

    /// Holds back what is sent from now on.
    pub(super) fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Sends it, in one piece: whatever reads the first of it has the rest.
    pub(super) async fn let_go(&mut self) {
        let held = self.held.take().expect("something is held");
        self.send(&held).await;
    }

    /// Sends these bytes, as far as the server still takes any.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        if let Some(held) = &mut self.held {
            return held.extend_from_slice(bytes);
        }
        // Who is sent away sees that when it reads.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(super) async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&http2_bytes::frame(kind, flags, stream, payload)).await;
    }

    pub(super) async fn settings(&mut self, settings: &[(u16, u32)]) {
        for (id, value) in settings {
            if *id == 5 {
                self.frame_size = *value as usize;
            }
        }
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.frame(RawHttp2::SETTINGS, 0, 0, &payload).await;
    }

    /// Sends a block of fields; nothing follows on the stream if it is the `end`.
    pub(super) async fn fields(&mut self, stream: u32, end: bool, fields: &[(&str, &str)]) {
        let flags = RawHttp2::END_HEADERS | if end { RawHttp2::END_STREAM } else { 0 };
        self.frame(RawHttp2::HEADERS, flags, stream, &block(fields)).await;
    }

    /// Begins a request with these fields beside the ordinary ones.
    pub(super) async fn begin(
        &mut self,
        stream: u32,
        end: bool,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
    ) {
        let ordinary = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
        ];
        self.fields(stream, end, &[&ordinary, more].concat()).await;
    }

    /// Asks for something without a body.
    pub(super) async fn get(&mut self, stream: u32) {
        self.begin(stream, true, "GET", "/", &[]).await;
    }

    /// Begins a request with a body.
    pub(super) async fn post(&mut self, stream: u32) {
        self.begin(stream, false, "POST", "/", &[]).await;
    }

    /// Sends a part of a body, as the windows allow.
    pub(super) async fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let mut rest = bytes;
        loop {
            let left = self.window(stream);
            if left == 0 && !rest.is_empty() {
                assert!(self.next().await, "the end, with closed windows: {}", self.record);
                continue;
            }
            let (part, behind) = rest.split_at(rest.len().min(FRAME).min(left));
            let flags = if end && behind.is_empty() {
                RawHttp2::END_STREAM
            } else {
                0
            };
            self.frame(RawHttp2::DATA, flags, stream, part).await;
            let sent = i64::try_from(part.len()).expect("a short part");
            self.of_connection -= sent;
            *self.of_streams.entry(stream).or_insert(self.initial) -= sent;
            rest = behind;
            if rest.is_empty() {
                return;
            }
        }
    }

    pub(super) async fn reset(&mut self, stream: u32, reason: h2::Reason) {
        let code = u32::from(reason).to_be_bytes();
        self.frame(RawHttp2::RST_STREAM, 0, stream, &code).await;
    }

    /// Lets the server send so much more on the stream, or altogether for stream 0.
    pub(super) async fn open(&mut self, stream: u32, more: u32) {
        self.frame(RawHttp2::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
            .await;
    }

    /// Leaves the server's PINGs unanswered from now on.
    pub(super) fn hold_pongs(&mut self) {
        self.holds_pongs = Some(Vec::new());
    }

    /// Answers them.
    pub(super) async fn let_pongs_go(&mut self) {
        let held = self.holds_pongs.take().expect("they are held");
        self.send(&held).await;
    }

    /// Has the server begin its shutdown.
    pub(super) fn shut_down(&mut self) {
        self.shutdown.take().expect("once")();
    }

    /// Sends nothing any more.
    pub(super) async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("an open socket");
    }

    /// Reads until this holds of the record.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Record) -> bool) {
        while !holds(&self.record) {
            assert!(self.next().await, "the end before {what}: {}", self.record);
        }
    }

    /// Reads until the server has ended or reset this stream.
    pub(super) async fn over(&mut self, stream: u32) {
        self.until("the end of a stream", |seen| seen.is_over(stream))
            .await;
    }

    /// Reads until so many bytes have come on a stream.
    pub(super) async fn has(&mut self, stream: u32, bytes: usize) {
        self.until("more data", |seen| seen.data(stream) >= bytes).await;
    }

    /// What a handler says next.
    pub(super) async fn told(&mut self) -> String {
        let told = guard("a word of a handler", self.told.recv())
            .await
            .expect("handlers");
        self.record.told.push(told.clone());
        told
    }

    /// Lets a handler, or a body, go on that waits for this.
    pub(super) fn cue(&self) {
        self.cues.add_permits(1);
    }

    /// Reads whatever the server has to say without being asked for more: it answers two PINGs, one after the other.
    pub(super) async fn settle(&mut self) {
        for _ in 0..2 {
            let pongs = self.pongs;
            self.frame(RawHttp2::PING, 0, 0, PING).await;
            while self.pongs == pongs && self.next().await {}
        }
        while let Ok(told) = self.told.try_recv() {
            self.record.told.push(told);
        }
    }

    /// Reads to the end of the connection.
    pub(super) async fn closed(&mut self) {
        while self.next().await {}
    }

    /// Reads a frame and takes note of it; `false` at the end of the connection.
    async fn next(&mut self) -> bool {
        if self.record.is_closed() {
            return false;
        }
        // A case that hangs says what it has; nothing is measured by it.
        match timeout(Duration::from_secs(20), read(&mut self.stream, self.frame_size)).await {
            Ok(Some(frame)) => self.take(frame).await,
            Ok(None) => self.record.push(0, Event::Closed),
            Err(_) => panic!("gave up waiting for a frame: {}", self.record),
        }
        !self.record.is_closed()
    }

    async fn take(&mut self, frame: Frame) {
        let Frame {
            kind,
            flags,
            stream,
            payload,
        } = frame;
        let end = flags & RawHttp2::END_STREAM != 0;
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        match kind {
            RawHttp2::DATA => {
                self.largest = self.largest.max(payload.len());
                self.record.push(stream, Event::Data { bytes: payload, end });
            }
            RawHttp2::HEADERS => {
                self.block.1 = end;
                self.take_block(stream, flags, &payload).await;
            }
            RawHttp2::CONTINUATION => self.take_block(stream, flags, &payload).await,
            RawHttp2::RST_STREAM => self.record.push(stream, Event::Reset(word(0).into())),
            RawHttp2::GOAWAY => {
                let (last, reason) = (word(0), word(4).into());
                let debug = String::from_utf8_lossy(&payload[8..]).into_owned();
                self.record.push(0, Event::GoAway { last, reason, debug });
            }
            RawHttp2::PING if flags & RawHttp2::ACK != 0 => {
                assert_eq!(payload, PING);
                self.pongs += 1;
            }
            RawHttp2::PING => {
                let pong = http2_bytes::frame(RawHttp2::PING, RawHttp2::ACK, 0, &payload);
                match &mut self.holds_pongs {
                    Some(held) => held.extend(pong),
                    None => self.send(&pong).await,
                }
            }
            RawHttp2::SETTINGS if flags & RawHttp2::ACK == 0 => {
                for setting in payload.chunks(6) {
                    let id = u16::from_be_bytes([setting[0], setting[1]]);
                    let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
                    if id == 4 {
                        self.initial = value.into();
                    }
                    self.record.settings.push((id, value));
                }
                self.frame(RawHttp2::SETTINGS, RawHttp2::ACK, 0, &[]).await;
            }
            RawHttp2::SETTINGS => self.record.acknowledged += 1,
            RawHttp2::WINDOW_UPDATE => {
                let more = i64::from(word(0));
                match stream {
                    0 => self.of_connection += more,
                    _ => *self.of_streams.entry(stream).or_insert(self.initial) += more,
                }
            }
            _ => {}
        }
    }

    async fn take_block(&mut self, stream: u32, flags: u8, payload: &[u8]) {
        self.block.0.extend_from_slice(payload);
        if flags & RawHttp2::END_HEADERS == 0 {
            return;
        }
        let (block, end) = std::mem::take(&mut self.block);
        let (status, mut fields) = decode(block, self.record.is_answered(stream)).await;
        for (name, value) in &mut fields {
            if name == "date" && value.ends_with(" GMT") {
                "now".clone_into(value);
            }
        }
        self.record.push(stream, Event::Fields { status, fields, end });
    }

    /// How much may be sent on this stream, or altogether for stream 0.
    pub(super) fn window(&self, stream: u32) -> usize {
        let of_stream = match stream {
            0 => i64::MAX,
            _ => self.of_streams.get(&stream).copied().unwrap_or(self.initial),
        };
        usize::try_from(of_stream.min(self.of_connection).max(0)).expect("a window")
    }
}
