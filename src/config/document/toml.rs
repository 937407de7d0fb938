//! TOML → [`Node`].

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Key, Node, Place, Value, Wrong};

pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (Place::of(text, at), error.message().to_owned())
    })?;
    let reader = Reader { text };
    let value = reader.table(table.into_inner())?;
    Ok(Node { value, at: Place { line: 1, column: 1 } })
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn table(&self, table: DeTable<'_>) -> Result<Value, Wrong> {
        let mut entries = Vec::new();
        for (key, value) in table {
            let at = Place::of(self.text, key.span().start);
            let name: Cow<'_, str> = key.into_inner();
            entries.push((Key { name: name.into_owned(), at }, self.node(value)?));
        }
        entries.sort_by_key(|(key, _)| key.at);
        Ok(Value::Table(entries))
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Result<Node, Wrong> {
        let at = Place::of(self.text, value.span().start);
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Integer)
                .map_err(|_| (at, format!("{number} is too large")))?,
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map(Value::Float)
                .map_err(|_| (at, format!("{number} is not a number")))?,
            DeValue::Boolean(value) => Value::Bool(value),
            // No key wants a date; as a text it is refused with what it should have been.
            DeValue::Datetime(date) => Value::Text(date.to_string()),
            DeValue::Array(list) => {
                Value::List(list.into_iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => self.table(table)?,
        };
        Ok(Node { value, at })
    }
}
