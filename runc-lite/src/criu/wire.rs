//! Protocol buffers, as much as criu's requests and answers take.

/// A message being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// An integer, enumeration or boolean.
    pub(crate) fn number(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        // Negative numbers are written as if they were 64 bits wide.
        self.varint(value as u64);
        self
    }

    /// A boolean, left out where it is false.
    pub(crate) fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        if value {
            self.number(field, 1);
        }
        self
    }

    /// A string.
    pub(crate) fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    /// A message within this one.
    pub(crate) fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    /// What goes over the socket.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A value as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// An integer, enumeration or boolean.
    Number(i64),
    /// A string or a message.
    Bytes(&'a [u8]),
}

/// A message being read: numbers of fields and their values, to the first byte that
/// makes no sense.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The last number of a field.
    pub(crate) fn number(&self, field: u32) -> Option<i64> {
        let numbers = self.clone().filter_map(|(f, v)| match v {
            Value::Number(n) if f == field => Some(n),
            _ => None,
        });
        numbers.last()
    }

    /// The last string or message of a field.
    pub(crate) fn bytes(&self, field: u32) -> Option<&'a [u8]> {
        let all = self.clone().filter_map(|(f, v)| match v {
            Value::Bytes(b) if f == field => Some(b),
            _ => None,
        });
        all.last()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = self.varint()?;
            let field = u32::try_from(key >> 3).ok()?;
            match key & 7 {
                0 => return Some((field, Value::Number(self.varint()? as i64))),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    return Some((field, Value::Bytes(self.take(length)?)));
                }
                // Numbers of fixed width are in no message of ours.
                1 => drop(self.take(8)?),
                5 => drop(self.take(4)?),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_that_of_the_specification() {
        let mut message = Message::default();
        message.number(1, 150).text(2, "testing").number(3, -1);
        let mut expected = vec![0x08, 0x96, 0x01, 0x12, 0x07];
        expected.extend_from_slice(b"testing");
        expected.push(0x18);
        expected.extend_from_slice(&[0xff; 9]);
        expected.push(0x01);
        assert_eq!(message.as_bytes(), expected);
        let read = Fields(&expected);
        assert_eq!(read.number(1), Some(150));
        assert_eq!(read.bytes(2), Some(&b"testing"[..]));
        assert_eq!(read.number(3), Some(-1));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Fields(&bytes).count() <= bytes.len());
        }

        #[test]
        fn what_is_written_is_read(field in 1_u32..1000, number in any::<i64>(), text in ".{0,20}") {
            let mut message = Message::default();
            message.number(field, number).text(field + 1, &text);
            let read: Vec<_> = Fields(message.as_bytes()).collect();
            prop_assert_eq!(read, vec![
                (field, Value::Number(number)),
                (field + 1, Value::Bytes(text.as_bytes())),
            ]);
        }
    }
}
