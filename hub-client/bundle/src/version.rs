//! This module parses dotted versions and version ranges as Open Horizon writes them: `1.2.3`,
//! `[1.0.0,2.0.0)`, `[1.0.0,INFINITY)`.

use std::cmp::Ordering;

/// A `Version` has up to four numbers; missing ones are zero, so `1.0` equals `1.0.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version([u32; 4]);

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0; 4];
        let mut parts = text.split('.');
        for (number, part) in numbers.iter_mut().zip(parts.by_ref()) {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            *number = part.parse().ok().filter(|_| digits)?;
        }
        parts.next().is_none().then_some(Self(numbers))
    }
}

/// A `Range` is a range of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    low: Version,
    low_included: bool,
    high: Option<Version>,
    high_included: bool,
}

impl Range {
    /// Parses a range in brackets; returns `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let low_included = match text.as_bytes().first()? {
            b'[' => true,
            b'(' => false,
            _ => return None,
        };
        let high_included = match text.as_bytes().last()? {
            b']' => true,
            b')' => false,
            _ => return None,
        };
        let (low, high) = text.get(1..text.len() - 1)?.split_once(',')?;
        let high = match high.trim() {
            "INFINITY" => None,
            version => Some(Version::parse(version)?),
        };
        Some(Self { low: Version::parse(low.trim())?, low_included, high, high_included })
    }

    pub(crate) fn contains(&self, version: Version) -> bool {
        let above = match version.cmp(&self.low) {
            Ordering::Greater => true,
            Ordering::Equal => self.low_included,
            Ordering::Less => false,
        };
        let below = match self.high.map(|high| version.cmp(&high)) {
            None | Some(Ordering::Less) => true,
            Some(Ordering::Equal) => self.high_included,
            Some(Ordering::Greater) => false,
        };
        above && below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let v = |text| Version::parse(text).unwrap();
        assert!(v("1.10.0") > v("1.9.9"));
        assert_eq!(v("1.0"), v("1.0.0"));
        for bad in ["", ".", "1.", "v1", "1.0-rc1", "1.2.3.4.5", "+1", "99999999999"] {
            assert!(Version::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn ranges_keep_their_ends() {
        let holds = |range: &str, version: &str| {
            Range::parse(range).unwrap().contains(Version::parse(version).unwrap())
        };
        assert!(holds("[1.0.0,2.0.0)", "1.0.0") && !holds("[1.0.0,2.0.0)", "2.0.0"));
        assert!(!holds("(1.0.0,2.0.0]", "1.0.0") && holds("(1.0.0, 2.0.0]", "2.0.0"));
        assert!(holds("[1.0.0,INFINITY)", "99.0.0") && !holds("[1.0.0,INFINITY)", "0.9"));
        for bad in ["", "[", "[]", "1.0.0", "[1.0.0]", "[a,b]", "[1.0.0,2.0.0"] {
            assert!(Range::parse(bad).is_none(), "{bad}");
        }
    }
}
