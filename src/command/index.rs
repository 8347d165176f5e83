//! Finds a command by its name, in any case, without allocating.

/// The command that owns the subcommands of no one.
pub(super) const TOP: u16 = 0;

/// Maps (owner, name) to a small number.
///
/// Open addressing over a power of two of slots, at most a quarter full. A name
/// is reduced to its length, its first and its last eight bytes, lower-cased in
/// registers; these three say everything about a name of up to 16 bytes, and
/// longer ones are compared in full. Names come from the table and never from
/// clients, so nobody can make the probes long.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// The number stored in each slot; `EMPTY` if none.
    slots: Box<[u16]>,
    entries: Vec<Entry>,
    shift: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    short: Short,
    owner: u16,
    number: u16,
    name: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Short {
    first: u64,
    last: u64,
    length: usize,
}

const EMPTY: u16 = u16::MAX;

impl Index {
    /// An index of (owner, name, number); names in lower case. The first of two
    /// equal names wins.
    pub(super) fn new<'a>(names: impl Iterator<Item = (u16, &'a [u8], u16)>) -> Self {
        let entries: Vec<Entry> = names
            .map(|(owner, name, number)| Entry {
                short: Short::of(name),
                owner,
                number,
                name: name.into(),
            })
            .collect();
        assert!(
            entries.len() < usize::from(EMPTY),
            "the table is bounded by its maker"
        );
        let bits = (entries.len() * 4)
            .next_power_of_two()
            .trailing_zeros()
            .max(4);
        let mut index = Self {
            slots: vec![EMPTY; 1 << bits].into(),
            entries: Vec::new(),
            shift: 64 - bits,
        };
        for entry in entries {
            if index.find(entry.owner, &entry.name).is_none() {
                index.insert(entry);
            }
        }
        index
    }

    fn insert(&mut self, entry: Entry) {
        let mask = self.slots.len() - 1;
        let mut slot = self.slot(entry.owner, entry.short);
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = self.entries.len() as u16;
        self.entries.push(entry);
    }

    /// The number of `name` under `owner`.
    #[inline]
    pub(super) fn find(&self, owner: u16, name: &[u8]) -> Option<u16> {
        let short = Short::of(name);
        let mask = self.slots.len() - 1;
        let mut slot = self.slot(owner, short);
        loop {
            let at = self.slots[slot & mask];
            if at == EMPTY {
                return None;
            }
            let entry = &self.entries[usize::from(at)];
            if entry.short == short
                && entry.owner == owner
                && (short.length <= 16 || entry.name.eq_ignore_ascii_case(name))
            {
                return Some(entry.number);
            }
            slot += 1;
        }
    }

    #[inline]
    fn slot(&self, owner: u16, short: Short) -> usize {
        let mixed = short.first
            ^ short.last.rotate_left(23)
            ^ (u64::from(owner) << 48)
            ^ ((short.length as u64) << 40);
        // Fibonacci hashing: the high bits of the product depend on all bits.
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }
}

impl Short {
    #[inline]
    fn of(name: &[u8]) -> Self {
        let length = name.len();
        let (first, last) = if let (Some(first), Some(last)) =
            (name.first_chunk::<8>(), name.last_chunk::<8>())
        {
            (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>())
        {
            (
                u32::from_le_bytes(*first).into(),
                u32::from_le_bytes(*last).into(),
            )
        } else if length > 0 {
            let ends = [name[0], name[length / 2], name[length - 1], 0];
            (u32::from_le_bytes(ends).into(), 0)
        } else {
            (0, 0)
        };
        Self {
            first: lower_case(first),
            last: lower_case(last),
            length,
        }
    }
}

/// Eight bytes with `A` to `Z` in lower case and all others as they are.
#[inline]
fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low_seven = word & (0x7f * ONES);
    // The top bit of each byte tells whether it is at least 'A', and past 'Z'.
    let from_a = low_seven + (0x80 - b'A' as u64) * ONES;
    let past_z = low_seven + (0x7f - b'Z' as u64) * ONES;
    let upper = (from_a ^ past_z) & !word & (0x80 * ONES);
    word | (upper >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_lowered_as_ascii_says() {
        for byte in 0..=255u8 {
            let word = u64::from_le_bytes([byte; 8]);
            let expected = u64::from_le_bytes([byte.to_ascii_lowercase(); 8]);
            assert_eq!(lower_case(word), expected, "byte {byte:#x}");
        }
    }

    #[test]
    fn names_that_share_their_ends_are_told_apart() {
        let names: [&[u8]; 4] = [
            b"abcdefgh-1-12345678",
            b"abcdefgh-2-12345678",
            b"abc",
            b"abcdefgh12345678",
        ];
        let index = Index::new(names.iter().zip(7..).map(|(name, n)| (TOP, *name, n)));
        for (name, number) in names.iter().zip(7..) {
            assert_eq!(index.find(TOP, name), Some(number));
            assert_eq!(index.find(TOP, &name.to_ascii_uppercase()), Some(number));
            assert_eq!(index.find(1, name), None);
        }
        assert_eq!(index.find(TOP, b"abcdefgh-3-12345678"), None);
        assert_eq!(index.find(TOP, b"abc\0"), None);
        assert_eq!(index.find(TOP, b""), None);
    }
}
