//! Messages of the domain name system, as far as a resolver reads and writes them that answers a few names itself and hands
//! every other question on as it came. Pure.

use std::net::IpAddr;

/// Kinds of records.
pub(super) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
}

/// What an answer says of how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Fine = 0,
    BadQuestion = 1,
    Failed = 2,
}

/// How long an answer may be kept, in seconds.
const LIFETIME: u32 = 600;
/// Length of the header.
const HEADER: usize = 12;
/// The longest datagram without the extension.
const PLAIN: usize = 512;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// In lower case, without the last dot.
    pub(super) name: String,
    pub(super) kind: u16,
    /// Where it ends in the message.
    end: usize,
    /// The longest datagram that the asker takes, if it knows the extension.
    extended: Option<u16>,
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Reads the question of a message; none if it is not a plain query with one question.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    const IS_ANSWER: u8 = 0x80;
    const OPERATION: u8 = 0x78;
    let flags = *message.get(2)?;
    if flags & (IS_ANSWER | OPERATION) != 0 || number(message, 4)? != 1 {
        return None;
    }
    let (name, end) = name(message, HEADER)?;
    let (kind, class) = (number(message, end)?, number(message, end + 2)?);
    if class != 1 {
        return None;
    }
    let end = end + 4;
    Some(Question {
        name,
        kind,
        end,
        extended: extension(message, end),
    })
}

/// Reads a name that is not compressed, as those of questions are; and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > 63 || name.len() > 255 {
            return None;
        }
        let label = message.get(at..at + length)?;
        if !name.is_empty() {
            name.push('.');
        }
        // What is not ASCII is no name of a container; it goes on as it came.
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        at += length;
    }
}

/// The size in the extension, if it is the first of the additional records and there are no others.
fn extension(message: &[u8], end: usize) -> Option<u16> {
    let no_others = number(message, 6)? == 0 && number(message, 8)? == 0;
    let root = *message.get(end)? == 0;
    (no_others && root && number(message, end + 1)? == kind::OPT)
        .then(|| number(message, end + 3))
        .flatten()
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(String),
    Service { port: u16, target: String },
}

/// An answer of our own; `stream` has no bound for its length.
pub(super) fn answer(
    message: &[u8],
    question: &Question,
    records: &[Record],
    stream: bool,
) -> Vec<u8> {
    let limit = match (stream, question.extended) {
        (true, _) => usize::from(u16::MAX),
        (false, Some(size)) => usize::from(size).max(PLAIN),
        (false, None) => PLAIN,
    };
    let mut bytes = head(message, question.end, Outcome::Fine);
    let reserve = if question.extended.is_some() { 11 } else { 0 };
    let mut count: u16 = 0;
    for record in records {
        let before = bytes.len();
        write(&mut bytes, record);
        if bytes.len() + reserve > limit {
            const CUT: u8 = 2;
            bytes.truncate(before);
            bytes[2] |= CUT;
            break;
        }
        count += 1;
    }
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    if question.extended.is_some() {
        // The root, the kind, the size that we take, no flags, no data.
        bytes.push(0);
        bytes.extend(kind::OPT.to_be_bytes());
        bytes.extend(4096u16.to_be_bytes());
        bytes.extend([0; 6]);
        bytes[10..12].copy_from_slice(&1u16.to_be_bytes());
    }
    bytes
}

/// An answer that has nothing but its outcome.
pub(super) fn refusal(message: &[u8], outcome: Outcome) -> Option<Vec<u8>> {
    message.get(..HEADER)?;
    let end = question(message).map_or(HEADER, |q| q.end);
    Some(head(message, end, outcome))
}

/// The header and the question, given back.
fn head(message: &[u8], end: usize, outcome: Outcome) -> Vec<u8> {
    const ANSWER_KEEPING_RECURSION: u8 = 0x80;
    const RECURSES: u8 = 0x80;
    let mut bytes = message[..end].to_vec();
    bytes[2] = ANSWER_KEEPING_RECURSION | (message[2] & 1);
    bytes[3] = RECURSES | outcome as u8;
    let questions = u16::from(end > HEADER);
    bytes[4..6].copy_from_slice(&questions.to_be_bytes());
    bytes[6..12].fill(0);
    bytes
}

