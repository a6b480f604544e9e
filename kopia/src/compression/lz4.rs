//! LZ4 frames. Kopia wrote them up to 0.22.3 and reads them no more; repositories still hold them.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;

use super::{Decoded, Failure};

pub(super) fn decode(stream: &[u8], out: &mut [u8]) -> Decoded {
    let mut decoder = FrameDecoder::new(Source { rest: stream, starved: false });
    let mut total = 0;
    loop {
        let room = out.get_mut(total..).unwrap_or_default();
        if room.is_empty() {
            return Err(Failure::Full);
        }
        match decoder.read(room).map_err(Failure::malformed)? {
            0 if decoder.get_ref().starved => return Err(Failure::malformed("the frame ends early")),
            0 if decoder.get_ref().rest.is_empty() => return Ok(total),
            // The end of a frame; another one follows.
            0 => {}
            written => total += written,
        }
    }
}

/// Notices reads beyond the end: the decoder takes a frame without its end mark for a whole one.
struct Source<'a> {
    rest: &'a [u8],
    starved: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.starved |= self.rest.is_empty() && !into.is_empty();
        self.rest.read(into)
    }
}
