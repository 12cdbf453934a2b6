//! The bytes of D-Bus, as far as talking to systemd needs them.
//!
//! A message is a fixed part of 16 bytes, an array of header fields, padding to
//! eight, and a body. Everything is aligned to its own size, counted from the
//! start of header or body, and a value in a variant is preceded by its type.
//!
//! ```text
//!  l type flags 1 | body length | serial | fields length | fields ... | pad | body
//!                   u32           u32      u32             (code, variant)
//! ```

use super::dbus::DbusError;

/// A call of a method, the only kind sent from here.
const METHOD_CALL: u8 = 1;
/// Longest message taken; systemd's answers to what is asked here are short.
const LONGEST: usize = 1 << 20;
/// Length of the part that says how long the rest is.
pub(super) const FIXED: usize = 16;

/// The value of a unit's property.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Texts(Vec<String>),
    U32s(Vec<u32>),
    Bytes(Vec<u8>),
    /// Path and access.
    Pairs(Vec<(String, String)>),
    /// Path and rate.
    Rates(Vec<(String, u64)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::F64(_) => "d",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::U32s(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Pairs(_) => "a(ss)",
            Self::Rates(_) => "a(st)",
        }
    }
}

/// A property of a unit and its value.
pub(crate) type Property = (String, Value);

/// Builds one header or body.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn byte(&mut self, n: u8) -> &mut Self {
        self.0.push(n);
        self
    }

    pub(super) fn u32(&mut self, n: u32) -> &mut Self {
        self.align(4);
        self.0.extend_from_slice(&n.to_ne_bytes());
        self
    }

    fn u64(&mut self, n: u64) -> &mut Self {
        self.align(8);
        self.0.extend_from_slice(&n.to_ne_bytes());
        self
    }

    pub(super) fn text(&mut self, s: &str) -> &mut Self {
        self.u32(length(s.len()));
        self.0.extend_from_slice(s.as_bytes());
        self.0.push(0);
        self
    }

    fn signature(&mut self, s: &str) -> &mut Self {
        self.0
            .push(u8::try_from(s.len()).expect("signatures here are short"));
        self.0.extend_from_slice(s.as_bytes());
        self.0.push(0);
        self
    }

    /// An array: its length in bytes without the padding before the first item.
    pub(super) fn array<T>(
        &mut self,
        align: usize,
        items: &[T],
        each: impl for<'w> Fn(&'w mut Self, &T) -> &'w mut Self,
    ) -> &mut Self {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        for item in items {
            self.align(align);
            each(self, item);
        }
        let bytes = length(self.0.len() - start).to_ne_bytes();
        self.0[at..at + 4].copy_from_slice(&bytes);
        self
    }

    /// A value with its type before it.
    pub(super) fn variant(&mut self, value: &Value) -> &mut Self {
        self.signature(value.signature());
        match value {
            Value::Bool(b) => self.u32(u32::from(*b)),
            Value::I32(n) => self.u32(u32::from_ne_bytes(n.to_ne_bytes())),
            Value::U32(n) => self.u32(*n),
            Value::I64(n) => self.u64(u64::from_ne_bytes(n.to_ne_bytes())),
            Value::U64(n) => self.u64(*n),
            Value::F64(n) => self.u64(n.to_bits()),
            Value::Text(s) => self.text(s),
            Value::Texts(all) => self.array(4, all, |w, s| w.text(s)),
            Value::U32s(all) => self.array(4, all, |w, n| w.u32(*n)),
            Value::Bytes(all) => self.array(1, all, |w, b| w.byte(*b)),
            Value::Pairs(all) => self.array(8, all, |w, (a, b)| w.text(a).text(b)),
            Value::Rates(all) => self.array(8, all, |w, (a, n)| w.text(a).u64(*n)),
        }
    }

    /// Names with values: `a(sv)`.
    pub(super) fn properties(&mut self, properties: &[Property]) -> &mut Self {
        self.array(8, properties, |w, (name, value)| {
            w.text(name).variant(value)
        })
    }
}

fn length(n: usize) -> u32 {
    u32::try_from(n).expect("messages here are far below 4 GiB")
}

/// A method and the object it is called on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// Types of the arguments.
    pub(super) signature: &'a str,
}

/// The bytes of a call.
pub(super) fn call(serial: u32, method: &Method<'_>, body: &[u8]) -> Vec<u8> {
    let mut w = Writer(vec![endianness(), METHOD_CALL, 0, 1]);
    w.u32(length(body.len())).u32(serial);
    let fields = [
        (1, "o", method.path),
        (2, "s", method.interface),
        (3, "s", method.member),
        (6, "s", method.destination),
        (8, "g", method.signature),
    ];
    let given = if method.signature.is_empty() { 4 } else { 5 };
    w.array(8, &fields[..given], |w, (code, kind, value)| {
        w.byte(*code).signature(kind);
        if *kind == "g" {
            w.signature(value)
        } else {
            w.text(value)
        }
    });
    w.align(8);
    w.0.extend_from_slice(body);
    w.0
}

fn endianness() -> u8 {
    if cfg!(target_endian = "little") {
        b'l'
    } else {
        b'B'
    }
}

