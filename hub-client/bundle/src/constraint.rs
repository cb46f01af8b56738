//! This module parses and evaluates Open Horizon's constraints on node properties: `name op value`, joined by
//! `AND`/`&&` and `OR`/`||`, with parentheses.
//!
//! The operators are `==`, `=`, `!=`, `<`, `>`, `<=`, `>=` and `in`; AND binds tighter than OR; there is no
//! NOT. Strings and booleans can be compared for equality, numbers with every operator but `in`. On strings,
//! `in` tests whether one of the property's comma-separated parts is among the comma-separated values, or,
//! for a value in brackets, whether the property is a version in that range. A property that the node lacks,
//! or whose type the operator does not support, fulfils no comparison.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::version::{Range, Version};

/// A node's properties by name.
pub type Properties = BTreeMap<String, Value>;

/// Maximum length of a constraint in bytes.
const MAX_LENGTH: usize = 4096;
/// Maximum nesting of parentheses.
const MAX_DEPTH: usize = 32;

/// A `ConstraintError` says where and why a constraint cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("constraint {text:?}, at character {position}: {problem}")]
pub struct ConstraintError {
    /// The constraint.
    pub text: String,
    /// Byte position of the error, from 1.
    pub position: usize,
    /// Description of the error and of what was expected.
    pub problem: &'static str,
}

/// A `Constraint` has been parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraint(Expression);

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Any(Vec<Expression>),
    All(Vec<Expression>),
    Compare { property: String, operator: Operator, value: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    In,
}

impl Constraint {
    /// Parses a constraint.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let result = if text.len() > MAX_LENGTH {
            Err("longer than 4096 bytes")
        } else {
            parser.any().and_then(|expression| {
                if parser.rest().is_empty() { Ok(expression) } else { Err("expected AND, OR or the end") }
            })
        };
        result.map(Self).map_err(|problem| ConstraintError {
            text: text.chars().take(200).collect(),
            position: parser.at + 1,
            problem,
        })
    }

    /// Returns the properties that the constraint compares.
    pub fn properties(&self) -> Vec<&str> {
        self.0.properties()
    }

    /// Returns whether a node with these properties fulfils the constraint.
    #[must_use]
    pub fn holds(&self, properties: &Properties) -> bool {
        self.0.holds(properties)
    }
}

impl Expression {
    fn properties(&self) -> Vec<&str> {
        match self {
            Self::Any(parts) | Self::All(parts) => parts.iter().flat_map(Self::properties).collect(),
            Self::Compare { property, .. } => vec![property],
        }
    }

    fn holds(&self, properties: &Properties) -> bool {
        match self {
            Self::Any(parts) => parts.iter().any(|part| part.holds(properties)),
            Self::All(parts) => parts.iter().all(|part| part.holds(properties)),
            Self::Compare { property, operator, value } => {
                properties.get(property).is_some_and(|found| compare(found, *operator, value))
            }
        }
    }
}

fn compare(found: &Value, operator: Operator, value: &str) -> bool {
    use Operator::{Equal, Greater, GreaterOrEqual, In, Less, LessOrEqual, NotEqual};
    match found {
        Value::Bool(found) => match value.parse::<bool>() {
            Ok(value) if operator == Equal => *found == value,
            Ok(value) if operator == NotEqual => *found != value,
            _ => false,
        },
        Value::Number(found) => {
            let ordering = match (found.as_i64(), value.parse::<i64>()) {
                (Some(found), Ok(value)) => Some(found.cmp(&value)),
                _ => found
                    .as_f64()
                    .zip(value.parse::<f64>().ok())
                    .and_then(|(found, value)| found.partial_cmp(&value)),
            };
            ordering.is_some_and(|ordering| match operator {
                Equal => ordering.is_eq(),
                NotEqual => ordering.is_ne(),
                Less => ordering.is_lt(),
                Greater => ordering.is_gt(),
                LessOrEqual => ordering.is_le(),
                GreaterOrEqual => ordering.is_ge(),
                In => false,
            })
        }
        Value::String(found) => match operator {
            Equal => found == value,
            NotEqual => found != value,
            In => match Range::parse(value) {
                Some(range) => Version::parse(found).is_some_and(|version| range.contains(version)),
                None => found.split(',').any(|part| value.split(',').any(|one| one.trim() == part.trim())),
            },
            Less | Greater | LessOrEqual | GreaterOrEqual => false,
        },
        _ => false,
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// Skips white space and returns the rest of the text.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    /// Takes `word` if the text continues with exactly this word; returns whether it did.
    fn take_word(&mut self, word: &str) -> bool {
        let found = bare(self.rest()) == word;
        if found {
            self.at += word.len();
        }
        found
    }

    fn any(&mut self) -> Result<Expression, &'static str> {
        let mut parts = vec![self.all()?];
        while self.take("||") || self.take_word("OR") {
            parts.push(self.all()?);
        }
        Ok(Expression::Any(parts))
    }

    fn all(&mut self) -> Result<Expression, &'static str> {
        let mut parts = vec![self.one()?];
        while self.take("&&") || self.take_word("AND") {
            parts.push(self.one()?);
        }
        Ok(Expression::All(parts))
    }

    fn one(&mut self) -> Result<Expression, &'static str> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err("more than 32 nested parentheses");
            }
            let inner = self.any()?;
            self.depth -= 1;
            return if self.take(")") { Ok(inner) } else { Err("expected \")\"") };
        }
        let property = self.word("expected the name of a node property")?;
        let operator = self.operator()?;
        let value = if operator == Operator::In && self.rest().starts_with(['[', '(']) {
            self.range()?
        } else {
            self.word("expected a value; a value with spaces or symbols is quoted")?
        };
        Ok(Expression::Compare { property, operator, value })
    }

    fn operator(&mut self) -> Result<Operator, &'static str> {
        const SYMBOLS: [(&str, Operator); 7] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        for (symbol, operator) in SYMBOLS {
            if self.take(symbol) {
                return Ok(operator);
            }
        }
        if self.take_word("in") {
            Ok(Operator::In)
        } else {
            Err("expected an operator: ==, =, !=, <, >, <=, >= or in")
        }
    }

    fn range(&mut self) -> Result<String, &'static str> {
        const PROBLEM: &str = "expected a version range such as [1.0.0,2.0.0)";
        let rest = self.rest();
        // The first character may itself be a parenthesis.
        let end = rest[1..].find([')', ']']).ok_or(PROBLEM)? + 2;
        let range = &rest[..end];
        Range::parse(range).ok_or(PROBLEM)?;
        self.at += end;
        Ok(range.to_owned())
    }

    fn word(&mut self, problem: &'static str) -> Result<String, &'static str> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let end = rest[1..].find(quote).ok_or("the quoted text has no end")?;
            self.at += end + 2;
            return Ok(rest[1..=end].to_owned());
        }
        let word = bare(rest);
        if word.is_empty() || matches!(word, "AND" | "OR" | "in") {
            return Err(problem);
        }
        self.at += word.len();
        Ok(word.to_owned())
    }
}

