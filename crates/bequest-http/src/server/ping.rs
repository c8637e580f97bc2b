//! Frames of our own among those of the engine of HTTP/2: asking a peer whether it is still there, and sending it away.
//!
//! The engine can ask as well, and takes a lock and a look at the clock for every request to know when. Here nothing is
//! done until somebody asks; from then until the answer has come, what is read goes through a [`Sieve`]. The engine sends a peer
//! away for reasons of its own only.
//!
//! # Invariants
//!
//! 1. What is ours is written between two frames, not within a header block, and not before the engine's first frame
//!    (RFC 9113, 3.4, 4.1 and 6.10).
//! 2. The answer is taken out, since the engine has not asked. Every other byte goes on, in order.
//! 3. There is one question at a time.
//! 4. Who is sent away is told the last stream of which the engine has heard: what lies beyond it was not begun.

use bytes::BytesMut;

use super::frames::Frames;

/// `PING` (RFC 9113, 6.7) with eight bytes by which its answer is known.
const QUESTION: [u8; 17] = *b"\0\0\x08\x06\0\0\0\0\0bequest?";
const ANSWER: [u8; 17] = *b"\0\0\x08\x06\x01\0\0\0\0bequest?";

/// `GOAWAY` (RFC 9113, 6.8) with `ENHANCE_YOUR_CALM`, up to the number of the last stream and behind that.
const GO_AWAY: [u8; 9] = *b"\0\0\x17\x07\0\0\0\0\0";
const FOR_RESETS: [u8; 19] = *b"\0\0\0\x0btoo many resets";

/// The frames of both directions of a connection, and the question in them.
#[derive(Debug)]
pub(super) struct Framing {
    read: Frames,
    written: Frames,
    /// Whether anything was written.
    has_begun: bool,
    /// While the answer is awaited.
    sieve: Option<Sieve>,
}

impl Framing {
    /// Of a connection on which nothing has been read or written but what `preface` counts, which is still to be read.
    pub(super) fn new(preface: usize) -> Framing {
        Framing {
            read: Frames::new(preface),
            written: Frames::new(0),
            has_begun: false,
            sieve: None,
        }
    }

    /// The engine is given these bytes of the client's. Answers where that leaves the client: whether it owes more of a frame
    /// or header block, and whether it has reset a stream by them.
    pub(super) fn read(&mut self, bytes: &[u8]) -> (bool, bool) {
        self.read.feed(bytes);
        (self.read.owes_more(), self.read.take_reset())
    }

    /// The engine has written these bytes.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.has_begun = true;
        self.written.feed(bytes);
    }

    /// The question, if it may be written behind all that was written so far. `unread` has come, and the engine has not been
    /// given it yet.
    pub(super) fn ask(&mut self, unread: &[u8]) -> Option<&'static [u8]> {
        if !self.has_begun || self.written.owes_more() || self.sieve.is_some() {
            return None;
        }
        let mut frames = self.read.clone();
        frames.feed(unread);
        self.sieve = Some(Sieve::new(frames));
        Some(&QUESTION)
    }

    /// What sends a client away that resets too many streams, if it may be written behind all that was written so far.
    pub(super) fn send_away(&self) -> Option<[u8; 32]> {
        if !self.has_begun || self.written.owes_more() {
            return None;
        }
        let mut frame = [0; 32];
        let parts = GO_AWAY
            .into_iter()
            .chain(self.read.last_stream().to_be_bytes())
            .chain(FOR_RESETS);
        frame.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Some(frame)
    }

    /// Whether the answer is awaited.
    pub(super) fn awaits_answer(&self) -> bool {
        self.sieve.is_some()
    }

    /// Lets what has come go on to `store`. No bytes: nothing more comes.
    pub(super) fn take_in(&mut self, bytes: &[u8], store: &mut BytesMut) {
        let Some(sieve) = &mut self.sieve else {
            return store.extend_from_slice(bytes);
        };
        if bytes.is_empty() {
            sieve.release(store);
            self.sieve = None;
        } else if sieve.pass(bytes, store) {
            self.sieve = None;
        }
    }
}

