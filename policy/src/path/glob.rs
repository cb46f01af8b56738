//! Reads the pattern language of `matchPatterns`, which is AppArmor's globs.
//!
//! | syntax | matches |
//! |---|---|
//! | `*` | any run of bytes without `/`, possibly empty |
//! | `**` | any run of bytes, possibly empty |
//! | `?` | one byte that is not `/` |
//! | `[abc]`, `[a-z]`, `[^a]` | one byte of the set (or not of it), never `/` |
//! | `{a,b}` | one of the alternatives, which are patterns themselves |
//! | `\x` | `x` itself |
//!
//! A pattern must match the whole path. It may spell a directory's path with or without the last `/`.

use crate::model::MAX_PATH;
use std::fmt::Write as _;

/// Deepest nesting of `{...}`.
pub const MAX_NESTING: usize = 4;

/// A `Glob` is a valid pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Run,
    /// `**`
    AnyRun,
    Set {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
    Either(Vec<Vec<Token>>),
}

/// A `GlobError` says why a text is not a valid pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// The pattern is relative, or begins with something other than a plain `/`.
    #[error("a pattern must begin with '/'")]
    Relative,
    /// The pattern is longer than [`MAX_PATH`] bytes.
    #[error("the pattern is longer than {MAX_PATH} bytes")]
    Long,
    /// The pattern has `//`, which is in no path.
    #[error("'//' is in no path")]
    EmptyComponent,
    /// The pattern has a component `.` or `..`, which is in no path.
    #[error("'.' and '..' are in no path once it is resolved")]
    DotComponent,
    /// The pattern has more than two stars in a row.
    #[error("'***' has no meaning; write '**' for any run of characters, '*' for one without '/'")]
    Stars,
    /// A `[` has no `]`.
    #[error("'[' is never closed")]
    OpenSet,
    /// A set is empty (`[]`) or reversed (`[z-a]`), begins with `!`, or holds `/`, `[`, `\` or a byte outside
    /// ASCII.
    #[error("'[{0}]' is not a set; write [abc], [a-z] or [^abc], without '/' and in ASCII")]
    BadSet(String),
    /// A `{` has no `}`.
    #[error("'{{' is never closed")]
    OpenBrace,
    /// A `}` or `]` that closes nothing.
    #[error("'{0}' closes nothing; write '\\{0}' for the character itself")]
    Stray(char),
    /// `{...}` nests deeper than [`MAX_NESTING`].
    #[error("'{{' nests deeper than {MAX_NESTING} levels")]
    Nesting,
    /// The pattern has an AppArmor variable, `@{NAME}`.
    #[error("AppArmor variables such as '@{{HOME}}' are not known here; write the path out")]
    Variable,
    /// The pattern ends in a `\` that escapes nothing.
    #[error("'\\' at the end escapes nothing")]
    Escape,
    /// The pattern has a NUL byte.
    #[error("a NUL byte is in no path")]
    Nul,
}