/// Returns the unquoted word at the start of `text`.
fn bare(text: &str) -> &str {
    let ends = |c: char| {
        c.is_whitespace() || matches!(c, '(' | ')' | '=' | '!' | '<' | '>' | '&' | '|' | '"' | '\'')
    };
    &text[..text.find(ends).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        let properties: Properties = serde_json::from_str(
            r#"{"purpose":"security","openhorizon.cpu":4,"load":1.5,"gpu":true,"openhorizon.arch":"amd64","colors":"red, green",
                "agentVersion":"1.4.2","big":9007199254740993,"text":"a AND b","list":[1]}"#,
        )
        .unwrap();
        Constraint::parse(text).unwrap_or_else(|e| panic!("{e}")).holds(&properties)
    }

    #[test]
    fn each_operator_on_each_type() {
        for yes in [
            "purpose == security",
            "purpose=security",
            "purpose = \"security\"",
            "purpose != edge",
            "openhorizon.cpu >= 4",
            "openhorizon.cpu > 3.5",
            "load < 2",
            "load == 1.5",
            "gpu == true",
            "gpu != false",
            "big == 9007199254740993",
            "text == 'a AND b'",
            "openhorizon.arch in \"amd64, arm64\"",
            "openhorizon.arch in arm64,amd64",
            "colors in green",
            "agentVersion in [1.0.0,2.0.0)",
            "agentVersion in \"(1.4.1,INFINITY)\"",
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            "purpose == Security",
            "purpose != security",
            "purpose < z",
            "big == 9007199254740992",
            "gpu < true",
            "gpu == yes",
            "openhorizon.cpu == four",
            "openhorizon.arch in \"arm64\"",
            "agentVersion in [2.0.0,3.0.0)",
            "missing == x",
            "missing != x",
            "list == 1",
            "openhorizon.cpu in 4",
        ] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(holds("gpu == true OR gpu == false AND gpu == false"));
        assert!(!holds("(gpu == true || gpu == false) && gpu == false"));
        assert!(holds("gpu==true&&load<2"));
    }

    #[test]
    fn what_does_not_read_is_named_with_its_place() {
        for (text, position) in [
            ("", 1),
            ("purpose", 8),
            ("purpose ==", 11),
            ("== x", 1),
            ("a == b c", 8),
            ("a == b AND", 11),
            ("(a == b", 8),
            ("a == b)", 7),
            ("a == 'b", 6),
            ("NOT a == b", 5),
            ("a in [1.0.0", 6),
            ("a == é AND ü", 15),
        ] {
            let error = Constraint::parse(text).unwrap_err();
            assert_eq!(error.position, position, "{error}");
        }
        assert!(Constraint::parse(&"(".repeat(1000)).is_err());
        assert!(Constraint::parse(&"a".repeat(MAX_LENGTH + 1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z()=!<>&|\"' \\[\\],.0-9é]{0,60}") {
            let _ = Constraint::parse(&text);
        }
    }
}
