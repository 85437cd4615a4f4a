//! A reader of one JSON text that goes on only while it is sure.
//!
//! `Unsure` is no verdict: the text may be valid in a way that is not read here (escapes, numbers of many digits).

pub struct Unsure;
pub type Sure<T> = Result<T, Unsure>;

/// What is nested deeper is left to the careful decoder.
const DEPTH_MAX: u32 = 32;

pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Reader { text, at: 0 }
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space, not consumed; 0 at the end.
    #[inline]
    pub fn peek(&mut self) -> u8 {
        match self.text.get(self.at) {
            Some(&byte) if byte > b' ' => byte,
            _ => {
                self.skip_space();
                self.text.get(self.at).copied().unwrap_or(0)
            }
        }
    }

    #[inline]
    pub fn take(&mut self, wanted: u8) -> bool {
        // not `self.at += usize::from(found)`: rustc 1.95 loses that addition when it optimises
        if self.peek() != wanted {
            return false;
        }
        self.at += 1;
        true
    }

    #[inline]
    pub fn expect(&mut self, wanted: u8) -> Sure<()> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(Unsure)
        }
    }

    /// Nothing but white space is left.
    pub fn at_end(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    /// Text without escapes; UTF-8 is checked where it is not ASCII.
    #[inline]
    pub fn string(&mut self) -> Sure<&'a [u8]> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let mut length = 0;
        let mut ascii = true;
        // eight bytes at a time up to the first that is not plain ASCII text
        while let Some(chunk) = rest.get(length..length + 8) {
            let marks = marked(u64::from_le_bytes(chunk.try_into().map_err(|_| Unsure)?));
            if marks != 0 {
                length += (marks.trailing_zeros() / 8) as usize;
                break;
            }
            length += 8;
        }
        loop {
            match rest.get(length) {
                Some(b'"') => break,
                Some(b'\\') | Some(0..=0x1F) | None => return Err(Unsure),
                Some(byte) => ascii &= byte.is_ascii(),
            }
            length += 1;
        }
        let found = &rest[..length];
        self.at += length + 1;
        if !ascii && std::str::from_utf8(found).is_err() {
            return Err(Unsure);
        }
        Ok(found)
    }

    pub fn literal(&mut self, word: &[u8]) -> Sure<()> {
        self.peek();
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Unsure)
        }
    }

    /// The bytes of a number by JSON's grammar, and whether it is written as an integer.
    #[inline]
    fn number(&mut self) -> Sure<(&'a [u8], bool)> {
        self.peek();
        let begin = self.at;
        let text = self.text;
        let mut at = begin;
        let digit = |at: usize| matches!(text.get(at), Some(b'0'..=b'9'));
        if text.get(at) == Some(&b'-') {
            at += 1;
        }
        if text.get(at) == Some(&b'0') {
            at += 1;
        } else {
            let first = at;
            while digit(at) {
                at += 1;
            }
            if at == first {
                return Err(Unsure);
            }
        }
        let mut integer = true;
        if text.get(at) == Some(&b'.') {
            integer = false;
            at += 1;
            let first = at;
            while digit(at) {
                at += 1;
            }
            if at == first {
                return Err(Unsure);
            }
        }
        if let Some(b'e' | b'E') = text.get(at) {
            integer = false;
            at += 1;
            if let Some(b'+' | b'-') = text.get(at) {
                at += 1;
            }
            let first = at;
            while digit(at) {
                at += 1;
            }
            if at == first {
                return Err(Unsure);
            }
        }
        if !matches!(
            text.get(at),
            Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') | None
        ) {
            return Err(Unsure);
        }
        self.at = at;
        Ok((&text[begin..at], integer))
    }

    /// An integer of at most 18 digits.
    #[inline]
    pub fn integer(&mut self) -> Sure<i64> {
        let (digits, integer) = self.number()?;
        if !integer || digits == b"-0" {
            return Err(Unsure);
        }
        let (negative, digits) = match digits {
            [b'-', rest @ ..] => (true, rest),
            all => (false, all),
        };
        if digits.len() > 18 {
            return Err(Unsure);
        }
        let value = digits
            .iter()
            .fold(0i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        Ok(if negative { -value } else { value })
    }

    /// The double next to the number that is written, which is finite.
    ///
    /// Digits below 2^53 with at most 22 of them after the point are exact as a double, and so is that power of ten: one
    /// division rounds once (Clinger, "How to read floating point numbers accurately", 1990).
    #[inline]
    pub fn float(&mut self) -> Sure<f64> {
        self.peek();
        let begin = self.at;
        let text = self.text;
        let negative = text.get(begin) == Some(&b'-');
        let first = if negative { begin + 1 } else { begin };
        let (mantissa, point) = digits(text, first, 0);
        let whole = point - first;
        let (mantissa, end) = match text.get(point) {
            Some(b'.') => digits(text, point + 1, mantissa),
            _ => (mantissa, point),
        };
        let places = if end > point { end - point - 1 } else { 0 };
        let plain = whole > 0
            && (whole == 1 || text[first] != b'0')
            && (end == point || places > 0)
            && whole + places <= 18
            && mantissa < 1 << 53
            && ends_number(text.get(end));
        if !plain {
            return self.long_float();
        }
        self.at = end;
        let value = mantissa as f64 / POWERS[places];
        Ok(if negative { -value } else { value })
    }

    fn long_float(&mut self) -> Sure<f64> {
        let (digits, _) = self.number()?;
        let text = std::str::from_utf8(digits).map_err(|_| Unsure)?;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(Unsure),
        }
    }

    pub fn boolean(&mut self) -> Sure<bool> {
        match self.peek() {
            b't' => self.literal(b"true").map(|()| true),
            b'f' => self.literal(b"false").map(|()| false),
            _ => Err(Unsure),
        }
    }

    pub fn take_null(&mut self) -> Sure<bool> {
        if self.peek() != b'n' {
            return Ok(false);
        }
        self.literal(b"null").map(|()| true)
    }

    /// Step over any value that is valid.
    pub fn skip(&mut self) -> Sure<()> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: u32) -> Sure<()> {
        if depth > DEPTH_MAX {
            return Err(Unsure);
        }
        match self.peek() {
            b'"' => self.string().map(|_| ()),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'{' => {
                self.at += 1;
                if self.take(b'}') {
                    return Ok(());
                }
                loop {
                    self.string()?;
                    self.expect(b':')?;
                    self.skip_nested(depth + 1)?;
                    if !self.take(b',') {
                        return self.expect(b'}');
                    }
                }
            }
            b'[' => {
                self.at += 1;
                if self.take(b']') {
                    return Ok(());
                }
                loop {
                    self.skip_nested(depth + 1)?;
                    if !self.take(b',') {
                        return self.expect(b']');
                    }
                }
            }
            // the number's size matters, too: a decoder may refuse what no double can hold
            _ => self.float().map(|_| ()),
        }
    }
}