/// Reads one header or body. Nothing in it is trusted.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, align: usize, n: usize) -> Result<&'a [u8], DbusError> {
        let start = self.at.next_multiple_of(align);
        let end = start.checked_add(n).ok_or(DbusError::Malformed("length"))?;
        let slice = self
            .bytes
            .get(start..end)
            .ok_or(DbusError::Malformed("end of message"))?;
        self.at = end;
        Ok(slice)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DbusError> {
        let bytes = self.take(4, 4)?;
        Ok(u32::from_ne_bytes(
            bytes.try_into().expect("four bytes were taken"),
        ))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, DbusError> {
        let n = self.u32()? as usize;
        let text = self.take(1, n)?;
        self.take(1, 1)?;
        std::str::from_utf8(text).map_err(|_| DbusError::Malformed("text"))
    }

    pub(super) fn signature(&mut self) -> Result<&'a str, DbusError> {
        let n = usize::from(self.take(1, 1)?[0]);
        let text = self.take(1, n)?;
        self.take(1, 1)?;
        std::str::from_utf8(text).map_err(|_| DbusError::Malformed("signature"))
    }
}

/// What of a received message matters here.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Received {
    /// 2 for an answer, 3 for an error, 4 for a signal.
    pub(super) kind: u8,
    pub(super) reply_to: u32,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) body: Vec<u8>,
}

/// How many bytes follow the fixed part.
pub(super) fn rest(fixed: &[u8; FIXED]) -> Result<usize, DbusError> {
    if fixed[0] != endianness() || fixed[3] != 1 {
        return Err(DbusError::Malformed("byte order or version"));
    }
    let mut r = Reader::new(fixed);
    r.at = 4;
    let (body, _serial, fields) = (r.u32()? as usize, r.u32()?, r.u32()? as usize);
    if body > LONGEST || fields > LONGEST {
        return Err(DbusError::Malformed("length"));
    }
    Ok(fields.next_multiple_of(8) + body)
}

/// Takes a whole message apart.
pub(super) fn parse(fixed: &[u8; FIXED], rest: &[u8]) -> Result<Received, DbusError> {
    let mut received = Received {
        kind: fixed[1],
        ..Received::default()
    };
    let mut head = Reader::new(fixed);
    head.at = 12;
    let fields = head.u32()? as usize;
    let start = fields.next_multiple_of(8);
    let (fields, body) = (rest.get(..fields), rest.get(start..));
    let (Some(fields), Some(body)) = (fields, body) else {
        return Err(DbusError::Malformed("header fields"));
    };
    // The fixed part is 16 bytes, so alignment may be counted from here.
    let mut r = Reader::new(fields);
    while r.at < fields.len() {
        let code = r.take(8, 1)?[0];
        match (code, r.signature()?) {
            (3, "s") => r.text()?.clone_into(&mut received.member),
            (4, "s") => r.text()?.clone_into(&mut received.error),
            (5, "u") => received.reply_to = r.u32()?,
            (_, "s" | "o") => drop(r.text()?),
            (_, "g") => drop(r.signature()?),
            (_, "u") => drop(r.u32()?),
            _ => return Err(DbusError::Malformed("type of a header field")),
        }
    }
    body.clone_into(&mut received.body);
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_call_is_laid_out_as_the_specification_draws_it() {
        let method = Method {
            destination: "d.e",
            path: "/p",
            interface: "i.f",
            member: "M",
            signature: "s",
        };
        let mut body = Writer::default();
        body.text("x");
        let bytes = call(7, &method, &body.0);
        let fixed: [u8; FIXED] = bytes[..FIXED].try_into().unwrap();
        assert_eq!(bytes[1], METHOD_CALL);
        assert_eq!(rest(&fixed).unwrap(), bytes.len() - FIXED);
        let parsed = parse(&fixed, &bytes[FIXED..]).unwrap();
        assert_eq!((parsed.member.as_str(), parsed.body.len()), ("M", 6));
        assert_eq!(Reader::new(&parsed.body).text().unwrap(), "x");
    }

    #[test]
    fn lengths_of_arrays_leave_out_the_padding_before_the_first_item() {
        let mut w = Writer::default();
        w.properties(&[("A".into(), Value::U64(1))]);
        // Length, four bytes of padding, "A" (4 + 2), "t" (3), then 8 bytes at 24.
        let expected = [24u32.to_ne_bytes().as_slice(), &[0; 4]].concat();
        assert_eq!(&w.0[..8], expected);
        assert_eq!(w.0.len(), 32);
        let mut empty = Writer::default();
        empty.variant(&Value::Pairs(Vec::new()));
        // The padding to the first item stays where there is none.
        assert_eq!(empty.0, b"\x05a(ss)\0\0\0\0\0\0\0\0\0\0");
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_an_error_at_worst(fixed: [u8; FIXED], bytes: Vec<u8>) {
            let mut fixed = fixed;
            let _ = parse(&fixed, &bytes);
            (fixed[0], fixed[3]) = (endianness(), 1);
            let _ = rest(&fixed);
            let _ = Reader::new(&bytes).text();
        }
    }
}
