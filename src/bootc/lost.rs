//! Directories of the installed system that the image replaces at boot: what is written there beforehand is not seen.

use anyhow::Result;

use super::{Files, PrepareRoot};
use crate::command_line;

/// A directory that is another one when the system runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its path in the running system: `/etc`, `/var`, `/var/home`.
    pub path: String,
    /// Why: half a sentence for people.
    pub because: String,
}

impl Lost {
    /// Whether a path is in it.
    pub fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Where units and the table of file systems are.
const UNITS: [&str; 2] = ["usr/lib/systemd/system", "etc/systemd/system"];
const FSTAB: &str = "etc/fstab";

/// The directories that the image itself replaces, whatever the kernel arguments are.
pub(super) fn load(files: &Files<'_>, prepare_root: &PrepareRoot) -> Result<Vec<Lost>> {
    let mut lost = Vec::new();
    if prepare_root.transient_etc {
        lost.push(Lost {
            path: "/etc".to_owned(),
            because: "prepare-root.conf of the image has [etc] transient = true".to_owned(),
        });
    }
    for directory in UNITS {
        for name in files.names(directory).iter().filter(|name| name.ends_with(".mount")) {
            let path = format!("{directory}/{name}");
            // An empty file and a link to /dev/null mask a unit: neither says where.
            let text = files.text(&path)?.unwrap_or_default();
            let place = text.lines().find_map(|line| line.trim().strip_prefix("Where="));
            mounted(place.unwrap_or_default(), &path, &mut lost);
        }
    }
    let table = files.text(FSTAB)?.unwrap_or_default();
    for line in table.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut fields = line.split_whitespace().skip(1);
        let (place, options) =
            (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        if !options.split(',').any(|option| option == "noauto") {
            mounted(place, FSTAB, &mut lost);
        }
    }
    Ok(lost)
}

fn mounted(place: &str, by: &str, lost: &mut Vec<Lost>) {
    /// Brought by systemd, and skipped at boot unless somebody made an image for it.
    const MACHINES: &str = "/var/lib/machines";
    let place = place.trim().trim_end_matches('/');
    let counts = ["/etc", "/var"].into_iter().any(|top| {
        place.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if counts && place != MACHINES {
        lost.push(Lost {
            path: place.to_owned(),
            because: format!("{by} of the image mounts something over {place}"),
        });
    }
}

/// What kernel arguments replace besides (systemd-volatile-root(8)).
pub fn lost_by_arguments(arguments: &[String]) -> Vec<Lost> {
    const KEY: &str = "systemd.volatile=";
    let line = arguments.join(" ");
    let last = command_line::split(&line).filter_map(|word| word.strip_prefix(KEY)).last();
    let paths: &[&str] = match last {
        Some("yes" | "1" | "true" | "on") => &["/etc", "/var"],
        Some("state") => &["/var"],
        _ => &[],
    };
    let because = format!("the kernel argument {KEY}{} empties it", last.unwrap_or_default());
    paths.iter().map(|path| Lost { path: (*path).to_owned(), because: because.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_held_with_what_is_below() {
        let lost = Lost { path: "/var".to_owned(), because: String::new() };
        assert!(lost.holds("/var") && lost.holds("/var/home/ann") && !lost.holds("/variant"));
    }

    #[test]
    fn volatile_systems_lose_what_systemd_empties() {
        let lost = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
            lost_by_arguments(&arguments).into_iter().map(|lost| lost.path).collect::<Vec<_>>()
        };
        assert_eq!(lost(&["systemd.volatile=state"]), ["/var"]);
        assert_eq!(lost(&["quiet", "systemd.volatile=yes"]), ["/etc", "/var"]);
        assert!(lost(&["systemd.volatile=yes", "systemd.volatile=no"]).is_empty());
        assert!(lost(&["systemd.volatile=overlay", "ro"]).is_empty());
    }
}
