//! Here-documents: `RUN <<EOF`, `COPY <<-"A" <<B /dir/`.

/// One heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// The word that ends it; for COPY the file's name.
    pub(crate) name: String,
    /// Whether variables in it are replaced: not where its name was quoted.
    pub(crate) expand: bool,
    /// Whether tabs that lead its lines go (`<<-`).
    pub(crate) strip_tabs: bool,
    /// Number of the descriptor before `<<`, if one stands there.
    pub(crate) descriptor: Option<u32>,
    /// Its text, each line with its end.
    pub(crate) content: String,
}

/// The heredocs that a line names, without content.
pub(crate) fn named(text: &str, escape: char) -> Vec<Heredoc> {
    super::words::split(text, escape)
        .iter()
        .filter_map(|word| parse(word))
        .collect()
}

/// A word that begins one.
pub(crate) fn parse(word: &str) -> Option<Heredoc> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let quoted = |quote: char| rest.strip_prefix(quote)?.strip_suffix(quote);
    let (name, expand) = match quoted('"').or_else(|| quoted('\'')) {
        Some(name) => (name, false),
        None => (rest, true),
    };
    let plain = |c: char| {
        !c.is_whitespace() && !matches!(c, '<' | '>' | '"' | '\'' | '(' | ')' | '&' | '|' | ';')
    };
    (!name.is_empty() && name.chars().all(plain)).then(|| Heredoc {
        name: name.to_owned(),
        expand,
        strip_tabs,
        descriptor: number.parse().ok(),
        content: String::new(),
    })
}
