//! Labels for paths, from the `file_contexts` that the image brings: what `selabel_lookup` of libselinux answers.
//!
//! ```text
//! path ─subs─► path ─subs_dist─► path ─file_contexts, .homedirs, .local─► label
//! ```
//!
//! Exact paths win over expressions, then the last line wins; only a line with `<<none>>` for a deeper directory wins over later ones for
//! directories above it. That is what libselinux 3.8 and later do; for a policy as semodule sorts it, older ones find the same.

mod composefs;
mod file_contexts;
mod matcher;
mod pattern;

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::tree::Tree;

pub use composefs::ImagePolicy;
use file_contexts::{Spec, Substitutions};
use matcher::Matchers;

/// The policy type when the configuration names none, as libselinux has it.
const DEFAULT_TYPE: &str = "targeted";

/// Bytes of a file of labels, at most; Fedora's has 400 kB.
const LARGEST: u64 = 8 << 20;

/// Lines of all files of labels, at most; Fedora's have 6,500.
const MOST_LINES: usize = 50_000;

/// The file labels of an image's SELinux policy.
#[derive(Debug)]
pub struct Policy {
    /// The directory that they came from, relative to the tree: `usr/etc/selinux/targeted/contexts/files`.
    directory: String,
    /// Applied first.
    subs: Substitutions,
    /// Applied to what the first made.
    subs_dist: Substitutions,
    matchers: Matchers,
}

impl Policy {
    /// Reads the policy of a merged tree; `None` if it has none, or SELinux is disabled in it.
    ///
    /// `Unsupported`: the configuration names a policy that is not there, or a regular expression uses what we cannot match.
    /// `Corrupt`: a line that is none.
    pub fn load(root: &Tree, contents: &ContentStore) -> Result<Option<Self>> {
        let found = ["etc", "usr/etc"].into_iter().find_map(|etc| {
            root.find(etc)?;
            Some((etc, root.file(&format!("{etc}/selinux/config"))?))
        });
        let Some((etc, config)) = found else { return Ok(None) };
        if config.size > LARGEST {
            return Err(too_large("selinux/config", &format!("{} bytes", config.size)));
        }
        let config = contents.bytes(config).context("reading selinux/config")?;
        let Some(policy) = enabled_policy(&String::from_utf8_lossy(&config)) else {
            return Ok(None);
        };
        if policy.contains('/') || policy == ".." {
            return Err(corrupt("selinux/config", format!("SELINUXTYPE is {policy}")));
        }

        let directory = format!("{etc}/selinux/{policy}/contexts/files");
        let read = |name: &str| -> Result<Option<Vec<u8>>> {
            let path = format!("{directory}/{name}");
            let Some(content) = root.file(&path) else { return Ok(None) };
            if content.size > LARGEST {
                return Err(too_large(&path, &format!("{} bytes", content.size)));
            }
            contents.bytes(content).map(Some).with_context(|| format!("reading {path}"))
        };
        let Some(base) = read("file_contexts")? else {
            let what = format!(
                "the image enables the SELinux policy {policy}, but has no {directory}/file_contexts"
            );
            return Err(unsupported(
                what,
                Some("install the policy in the image, or set SELINUX=disabled there"),
            ));
        };
        let mut specs = Vec::new();
        for (name, bytes) in [
            ("file_contexts", Some(base)),
            ("file_contexts.homedirs", read("file_contexts.homedirs")?),
            ("file_contexts.local", read("file_contexts.local")?),
        ] {
            let path = format!("{directory}/{name}");
            specs.extend(file_contexts::parse(&path, &bytes.unwrap_or_default())?);
            if specs.len() > MOST_LINES {
                return Err(too_large(&path, &format!("more than {MOST_LINES} lines")));
            }
        }
        let subs = Substitutions::parse(&read("file_contexts.subs")?.unwrap_or_default());
        let subs_dist = Substitutions::parse(&read("file_contexts.subs_dist")?.unwrap_or_default());
        let matchers = Matchers::new(Spec::by_precedence(specs))
            .with_context(|| format!("reading {directory}/file_contexts"))?;
        Ok(Some(Self { directory, subs, subs_dist, matchers }))
    }

    /// Where the policy was found, relative to the tree.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The label, without final NUL, of what is at an absolute path (`/usr/bin/ls`) and has this `st_mode`.
    /// `None`: the policy leaves it without a label of its own.
    pub fn label(&self, path: &str, st_mode: u32) -> Result<Option<Arc<[u8]>>> {
        let once = self.subs.apply(path.as_bytes());
        let twice = self.subs_dist.apply(&once);
        self.matchers.label(&twice, st_mode).with_context(|| format!("labelling {path}"))
    }
}

