//! Enough chance to pick an endpoint by, with no lock and no system call.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// A thread's own sequence (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random {
    state: Cell<u64>,
}

impl Default for Random {
    fn default() -> Self {
        // A `RandomState` is seeded by the system; the sequence must not begin with 0.
        Self {
            state: Cell::new(RandomState::new().hash_one(0) | 1),
        }
    }
}

impl Random {
    /// An identity of a trace: never all zeros.
    pub(crate) fn trace_id(&self) -> [u8; 16] {
        let number = u128::from(self.next()) << 64 | u128::from(self.next() | 1);
        number.to_be_bytes()
    }

    /// An identity of a span: never all zeros.
    pub(crate) fn span_id(&self) -> [u8; 8] {
        (self.next() | 1).to_be_bytes()
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let number = self.next();
        // The high bits are the good ones, and the product of both is below `bound` once shifted.
        usize::try_from((u128::from(number) * bound as u128) >> 64).unwrap_or(0)
    }

    fn next(&self) -> u64 {
        let mut state = self.state.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.state.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes_about_as_often() {
        let random = Random::default();
        let mut seen = [0_u32; 7];
        for _ in 0..70_000 {
            seen[random.below(7)] += 1;
        }
        assert!(
            seen.iter().all(|&count| (9_000..11_000).contains(&count)),
            "{seen:?}"
        );
        assert_eq!(random.below(0), 0);
    }
}
