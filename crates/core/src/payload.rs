//! Whose name a message's payload bears (PROTOCOL.md, section 4, the rows `payload`), and what its sender
//! calls it (section 10).
//!
//! A scanner that validates the JSON grammar of RFC 8259 and finds a member of the top level, without a
//! tree, without recursion and without copying. It accepts what a JSON parser accepts: any depth of
//! nesting (a bit of memory for each level), lone surrogate escapes, duplicate names other than `from`.
//! `payload/tests.rs` holds it against serde_json.

#[cfg(test)]
mod tests;

/// Why a payload may not go to an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// It is not a JSON object in UTF-8.
    NotAnObject,
    /// Its `from` is missing, is no string, is not the sender, or stands in it twice at the top level.
    SenderMismatch,
}

/// Checks that `payload` is a JSON object whose one top-level `from` is the string `sender`.
///
/// # Errors
/// [`PayloadError::NotAnObject`] wins over [`PayloadError::SenderMismatch`], wherever in the payload
/// the two stand.
pub fn check_sender(payload: &[u8], sender: &str) -> Result<(), PayloadError> {
    let text = std::str::from_utf8(payload).map_err(|_| PayloadError::NotAnObject)?;
    let mut from = From::Missing;
    Scanner::new(text)
        .object(|scanner, name| {
            if spells(name, "from") {
                from = scanner.sender(from, sender)?;
                return Some(());
            }
            scanner.value()
        })
        .ok_or(PayloadError::NotAnObject)?;
    if from == From::Sender {
        Ok(())
    } else {
        Err(PayloadError::SenderMismatch)
    }
}

/// Bytes of an id that a receipt repeats.
pub const MAX_ID: usize = 256;

/// The value of the top level's one `id`, as it stands there, if it is a string or a number of at most
/// [`MAX_ID`] bytes (PROTOCOL.md, section 10).
#[must_use]
pub fn message_id(payload: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut ids = 0;
    let mut id = "";
    Scanner::new(text).object(|scanner, name| {
        let start = scanner.at;
        scanner.value()?;
        if spells(name, "id") {
            ids += 1;
            id = &text[start..scanner.at];
        }
        Some(())
    })?;
    let is_scalar = id.starts_with(|c: char| matches!(c, '"' | '-' | '0'..='9'));
    (ids == 1 && is_scalar && id.len() <= MAX_ID).then_some(id)
}

/// What has been seen of `from` at the top level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Missing,
    Sender,
    Mismatch,
}

