//! JSON (RFC 8259) → [`Node`]; nothing may follow the value, and no key may stand twice.

use super::{Key, Node, Place, Value, Wrong};

/// How deep values may lie in each other: no configuration goes deeper than ten.
const DEEPEST: usize = 64;

pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let node = reader.node()?;
    reader.space();
    if reader.rest().is_empty() {
        Ok(node)
    } else {
        Err(reader.wrong("something follows the value"))
    }
}

struct Reader<'a> {
    text: &'a str,
    /// In bytes, at a character's first.
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn place(&self) -> Place {
        Place::of(self.text, self.at)
    }

    fn wrong(&self, reason: impl Into<String>) -> Wrong {
        (self.place(), reason.into())
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// Takes a mark, if it is next.
    fn takes(&mut self, mark: char) -> bool {
        self.space();
        let found = self.rest().starts_with(mark);
        if found {
            self.at += mark.len_utf8();
        }
        found
    }

    fn node(&mut self) -> Result<Node, Wrong> {
        self.space();
        let at = self.place();
        if self.depth >= DEEPEST {
            return Err(self.wrong("values are nested too deeply"));
        }
        self.depth += 1;
        let value = match self.rest().chars().next() {
            Some('{') => self.table()?,
            Some('[') => self.list()?,
            Some('"') => Value::Text(self.string()?),
            _ => self.word()?,
        };
        self.depth -= 1;
        Ok(Node { value, at })
    }

    fn table(&mut self) -> Result<Value, Wrong> {
        self.takes('{');
        let mut entries: Vec<(Key, Node)> = Vec::new();
        if self.takes('}') {
            return Ok(Value::Table(entries));
        }
        loop {
            self.space();
            let at = self.place();
            let name = self.string()?;
            if entries.iter().any(|(key, _)| key.name == name) {
                return Err((at, format!("key {name:?} is defined twice")));
            }
            if !self.takes(':') {
                return Err(self.wrong("`:` is missing"));
            }
            let node = self.node()?;
            entries.push((Key { name, at }, node));
            if self.takes('}') {
                return Ok(Value::Table(entries));
            }
            if !self.takes(',') {
                return Err(self.wrong("`,` or `}` is missing"));
            }
        }
    }

    fn list(&mut self) -> Result<Value, Wrong> {
        self.takes('[');
        let mut list = Vec::new();
        if self.takes(']') {
            return Ok(Value::List(list));
        }
        loop {
            list.push(self.node()?);
            if self.takes(']') {
                return Ok(Value::List(list));
            }
            if !self.takes(',') {
                return Err(self.wrong("`,` or `]` is missing"));
            }
        }
    }

    fn string(&mut self) -> Result<String, Wrong> {
        if !self.rest().starts_with('"') {
            return Err(self.wrong("a string in double quotes is missing"));
        }
        let mut escaped = false;
        let end = self.rest().char_indices().skip(1).find(|(_, character)| {
            let ends = *character == '"' && !escaped;
            escaped = *character == '\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else { return Err(self.wrong("the string does not end")) };
        let quoted = &self.rest()[..=end];
        let text = serde_json::from_str(quoted)
            .map_err(|_| self.wrong("the string has control characters or unknown escapes"))?;
        self.at += quoted.len();
        Ok(text)
    }

    fn word(&mut self) -> Result<Value, Wrong> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "" => return Err(self.wrong("a value is missing")),
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => match serde_json::from_str::<serde_json::Number>(number) {
                Ok(number) => match number.as_i64() {
                    Some(integer) => Value::Integer(integer),
                    None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
                },
                Err(_) => return Err(self.wrong(format!("`{word}` is not a value"))),
            },
        };
        self.at += end;
        Ok(value)
    }
}
