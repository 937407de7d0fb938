//! QEMU's own seccomp filter: a QEMU that a guest has taken over starts no program and gets no more rights.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::memo;

/// The value of `-sandbox`; what libvirt gives its machines, too.
pub(crate) const FILTER: &str =
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Whether this QEMU has the filter and this kernel takes it; found out by a machine without anything, once per start of the host.
pub(crate) fn works(qemu: &Path) -> bool {
    static KNOWN: Mutex<BTreeMap<PathBuf, bool>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(works) = known.get(qemu) {
        return *works;
    }
    let changed = fs::metadata(qemu).and_then(|metadata| metadata.modified());
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let question = format!("does {} take {FILTER}?\n{changed:?}\nboot {boot_id}", qemu.display());
    let cache = memo::cache();
    let recalled = cache.as_ref().and_then(|cache| memo::recall(cache, &question));
    let works = recalled.map_or_else(|| tried(qemu), |answer| answer == "yes");
    if let Some(cache) = &cache {
        memo::keep(cache, &question, if works { "yes" } else { "no" });
    }
    known.insert(qemu.to_owned(), works);
    works
}

fn tried(qemu: &Path) -> bool {
    let mut command = Command::new(qemu);
    command.args(["-no-user-config", "-nodefaults", "-display", "none", "-machine", "none"]);
    command.args(["-monitor", "stdio", "-sandbox", FILTER]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    // A QEMU that does not take the option ends before it is told to.
    let told = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(b"quit\n").is_ok());
    child.wait().is_ok_and(|status| status.success()) && told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_take_no_filter_are_told_apart() {
        assert!(!tried(Path::new("/bin/false")) && !tried(Path::new("/nowhere")));
    }
}
