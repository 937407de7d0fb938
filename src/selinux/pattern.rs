//! The regular expressions of `file_contexts`: PCRE, without Unicode, said in the syntax of `regex-automata`.
//!
//! Most of it is the same in both. What means something else there is rewritten here; what cannot be said there is an error,
//! because a wrong label is worse than none.

/// Whether libselinux takes the expression for more than an exact path. A character behind `\` never counts.
pub(super) fn has_meta_characters(regex: &[u8]) -> bool {
    let mut bytes = regex.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' | b'^' | b'$' | b'?' | b'*' | b'+' | b'|' | b'[' | b'(' | b'{' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

/// Components that libselinux ≥ 3.8 looks at before it compares an expression (`SPEC_NODE_MAX_DEPTH`).
pub(super) const MOST_STEMS: usize = 3;

/// `usr` and `lib` of `/usr/lib/.*`: the first components of the directory part, as far as nothing in them is special. Only paths in
/// that directory are compared with the expression.
pub(super) fn stems(regex: &[u8]) -> Vec<Box<[u8]>> {
    let mut stems = Vec::new();
    let mut rest = regex;
    while stems.len() < MOST_STEMS {
        let Some(end) = rest.iter().skip(1).position(|&byte| byte == b'/') else { break };
        let component = &rest[1..=end];
        rest = &rest[end + 1..];
        // Of `//`, only one counts.
        if component.is_empty() {
            continue;
        }
        match literal(component) {
            Some(stem) => stems.push(stem.into()),
            None => break,
        }
    }
    stems
}

/// A component without its backslashes; `None` if it is more than a name.
fn literal(component: &[u8]) -> Option<Vec<u8>> {
    const ESCAPED: &[u8] = b".^$?*+|[({])}-_,";
    let mut plain = Vec::new();
    let mut bytes = component.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => plain.push(*bytes.next().filter(|byte| ESCAPED.contains(byte))?),
            byte if b".^$?*+|[({])}".contains(byte) => return None,
            byte => plain.push(*byte),
        }
    }
    Some(plain)
}

/// The expression for `regex-automata`, ASCII only. It matches whole paths. The error says what cannot be said.
pub(super) fn translate(regex: &[u8]) -> Result<String, String> {
    let mut translator =
        Translator { rest: regex, out: String::new(), branches: Vec::new(), depth: 0 };
    while let Some(byte) = translator.next() {
        translator.item(byte)?;
    }
    let Translator { out, mut branches, .. } = translator;
    branches.push(out);
    // libselinux puts ^ before and $ behind the text, so that in `a|b` each of them holds for one branch only.
    let last = branches.len() - 1;
    let whole = branches.iter().enumerate().map(|(i, branch)| {
        let before = if i == 0 { "" } else { ".*" };
        let behind = if i == last { "" } else { ".*" };
        format!("{before}(?:{branch}){behind}")
    });
    let end = if has_meta_characters(regex) { END } else { r"\z" };
    Ok(format!(r"\A(?:{}){end}", whole.collect::<Vec<_>>().join("|")))
}

/// PCRE's `$`: before a newline at the end, too.
const END: &str = r"(?:\n?\z)";

struct Translator<'a> {
    rest: &'a [u8],
    out: String,
    /// Finished branches of the outermost alternation.
    branches: Vec<String>,
    /// Open parentheses.
    depth: usize,
}

impl Translator<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn item(&mut self, byte: u8) -> Result<(), String> {
        match byte {
            b'|' if self.depth == 0 => self.branches.push(std::mem::take(&mut self.out)),
            b'(' => {
                self.depth += 1;
                match self.rest {
                    [b'?', b':', rest @ ..] => self.rest = rest,
                    [b'?' | b'*', ..] => return Err("groups other than (…) and (?:…)".to_owned()),
                    _ => {}
                }
                self.out.push_str("(?:");
            }
            b')' => {
                self.depth = self.depth.checked_sub(1).ok_or("an unopened group")?;
                self.out.push(')');
            }
            b'[' => self.class()?,
            b'\\' => self.escape()?,
            b'?' | b'*' | b'+' => {
                self.out.push(byte.into());
                self.quantified()?;
            }
            b'{' => self.repetition()?,
            b'$' => self.out.push_str(END),
            b'^' => self.out.push_str(r"\A"),
            b'.' | b'|' => self.out.push(byte.into()),
            _ => self.literal(byte),
        }
        Ok(())
    }

    fn literal(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() || b"/_ ".contains(&byte) {
            self.out.push(byte.into());
        } else {
            self.out.push_str(&format!(r"\x{byte:02x}"));
        }
    }

    /// Behind a quantifier: `?` makes it lazy, which does not change what matches; `+` makes it possessive, which does.
    fn quantified(&mut self) -> Result<(), String> {
        match self.rest {
            [b'+', ..] => Err("possessive quantifiers".to_owned()),
            [b'*', ..] => Err("a quantifier behind a quantifier".to_owned()),
            [b'?', rest @ ..] => {
                self.rest = rest;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// `{2}`, `{2,}`, `{2,3}`; anything else in braces is literal for PCRE, except `{,3}`, whose meaning changed with 10.43.
    fn repetition(&mut self) -> Result<(), String> {
        let inside = self.rest.split(|&byte| byte == b'}').next().unwrap_or_default();
        let closed = inside.len() < self.rest.len();
        let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
        let (min, max) = match inside.iter().position(|&byte| byte == b',') {
            Some(comma) => (&inside[..comma], &inside[comma + 1..]),
            None => (inside, &b""[..]),
        };
        if !closed || inside.is_empty() || !digits(min) || !digits(max) {
            self.literal(b'{');
            return Ok(());
        }
        if min.is_empty() {
            return Err("repetitions without a lower bound".to_owned());
        }
        self.out.push_str(&format!("{{{}}}", String::from_utf8_lossy(inside)));
        self.rest = &self.rest[inside.len() + 1..];
        self.quantified()
    }

    fn escape(&mut self) -> Result<(), String> {
        match self.next() {
            None => Err("a backslash at the end".to_owned()),
            Some(
                byte @ (b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'n' | b't' | b'r' | b'f' | b'A'
                | b'z' | b'b' | b'B'),
            ) => {
                self.out.push('\\');
                self.out.push(byte.into());
                Ok(())
            }
            Some(byte) if byte.is_ascii_alphanumeric() => Err(format!(r"\{}", char::from(byte))),
            Some(byte) => {
                self.literal(byte);
                Ok(())
            }
        }
    }

    /// A class in brackets; the first `[` is behind us.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if let [b'^', rest @ ..] = self.rest {
            self.rest = rest;
            self.out.push('^');
        }
        let mut first = true;
        loop {
            match self.next().ok_or("an unclosed class")? {
                b']' if !first => break,
                b'[' if matches!(self.rest, [b':', ..]) => self.posix_class()?,
                b'[' if matches!(self.rest, [b'.' | b'=', ..]) => {
                    return Err("collating elements".to_owned());
                }
                b'\\' => match self.rest.first() {
                    // In a class, \b is a backspace, and the anchors are errors.
                    Some(b'b' | b'B' | b'A' | b'z') => return Err(r"anchors in a class".to_owned()),
                    _ => self.escape()?,
                },
                // A range, unless it is the first or last of the class.
                b'-' if !first && !matches!(self.rest, [b']', ..]) => self.out.push('-'),
                byte => self.literal(byte),
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }

    /// `[:alpha:]`, with the same names in both.
    fn posix_class(&mut self) -> Result<(), String> {
        let end = self.rest.windows(2).position(|two| two == b":]").ok_or("an unclosed class")?;
        let name = &self.rest[1..end];
        if name.is_empty() || !name.iter().all(u8::is_ascii_lowercase) {
            return Err("a character class without a plain name".to_owned());
        }
        self.out.push_str(&format!("[:{}:]", String::from_utf8_lossy(name)));
        self.rest = &self.rest[end + 2..];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_rewritten() {
        let inner = |regex: &[u8]| {
            let whole = translate(regex).unwrap();
            let whole = whole.strip_prefix(r"\A(?:(?:").unwrap();
            whole.strip_suffix(r"))(?:\n?\z)").unwrap().to_owned()
        };
        for (pcre, ours) in [
            (&br"/a[[]b.*"[..], r"/a[\x5b]b.*"),
            (br"/[]a-]x?", r"/[\x5da\x2d]x?"),
            (br"/[^&&-~]", r"/[^\x26\x26-\x7e]"),
            (br"/q\<.", r"/q\x3c."),
            (br"/a{2,}{b{x.", r"/a{2,}\x7bb\x7bx."),
            (br"/(a|b)+?", r"/(?:a|b)+"),
            (b"/\xc3\xa9*", r"/\xc3\xa9*"),
            (br"/[[:digit:]_]\.", r"/[[:digit:]_]\x2e"),
        ] {
            assert_eq!(inner(pcre), ours, "{}", String::from_utf8_lossy(pcre));
        }
        assert_eq!(translate(b"/a").unwrap(), r"\A(?:(?:/a))\z");
    }

    #[test]
    fn stems_and_exact_paths() {
        let shown = |regex: &[u8]| {
            let stems = stems(regex);
            stems.iter().map(|stem| String::from_utf8_lossy(stem).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(shown(b"/usr/lib(/.*)?"), ["usr"]);
        assert_eq!(shown(b"/usr//lib/x/y/z.*"), ["usr", "lib", "x"]);
        assert_eq!(shown(b"/run/lock/subsys/*.ftpd"), ["run", "lock", "subsys"]);
        assert_eq!(shown(br"/us\.r/a\-b/x\d/y"), ["us.r", "a-b"]);
        for regex in [&b"/usr"[..], b"/usr(/.*)?", b"/", b"", b"/.*", b"/u.r/x"] {
            assert!(stems(regex).is_empty());
        }
        assert!(!has_meta_characters(br"/etc/resolv\.conf"));
        assert!(has_meta_characters(br"/etc/resolv\\.conf"));
        assert!(!has_meta_characters(b"/a]b)c}"));
    }
}
