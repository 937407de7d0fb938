//! YAML 1.2 → [`Node`]: one document, keys that are strings, anchors and `<<` for what repeats.

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};

use super::{Key, Node, Place, Value, Wrong};

pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let start = Place { line: 1, column: 1 };
    crate::yaml::check(text)
        .map_err(|flaw| (Place { line: flaw.line, column: flaw.column }, flaw.reason))?;
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| (place(*error.marker()), error.info().to_owned()))?;
    match &documents[..] {
        [] => Ok(Node { value: Value::Null, at: start }),
        [document] => node(document, &text.chars().collect::<Vec<_>>()),
        [_, second, ..] => Err((place(second.span.start), "a second document begins".to_owned())),
    }
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

/// `source`: the whole text, which tells a number from a string in quotes.
fn node(yaml: &MarkedYaml<'_>, source: &[char]) -> Result<Node, Wrong> {
    let at = place(yaml.span.start);
    let value = match &yaml.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(*value),
            Scalar::Integer(value) => Value::Integer(*value),
            Scalar::FloatingPoint(value) => Value::Float(value.into_inner()),
            Scalar::String(text) => {
                let is_quoted = matches!(source.get(yaml.span.start.index()), Some('"' | '\''));
                match with_underscores(text).filter(|_| !is_quoted) {
                    Some(number) => Value::Integer(number),
                    None => Value::Text(text.clone().into_owned()),
                }
            }
        },
        YamlData::Representation(text, ..) => Value::Text(text.clone().into_owned()),
        YamlData::Sequence(list) => {
            Value::List(list.iter().map(|item| node(item, source)).collect::<Result<_, _>>()?)
        }
        YamlData::Mapping(map) => table(map.iter(), source)?,
        YamlData::Tagged(_, inner) => return node(inner, source),
        YamlData::Alias(_) | YamlData::BadValue => {
            return Err((at, "it is not a value".to_owned()));
        }
    };
    Ok(Node { value, at })
}

/// A number with underscores between its digits, `100_000`: YAML 1.1 had them, and the readers of osbuild's files still do.
fn with_underscores(text: &str) -> Option<i64> {
    if !text.contains('_') {
        return None;
    }
    let digits = text.replace('_', "");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let radix = |prefix: &str, radix| Some((digits.strip_prefix(prefix)?, radix));
    let (digits, radix) =
        radix("0x", 16).or(radix("0o", 8)).or(radix("0b", 2)).unwrap_or((digits, 10));
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok()?.checked_mul(sign)
}

/// A table; what `<<` brings stands behind what the table says itself, and loses against it.
fn table<'a, 'b: 'a>(
    map: impl Iterator<Item = (&'a MarkedYaml<'b>, &'a MarkedYaml<'b>)>,
    source: &[char],
) -> Result<Value, Wrong> {
    let (mut entries, mut merged) = (Vec::new(), Vec::new());
    for (key, value) in map {
        let at = place(key.span.start);
        let name = match &key.data {
            YamlData::Value(Scalar::String(text)) => text.clone().into_owned(),
            _ => return Err((at, "a key is not a string".to_owned())),
        };
        let value = node(value, source)?;
        if name != "<<" {
            entries.push((Key { name, at }, value));
            continue;
        }
        let sources = match value.value {
            Value::List(list) => list,
            _ => vec![value],
        };
        for source in sources {
            let Value::Table(inner) = source.value else {
                return Err((source.at, "`<<` wants a table".to_owned()));
            };
            merged.extend(inner);
        }
    }
    for (key, value) in merged {
        if entries.iter().all(|(other, _): &(Key, Node)| other.name != key.name) {
            entries.push((key, value));
        }
    }
    Ok(Value::Table(entries))
}