const POWERS: [f64; 19] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
];

/// Go over digits, appending them to a number (which wraps where there are too many), and where they end.
#[inline]
fn digits(text: &[u8], begin: usize, number: u64) -> (u64, usize) {
    let mut number = number;
    let mut at = begin;
    while let Some(byte @ b'0'..=b'9') = text.get(at) {
        number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        at += 1;
    }
    (number, at)
}

/// `01` and `1x` are no numbers.
#[inline]
fn ends_number(next: Option<&u8>) -> bool {
    matches!(next, Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') | None)
}

/// The high bit of each byte that is a quote, a backslash, a control character or not ASCII; above the first such byte
/// there may be false marks.
#[inline]
fn marked(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let quotes = zero_bytes(word ^ (ONES * u64::from(b'"')));
    let backslashes = zero_bytes(word ^ (ONES * u64::from(b'\\')));
    let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    quotes | backslashes | controls | (word & HIGH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(text: &str) -> Option<f64> {
        let mut reader = Reader::new(text.as_bytes());
        reader.float().ok().filter(|_| reader.at_end())
    }

    #[test]
    fn floats_equal_the_standard_library_to_the_bit() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let digits = (state >> 33) as usize % 18;
            let text = format!(
                "{}{:.*}",
                if state & 1 == 0 { "-" } else { "" },
                digits,
                (state >> 20) as f64 / 1e7
            );
            assert_eq!(
                float(&text).map(f64::to_bits),
                Some(text.parse::<f64>().unwrap().to_bits()),
                "{text}"
            );
        }
        for text in [
            "0",
            "-0",
            "0.1",
            "1e3",
            "123456789012345678",
            "9007199254740993",
            "1.7976931348623157e308",
            "5e-324",
        ] {
            assert_eq!(
                float(text).map(f64::to_bits),
                Some(text.parse::<f64>().unwrap().to_bits()),
                "{text}"
            );
        }
    }

    #[test]
    fn strings_end_at_the_first_quote_wherever_it_is() {
        for before in 0..20usize {
            for odd in ["\"", "\\", "\n", "\u{1f}", "é", "\u{7f}", "~"] {
                let text = format!("\"{}{odd}{}\"", "x".repeat(before), "y".repeat(9));
                let mut reader = Reader::new(text.as_bytes());
                let found = reader.string().ok().map(|found| String::from_utf8(found.to_vec()).unwrap());
                let wanted = match odd {
                    "\"" => Some("x".repeat(before)),
                    "\\" | "\n" | "\u{1f}" => None,
                    _ => Some(text[1..text.len() - 1].to_string()),
                };
                assert_eq!(found, wanted, "{text}");
            }
        }
        assert!(Reader::new(b"\"abc").string().is_err());
        assert!(Reader::new(b"\"abcdefgh").string().is_err());
    }

    #[test]
    fn what_is_no_number_is_unsure() {
        for text in [
            "", "-", "01", "1.", ".5", "1e", "1e+", "+1", "0x1", "1x", "NaN", "Infinity", "1e400",
            "\"1\"", "1 2",
        ] {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn integers_are_plain_and_short() {
        let read = |text: &str| Reader::new(text.as_bytes()).integer().ok();
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("-12"), Some(-12));
        assert_eq!(read("999999999999999999"), Some(999_999_999_999_999_999));
        for text in ["1000000000000000000", "1.0", "1e2", "-0", "01", "true"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn skipping_accepts_only_what_is_valid() {
        let skip = |text: &str| {
            let mut reader = Reader::new(text.as_bytes());
            reader.skip().is_ok() && reader.at_end()
        };
        for text in [
            "{}",
            "[]",
            " { \"a\" : [1, {\"b\": null}], \"c\": \"é\" } ",
            "[true,false,null,-1.5e3]",
        ] {
            assert!(skip(text), "{text}");
        }
        for text in [
            "{",
            "[1,]",
            "{\"a\"}",
            "{a:1}",
            "tru",
            "\"\\n\"",
            "\"\u{1}\"",
            "[1] 2",
            "",
            "[1e999]",
        ] {
            assert!(!skip(text), "{text}");
        }
        assert!(!skip(&("[".repeat(40) + &"]".repeat(40))));
        assert!(Reader::new(b"\"\xff\"").string().is_err());
    }
}
