//! `bootc/bound-images.d`: application images that belong to the system. bootpress names them; the machine pulls them.

use anyhow::Result;

use super::keyfile::KeyFile;
use super::{Files, has_extension};
use crate::error::{corrupt, unsupported};

const DIRECTORY: &str = "usr/lib/bootc/bound-images.d";

/// The references, in the order of their links' names. Only links count.
pub(super) fn load(files: &Files<'_>) -> Result<Vec<String>> {
    let mut images = Vec::new();
    for name in files.names(DIRECTORY) {
        let path = format!("{DIRECTORY}/{name}");
        let Some(target) = files.link(&path) else { continue };
        let group = if has_extension(&target, "image") {
            "Image"
        } else if has_extension(&target, "container") {
            "Container"
        } else {
            return Err(corrupt(
                &path,
                format!("{target} is neither an .image nor a .container file"),
            ));
        };
        let text = files
            .text(&path)?
            .ok_or_else(|| corrupt(&path, format!("{target} is not in the image")))?;
        let unit = KeyFile::parse(&path, &text)?;
        if unit.get(group, "AuthFile").is_some() {
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

/// `%%` is `%`; every other specifier stands for something only the machine knows.
fn without_specifiers(path: &str, image: &str) -> Result<String> {
    let plain = image.replace("%%", "");
    if plain.contains('%') {
        return Err(corrupt(path, format!("Image={image} has a specifier")));
    }
    Ok(image.replace("%%", "%"))
}
