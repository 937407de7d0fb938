//! What QEMU says on standard error when this machine, and not the guest, is to blame.

/// What a line contains that means that QEMU cannot go on. Sources: `accel/kvm/kvm-all.c`, `target/i386/kvm/kvm.c`,
/// `softmmu/physmem.c` and `softmmu/cpus.c` of QEMU 7.2 to 10.0; glibc's and GLib's assertions.
const FATAL: [&str; 12] = [
    "KVM internal error",
    "KVM: entry failed",
    "kvm run failed",
    "failed to initialize kvm",
    "failed to initialize KVM",
    "Could not access KVM kernel module",
    "failed to set MSR",
    "hardware error:",
    "Assertion `",
    "assertion failed:",
    "Cannot allocate memory",
    "cannot set up guest memory",
];

/// Follows `KVM internal error` some lines later, and says more.
const DETAIL: &str = "emulation failure";

/// The first fatal line of QEMU's messages, with what explains it.
pub(crate) fn fatal(messages: &str) -> Option<String> {
    let is_fatal = |line: &&str| FATAL.iter().any(|part| line.contains(part));
    let line = messages.lines().find(is_fatal)?.trim();
    let detail = messages.lines().any(|line| line.trim() == DETAIL);
    Some(if detail { format!("{line}, {DETAIL}") } else { line.to_owned() })
}

/// The line of QEMU's messages that says most about its end.
pub(crate) fn cause(messages: &str) -> Option<String> {
    fatal(messages).or_else(|| messages.lines().last().map(|line| line.trim().to_owned()))
}

/// What QEMU's driver says of a qcow2 file that does not make sense. Of one that it may not write it sends no event.
pub(crate) fn damage(messages: &str) -> Option<String> {
    let told = messages.lines().find_map(|line| line.trim().strip_prefix("qcow2: "))?;
    let end = told.find("; further").unwrap_or(told.len());
    Some(told[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_error_of_kvm_is_told_with_its_detail() {
        let said = "KVM internal error. Suberror: 1\nextra data[0]: 0x1\nemulation failure\nEAX=00000011\n";
        let expected = "KVM internal error. Suberror: 1, emulation failure";
        assert_eq!(fatal(said).as_deref(), Some(expected));
        let aborted = "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69\nqemu-system-x86_64: kvm.c:3183: Assertion `x' failed.";
        assert!(fatal(aborted).unwrap().ends_with("failed to set MSR 0x10a to 0x69"));
    }

    #[test]
    fn damage_is_told_without_what_follows() {
        let said = "qcow2: Image is corrupt: Cluster allocation offset 0x50200 unaligned; further non-fatal corruption events will be suppressed";
        let expected = "Image is corrupt: Cluster allocation offset 0x50200 unaligned";
        assert_eq!(damage(said).as_deref(), Some(expected));
        assert_eq!((damage(""), fatal(said)), (None, None));
    }

    #[test]
    fn warnings_are_not_fatal() {
        let said = "qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.07H";
        assert_eq!(fatal(said), None);
        assert_eq!(cause(said).as_deref(), Some(said));
        assert_eq!(cause(""), None);
    }
}
