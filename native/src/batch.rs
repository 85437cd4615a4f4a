//! Walks the records of one batch of Kafka's message format 2, after decompression.
//!
//! Layout: <https://kafka.apache.org/documentation/#recordbatch>. Lengths and deltas are zigzag varints.

use crate::interner::Interner;
use crate::schema::{Column, Schema};

/// The number of a key that is absent.
pub const NO_KEY: u32 = u32::MAX;
/// The length of a value that is null.
pub const NO_VALUE: u32 = u32::MAX;

/// One batch: its records, and what its header says of them.
#[repr(C)]
pub struct BatchView {
    pub records: *const u8,
    pub length: usize,
    pub count: usize,
    pub base_offset: i64,
    pub first_timestamp: i64,
    pub max_timestamp: i64,
    /// records below are passed over: they were read before
    pub min_offset: i64,
    /// a longer value is left to the careful decoder
    pub max_value_bytes: usize,
    pub log_append_time: u8,
}

/// The rows that a chunk fills, one memory per attribute, all of `capacity` rows.
#[repr(C)]
pub struct Rows {
    pub capacity: usize,
    pub offsets: *mut i64,
    pub timestamps: *mut i64,
    pub keys: *mut u32,
    pub value_at: *mut u32,
    pub value_length: *mut u32,
    pub unsure: *mut u8,
    pub columns: *const Column,
}

pub struct Filled {
    pub rows: usize,
    pub unsure: usize,
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    #[inline]
    fn varint(&mut self) -> Option<i64> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    /// A length and as many bytes; a negative length is null.
    #[inline]
    fn nullable(&mut self) -> Option<Option<(usize, &'a [u8])>> {
        let length = self.varint()?;
        if length < 0 {
            return Some(None);
        }
        let begin = self.at;
        let end = begin.checked_add(usize::try_from(length).ok()?)?;
        let found = self.bytes.get(begin..end)?;
        self.at = end;
        Some(Some((begin, found)))
    }
}

/// Decode one batch into the rows from `first` on; None where the batch is not well-formed or does not fit.
///
/// # Safety
/// All memory of `rows` must have room for `capacity` rows.
pub unsafe fn decode(
    schema: &Schema,
    keys: &mut Interner,
    texts: &mut [Interner],
    batch: &BatchView,
    rows: &Rows,
    first: usize,
) -> Option<Filled> {
    let bytes = std::slice::from_raw_parts(batch.records, batch.length);
    let columns = std::slice::from_raw_parts(rows.columns, schema.columns);
    let mut walk = Walk { bytes, at: 0 };
    let mut row = first;
    let mut unsure = 0;
    for _ in 0..batch.count {
        let length = usize::try_from(walk.varint()?).ok()?;
        let end = walk.at.checked_add(length)?;
        walk.at += 1; // attributes, unused by the format
        let timestamp_delta = walk.varint()?;
        let offset = batch.base_offset.checked_add(walk.varint()?)?;
        let key = walk.nullable()?;
        let value = walk.nullable()?;
        if end > bytes.len() || walk.at > end {
            return None;
        }
        walk.at = end; // headers are read where somebody asks for them
        if offset < batch.min_offset {
            continue;
        }
        if row >= rows.capacity {
            return None;
        }
        let timestamp = match batch.log_append_time {
            0 => batch.first_timestamp.checked_add(timestamp_delta)?,
            _ => batch.max_timestamp,
        };
        let mut sure = true;
        let key = match key {
            Some((_, text)) if text.is_ascii() || std::str::from_utf8(text).is_ok() => {
                keys.number(text)?
            }
            _ => {
                sure = !schema.needs_key;
                NO_KEY
            }
        };
        let (value_at, value_length) = match value {
            Some((at, text)) => {
                sure = sure
                    && text.len() <= batch.max_value_bytes
                    && (schema.fields.is_empty() || schema.read(text, row, columns, texts).is_ok());
                (u32::try_from(at).ok()?, u32::try_from(text.len()).ok()?)
            }
            None => {
                sure = false;
                (0, NO_VALUE)
            }
        };
        rows.offsets.add(row).write(offset);
        rows.timestamps.add(row).write(timestamp);
        rows.keys.add(row).write(key);
        rows.value_at.add(row).write(value_at);
        rows.value_length.add(row).write(value_length);
        rows.unsure.add(row).write(u8::from(!sure));
        if !sure {
            unsure += 1;
        }
        row += 1;
    }
    if walk.at != bytes.len() {
        return None;
    }
    Some(Filled {
        rows: row - first,
        unsure,
    })
}
