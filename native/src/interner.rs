//! Numbers for texts: the same text, the same number, in order of first appearance within one chunk.

/// Texts are told apart by their bytes, kept here so that a number outlives the batch that it came from.
pub struct Interner {
    /// number + 1, or 0 where the slot is free; a power of two in length
    slots: Vec<u32>,
    hashes: Vec<u64>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

const FIRST_SLOTS: usize = 1 << 10;

impl Interner {
    pub fn new() -> Self {
        Interner {
            slots: vec![0; FIRST_SLOTS],
            hashes: Vec::new(),
            ends: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Forget all texts, keep the memory.
    pub fn clear(&mut self) {
        if !self.ends.is_empty() {
            self.slots.fill(0);
            self.hashes.clear();
            self.ends.clear();
            self.bytes.clear();
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// All texts one after the other, and where each ends.
    pub fn texts(&self) -> (&[u8], &[u32]) {
        (&self.bytes, &self.ends)
    }

    fn text(&self, number: usize) -> &[u8] {
        let begin = if number == 0 {
            0
        } else {
            self.ends[number - 1] as usize
        };
        &self.bytes[begin..self.ends[number] as usize]
    }

    /// The number of a text; None where the chunk holds more text than 32 bits can address.
    pub fn number(&mut self, text: &[u8]) -> Option<u32> {
        let hash = hash(text);
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                0 => break,
                taken => {
                    let number = (taken - 1) as usize;
                    if self.hashes[number] == hash && self.text(number) == text {
                        return Some(number as u32);
                    }
                }
            }
            slot = (slot + 1) & mask;
        }
        let end = u32::try_from(self.bytes.len() + text.len()).ok()?;
        let number = u32::try_from(self.ends.len()).ok()?;
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        self.hashes.push(hash);
        self.slots[slot] = number + 1;
        if self.ends.len() * 2 > self.slots.len() {
            self.grow();
        }
        Some(number)
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 2;
        let mask = size - 1;
        self.slots.clear();
        self.slots.resize(size, 0);
        for (number, hash) in self.hashes.iter().enumerate() {
            let mut slot = *hash as usize & mask;
            while self.slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = number as u32 + 1;
        }
    }
}

/// Eight bytes at a time, multiplied and folded. Keys come from feeds that nobody vouches for, so each process begins with
/// a seed of its own: which texts collide cannot be known from outside.
fn hash(text: &[u8]) -> u64 {
    let mut state = seed() ^ (text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut chunks = text.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
        state = fold(state ^ word);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(last));
    }
    state
}

#[inline]
fn fold(value: u64) -> u64 {
    let product = u128::from(value) * 0xA076_1D64_78BD_642F_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::OnceLock;
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish()
            | 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_a_number_in_order_of_appearance() {
        let mut interner = Interner::new();
        for number in 0..5_000u32 {
            assert_eq!(
                interner.number(format!("key-{number}").as_bytes()),
                Some(number)
            );
        }
        for number in (0..5_000u32).rev() {
            assert_eq!(
                interner.number(format!("key-{number}").as_bytes()),
                Some(number)
            );
        }
        assert_eq!(interner.len(), 5_000);
        interner.clear();
        assert_eq!(interner.number(b"key-7"), Some(0));
        assert_eq!(interner.number(b""), Some(1));
        assert_eq!(interner.number(b"\0"), Some(2));
        assert_eq!(interner.texts(), (&b"key-7\0"[..], &[5u32, 5, 6][..]));
    }
}
