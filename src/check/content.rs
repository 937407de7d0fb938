//! Rules about an image's files: what `bootc container lint` asks for, and what experience adds.

use super::facts::{Backend, ContentFacts, Facts};
use super::policy::Policy;
use super::{Judge, Outcome, Violation};

pub(super) const JUDGES: &[(&str, Judge)] = &[
    ("content.importable", importable),
    ("content.utf8-names", utf8_names),
    ("content.single-kernel", single_kernel),
    ("content.initramfs", initramfs),
    ("content.boot-payload", boot_payload),
    ("content.kargs-valid", kargs),
    ("content.install-config-valid", install_config),
    ("content.root-config-valid", root_config),
    ("content.os-release", os_release),
    ("content.base-directories", base_directories),
    ("content.etc-usr-etc", etc_usr_etc),
    ("content.boot-empty", boot_empty),
    ("content.var-empty", var_empty),
    ("content.run-tmp-empty", run_tmp_empty),
    ("content.no-machine-id", no_machine_id),
    ("content.no-host-keys", no_host_keys),
    ("content.no-random-seed", no_random_seed),
    ("content.no-passwords", no_passwords),
    ("content.setuid", setuid),
];

/// Violations of one rule that are told one by one.
const MOST: usize = 20;

/// Permission bits.
const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const OTHERS_WRITE: u16 = 0o022;

/// The files, if they could be read.
fn with(facts: &Facts, judge: impl FnOnce(&ContentFacts) -> Outcome) -> Outcome {
    match &facts.content {
        Some(content) if content.broken.is_none() => judge(content),
        _ => Outcome::skipped("the layers cannot be read: see content.importable"),
    }
}

/// A violation for each of a list, and one for the rest of a long one.
fn each<T>(list: &[T], violation: impl Fn(&T) -> Violation) -> Outcome {
    let mut violations: Vec<_> = list.iter().take(MOST).map(violation).collect();
    if let Some(more) = list.len().checked_sub(MOST).filter(|more| *more > 0) {
        violations.push(Violation::new(format!("and {more} more")));
    }
    Outcome::of(violations)
}

fn importable(facts: &Facts, _: &Policy) -> Outcome {
    let broken = facts.content.as_ref().and_then(|content| content.broken.clone());
    Outcome::unless(broken.map(Violation::new))
}

fn utf8_names(facts: &Facts, _: &Policy) -> Outcome {
    let names = facts.content.as_ref().map_or(&[][..], |content| &content.bad_names);
    each(names, |name| Violation::at(name.clone(), format!("/{name} is not UTF-8")))
}

fn single_kernel(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| match &content.kernels[..] {
        [_] => Outcome::Passed,
        [] => Outcome::of(vec![Violation::new("no directory of /usr/lib/modules has a vmlinuz")]),
        several => Outcome::of(vec![Violation::new(format!(
            "/usr/lib/modules has {} kernels: {}",
            several.len(),
            several.join(", ")
        ))]),
    })
}

fn initramfs(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        let [version] = &content.kernels[..] else {
            return Outcome::skipped("there is not exactly one kernel");
        };
        let place = format!("usr/lib/modules/{version}/initramfs.img");
        let Some(initramfs) = content.initramfs else {
            if content.unified {
                return Outcome::Passed;
            }
            let message = format!("/{place} is missing");
            return Outcome::of(vec![Violation::at(place, message)]);
        };
        let (has, needed) = match content.backend {
            Backend::Ostree => (initramfs.ostree, "usr/lib/ostree/ostree-prepare-root"),
            Backend::Composefs => (initramfs.bootc, "usr/lib/bootc/initramfs-setup"),
        };
        match has {
            Some(true) => Outcome::Passed,
            Some(false) => {
                let message = format!("/{place} has no {needed}, which mounts the root");
                Outcome::of(vec![Violation::at(place, message)])
            }
            None => Outcome::skipped(format!(
                "/{place} is compressed in a way that is not read here, or damaged"
            )),
        }
    })
}

