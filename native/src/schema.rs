//! What a record must look like, and which of its fields become columns.

use crate::interner::Interner;
use crate::json::{Reader, Sure, Unsure};

pub enum Kind {
    Float {
        low: Bound<f64>,
        high: Bound<f64>,
    },
    Integer {
        low: Bound<i64>,
        high: Bound<i64>,
    },
    Text {
        min_chars: usize,
        max_chars: usize,
    },
    Boolean,
    /// One of these texts; the column holds its place in the list.
    Choice(Vec<Vec<u8>>),
}

pub struct Bound<T> {
    pub at: T,
    pub strict: bool,
}

pub struct Field {
    pub name: Vec<u8>,
    pub kind: Kind,
    pub nullable: bool,
    /// a record without the field is as one that holds null; otherwise such a record is left to the careful decoder
    pub optional: bool,
    pub column: Option<usize>,
}

pub struct Schema {
    pub fields: Vec<Field>,
    pub columns: usize,
    pub needs_key: bool,
}

/// One column's memory, of as many rows as the caller made room for.
///
/// Values are f64, i64, u32 (number of a text, or place of a choice) or u8 (boolean), by the field's kind.
#[repr(C)]
pub struct Column {
    pub values: *mut u8,
    pub nulls: *mut u8,
}

impl Schema {
    /// Read the lines that the caller wrote; None where they are not understood.
    ///
    /// First line: number of columns, 1 where records need a key else 0. Then one line per field, parted by blanks: name in
    /// hex, kind (`f`, `i`, `t`, `b`, `c`), nullable 0/1, optional 0/1, column or -1, and by kind: low, strict 0/1, high,
    /// strict 0/1; least and most characters; nothing; the choices in hex.
    pub fn parse(text: &str) -> Option<Schema> {
        let mut lines = text.lines();
        let mut head = lines.next()?.split(' ');
        let columns = head.next()?.parse().ok()?;
        let needs_key = head.next()? == "1";
        let fields = lines
            .map(|line| Field::parse(line, columns))
            .collect::<Option<Vec<_>>>()?;
        if fields.len() > 64 {
            return None;
        }
        Some(Schema {
            fields,
            columns,
            needs_key,
        })
    }

    /// Read one record into the row; the row means nothing where this is not sure.
    ///
    /// # Safety
    /// Every column must have room for `row`.
    pub unsafe fn read(
        &self,
        text: &[u8],
        row: usize,
        columns: &[Column],
        texts: &mut [Interner],
    ) -> Sure<()> {
        let mut reader = Reader::new(text);
        let mut seen = 0u64;
        let mut next = 0;
        reader.expect(b'{')?;
        if !reader.take(b'}') {
            loop {
                let name = reader.string()?;
                reader.expect(b':')?;
                match self.find(name, next) {
                    Some(index) => {
                        if seen & (1 << index) != 0 {
                            return Err(Unsure); // twice: which one counts is for the careful decoder to say
                        }
                        seen |= 1 << index;
                        next = index + 1;
                        self.fields[index].read(&mut reader, row, columns, texts)?;
                    }
                    None => reader.skip()?,
                }
                if !reader.take(b',') {
                    reader.expect(b'}')?;
                    break;
                }
            }
        }
        if !reader.at_end() {
            return Err(Unsure);
        }
        if seen.count_ones() as usize != self.fields.len() {
            for (index, field) in self.fields.iter().enumerate() {
                if seen & (1 << index) == 0 {
                    if !field.optional {
                        return Err(Unsure);
                    }
                    field.write_null(row, columns);
                }
            }
        }
        Ok(())
    }

    /// Producers mostly write the fields in one order, so the one after the last is tried first.
    #[inline]
    fn find(&self, name: &[u8], next: usize) -> Option<usize> {
        match self.fields.get(next) {
            Some(field) if field.name == name => Some(next),
            _ => self.fields.iter().position(|field| field.name == name),
        }
    }
}

