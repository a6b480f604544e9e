//! Raw deflate (RFC 1951), and the step that gzip shares with it.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Decoded, Failure};

pub(super) fn context() -> Decompress {
    Decompress::new(false)
}

pub(super) fn decode(context: &mut Decompress, stream: &[u8], out: &mut [u8]) -> Decoded {
    let (read, written) = inflate(context, stream, out)?;
    if read != stream.len() {
        return Err(Failure::malformed("bytes after the end of the stream"));
    }
    Ok(written)
}

/// Decodes one deflate stream from the front of `stream`: bytes read and bytes written.
pub(super) fn inflate(context: &mut Decompress, stream: &[u8], out: &mut [u8]) -> Result<(usize, usize), Failure> {
    context.reset(false);
    // `Finish` on the first call lets the decoder write straight into `out`, without a window of its own.
    let status = context.decompress(stream, out, FlushDecompress::Finish);
    let read = usize::try_from(context.total_in()).map_err(Failure::malformed)?;
    let written = usize::try_from(context.total_out()).map_err(Failure::malformed)?;
    match status {
        Ok(Status::StreamEnd) => Ok((read, written)),
        Ok(Status::Ok | Status::BufError) if written == out.len() => Err(Failure::Full),
        Ok(Status::Ok | Status::BufError) => Err(Failure::malformed("the stream ends early")),
        Err(error) => Err(Failure::malformed(error)),
    }
}