fn write(bytes: &mut Vec<u8>, record: &Record) {
    // The name of the question, which stands behind the header.
    bytes.extend([0xc0, HEADER as u8]);
    let kind = match record {
        Record::Address(IpAddr::V4(_)) => kind::A,
        Record::Address(IpAddr::V6(_)) => kind::AAAA,
        Record::Name(_) => kind::PTR,
        Record::Service { .. } => kind::SRV,
    };
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1u16.to_be_bytes());
    bytes.extend(LIFETIME.to_be_bytes());
    let data = match record {
        Record::Address(IpAddr::V4(address)) => address.octets().to_vec(),
        Record::Address(IpAddr::V6(address)) => address.octets().to_vec(),
        Record::Name(name) => labels(name),
        Record::Service { port, target } => {
            let mut data = vec![0; 4];
            data.extend(port.to_be_bytes());
            data.extend(labels(target));
            data
        }
    };
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// The outcome that a message tells.
pub(super) fn outcome(message: &[u8]) -> u8 {
    message
        .get(3)
        .map_or(Outcome::Failed as u8, |flags| flags & 0xf)
}

/// The address that a name of the reverse tree stands for.
pub(super) fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(text) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<u8> = text
            .rsplit('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let octets: [u8; 4] = parts.try_into().ok()?;
        return Some(octets.into());
    }
    let text = name.strip_suffix(".ip6.arpa")?;
    let mut number: u128 = 0;
    let mut count = 0;
    for digit in text.rsplit('.') {
        number = (number << 4) | u128::from(u8::from_str_radix(digit, 16).ok()?);
        count += 1;
        if digit.len() != 1 || count > 32 {
            return None;
        }
    }
    (count == 32).then(|| IpAddr::V6(number.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, kind: u16, extended: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(labels(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        if let Some(size) = extended {
            bytes[11] = 1;
            bytes.extend([0, 0, 41]);
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    #[test]
    fn questions_are_read_and_answered() {
        let message = query("Web.Net", kind::A, Some(1232));
        let asked = question(&message).unwrap();
        assert_eq!((asked.name.as_str(), asked.kind), ("web.net", kind::A));
        assert_eq!(asked.extended, Some(1232));
        let told = answer(
            &message,
            &asked,
            &[Record::Address([10, 0, 0, 2].into())],
            false,
        );
        assert_eq!(told[..2], [0x12, 0x34]);
        assert_eq!(told[2..4], [0x81, 0x80]);
        assert_eq!(told[7], 1);
        assert!(told.windows(4).any(|w| w == [10, 0, 0, 2]));
        assert!(question(&told).is_none());
        assert_eq!(outcome(&refusal(&message, Outcome::Failed).unwrap()), 2);
        let many = vec![Record::Address([10, 0, 0, 2].into()); 100];
        let message = query("web", kind::A, None);
        let asked = question(&message).unwrap();
        let cut = answer(&message, &asked, &many, false);
        assert!(cut.len() <= PLAIN && cut[2] & 2 == 2);
        assert!(answer(&message, &asked, &many, true)[2] & 2 == 0);
    }

    #[test]
    fn addresses_are_read_backwards() {
        assert_eq!(
            reversed("2.0.18.172.in-addr.arpa"),
            Some([172, 18, 0, 2].into())
        );
        let six: std::net::Ipv6Addr = "fd00::2".parse().unwrap();
        let name: String = format!("{:032x}", u128::from(six))
            .chars()
            .rev()
            .flat_map(|c| [c, '.'])
            .collect();
        assert_eq!(reversed(&format!("{name}ip6.arpa")), Some(six.into()));
        for bad in ["in-addr.arpa", "1.2.3.in-addr.arpa", "x.ip6.arpa", "web"] {
            assert_eq!(reversed(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(asked) = question(&bytes) {
                let told = answer(&bytes, &asked, &[Record::Name("a.b".into())], false);
                prop_assert!(told.len() >= HEADER);
            }
            let _ = (refusal(&bytes, Outcome::BadQuestion), outcome(&bytes));
        }

        #[test]
        fn any_name_is_read_backwards(name in "[0-9a-f.]{0,80}(in-addr|ip6).arpa") {
            let _ = reversed(&name);
        }
    }
}