impl Field {
    fn parse(line: &str, columns: usize) -> Option<Field> {
        let mut parts = line.split(' ');
        let name = unhex(parts.next()?)?;
        let letter = parts.next()?;
        let nullable = parts.next()? == "1";
        let optional = parts.next()? == "1";
        let column: i64 = parts.next()?.parse().ok()?;
        let column = usize::try_from(column).ok();
        if column.is_some_and(|column| column >= columns) {
            return None;
        }
        let kind = match letter {
            "f" => {
                let low = Bound {
                    at: parts.next()?.parse().ok()?,
                    strict: parts.next()? == "1",
                };
                Kind::Float {
                    low,
                    high: Bound {
                        at: parts.next()?.parse().ok()?,
                        strict: parts.next()? == "1",
                    },
                }
            }
            "i" => {
                let low = Bound {
                    at: parts.next()?.parse().ok()?,
                    strict: parts.next()? == "1",
                };
                Kind::Integer {
                    low,
                    high: Bound {
                        at: parts.next()?.parse().ok()?,
                        strict: parts.next()? == "1",
                    },
                }
            }
            "t" => Kind::Text {
                min_chars: parts.next()?.parse().ok()?,
                max_chars: parts.next()?.parse().ok()?,
            },
            "b" => Kind::Boolean,
            "c" => Kind::Choice(parts.by_ref().map(unhex).collect::<Option<Vec<_>>>()?),
            _ => return None,
        };
        Some(Field {
            name,
            kind,
            nullable,
            optional,
            column,
        })
    }

    #[inline]
    unsafe fn read(
        &self,
        reader: &mut Reader,
        row: usize,
        columns: &[Column],
        texts: &mut [Interner],
    ) -> Sure<()> {
        if self.nullable && reader.take_null()? {
            self.write_null(row, columns);
            return Ok(());
        }
        match &self.kind {
            Kind::Float { low, high } => {
                let value = reader.float()?;
                within(value, low, high)?;
                self.write(row, columns, value);
            }
            Kind::Integer { low, high } => {
                let value = reader.integer()?;
                within(value, low, high)?;
                self.write(row, columns, value);
            }
            Kind::Text {
                min_chars,
                max_chars,
            } => {
                let text = reader.string()?;
                if *min_chars > 0 || *max_chars < usize::MAX {
                    // bytes that begin a character, not those that go on with one
                    let chars = text.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
                    if chars < *min_chars || chars > *max_chars {
                        return Err(Unsure);
                    }
                }
                if let Some(column) = self.column {
                    let number = texts[column].number(text).ok_or(Unsure)?;
                    self.write(row, columns, number);
                }
            }
            Kind::Boolean => {
                let value = reader.boolean()?;
                self.write(row, columns, u8::from(value));
            }
            Kind::Choice(choices) => {
                let text = reader.string()?;
                let place = choices
                    .iter()
                    .position(|choice| choice == text)
                    .ok_or(Unsure)?;
                self.write(row, columns, place as u32);
            }
        }
        Ok(())
    }

    #[inline]
    unsafe fn write<T>(&self, row: usize, columns: &[Column], value: T) {
        if let Some(column) = self.column {
            columns[column].values.cast::<T>().add(row).write(value);
            columns[column].nulls.add(row).write(0);
        }
    }

    unsafe fn write_null(&self, row: usize, columns: &[Column]) {
        if let Some(column) = self.column {
            columns[column].nulls.add(row).write(1);
        }
    }
}

#[inline]
fn within<T: PartialOrd + Copy>(value: T, low: &Bound<T>, high: &Bound<T>) -> Sure<()> {
    let above = if low.strict {
        value > low.at
    } else {
        value >= low.at
    };
    let below = if high.strict {
        value < high.at
    } else {
        value <= high.at
    };
    if above && below {
        Ok(())
    } else {
        Err(Unsure)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 != 0 || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
