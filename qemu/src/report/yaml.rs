//! YAML, as much as it takes to write it: blocks of maps and lists, with scalars as JSON writes them.

use serde_json::Value;

/// A value as a block, indented by so many spaces, every line ended. A scalar is a line of its own.
pub(super) fn block(value: &Value, indent: usize) -> String {
    let space = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => map
            .iter()
            .map(|(key, value)| format!("{space}{}:{}", key_of(key), after(value, indent + 2)))
            .collect(),
        Value::Array(list) if !list.is_empty() => list
            .iter()
            .map(|value| {
                let inner = block(value, indent + 2);
                // The dash takes the place of the first line's indentation.
                format!("{space}- {}", inner.get(indent + 2..).unwrap_or_default())
            })
            .collect(),
        scalar => format!("{space}{scalar}\n"),
    }
}

/// What comes after a key: a scalar or something empty on the same line, a block on the next ones.
fn after(value: &Value, indent: usize) -> String {
    match value {
        Value::Object(map) if !map.is_empty() => format!("\n{}", block(value, indent)),
        Value::Array(list) if !list.is_empty() => format!("\n{}", block(value, indent)),
        scalar => format!(" {scalar}\n"),
    }
}

/// Keys that are words need no quotation marks.
fn key_of(key: &str) -> String {
    let word = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && key.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    // YAML takes these for something else than text.
    let reserved = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if word && !reserved.contains(&key.to_ascii_lowercase().as_str()) {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_indented_and_scalars_quoted() {
        // In the order of the alphabet, whether serde_json keeps the one written here or sorts.
        let value = json!([{"empty": [], "list": ["x", {"no": 1}], "name": "a: b"}, 3]);
        let expected =
            "- empty: []\n  list:\n    - \"x\"\n    - \"no\": 1\n  name: \"a: b\"\n- 3\n";
        assert_eq!(block(&value, 0), expected);
    }
}
