//! The functions that the caller loads by name. None of them panics on bad input: each answers with a code.

use std::slice;

use crate::batch::{self, BatchView, Rows};
use crate::interner::Interner;
use crate::schema::Schema;

/// Raised with every change of a signature or a layout, so that an old library is not used by mistake.
#[no_mangle]
pub extern "C" fn streamapp_abi() -> u32 {
    1
}

/// A schema with the texts of the chunk that is being decoded. One thread at a time may use it.
pub struct Decoder {
    schema: Schema,
    keys: Interner,
    texts: Vec<Interner>,
}

/// A decoder for a schema as `Schema::parse` reads it; null where it is not understood.
///
/// # Safety
/// `text` must point to `length` bytes.
#[no_mangle]
pub unsafe extern "C" fn streamapp_decoder_new(text: *const u8, length: usize) -> *mut Decoder {
    let parsed = std::str::from_utf8(slice::from_raw_parts(text, length))
        .ok()
        .and_then(Schema::parse);
    match parsed {
        Some(schema) => {
            let texts = (0..schema.columns).map(|_| Interner::new()).collect();
            Box::into_raw(Box::new(Decoder {
                schema,
                keys: Interner::new(),
                texts,
            }))
        }
        None => std::ptr::null_mut(),
    }
}

/// # Safety
/// `decoder` must come from `streamapp_decoder_new` and not be used again.
#[no_mangle]
pub unsafe extern "C" fn streamapp_decoder_free(decoder: *mut Decoder) {
    if !decoder.is_null() {
        drop(Box::from_raw(decoder));
    }
}

/// Begin a new chunk: texts are numbered from 0 again.
///
/// # Safety
/// `decoder` must be live.
#[no_mangle]
pub unsafe extern "C" fn streamapp_decoder_clear(decoder: *mut Decoder) {
    let decoder = &mut *decoder;
    decoder.keys.clear();
    decoder.texts.iter_mut().for_each(Interner::clear);
}

/// Decode a batch into the rows from `first` on: the number of rows filled, or -1 where the batch is not well-formed.
///
/// # Safety
/// Everything must be live, `rows` with room for its capacity, `unsure` writable; it is raised by the rows in doubt.
#[no_mangle]
pub unsafe extern "C" fn streamapp_decode(
    decoder: *mut Decoder,
    view: *const BatchView,
    rows: *const Rows,
    first: usize,
    unsure: *mut usize,
) -> i64 {
    let Decoder {
        schema,
        keys,
        texts,
    } = &mut *decoder;
    match batch::decode(schema, keys, texts, &*view, &*rows, first) {
        Some(filled) => {
            *unsure += filled.unsure;
            filled.rows as i64
        }
        None => -1,
    }
}

/// The texts of the chunk so far: of keys where `column` is negative, else of that column. Answers how many there are.
///
/// # Safety
/// The pointers that are written stay valid until the decoder is used again.
#[no_mangle]
pub unsafe extern "C" fn streamapp_texts(
    decoder: *const Decoder,
    column: i64,
    bytes: *mut *const u8,
    length: *mut usize,
    ends: *mut *const u32,
) -> usize {
    let decoder = &*decoder;
    let interner = match usize::try_from(column) {
        Ok(column) => match decoder.texts.get(column) {
            Some(interner) => interner,
            None => return 0,
        },
        Err(_) => &decoder.keys,
    };
    let (found, stops) = interner.texts();
    *bytes = found.as_ptr();
    *length = found.len();
    *ends = stops.as_ptr();
    interner.len()
}