fn too_large(path: &str, what: &str) -> anyhow::Error {
    unsupported(format!("{path} has {what}, and no policy needs that"), None)
}

/// The policy's name, if the configuration enables it (ostree's reading: enforcing or permissive; later lines win).
fn enabled_policy(config: &str) -> Option<String> {
    let (mut enabled, mut policy) = (false, None);
    for line in config.lines().map(str::trim) {
        if let Some(mode) = line.strip_prefix("SELINUX=") {
            enabled =
                ["enforcing", "permissive"].iter().any(|on| mode.trim().eq_ignore_ascii_case(on));
        } else if let Some(name) = line.strip_prefix("SELINUXTYPE=") {
            policy = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
        }
    }
    enabled.then(|| policy.unwrap_or_else(|| DEFAULT_TYPE.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Corrupt, Unsupported};
    use crate::tree::{Kind, Metadata};

    const CONFIG: &str = "# SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=test \n";
    const FILES: &str = "selinux/test/contexts/files/file_contexts";

    fn load(files: &[(&str, &str)]) -> Result<Option<Policy>> {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut tree = Tree::new(Metadata::root(0o755));
        for (path, text) in files {
            let (above, name) = path.rsplit_once('/').unwrap();
            let above = tree.make_directories(above, &Metadata::root(0o755));
            let content = contents.insert_bytes(text.as_bytes()).unwrap();
            tree.create(above, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
        }
        Policy::load(&tree, &contents)
    }

    fn policy(file_contexts: &str) -> Policy {
        load(&[("etc/selinux/config", CONFIG), (&format!("etc/{FILES}"), file_contexts)])
            .unwrap()
            .unwrap()
    }

    #[track_caller]
    fn check(policy: &Policy, path: &str, st_mode: u32, expected: &str) {
        let label = policy.label(path, st_mode).unwrap();
        let label = label.map_or("none".to_owned(), |l| String::from_utf8(l.to_vec()).unwrap());
        assert_eq!(label, expected, "{path}");
    }

    #[test]
    fn what_the_configuration_says() {
        assert_eq!(enabled_policy(CONFIG).as_deref(), Some("test"));
        assert_eq!(enabled_policy("SELINUX=Permissive").as_deref(), Some("targeted"));
        assert_eq!(enabled_policy("SELINUX=disabled\nSELINUXTYPE=targeted"), None);
        assert_eq!(enabled_policy(""), None);
        assert!(load(&[]).unwrap().is_none());
        let error = load(&[("etc/selinux/config", CONFIG)]).unwrap_err();
        assert!(error.is::<Unsupported>());
        let up =
            load(&[("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=../x")]).unwrap_err();
        assert!(up.is::<Corrupt>());
    }

    #[test]
    fn etc_wins_over_usr_etc() {
        let usr = [("usr/etc/selinux/config", CONFIG), (&format!("usr/etc/{FILES}"), "/.* usr\n")];
        let policy = load(&usr).unwrap().unwrap();
        assert_eq!(policy.directory(), "usr/etc/selinux/test/contexts/files");
        let mut both = usr.to_vec();
        let path = format!("etc/{FILES}");
        both.extend([("etc/selinux/config", CONFIG), (&path, "/.* etc\n")]);
        check(&load(&both).unwrap().unwrap(), "/a", 0o100_644, "etc");
    }

    #[test]
    fn exact_paths_win_then_the_last_line() {
        let policy = policy(
            "/.* any\n/usr/exact\\.d exact\n/usr(/.*)? usr\n/usr/e.* e\n/usr/none.* <<none>>\n\
             /dev/x -c char\n/dev/x -b block\n  # comment\n\n/dev/.* -d directory\n",
        );
        check(&policy, "/", 0o040_755, "any");
        check(&policy, "/usr", 0o040_755, "usr");
        check(&policy, "/usr/exact.d", 0o100_644, "exact");
        check(&policy, "/usr/exact_d", 0o100_644, "e");
        check(&policy, "/usr/nonesuch", 0o100_644, "none");
        check(&policy, "/dev/x", 0o020_644, "char");
        check(&policy, "/dev/x", 0o060_644, "block");
        check(&policy, "/dev/x", 0o040_755, "directory");
        check(&policy, "/dev/x", 0o140_755, "any");
    }

    #[test]
    fn local_wins_over_homedirs_and_substitutions_are_chained() {
        let base = format!("etc/{FILES}");
        let file = |end: &str| format!("{base}.{end}");
        let policy = load(&[
            ("etc/selinux/config", CONFIG),
            (
                &base,
                "/usr/lib/systemd.* systemd\n/home/[^/]+ base\n/data/.* data\n/home/exact exact\n",
            ),
            (&file("homedirs"), "/home/[^/]+ homedirs\n"),
            (&file("local"), "/home/l[^/]+ local\n"),
            (&file("subs"), "/srv/a /home\n/srv /nowhere\n/srv/b /run\n/all /\n"),
            (&file("subs_dist"), "# comment\n/run /data\n/lib /usr/lib\n"),
        ]);
        let policy = policy.unwrap().unwrap();
        check(&policy, "/home/me", 0o040_755, "homedirs");
        check(&policy, "/home/lisa", 0o040_755, "local");
        check(&policy, "/home/exact", 0o040_755, "exact");
        check(&policy, "/lib/systemd/x", 0o100_755, "systemd");
        check(&policy, "/library/systemd/x", 0o100_755, "none");
        check(&policy, "/srv/b/x", 0o100_755, "data");
        // The last line wins, even if it is the less specific one.
        check(&policy, "/srv/a/me", 0o100_755, "none");
        check(&policy, "/all/home/lisa", 0o100_755, "local");
        check(&policy, "/all", 0o040_755, "none");
    }

    /// Found with matchpathcon 3.4 and 3.11, which agree.
    #[test]
    fn oddities_of_libselinux() {
        let policy = policy(
            "/.* any\n/usr/? -d quirk\n/alt/a|/alt/b alt\n/dd/\\d digit\n/nl.* nl\n/nl.x x\n",
        );
        check(&policy, "/usr", 0o040_755, "any");
        check(&policy, "/alt/ac", 0o100_644, "alt");
        check(&policy, "/alt/b", 0o100_644, "alt");
        check(&policy, "/alt/bx", 0o100_644, "any");
        check(&policy, "/zz/alt/b", 0o100_644, "any");
        check(&policy, "/dd/5", 0o100_644, "digit");
        check(&policy, "/dd/d", 0o100_644, "any");
        check(&policy, "/nl\nx", 0o100_644, "x");
        check(&policy, "/nl\nx\n", 0o100_644, "x");
    }

    /// By the rules of libselinux 3.8 and later.
    #[test]
    fn deeper_none_wins_and_directories_are_literal() {
        let policy = policy(
            "/.* any\n/a/b/.* <<none>>\n/a/.* a\n/c/d/.* deep\n/c/d/e.* <<none>>\n/c/.* c\n/c/d/e/f.* f\n\
             /run/.* run\n/run/lock/subsys/*.ftpd ftpd\n/k/l/.* <<none>>\n/k/l/m.* -- m\n/k/.* k\n/z.* <<none>>\n/.*q later\n",
        );
        check(&policy, "/a/b/x", 0o100_644, "none");
        check(&policy, "/a/x", 0o100_644, "a");
        // The last line of the deeper directory counts there, and then lines of directories above only if they come later.
        check(&policy, "/c/d/e", 0o100_644, "none");
        check(&policy, "/c/d/x", 0o100_644, "c");
        check(&policy, "/c/d/e/fx", 0o100_644, "f");
        check(&policy, "/c/d/e/x", 0o100_644, "none");
        check(&policy, "/k/l/mx", 0o100_644, "k");
        check(&policy, "/k/l/mx", 0o040_755, "none");
        // Both are of the root.
        check(&policy, "/zq", 0o100_644, "later");
        check(&policy, "/z", 0o100_644, "none");
        check(&policy, "/run/lock/subsys/xftpd", 0o100_644, "ftpd");
        check(&policy, "/run/lock/subsysxftpd", 0o100_644, "run");
    }

    #[test]
    fn bad_lines_and_foreign_syntax_are_errors() {
        let load = |line: &str| {
            load(&[("etc/selinux/config", CONFIG), (&format!("etc/{FILES}"), line)])
                .map(drop)
                .unwrap_err()
        };
        for line in ["/only", "/a -x label", "/a --- label"] {
            assert!(load(line).is::<Corrupt>(), "{line}");
        }
        for line in [
            "/a(?!b) l",
            "/(a)\\1 l",
            "/a++ l",
            "/(?>a) l",
            "/a(?<=a) l",
            "/a{,3} l",
            "/\\pL l",
            "/(a l",
        ] {
            let error = load(line);
            assert!(error.is::<Unsupported>(), "{line}: {error:#}");
            assert!(format!("{error:#}").contains("file_contexts:1"), "{error:#}");
        }
    }
}
