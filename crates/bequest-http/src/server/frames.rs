//! Following the frames of HTTP/2 just closely enough to know whether the client is in the middle of one, whether it resets
//! streams, and how many it has opened.
//!
//! The header limit must hold on HTTP/2 as well, but its engine does not say when a header has begun; nor does it say that a
//! stream was reset before its handler begins, nor how far it has come. This follows the nine bytes in front of each frame. It judges nothing: what
//! is malformed is the engine's business.

/// Where in the stream of frames a client is. Starts before the preface.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    /// Bytes to skip: of the preface, then of the present frame's payload.
    skip: usize,
    /// The present frame's head as far as it has come.
    head: [u8; Frames::HEAD],
    /// How much of `head` has come.
    have: usize,
    /// Whether a header block has begun and not ended: `CONTINUATION` must follow.
    in_block: bool,
    /// Whether a stream was reset since this was asked last.
    resets: bool,
    /// The highest number of a stream that was opened.
    last_stream: u32,
}

impl Frames {
    const HEAD: usize = 9;
    const HEADERS: u8 = 0x1;
    const RST_STREAM: u8 = 0x3;
    const CONTINUATION: u8 = 0x9;
    const END_HEADERS: u8 = 0x4;

    pub(super) fn new(preface: usize) -> Frames {
        Frames {
            skip: preface,
            head: [0; Frames::HEAD],
            have: 0,
            in_block: false,
            resets: false,
            last_stream: 0,
        }
    }

    /// Takes note of what has been read.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.feed_frame(bytes)..];
        }
    }

    /// As [`feed`](Frames::feed), up to the end of the present frame; how many bytes that are.
    pub(super) fn feed_frame(&mut self, bytes: &[u8]) -> usize {
        let mut fed = 0;
        if self.skip == 0 {
            match bytes.first_chunk() {
                // Not copied, as a copy of a length that is not known in advance is a call.
                Some(head) if self.have == 0 => {
                    fed = head.len();
                    self.begin_frame(*head);
                }
                _ => {
                    fed = (Frames::HEAD - self.have).min(bytes.len());
                    self.head[self.have..self.have + fed].copy_from_slice(&bytes[..fed]);
                    self.have += fed;
                    if self.have < Frames::HEAD {
                        return fed;
                    }
                    self.have = 0;
                    self.begin_frame(self.head);
                }
            }
        }
        let skipped = self.skip.min(bytes.len() - fed);
        self.skip -= skipped;
        fed + skipped
    }

    /// Whether the client owes the rest of a preface, a frame or a header block.
    pub(super) fn owes_more(&self) -> bool {
        self.skip > 0 || self.have > 0 || self.in_block
    }

    /// Whether the client has reset a stream since this was asked last.
    pub(super) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.resets)
    }

    /// The highest number of a stream that the client has opened; 0: none.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    fn begin_frame(&mut self, head: [u8; Frames::HEAD]) {
        let [a, b, c, kind, flags, stream @ ..] = head;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, Frames::HEADERS | Frames::CONTINUATION) {
            self.in_block = flags & Frames::END_HEADERS == 0;
        }
        if kind == Frames::HEADERS {
            // The first bit means nothing.
            self.last_stream = self.last_stream.max(u32::from_be_bytes(stream) & (u32::MAX >> 1));
        }
        self.resets |= kind == Frames::RST_STREAM;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![
            0,
            0,
            u8::try_from(payload.len()).unwrap(),
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_whole_frame_owes_nothing_however_it_is_cut() {
        let bytes = [
            frame(0x4, 0, b"settings"),
            frame(0x1, 0x4, b"headers"),
            frame(0x6, 0, b""),
        ]
        .concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::new(0);
            bytes.chunks(size).for_each(|part| frames.feed(part));
            assert!(!frames.owes_more() && !frames.take_reset(), "in pieces of {size}");
            assert_eq!(frames.last_stream(), 1);
        }
    }

    #[test]
    fn a_reset_is_seen_however_it_is_cut_and_not_in_a_payload() {
        let reset = frame(0x3, 0, &[0, 0, 0, 8]);
        let mut inside = Frames::new(0);
        inside.feed(&frame(0x0, 0, &reset));
        assert!(!inside.take_reset());
        for size in 1..reset.len() {
            let mut frames = Frames::new(0);
            reset.chunks(size).for_each(|part| frames.feed(part));
            assert!(frames.take_reset(), "in pieces of {size}");
            assert!(!frames.take_reset(), "once");
        }
    }

    #[test]
    fn the_last_stream_is_the_highest_one_with_a_head() {
        let mut frames = Frames::new(0);
        assert_eq!(frames.last_stream(), 0);
        for (kind, id, last) in [
            (0x1, 3, 3),
            (0x1, 0x8000_0007_u32, 7),
            (0x1, 5, 7),
            (0x0, 9, 7),
            (0x3, 11, 7),
        ] {
            let mut bytes = frame(kind, 0x4, b"");
            bytes[5..9].copy_from_slice(&id.to_be_bytes());
            frames.feed(&bytes);
            assert_eq!(frames.last_stream(), last);
        }
    }

    #[test]
    fn half_a_preface_a_frame_and_a_header_block_owe_the_rest() {
        let mut frames = Frames::new(24);
        frames.feed(&[b'P'; 23]);
        assert!(frames.owes_more());
        frames.feed(b"!");
        assert!(!frames.owes_more());
        frames.feed(&frame(0x6, 0, b"12345678")[..12]);
        assert!(frames.owes_more());
        frames.feed(&[0; 5]);
        assert!(!frames.owes_more());
        frames.feed(&frame(0x1, 0, b"block"));
        assert!(frames.owes_more());
        frames.feed(&frame(0x9, 0x4, b"end"));
        assert!(!frames.owes_more());
    }
}
