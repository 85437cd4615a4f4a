//! Decodes the records of a Kafka batch straight into columns, without an object per record.
//!
//! The library is sure or it says so: a record that is anything but plain, valid JSON of the declared schema is marked,
//! and the caller decodes it the slow way, which alone decides what is an error. So nothing here has to report one.
//!
//! The way of a batch: `batch` walks the records, `json` reads one value, `schema` says what belongs where, `interner`
//! gives equal texts one number, `ffi` is what the caller sees.

mod batch;
mod ffi;
mod interner;
mod json;
mod schema;

pub use ffi::*;
