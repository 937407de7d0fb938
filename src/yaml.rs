//! What a YAML text would grow to, before anything is built from it.
//!
//! Values in values are built, and dropped, by functions that call themselves: a text of 20 kB can nest deeper than any stack.
//! And an alias is a copy, so aliases of aliases multiply. The parser's events tell both without building anything.

use std::fmt;

use saphyr_parser::{Event, Parser};

/// How deep values may lie in each other: no configuration goes deeper than ten.
const DEEPEST: usize = 64;

/// Aliases of one text: with so many the largest factor by which copies of copies grow is 3^8.
const MOST_ALIASES: usize = 24;

/// What is wrong with a text, and where; line and column from 1 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {}, column {}", self.reason, self.line, self.column)
    }
}

impl std::error::Error for Flaw {}

/// Refuses what is not YAML, nests too deeply, or has too many aliases.
pub fn check(text: &str) -> Result<(), Flaw> {
    let (mut depth, mut aliases) = (0_usize, 0_usize);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker();
            Flaw { line: at.line(), column: at.col() + 1, reason: error.info().to_owned() }
        })?;
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            Event::Alias(..) => aliases += 1,
            _ => continue,
        }
        let flaw = |reason: String| {
            let (line, column) = (span.start.line(), span.start.col() + 1);
            Err(Flaw { line, column, reason })
        };
        if depth > DEEPEST {
            return flaw("values are nested too deeply".to_owned());
        }
        if aliases > MOST_ALIASES {
            return flaw(format!("it has more than {MOST_ALIASES} aliases"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_deep_text_is_refused_however_it_nests() {
        for (open, close) in [("- ", ""), ("[", "]"), ("{a: ", "}"), ("? ", ""), ("[{a: ", "}]")] {
            let deep = |levels: usize| format!("{}x{}", open.repeat(levels), close.repeat(levels));
            for levels in [100, 10_165, 200_000] {
                let flaw = check(&deep(levels)).unwrap_err();
                assert!(flaw.line == 1 && flaw.column > 1, "{open}: {flaw}");
            }
            check(&deep(20)).unwrap();
        }
    }

    #[test]
    fn check_aliases_in_strings_are_none() {
        check(&format!("a: '{}'", "*x ".repeat(100))).unwrap();
        let text = format!("a: &x 1\nb: [{}]", "*x, ".repeat(25));
        assert!(check(&text).unwrap_err().to_string().contains("aliases"));
    }
}
