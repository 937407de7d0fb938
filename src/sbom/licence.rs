//! Licences: which texts of databases are SPDX expressions, and what to do with the others.

/// A licence as documents may state it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Licence {
    /// Nobody says.
    Unknown,
    /// An SPDX expression whose identifiers are on SPDX' list.
    Expression(String),
    /// Anything else, such as `GPLv2+ and Redistributable`.
    Other(String),
}

impl Licence {
    pub(super) fn of(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Unknown };
        match spdx::Expression::parse(text) {
            Ok(expression) if is_spelled_properly(text) => Self::Expression(expression.to_string()),
            _ => Self::Other(text.to_owned()),
        }
    }
}

/// References to licences that this document does not define would dangle.
fn is_spelled_properly(text: &str) -> bool {
    !text.contains("LicenseRef-") && !text.contains("DocumentRef-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expressions_of_known_identifiers_are_expressions() {
        for text in [
            "MIT",
            "GPL-2.0-or-later AND (MIT OR Apache-2.0)",
            "GPL-2.0-only WITH Linux-syscall-note",
        ] {
            assert_eq!(Licence::of(Some(text)), Licence::Expression(text.to_owned()));
        }
        for text in [
            "GPLv2+ and MIT",
            "",
            "Public Domain",
            "LicenseRef-Fedora-Public-Domain",
            "custom:x",
            "MIT AND",
        ] {
            assert_eq!(Licence::of(Some(text)), Licence::Other(text.to_owned()));
        }
        assert_eq!(Licence::of(None), Licence::Unknown);
    }
}
