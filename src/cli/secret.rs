//! Command lines without the secrets in them, for messages that people paste into bug reports.

use std::ffi::OsString;

/// Flags whose value nobody may see.
const SECRET: [&str; 1] = ["--creds"];

/// The arguments as one line. Passwords of flags and of URLs are left out.
pub(super) fn command_line(arguments: &[OsString]) -> String {
    let mut shown = Vec::new();
    let mut hide = false;
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let flag = argument.split_once('=').map_or(&*argument, |(flag, _)| flag);
        shown.push(match SECRET.contains(&flag) {
            _ if hide => "HIDDEN".to_owned(),
            true if flag.len() < argument.len() => format!("{flag}=HIDDEN"),
            _ => without_password(&argument),
        });
        hide = SECRET.contains(&&*argument);
    }
    shown.join(" ")
}

/// Text in which whatever stands between `://` and `@` is left out.
fn without_password(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + "://".len());
        out.push_str(before);
        let authority = behind.find(['/', '?', '#', ' ']).unwrap_or(behind.len());
        rest = match behind[..authority].rfind('@') {
            Some(end) => {
                out.push_str("HIDDEN");
                &behind[end..]
            }
            None => behind,
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_with_passwords_hides_them() {
        let shown = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            command_line(&words)
        };
        assert_eq!(shown("bootpress build --creds me:x y"), "bootpress build --creds HIDDEN y");
        assert_eq!(shown("bootpress build --creds=me:x y"), "bootpress build --creds=HIDDEN y");
        assert_eq!(shown("bootpress build --creds"), "bootpress build --creds");
        assert_eq!(
            shown("a --pxe-url=http://me:p@h/x?a=://b:c@d --creds-file f"),
            "a --pxe-url=http://HIDDEN@h/x?a=://HIDDEN@d --creds-file f"
        );
        assert_eq!(shown("docker://quay.io/x@sha256:0"), "docker://quay.io/x@sha256:0");
    }
}
