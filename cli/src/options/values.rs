//! Values with a unit: sizes, processors, durations. Pure.

/// A size in bytes such as `512m`, `1.5g` or `64KiB`, in binary units.
pub(crate) fn byte_size(text: &str) -> Result<i64, String> {
    let wrong = || format!("invalid size: '{text}'");
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .ok_or_else(wrong)?
        + 1;
    let (digits, suffix) = text.split_at(end);
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("strconv.ParseFloat: parsing {digits:?}: invalid syntax"))?;
    let lower = suffix.to_ascii_lowercase();
    let unit_end = lower.chars().next().map_or(0, char::len_utf8);
    let (unit, rest) = lower.split_at(unit_end);
    let power = match unit {
        "" | "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => -1,
    };
    let plain = power == 0 && rest.is_empty();
    let scaled = power > 0 && matches!(rest, "" | "b" | "ib");
    if !plain && !scaled {
        return Err(format!("invalid suffix: '{lower}'"));
    }
    let bytes = number * 1024f64.powi(power);
    if !(0.0..i64::MAX as f64).contains(&bytes) {
        return Err(wrong());
    }
    Ok(bytes as i64)
}

/// A size of memory and swap: as a size, or -1 for no limit.
pub(crate) fn swap_size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        Ok(-1)
    } else {
        byte_size(text)
    }
}

/// A number of processors in billionths.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return Err(wrong());
    }
    if part.trim_end_matches('0').len() > 9 {
        return Err("value is too precise".to_string());
    }
    let billionths: i64 = format!("{part:0<9}")[..9].parse().map_err(|_| wrong())?;
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| wrong())?
    };
    whole
        .checked_mul(1_000_000_000)
        .and_then(|n| n.checked_add(billionths))
        .ok_or_else(wrong)
}

/// A duration such as `1h30m` or `500ms`, in nanoseconds.
pub(crate) fn float_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(0);
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            unknown => {
                return Err(format!(
                    "time: unknown unit {unknown:?} in duration {text:?}"
                ));
            }
        };
        total += number * unit;
        rest = &rest[end..];
    }
    if total >= i64::MAX as f64 {
        return Err(wrong());
    }
    Ok((sign * total) as i64)
}

/// A truth value as flags and options write it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The name of a standard stream, in lower case.
pub(crate) fn stream_name(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    match name.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(name),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_string()),
    }
}

/// An address, as it was written.
pub(crate) fn ip_address(text: &str) -> Result<String, String> {
    match text.trim().parse::<std::net::IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// A kernel setting that belongs to a container's own namespaces.
pub(crate) fn sysctl(text: &str) -> Result<String, String> {
    const NAMES: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let own = |name: &str| {
        NAMES.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
    };
    match text.split_once('=') {
        Some((name, _)) if own(name) => Ok(text.to_string()),
        _ => Err(format!("sysctl '{text}' is not allowed")),
    }
}

/// The fields of a line with commas, some of them in quotes.
pub(crate) fn comma_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut letters = text.chars().peekable();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("there is always a field");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '"' => return Err("parse error: bare \" in non-quoted field".to_string()),
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if quoted {
        Err("parse error: extraneous or missing \" in quoted field".to_string())
    } else {
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(byte_size("512m"), Ok(512 << 20));
        assert_eq!(byte_size("1.5g"), Ok(3 << 29));
        assert_eq!(byte_size("64KiB"), Ok(65536));
        assert_eq!(byte_size("10"), Ok(10));
        assert_eq!(swap_size("-1"), Ok(-1));
        assert_eq!(byte_size("1z"), Err("invalid suffix: 'z'".into()));
        assert_eq!(byte_size("1 m"), Ok(1 << 20));
        assert!(byte_size("1..2").is_err());
        for bad in ["", "x", "-1", "99999999999t"] {
            assert_eq!(byte_size(bad), Err(format!("invalid size: '{bad}'")));
        }
    }

    #[test]
    fn processors() {
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(cpus(".25"), Ok(250_000_000));
        assert_eq!(cpus("0.0000000001"), Err("value is too precise".into()));
        assert_eq!(
            cpus("x"),
            Err("failed to parse x as a rational number".into())
        );
    }

    #[test]
    fn durations() {
        assert_eq!(float_duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(float_duration("500ms"), Ok(500_000_000));
        assert_eq!(float_duration("-1s"), Ok(-1_000_000_000));
        assert!(float_duration("5").is_err());
        assert!(float_duration("s").is_err());
    }

    #[test]
    fn fields_with_quotes() {
        assert_eq!(
            comma_fields(r#"type=bind,"src=/a,b",x"#).unwrap(),
            ["type=bind", "src=/a,b", "x"]
        );
        assert!(comma_fields("\"a").is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".{0,24}") {
            let _ = byte_size(&text);
            let _ = cpus(&text);
            let _ = float_duration(&text);
            let _ = comma_fields(&text);
        }
    }
}
