//! `bootc/bound-images.d`: application images that belong to the system. bootpress names them; the machine pulls them.
//!
//! The files are links to quadlets, `.image` or `.container`, and what counts is what bootc reads of them: it takes `;` and `#` for the
//! begin of a comment wherever they stand, and the last of several values.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Files;
use crate::error::{corrupt, unsupported};
use crate::progress::{Code, Progress};

const DIRECTORY: &str = "usr/lib/bootc/bound-images.d";

/// The references, in the order of their links' names.
pub(super) fn load(files: &Files<'_>, progress: &Progress) -> Result<Vec<String>> {
    let mut images = Vec::new();
    for name in files.names(DIRECTORY) {
        let path = format!("{DIRECTORY}/{name}");
        let target = files
            .link(&path)
            .ok_or_else(|| corrupt(&path, "bootc takes symbolic links to quadlets only"))?;
        // The name of the link decides, as for bootc, not that of the file.
        let group = match name.rsplit_once('.') {
            Some((_, "image")) => "Image",
            Some((_, "container")) => "Container",
            _ => {
                return Err(corrupt(&path, "the name must end in .image or .container"));
            }
        };
        let text = files
            .text(&path)?
            .ok_or_else(|| corrupt(&path, format!("{target} is not in the image")))?;
        let unit = Unit::parse(&path, &text)?;
        if let Some(line) = unit.unreadable {
            progress.warn(Code::BoundImage, format!(
                "{path}: bootc cannot read the continuation in line {line}, so `bootc upgrade` will fail on the machine; \
                 bind an .image file instead"
            ));
        }
        if group == "Image" && unit.get(group, "AuthFile").is_some() {
            return Err(unsupported(
                format!("{path}: AuthFile= is not possible for a bound image"),
                None,
            ));
        }
        let image = unit
            .get(group, "Image")
            .ok_or_else(|| corrupt(&path, format!("it has no Image= in [{group}]")))?;
        images.push(without_specifiers(&path, image)?);
    }
    Ok(images)
}

/// A quadlet.
struct Unit {
    /// The last value of each key, by section and key.
    values: BTreeMap<(String, String), String>,
    /// The number of a line that continues the one before it and that bootc, which knows no continuations, takes for an error.
    unreadable: Option<usize>,
}

impl Unit {
    fn parse(path: &str, text: &str) -> Result<Self> {
        let mut unit = Self { values: BTreeMap::new(), unreadable: None };
        let mut section = String::new();
        let mut begun = String::new();
        for (line, number) in text.lines().zip(1..) {
            let continues = !begun.is_empty();
            // systemd allows comments between the lines of one value.
            if continues && line.trim_start().starts_with(['#', ';']) {
                continue;
            }
            if continues
                && !without_comment(line).contains('=')
                && !without_comment(line).is_empty()
            {
                unit.unreadable.get_or_insert(number);
            }
            if let Some(more) = line.strip_suffix('\\') {
                begun += more;
                begun.push(' ');
                continue;
            }
            let whole = std::mem::take(&mut begun) + line;
            unit.line(path, &mut section, without_comment(&whole), number)?;
        }
        unit.line(path, &mut section, without_comment(&begun), text.lines().count())?;
        Ok(unit)
    }

    fn line(&mut self, path: &str, section: &mut String, line: &str, number: usize) -> Result<()> {
        let wrong = |what: &str| corrupt(path, format!("line {number}: {what}"));
        if line.is_empty() {
            return Ok(());
        }
        if line.starts_with('[') {
            if !line.ends_with(']') {
                return Err(wrong("a section without ]"));
            }
            line.trim_matches(['[', ']']).clone_into(section);
            return Ok(());
        }
        let (key, value) =
            line.split_once('=').ok_or_else(|| wrong("neither a section nor key=value"))?;
        let key = (section.clone(), key.trim().to_owned());
        self.values.insert(key, value.trim().to_owned());
        Ok(())
    }

    fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.values.get(&(section.to_owned(), key.to_owned())).map(String::as_str)
    }
}

fn without_comment(line: &str) -> &str {
    line.split([';', '#']).next().unwrap_or_default().trim()
}

/// `%%` is `%`; every other specifier stands for something only the machine knows.
fn without_specifiers(path: &str, image: &str) -> Result<String> {
    let plain = image.replace("%%", "");
    if plain.contains('%') {
        return Err(corrupt(path, format!("Image={image} has a specifier")));
    }
    Ok(image.replace("%%", "%"))
}