/// Takes the answer out of what is read.
#[derive(Debug)]
struct Sieve {
    /// Follows what has gone on.
    frames: Frames,
    /// So many bytes of the answer have come, and are held back.
    held: usize,
}

impl Sieve {
    /// `frames` is where the peer is in its stream.
    fn new(frames: Frames) -> Sieve {
        Sieve { frames, held: 0 }
    }

    /// Lets what has come go on to `store`; `true` if the answer was in it, and the sieve is not needed any more.
    fn pass(&mut self, mut bytes: &[u8], store: &mut BytesMut) -> bool {
        while !bytes.is_empty() {
            if self.held > 0 || !self.frames.owes_more() {
                let rest = &ANSWER[self.held..];
                let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                if same == rest.len() {
                    store.extend_from_slice(&bytes[same..]);
                    return true;
                }
                if same == bytes.len() {
                    self.held += same;
                    return false;
                }
                self.release(store);
            }
            let frame = self.frames.feed_frame(bytes);
            store.extend_from_slice(&bytes[..frame]);
            bytes = &bytes[frame..];
        }
        false
    }

    /// Lets go on what is held back: it is something else, or nothing more comes.
    fn release(&mut self, store: &mut BytesMut) {
        let held = &ANSWER[..std::mem::take(&mut self.held)];
        self.frames.feed(held);
        store.extend_from_slice(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let size = u8::try_from(payload.len()).expect("a short one");
        [&[0, 0, size, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What goes on of `parts`, and whether the answer was in them.
    fn sieved<'p>(parts: impl Iterator<Item = &'p [u8]>) -> (Vec<u8>, bool) {
        let (mut sieve, mut store) = (Sieve::new(Frames::new(0)), BytesMut::new());
        let mut found = false;
        for part in parts {
            match found {
                true => store.extend_from_slice(part),
                false => found = sieve.pass(part, &mut store),
            }
        }
        if !found {
            sieve.release(&mut store);
        }
        (store.to_vec(), found)
    }

    #[test]
    fn the_answer_is_taken_out_however_it_is_cut() {
        let (before, after) = (frame(0x1, 0x4, b"headers"), frame(0x0, 0, b"data"));
        let all = [&before[..], &ANSWER, &after].concat();
        let rest = [before, after].concat();
        for size in 1..=all.len() {
            assert_eq!(
                sieved(all.chunks(size)),
                (rest.clone(), true),
                "in pieces of {size}"
            );
        }
        for at in 0..=all.len() {
            let (one, two) = all.split_at(at);
            assert_eq!(
                sieved([one, two].into_iter()),
                (rest.clone(), true),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn whatever_else_goes_on_untouched() {
        let mut other = ANSWER;
        other[16] = b'!';
        let streams = [
            frame(0x0, 0, &ANSWER),
            [frame(0x1, 0, b"half a block"), ANSWER.to_vec()].concat(),
            [&other[..], &QUESTION, &frame(0x4, 0x1, b"")].concat(),
            ANSWER[..16].to_vec(),
            [&ANSWER[..9], &frame(0x0, 0, b"x")].concat(),
        ];
        for stream in streams {
            for size in 1..=stream.len() {
                assert_eq!(
                    sieved(stream.chunks(size)),
                    (stream.clone(), false),
                    "in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn who_is_sent_away_is_told_the_last_stream_between_two_frames() {
        let mut framing = Framing::new(0);
        assert_eq!(framing.send_away(), None, "before the engine's first frame");
        framing.wrote(&frame(0x4, 0, b"")[..5]);
        assert_eq!(framing.send_away(), None, "within a frame");
        framing.wrote(&frame(0x4, 0, b"")[5..]);
        framing.read(&frame(0x1, 0x4, b"headers"));
        let away = framing.send_away().expect("between two frames");
        assert_eq!(usize::from(away[2]), away.len() - 9);
        assert_eq!(
            (away[3], &away[9..17], &away[17..]),
            (7, &[0, 0, 0, 1, 0, 0, 0, 0x0b][..], &b"too many resets"[..])
        );
    }

    #[test]
    fn a_second_answer_is_the_engines_to_judge() {
        let twice = [ANSWER, ANSWER].concat();
        assert_eq!(sieved([&twice[..]].into_iter()), (ANSWER.to_vec(), true));
    }
}