/// A violation about a file, if there is a reason.
fn flaw(facts: &Facts, place: &str, of: impl Fn(&ContentFacts) -> Option<&String>) -> Outcome {
    with(facts, |content| {
        Outcome::unless(of(content).map(|reason| Violation::at(place, reason.clone())))
    })
}

fn boot_payload(facts: &Facts, _: &Policy) -> Outcome {
    flaw(facts, "usr/lib/bootupd/updates", |content| content.boot_payload.as_ref())
}

fn kargs(facts: &Facts, _: &Policy) -> Outcome {
    flaw(facts, "usr/lib/bootc/kargs.d", |content| content.kargs.as_ref())
}

fn install_config(facts: &Facts, _: &Policy) -> Outcome {
    flaw(facts, "usr/lib/bootc/install", |content| content.install.as_ref())
}

fn root_config(facts: &Facts, _: &Policy) -> Outcome {
    flaw(facts, "usr/lib/ostree/prepare-root.conf", |content| content.root_config.as_ref())
}

fn os_release(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |content| {
        let lacks =
            |key: &&String| content.os_release.get(*key).is_none_or(|value| value.is_empty());
        let missing: Vec<&String> = policy.os_release.iter().filter(lacks).collect();
        each(&missing, |key| {
            Violation::at("usr/lib/os-release", format!("/usr/lib/os-release has no {key}"))
        })
    })
}

fn base_directories(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| each(&content.missing_base, |what| Violation::new(what.clone())))
}

fn etc_usr_etc(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        let found = content.usr_etc.then(|| {
            Violation::at(
                "usr/etc",
                "a layer has files below /usr/etc, and one has files below /etc",
            )
        });
        Outcome::unless(found)
    })
}

fn boot_empty(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        each(&content.boot, |path| Violation::at(path.clone(), format!("/{path} is not installed")))
    })
}

fn var_empty(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        each(&content.var, |path| {
            Violation::at(path.clone(), format!("/{path} reaches new machines only"))
        })
    })
}

fn run_tmp_empty(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        each(&content.run_tmp, |path| {
            Violation::at(path.clone(), format!("/{path} is not installed"))
        })
    })
}

fn no_machine_id(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        let text = content.machine_id.as_deref().map(str::trim).unwrap_or_default();
        let found = (!matches!(text, "" | "uninitialized")).then(|| {
            Violation::at(
                "etc/machine-id",
                "/etc/machine-id has an ID, which all machines would share",
            )
        });
        Outcome::unless(found)
    })
}

fn no_host_keys(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        each(&content.host_keys, |path| {
            Violation::at(
                path.clone(),
                format!("/{path} is a host key, which all machines would share"),
            )
        })
    })
}

fn no_random_seed(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        each(&content.random_seeds, |path| {
            Violation::at(
                path.clone(),
                format!("/{path} is a random seed, which all machines would share"),
            )
        })
    })
}

fn no_passwords(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |content| {
        each(&content.passwords, |(account, what)| {
            Violation::at("etc/shadow", format!("the account {account:?} has {what}"))
        })
    })
}

fn setuid(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |content| {
        let mut violations = Vec::new();
        for found in &content.set_id {
            let bit = match (found.mode & SET_UID != 0, found.mode & SET_GID != 0) {
                (true, true) => "set-uid and set-gid",
                (true, false) => "set-uid",
                _ => "set-gid",
            };
            let path = &found.path;
            if found.mode & OTHERS_WRITE != 0 {
                let message =
                    format!("/{path} is {bit}, and others than its owner can write to it");
                violations.push(Violation::at(path.clone(), message));
            } else if !policy.knows_set_id(path) {
                let message = format!(
                    "/{path} is {bit} (owner {}), and the policy does not know it",
                    found.uid
                );
                violations.push(Violation::at(path.clone(), message));
            }
        }
        each(&violations, Violation::clone)
    })
}
