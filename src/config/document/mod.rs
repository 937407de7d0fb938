//! A configuration file as a value that remembers where everything stood, whether it was TOML, JSON or YAML.

mod json;
mod toml;
mod yaml;

use std::fmt;

use anyhow::{Result, anyhow};

/// A place in a text: both from 1 on, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    /// Where a byte of a text stands.
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: 1 + before.matches('\n').count(), column: 1 + before[line..].chars().count() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Place,
}

/// What all three languages can say.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; each key once.
    Table(Vec<(Key, Node)>),
}

/// The name of a value in a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: Place,
}

impl Value {
    /// What it is, for error messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// The language of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Toml,
    Json,
    Yaml,
}

/// Reads a text; errors say `file:line:column`.
pub(super) fn parse(text: &str, language: Language, file: &str) -> Result<Node> {
    let parsed = match language {
        Language::Toml => toml::parse(text),
        Language::Json => json::parse(text),
        Language::Yaml => yaml::parse(text),
    };
    parsed.map_err(|(at, reason)| anyhow!("{file}:{at}: {reason}"))
}

/// What is wrong with a text, and where.
type Wrong = (Place, String);

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        let text = match &node.value {
            Value::List(list) => list.iter().map(show).collect::<Vec<_>>().join(" "),
            Value::Table(entries) => entries
                .iter()
                .map(|(key, node)| format!("{}@{}={}", key.name, key.at, show(node)))
                .collect::<Vec<_>>()
                .join(" "),
            other => format!("{other:?}"),
        };
        format!("{}[{text}]", node.at)
    }

    #[test]
    fn all_languages_say_where_things_stand() {
        let toml = "a = 1\n[[b]]\nc = \"ü\"\nd = true\n";
        let node = parse(toml, Language::Toml, "x").unwrap();
        assert_eq!(
            show(&node),
            r#"1:1[a@1:1=1:5[Integer(1)] b@2:3=2:1[2:1[c@3:1=3:5[Text("ü")] d@4:1=4:5[Bool(true)]]]]"#
        );
        let json =
            "{\"a\": 1,\n \"b\": [{\"c\": \"\\u00fc\\ud83d\\ude00\", \"d\": null, \"e\": -1.5}]}";
        let node = parse(json, Language::Json, "x").unwrap();
        assert_eq!(
            show(&node),
            r#"1:1[a@1:2=1:7[Integer(1)] b@2:2=2:7[2:8[c@2:9=2:14[Text("ü😀")] d@2:36=2:41[Null] e@2:47=2:52[Float(-1.5)]]]]"#
        );
        let yaml = "a: 1\nb:\n  - c: x\n    d: true\n";
        let shown = show(&parse(yaml, Language::Yaml, "x").unwrap());
        assert!(shown.contains("a@1:1=1:4[Integer(1)]"), "{shown}");
        assert!(shown.contains(r#"c@3:5=3:8[Text("x")] d@4:5=4:8[Bool(true)]"#), "{shown}");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let said = |text, language| parse(text, language, "f").unwrap_err().to_string();
        assert!(said("a = 1\nb = \n", Language::Toml).starts_with("f:2:"));
        assert!(said("a = 1\na = 2\n", Language::Toml).starts_with("f:2:1: "));
        assert_eq!(
            said("{\"a\": 1, \"a\": 2}", Language::Json),
            "f:1:10: key \"a\" is defined twice"
        );
        assert_eq!(said("{} x", Language::Json), "f:1:4: something follows the value");
        assert_eq!(said("{\n  \"a\" 1}", Language::Json), "f:2:7: `:` is missing");
        assert_eq!(said("[1,]", Language::Json), "f:1:4: a value is missing");
        assert!(said("\"abc", Language::Json).starts_with("f:1:1: "));
        assert!(said("a: b: c", Language::Yaml).starts_with("f:1:"));
        let deep = "[".repeat(100_000);
        assert!(said(&deep, Language::Json).contains("nested"));
    }

    /// A file of an image must not take all memory.
    #[test]
    fn yaml_does_not_explode() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            let list = [below.as_str(); 9].join(", ");
            bomb += &format!("a{level}: &a{level} [{list}]\n");
        }
        let error = parse(&bomb, Language::Yaml, "disk.yaml").unwrap_err().to_string();
        assert!(error.contains("aliases"), "{error}");
    }
}
