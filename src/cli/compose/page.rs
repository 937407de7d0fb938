//! A compose's `index.html`: one page that needs nothing else.

use std::fmt::Write as _;

use super::state::{Item, Outcome, State};

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}\
body{margin:2rem auto;max-width:72rem;padding:0 1rem}\
h1{font-size:1.5rem;margin-bottom:.2rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}\
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #8884;vertical-align:top}\
td.sum{font:12px ui-monospace,monospace;word-break:break-all}\
.done{color:#17803d}.failed{color:#c62828}.error{color:#b45309}.skipped{color:#777}\
.verdict{font-weight:600}\
.blocking{border:1px solid;border-radius:3px;padding:0 .3rem;font-size:.8rem}\
@media (prefers-color-scheme:dark){.done{color:#4ade80}.failed{color:#f87171}.error{color:#fbbf24}}\
@media (max-width:640px){td.sum{display:none}}";

/// The page.
pub(super) fn html(state: &State, variant: &str) -> String {
    let mut out = String::new();
    let id = text(&state.compose);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{id}</title><style>{STYLE}</style></head>\n\
         <body><h1>{id}</h1>\n"
    );
    let blockers = state.blockers();
    let verdict = if blockers.is_empty() {
        ("done", "Nothing blocks the release.".to_owned())
    } else {
        let names: Vec<String> = blockers.iter().map(|(key, _)| text(key)).collect();
        ("failed", format!("The release is blocked by {}.", names.join(", ")))
    };
    let _ = writeln!(out, "<p class=\"verdict {}\">{}</p>", verdict.0, verdict.1);
    let _ = writeln!(
        out,
        "<p>Variant {}. <a href=\"metadata/images.json\">images.json</a>, \
         <a href=\"metadata/composeinfo.json\">composeinfo.json</a>, <a href=\"status.json\">status.json</a></p>",
        text(variant)
    );
    let _ = writeln!(
        out,
        "<h2>Disks</h2><table><tr><th>Image<th>State<th>File<th>Size<th>SHA-256<th>Log</tr>"
    );
    for (key, item) in &state.artifacts {
        row(&mut out, "artifact", key, item);
    }
    let _ = writeln!(out, "</table>");
    if !state.tests.is_empty() {
        let _ = writeln!(
            out,
            "<h2>Tests</h2><table><tr><th>Test<th>State<th>Report<th>Time<th><th>Log</tr>"
        );
        for (key, item) in &state.tests {
            row(&mut out, "test", key, item);
        }
        let _ = writeln!(out, "</table>");
    }
    out.push_str("</body></html>\n");
    out
}

fn row(out: &mut String, class: &str, key: &str, item: &Item) {
    let link = |file: &Option<String>, name: &str| {
        file.as_ref().map_or(String::new(), |file| {
            let name = if name.is_empty() { file.rsplit('/').next().unwrap_or(file) } else { name };
            format!("<a href=\"{}\">{}</a>", text(file), text(name))
        })
    };
    let blocking = if item.blocking { " <span class=\"blocking\">blocking</span>" } else { "" };
    let file = match (&item.reason, item.outcome) {
        (Some(reason), outcome) if outcome != Outcome::Done => text(reason),
        _ => link(&item.file, if class == "test" { "report" } else { "" }),
    };
    let size = match item.size {
        Some(size) if class == "artifact" => bootpress::report::human(size),
        _ => format!("{:.0} s", item.seconds),
    };
    let state = item.outcome.name();
    let _ = writeln!(
        out,
        "<tr class=\"{class}\"><td>{}{blocking}<td class=\"{state}\">{state}<td>{file}<td>{size}<td class=\"sum\">{}<td>{}</tr>",
        text(key),
        item.sha256.as_deref().map_or(String::new(), text),
        link(&item.log, "log"),
    );
}

/// Text that stays text.
fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_says_stays_text() {
        let item = Item {
            outcome: Outcome::Failed,
            blocking: true,
            fingerprint: String::new(),
            seconds: 1.0,
            reason: Some("<script>alert('x')</script>".to_owned()),
            file: None,
            size: None,
            sha256: None,
            log: Some("logs/a\"b.log".to_owned()),
        };
        let mut state = State { compose: "Fedora-43-20251014.0".to_owned(), ..State::default() };
        state.artifacts.insert("IoT/x86_64/qcow2".to_owned(), item);
        let page = html(&state, "IoT");
        assert!(
            page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;")
                && !page.contains("<script")
        );
        assert!(page.contains("blocked by IoT/x86_64/qcow2") && page.contains("a&quot;b.log"));
    }
}
