//! Small pieces of a message as one: what it costs to copy them is less than what the kernel takes to look at each.

use std::io::IoSlice;

/// The most that is copied.
pub(crate) const MOST: usize = 1024;

/// All of `pieces` as one, in `space` where it takes copying; `None` where they are too much for that.
pub(crate) fn gathered<'a>(pieces: &'a [IoSlice<'_>], space: &'a mut [u8; MOST]) -> Option<&'a [u8]> {
    if let [only] = pieces {
        return Some(&only[..]);
    }
    let mut end = 0;
    for piece in pieces {
        space.get_mut(end..end + piece.len())?.copy_from_slice(piece);
        end += piece.len();
    }
    space.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_become_one_piece_and_many_stay_as_they_are() {
        let mut space = [0; MOST];
        let large = [b'x'; MOST];
        let pieces =
            |parts: &[&'static [u8]]| parts.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>();
        assert_eq!(
            gathered(&pieces(&[b"head", b"", b"body"]), &mut space),
            Some(&b"headbody"[..])
        );
        assert_eq!(
            gathered(&[IoSlice::new(&large), IoSlice::new(b"")], &mut space),
            Some(&large[..])
        );
        assert_eq!(
            gathered(&[IoSlice::new(&large), IoSlice::new(b"y")], &mut space),
            None
        );
        let huge = [b'x'; 2 * MOST];
        assert_eq!(
            gathered(&[IoSlice::new(&huge)], &mut space),
            Some(&huge[..]),
            "nothing to copy"
        );
        assert_eq!(gathered(&[], &mut space), Some(&b""[..]));
    }
}