/// Reads forward only. Every method returns `None` where the grammar is broken.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// The whole text: one object and nothing but white space around it. `member` reads each value and is
    /// told its name.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.white_space();
        self.expect(b'{')?;
        self.white_space();
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            loop {
                self.white_space();
                let name = self.string()?;
                self.white_space();
                self.expect(b':')?;
                self.white_space();
                member(self, name)?;
                self.white_space();
                match self.next()? {
                    b',' => {}
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.white_space();
        (self.at == self.bytes.len()).then_some(())
    }

    /// The value of a top-level `from`.
    fn sender(&mut self, before: From, sender: &str) -> Option<From> {
        let right = if self.peek()? == b'"' {
            spells(self.string()?, sender)
        } else {
            self.value()?;
            false
        };
        Some(if right && before == From::Missing {
            From::Sender
        } else {
            From::Mismatch
        })
    }

    /// Any value. Nesting is kept in a stack of bits: set for an object, clear for an array.
    fn value(&mut self) -> Option<()> {
        let mut nesting = Nesting::default();
        loop {
            self.white_space();
            let opened = match self.peek()? {
                b'{' => {
                    self.at += 1;
                    self.white_space();
                    if self.peek()? == b'}' {
                        self.at += 1;
                        false
                    } else {
                        nesting.push(true);
                        self.name()?;
                        true
                    }
                }
                b'[' => {
                    self.at += 1;
                    self.white_space();
                    if self.peek()? == b']' {
                        self.at += 1;
                        false
                    } else {
                        nesting.push(false);
                        true
                    }
                }
                _ => {
                    self.scalar()?;
                    false
                }
            };
            if !opened && !self.after_value(&mut nesting)? {
                return Some(());
            }
        }
    }

    /// Commas and closing brackets after a value; whether another value follows.
    fn after_value(&mut self, nesting: &mut Nesting) -> Option<bool> {
        while let Some(in_object) = nesting.top() {
            self.white_space();
            match (self.next()?, in_object) {
                (b',', true) => {
                    self.name()?;
                    return Some(true);
                }
                (b',', false) => return Some(true),
                (b'}', true) | (b']', false) => nesting.pop(),
                _ => return None,
            }
        }
        Some(false)
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Option<()> {
        self.white_space();
        self.string()?;
        self.white_space();
        self.expect(b':')
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// A string; what stands between the quotes, escapes as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.plain();
            match self.next()? {
                b'"' => return Some(&self.bytes[start..self.at - 1]),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.bytes.get(self.at..self.at + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                0..=0x1F => return None,
                _ => {}
            }
        }
    }

    /// Skips what means nothing in a string, many bytes at a time; what is left is short or special.
    fn plain(&mut self) {
        // Without a way out in the middle, the compiler makes vector instructions of it.
        let special = |found, byte: &u8| {
            found | u8::from(*byte < 0x20) | u8::from(*byte == b'"') | u8::from(*byte == b'\\')
        };
        while let Some(many) = self.bytes[self.at..].first_chunk::<32>()
            && many.iter().fold(0, special) == 0
        {
            self.at += many.len();
        }
        const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
        const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
        // Sets the high bit of a byte of `word` that is below `limit`, and of none before the first such.
        let below =
            |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
        let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        while let Some(eight) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let special = below(word, 0x20) | is(word, b'"') | is(word, b'\\');
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        let found = self.bytes[self.at..].starts_with(literal);
        self.at += literal.len();
        found.then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

/// A stack of bits. At most one bit for each byte of the payload.
#[derive(Default)]
struct Nesting {
    top: u64,
    top_len: u32,
    below: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, bit: bool) {
        if self.top_len == u64::BITS {
            self.below.push(self.top);
            self.top_len = 0;
        }
        self.top = self.top << 1 | u64::from(bit);
        self.top_len += 1;
    }

    fn top(&self) -> Option<bool> {
        (self.top_len > 0).then_some(self.top & 1 == 1)
    }

    fn pop(&mut self) {
        self.top >>= 1;
        self.top_len -= 1;
        if self.top_len == 0
            && let Some(word) = self.below.pop()
        {
            self.top = word;
            self.top_len = u64::BITS;
        }
    }
}

/// Whether the inside of a valid JSON string spells `text`, escapes resolved. A lone surrogate spells
/// nothing that a Rust string could hold.
fn spells(raw: &[u8], text: &str) -> bool {
    match (raw.first(), text.as_bytes().first()) {
        // As nearly all names that are another.
        (Some(first), Some(wanted)) if first != wanted && *first != b'\\' => return false,
        _ if !raw.contains(&b'\\') => return raw == text.as_bytes(),
        _ => {}
    }
    let Ok(raw) = std::str::from_utf8(raw) else {
        return false;
    };
    let mut expected = text.chars();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let c = if c == '\\' {
            unescape(&mut chars)
        } else {
            Some(c)
        };
        if c.is_none() || c != expected.next() {
            return false;
        }
    }
    expected.next().is_none()
}

/// The character that an escape stands for, the backslash having been read.
fn unescape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{C}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let unit = code_unit(chars)?;
            if !(0xD800..=0xDBFF).contains(&unit) {
                return char::from_u32(unit);
            }
            if chars.next()? != '\\' || chars.next()? != 'u' {
                return None;
            }
            let low = code_unit(chars)?;
            let low = low.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
            return char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + low);
        }
        c => c,
    })
}

/// Four hexadecimal digits.
fn code_unit(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit << 4 | chars.next()?.to_digit(16)?))
}
