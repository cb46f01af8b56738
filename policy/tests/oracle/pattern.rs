//! Reads patterns and matches them by trying every way, without the library's reader and automata.

use std::iter::Peekable;
use std::str::Bytes;

/// A `Pattern` is a pattern of `matchPatterns` as a sequence of tokens.
pub struct Pattern(Vec<Token>);

#[derive(Clone, PartialEq)]
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
        members: Vec<u8>,
    },
    Either(Vec<Vec<Token>>),
}

impl Pattern {
    /// Reads a pattern that is known to be valid.
    pub fn new(text: &str) -> Self {
        let mut tokens = sequence(&mut text.bytes().peekable(), false);
        if tokens.len() > 1 && tokens.last() == Some(&Token::Byte(b'/')) {
            tokens.pop();
        }
        Self(tokens)
    }

    /// Returns the least number of literal bytes in a matching path.
    pub fn literal_bytes(&self) -> usize {
        literal_bytes(&self.0)
    }

    /// Returns the directory that contains everything that the pattern matches, with its last `/`.
    pub fn directory(&self) -> String {
        let bytes = self.0[..self.directory_end()].iter().map(|token| match token {
            Token::Byte(byte) => *byte,
            _ => unreachable!("only literal bytes precede the end of the directory"),
        });
        String::from_utf8(bytes.collect()).unwrap()
    }

    /// Returns the same pattern below another directory; `directory` ends in `/`.
    pub fn with_directory(&self, directory: &str) -> Self {
        let below = self.0[self.directory_end()..].iter().cloned();
        Self(directory.bytes().map(Token::Byte).chain(below).collect())
    }

    fn directory_end(&self) -> usize {
        let literal = self.0.iter().take_while(|token| matches!(token, Token::Byte(_))).count();
        self.0[..literal].iter().rposition(|token| *token == Token::Byte(b'/')).map_or(0, |last| last + 1)
    }

    /// Returns whether the pattern matches a path, which ends in `/` if it is a directory's.
    pub fn matches(&self, path: &[u8]) -> bool {
        matches(&self.0, path) || path.strip_suffix(b"/").is_some_and(|bare| matches(&self.0, bare))
    }
}

/// Reads tokens up to the end or, inside braces, up to (not over) a `,` or `}`.
fn sequence(text: &mut Peekable<Bytes<'_>>, inside: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    while let Some(byte) = text.next_if(|byte| !(inside && matches!(byte, b',' | b'}'))) {
        tokens.push(match byte {
            b'?' => Token::One,
            b'*' if text.next_if_eq(&b'*').is_some() => Token::AnyRun,
            b'*' => Token::Run,
            b'[' => {
                let negated = text.next_if_eq(&b'^').is_some();
                let listed: Vec<u8> = text.by_ref().take_while(|byte| *byte != b']').collect();
                Token::Set { negated, members: members(&listed) }
            }
            b'{' => {
                let mut branches = vec![sequence(text, true)];
                while text.next() == Some(b',') {
                    branches.push(sequence(text, true));
                }
                Token::Either(branches)
            }
            b'\\' => Token::Byte(text.next().unwrap()),
            _ => Token::Byte(byte),
        });
    }
    tokens
}

/// Returns all bytes of a set such as `ac-f`.
fn members(listed: &[u8]) -> Vec<u8> {
    match listed {
        [low, b'-', high, rest @ ..] => (*low..=*high).chain(members(rest)).collect(),
        [one, rest @ ..] => [vec![*one], members(rest)].concat(),
        [] => Vec::new(),
    }
}

fn literal_bytes(tokens: &[Token]) -> usize {
    let of = |token: &Token| match token {
        Token::Byte(_) => 1,
        Token::Either(branches) => branches.iter().map(|branch| literal_bytes(branch)).min().unwrap_or(0),
        Token::One | Token::Run | Token::AnyRun | Token::Set { .. } => 0,
    };
    tokens.iter().map(of).sum()
}

fn matches(tokens: &[Token], path: &[u8]) -> bool {
    let Some((token, rest)) = tokens.split_first() else { return path.is_empty() };
    let first = path.first().copied();
    let tail = path.get(1..).unwrap_or_default();
    match token {
        Token::Byte(byte) => first == Some(*byte) && matches(rest, tail),
        Token::One => first.is_some_and(|b| b != b'/') && matches(rest, tail),
        Token::Set { negated, members } => {
            first.is_some_and(|b| b != b'/' && members.contains(&b) != *negated) && matches(rest, tail)
        }
        Token::Run => matches(rest, path) || (first.is_some_and(|b| b != b'/') && matches(tokens, tail)),
        Token::AnyRun => matches(rest, path) || (first.is_some() && matches(tokens, tail)),
        Token::Either(branches) => branches.iter().any(|branch| {
            let spelled: Vec<Token> = branch.iter().chain(rest).cloned().collect();
            matches(&spelled, path)
        }),
    }
}