impl Glob {
    /// Parses a pattern.
    pub fn new(text: &str) -> Result<Self, GlobError> {
        if text.len() > MAX_PATH {
            return Err(GlobError::Long);
        }
        if !text.starts_with('/') {
            return Err(GlobError::Relative);
        }
        if text.contains('\0') {
            return Err(GlobError::Nul);
        }
        if text.contains("//") {
            return Err(GlobError::EmptyComponent);
        }
        if text.split('/').any(|component| component == "." || component == "..") {
            return Err(GlobError::DotComponent);
        }
        let mut parser = Reader { bytes: text.as_bytes(), at: 0 };
        let mut tokens = parser.sequence(0)?;
        // The last `/` of a path is optional, so that of a pattern is dropped: `/etc/*/` means `/etc/*`.
        if tokens.len() > 1 && tokens.last() == Some(&Token::Byte(b'/')) {
            tokens.pop();
        }
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// Returns the pattern as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the least number of literal bytes in a matching path. The glob with more of them is more
    /// specific.
    pub(crate) fn literal_bytes(&self) -> usize {
        literal_bytes(&self.tokens)
    }

    /// Estimates how much the pattern adds to an automaton: the number of `**`, then of other non-literal
    /// parts.
    pub(crate) fn complexity(&self) -> (usize, usize) {
        complexity(&self.tokens)
    }

    /// Returns the directory that contains everything that the pattern matches, with its last `/`.
    pub fn directory(&self) -> String {
        let (literal, end) = self.literal_directory();
        String::from_utf8_lossy(&literal[..end]).into_owned()
    }

    /// Returns the same pattern below another directory; `directory` ends in `/`.
    pub(crate) fn with_directory(&self, directory: &str) -> Self {
        let (_, end) = self.literal_directory();
        let tokens: Vec<Token> =
            directory.bytes().map(Token::Byte).chain(self.tokens[end..].iter().cloned()).collect();
        Self { text: self.text.clone(), tokens }
    }

    fn literal_directory(&self) -> (Vec<u8>, usize) {
        let literal: Vec<u8> = self
            .tokens
            .iter()
            .map_while(|token| if let Token::Byte(byte) = token { Some(*byte) } else { None })
            .collect();
        let end = literal.iter().rposition(|&byte| byte == b'/').map_or(0, |last| last + 1);
        (literal, end)
    }

    /// Returns a regular expression over bytes that matches the same paths, with or without a last `/`.
    pub(crate) fn regex(&self) -> String {
        let mut out = String::with_capacity(self.text.len() * 4);
        regex(&self.tokens, &mut out);
        out.push_str("/?");
        out
    }
}

fn literal_bytes(tokens: &[Token]) -> usize {
    tokens
        .iter()
        .map(|token| match token {
            Token::Byte(_) => 1,
            Token::Either(branches) => branches.iter().map(|b| literal_bytes(b)).min().unwrap_or(0),
            Token::One | Token::Run | Token::AnyRun | Token::Set { .. } => 0,
        })
        .sum()
}

fn complexity(tokens: &[Token]) -> (usize, usize) {
    let parts = tokens.iter().map(|token| match token {
        Token::Byte(_) => (0, 0),
        Token::AnyRun => (1, 0),
        Token::One | Token::Run | Token::Set { .. } => (0, 1),
        Token::Either(branches) => {
            let (any, other) =
                branches.iter().map(|b| complexity(b)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            (any, other + branches.len())
        }
    });
    parts.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}

fn regex(tokens: &[Token], out: &mut String) {
    let byte = |b: u8, out: &mut String| {
        let _ = write!(out, "\\x{b:02x}");
    };
    for token in tokens {
        match token {
            Token::Byte(b) => byte(*b, out),
            Token::One => out.push_str("[^/]"),
            Token::Run => out.push_str("[^/]*"),
            Token::AnyRun => out.push_str("(?s:.)*"),
            Token::Set { negated, ranges } => {
                // A set never holds `/`, so `/` has to be excluded only from a negated set.
                out.push_str(if *negated { "[^/" } else { "[" });
                for &(low, high) in ranges {
                    byte(low, out);
                    out.push('-');
                    byte(high, out);
                }
                out.push(']');
            }
            Token::Either(branches) => {
                out.push_str("(?:");
                for (index, branch) in branches.iter().enumerate() {
                    if index > 0 {
                        out.push('|');
                    }
                    regex(branch, out);
                }
                out.push(')');
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Reads tokens up to the end or, inside braces, up to (not over) a `,` or `}`.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Token>, GlobError> {
        let mut tokens = Vec::new();
        while let Some(&byte) = self.bytes.get(self.at) {
            if depth > 0 && (byte == b',' || byte == b'}') {
                break;
            }
            self.at += 1;
            tokens.push(match byte {
                b'?' => Token::One,
                b'*' => {
                    let stars = 1 + self.bytes[self.at..].iter().take_while(|&&b| b == b'*').count();
                    self.at += stars - 1;
                    match stars {
                        1 => Token::Run,
                        2 => Token::AnyRun,
                        _ => return Err(GlobError::Stars),
                    }
                }
                b'[' => self.set()?,
                b'{' => self.either(depth + 1)?,
                b'}' | b']' => return Err(GlobError::Stray(char::from(byte))),
                b'@' if self.bytes.get(self.at) == Some(&b'{') => return Err(GlobError::Variable),
                b'\\' => {
                    let escaped = *self.bytes.get(self.at).ok_or(GlobError::Escape)?;
                    self.at += 1;
                    Token::Byte(escaped)
                }
                _ => Token::Byte(byte),
            });
        }
        Ok(tokens)
    }

    fn either(&mut self, depth: usize) -> Result<Token, GlobError> {
        if depth > MAX_NESTING {
            return Err(GlobError::Nesting);
        }
        let mut branches = Vec::new();
        loop {
            branches.push(self.sequence(depth)?);
            let end = *self.bytes.get(self.at).ok_or(GlobError::OpenBrace)?;
            self.at += 1;
            if end == b'}' {
                return Ok(Token::Either(branches));
            }
        }
    }

    fn set(&mut self) -> Result<Token, GlobError> {
        let rest = &self.bytes[self.at..];
        // In a shell pattern, a `]` at the start is a member. Here it closes an empty set, which is an error.
        let end = rest.iter().position(|&b| b == b']').ok_or(GlobError::OpenSet)?;
        let inside = &rest[..end];
        let bad = || GlobError::BadSet(String::from_utf8_lossy(inside).into_owned());
        self.at += end + 1;
        let (negated, members) = match inside.strip_prefix(b"^") {
            Some(members) => (true, members),
            None => (false, inside),
        };
        let plain = |b: &u8| b.is_ascii() && !matches!(b, b'/' | b'[' | b'\\');
        if members.is_empty() || !members.iter().all(plain) || members[0] == b'!' {
            return Err(bad());
        }
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < members.len() {
            let low = members[at];
            let high = if at + 2 < members.len() && members[at + 1] == b'-' {
                at += 2;
                members[at]
            } else {
                low
            };
            if low > high || (low..=high).contains(&b'/') {
                return Err(bad());
            }
            ranges.push((low, high));
            at += 1;
        }
        Ok(Token::Set { negated, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_has_no_meaning() {
        for (text, error) in [
            ("etc/*", GlobError::Relative),
            ("*", GlobError::Relative),
            ("/a//b*", GlobError::EmptyComponent),
            ("/a/../b*", GlobError::DotComponent),
            ("/***", GlobError::Stars),
            ("/[a", GlobError::OpenSet),
            ("/[]a]", GlobError::BadSet(String::new())),
            ("/[z-a]", GlobError::BadSet("z-a".into())),
            ("/[!a]", GlobError::BadSet("!a".into())),
            ("/[+-0]", GlobError::BadSet("+-0".into())),
            ("/{a,b", GlobError::OpenBrace),
            ("/a}", GlobError::Stray('}')),
            ("/{{{{{a}}}}}", GlobError::Nesting),
            ("/@{HOME}/x", GlobError::Variable),
            ("/a\\", GlobError::Escape),
        ] {
            assert_eq!(Glob::new(text), Err(error), "{text}");
        }
        assert_eq!(Glob::new(&format!("/{}", "a".repeat(MAX_PATH))), Err(GlobError::Long));
    }

    #[test]
    fn knows_its_literal_parts() {
        let glob = Glob::new("/usr/lib/lib{c,pthread}*.so").unwrap();
        assert_eq!(glob.directory(), "/usr/lib/");
        assert_eq!(glob.literal_bytes(), "/usr/lib/libc.so".len());
        assert_eq!(glob.with_directory("/x/").regex(), glob.with_directory("/x/").regex());
        assert!(glob.with_directory("/x/").regex().starts_with("\\x2f\\x78\\x2f\\x6c"));
        assert_eq!(Glob::new("/*").unwrap().directory(), "/");
    }
}
