//! What an image of the composefs backend says about its root: `setup-root-conf.toml`, and the unit that reads the kernel command line.
//!
//! Source: composefs-setup-root 0.9.4; bootc 1.16, `crates/initramfs`.

use anyhow::Result;

use super::Files;
use super::backend::SETUP_ROOT;
use super::lost::Lost;
use crate::error::corrupt;

/// The unit that sets up the root; the initramfs has a copy.
const UNITS: [&str; 2] = [
    "usr/lib/systemd/system/bootc-root-setup.service",
    "usr/lib/dracut/modules.d/51bootc/bootc-root-setup.service",
];

/// Directories that are others when the system runs.
pub(super) fn lost(files: &Files<'_>) -> Result<Vec<Lost>> {
    let Some(text) = files.text(SETUP_ROOT)? else { return Ok(Vec::new()) };
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| corrupt(SETUP_ROOT, error.to_string().trim_end()))?;
    let transient = |name: &str| {
        let section = table.get(name).and_then(toml::Value::as_table);
        section.is_some_and(|section| {
            section.get("transient").and_then(toml::Value::as_bool) == Some(true)
                || section
                    .get("mount")
                    .and_then(toml::Value::as_str)
                    .is_some_and(|how| how == "transient" || how == "none")
        })
    };
    let places = ["etc", "var"].into_iter().filter(|name| transient(name));
    let lost = places.map(|name| Lost {
        path: format!("/{name}"),
        because: format!("{SETUP_ROOT} of the image does not mount what the disk has for /{name}"),
    });
    Ok(lost.collect())
}

/// Whether the initramfs starts for `composefs.digest=`, too.
pub(super) fn reads_new_digest(files: &Files<'_>) -> Result<bool> {
    for path in UNITS {
        if let Some(text) = files.text(path)? {
            let mut conditions =
                text.lines().filter(|line| line.starts_with("ConditionKernelCommandLine="));
            return Ok(conditions.any(|line| line.contains("composefs.digest")));
        }
    }
    Ok(false)
}
