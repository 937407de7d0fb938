//! Kernel arguments: where one ends, and which of them boot loaders can pass on.
//!
//! The kernel reads white space between double quotes as part of an argument. On a disk, GRUB reads the line first: an `options`
//! line of a boot entry becomes a command of GRUB's language, in which quotes, `$`, `;` and the like mean something.

/// The arguments of a line. White space between double quotes belongs to the argument; nothing escapes a quote.
pub fn split(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |character: char| {
        quoted ^= character == '"';
        !quoted && character.is_ascii_whitespace()
    })
    .filter(|argument| !argument.is_empty())
}

/// An argument without the double quotes that kept it together: `foo="a b"` and `"foo=a b"` are both `foo=a b`.
pub fn bare(argument: &str) -> String {
    argument.replace('"', "")
}

/// Why GRUB cannot read arguments from a boot entry, if it cannot. A variable such as `$ignition_firstboot` it can.
pub fn check(line: &str) -> Result<(), String> {
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some('\''), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (_, '\\') if characters.next().is_none() => {
                return Err("it ends with a backslash".to_owned());
            }
            (_, '\\') => {}
            (_, '$') => {
                let next = characters.peek().copied();
                if !next.is_some_and(|c| c.is_ascii_alphanumeric() || "_{?@*#".contains(c)) {
                    return Err("GRUB takes `$` for the beginning of a variable's name".to_owned());
                }
            }
            (None, ';' | '&' | '|' | '<' | '>') => {
                return Err(format!(
                    "GRUB takes `{c}` for the end of a command unless it stands between double quotes"
                ));
            }
            _ => {}
        }
    }
    match quote {
        Some('"') => Err("a double quote is not closed".to_owned()),
        Some(_) => Err("a single quote is not closed".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words: Vec<&str> = split(" a  b=\"c d\" \"e=f g\"\th ").collect();
        assert_eq!(words, ["a", r#"b="c d""#, r#""e=f g""#, "h"]);
        assert_eq!(bare(r#"b="c d""#), "b=c d");
        assert_eq!(bare(r#""e=f g""#), "e=f g");
    }

    /// The verdicts are those of `grub-script-check` 2.14 on `linux /v ARGUMENTS`.
    #[test]
    fn what_grub_would_stop_at_is_told() {
        for good in [
            "quiet",
            r#"a="b c""#,
            r#""a=b c" d"#,
            r#"a="it's""#,
            "a='b c'",
            "$ignition_firstboot ${x}",
            "a=#b",
            "a{b}",
            r"a=b\ c",
            r#"u="http://x/?a&b;c""#,
            "",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            (r#"a="b"#, "double quote is not closed"),
            (r#"a=b""#, "double quote is not closed"),
            ("a='b", "single quote is not closed"),
            (r#"a="b c"d" e"#, "double quote is not closed"),
            ("u=http://x/?a&b", "`&`"),
            ("a;b", "`;`"),
            ("a|b", "`|`"),
            ("a<b", "`<`"),
            (r"a\", "backslash"),
            ("a=$", "`$`"),
            ("a=$-", "`$`"),
        ] {
            let told = check(bad).unwrap_err();
            assert!(told.contains(why), "{bad}: {told}");
        }
    }
}
