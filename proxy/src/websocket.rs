//! Where a WebSocket's frames end (RFC 6455 §5.2), so that a Close can be put between two of them. Nothing of them is read
//! but their lengths.

/// "Going away".
const STATUS: [u8; 2] = 1001_u16.to_be_bytes();
const FINAL_CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;
/// The longest head: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// A Close for a client.
pub(crate) const CLOSE_TO_CLIENT: [u8; 4] = [FINAL_CLOSE, 2, STATUS[0], STATUS[1]];
/// A Close for an endpoint, masked as what comes from clients has to be, with a mask that changes nothing: it protects
/// proxies from scripts, of which there is none here.
pub(crate) const CLOSE_TO_ENDPOINT: [u8; 8] = [FINAL_CLOSE, MASKED | 2, 0, 0, 0, 0, STATUS[0], STATUS[1]];

/// Counts the frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What there is of a head that is not whole.
    head: [u8; LONGEST_HEAD],
    have: usize,
    /// What is left of a frame's payload.
    payload: u64,
}

impl Frames {
    /// Whether a frame has just ended, or none has begun.
    pub(crate) fn at_border(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Follows all of `bytes`.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = self.step(bytes);
        }
    }

    /// How many of `bytes` belong to the frame that has begun; follows these.
    pub(crate) fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.at_border() {
            rest = self.step(rest);
        }
        bytes.len() - rest.len()
    }

    /// Follows some bytes, at least one; gives the others.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.payload > 0 {
            let count = usize::try_from(self.payload)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            self.payload -= count as u64;
            return bytes.get(count..).unwrap_or_default();
        }
        let Some((first, rest)) = bytes.split_first() else {
            return bytes;
        };
        if let Some(slot) = self.head.get_mut(self.have) {
            *slot = *first;
            self.have += 1;
        }
        if let Some(payload) = self.payload_of_head() {
            self.have = 0;
            self.payload = payload;
        }
        rest
    }

    /// The length of the payload, once the head is whole.
    fn payload_of_head(&self) -> Option<u64> {
        let head = self.head.get(..self.have)?;
        let second = *head.get(1)?;
        let (length, extended) = match second & !MASKED {
            126 => (2, true),
            127 => (8, true),
            length => (usize::from(length), false),
        };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if !extended {
            return (head.len() == 2 + mask).then_some(length as u64);
        }
        if head.len() < 2 + length + mask {
            return None;
        }
        let bytes = head.get(2..2 + length)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as its sender writes it.
    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let flag = if masked { MASKED } else { 0 };
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(flag | u8::try_from(length).unwrap()),
            126..65536 => {
                frame.push(flag | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(flag | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length + if masked { 4 } else { 0 }, 0xff);
        frame
    }

    proptest! {
        #[test]
        fn borders_are_found_however_the_bytes_come(
            lengths in prop::collection::vec(prop_oneof![0_usize..300, 65_000_usize..70_000], 1..5),
            masked: bool,
            cuts in prop::collection::vec(1_usize..5000, 1..20),
        ) {
            let mut bytes = Vec::new();
            let mut borders = vec![0];
            for length in lengths {
                bytes.extend(frame(length, masked));
                borders.push(bytes.len());
            }
            let (mut frames, mut at) = (Frames::default(), 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                frames.follow(&bytes[at..end]);
                at = end;
                prop_assert_eq!(frames.at_border(), borders.contains(&at), "at {} of {:?}", at, borders);
                let next = *borders.iter().find(|border| **border >= at).unwrap();
                let mut copy = Frames { head: frames.head, have: frames.have, payload: frames.payload };
                prop_assert_eq!(copy.finish(&bytes[at..]), next - at);
                if at == bytes.len() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_close_is_a_frame() {
        for close in [&CLOSE_TO_CLIENT[..], &CLOSE_TO_ENDPOINT] {
            let mut frames = Frames::default();
            frames.follow(&close[..close.len() - 1]);
            assert!(!frames.at_border());
            frames.follow(&close[close.len() - 1..]);
            assert!(frames.at_border());
        }
    }
}
