//! Labels as composefs-rs finds them for the images that it makes: another rule than libselinux', and the digests of images depend on it.
//!
//! ```text
//! file_contexts, .local, .homedirs: the last line whose expression matches all of a path wins, however exact others are
//! file_contexts.subs, .subs_dist: a directory that counts as another one, with all that is below it
//! ```
//!
//! Source: composefs-boot 0.9.4, `selabel.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

use super::{LARGEST, MOST_LINES, too_large};
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::tree::Tree;

/// States that are kept.
const CACHE_BYTES: usize = 64 << 20;
/// No policy comes near it; nested repetitions could.
const NFA_BYTES: usize = 128 << 20;
/// How often the states may be thrown away and made anew; expressions that have states without end would keep that busy for hours.
const MOST_CLEARS: usize = 8;

/// The labels that composefs-rs gives.
pub struct ImagePolicy {
    aliases: HashMap<Box<[u8]>, Box<[u8]>>,
    /// In order of precedence; `None`: `<<none>>`.
    labels: Vec<Option<Arc<[u8]>>>,
    matcher: Mutex<(DFA, Cache)>,
}

impl std::fmt::Debug for ImagePolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImagePolicy").field("labels", &self.labels.len()).finish_non_exhaustive()
    }
}

impl ImagePolicy {
    /// Reads the policy of a tree that has `/etc`; `None`: its configuration names none. Whether SELinux is enabled does not count.
    ///
    /// `Unsupported`: the policy is not there, or an expression uses what only PCRE has. `Corrupt`: a line that is none.
    pub fn load(root: &Tree, contents: &ContentStore) -> Result<Option<Self>> {
        let read = |path: &str| -> Result<Option<String>> {
            let Some(content) = root.file(path) else { return Ok(None) };
            if content.size > LARGEST {
                return Err(too_large(path, &format!("{} bytes", content.size)));
            }
            let bytes = contents.bytes(content).with_context(|| format!("reading {path}"))?;
            String::from_utf8(bytes).map(Some).map_err(|_| corrupt(path, "it is not UTF-8"))
        };
        let Some(config) = read("etc/selinux/config")? else { return Ok(None) };
        let Some(policy) = policy_type(&config) else { return Ok(None) };
        if policy.contains('/') || policy == ".." {
            return Err(corrupt("selinux/config", format!("SELINUXTYPE is {policy}")));
        }
        let base = format!("etc/selinux/{policy}/contexts/files/file_contexts");
        let mut patterns = Vec::new();
        let mut labels = Vec::new();
        for suffix in ["", ".local", ".homedirs"] {
            let path = format!("{base}{suffix}");
            match read(&path)? {
                Some(text) => parse(&path, &text, &mut patterns, &mut labels)?,
                None if suffix.is_empty() => {
                    let what = format!(
                        "the image configures the SELinux policy {policy}, but has no {path}"
                    );
                    return Err(unsupported(what, Some("install the policy in the image")));
                }
                None => {}
            }
        }
        let mut aliases = HashMap::new();
        for suffix in [".subs", ".subs_dist"] {
            for line in read(&format!("{base}{suffix}"))?.unwrap_or_default().lines() {
                let mut words = line.split_whitespace();
                if let (Some(from), Some(to)) = (words.next(), words.next())
                    && !from.starts_with('#')
                {
                    aliases.insert(from.as_bytes().into(), to.as_bytes().into());
                }
            }
        }
        // The last line is the first that is tried.
        patterns.reverse();
        labels.reverse();
        let matcher = Mutex::new(compile(&patterns)?);
        Ok(Some(Self { aliases, labels, matcher }))
    }

    /// As what a path counts, if it is another one.
    pub fn alias(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.aliases.get(path).map(|to| to.to_vec())
    }

    /// The label of an absolute path, without final NUL. `None`: it has none.
    pub fn label(&self, path: &[u8], st_mode: u32) -> Result<Option<Arc<[u8]>>> {
        let letter = match st_mode & 0o170_000 {
            0o010_000 => b'p',
            0o020_000 => b'c',
            0o040_000 => b'd',
            0o060_000 => b'b',
            0o120_000 => b'l',
            0o140_000 => b's',
            _ => b'-',
        };
        let key = [path, &[letter]].concat();
        let mut matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner);
        let (dfa, cache) = &mut *matcher;
        let input = Input::new(&key).anchored(Anchored::Yes);
        let found = dfa.try_search_fwd(cache, &input);
        let found = found.map_err(|error| too_complex(&error.to_string()))?;
        Ok(found.and_then(|found| self.labels[found.pattern().as_usize()].clone()))
    }
}

/// The first `SELINUXTYPE`.
fn policy_type(config: &str) -> Option<String> {
    let mut pairs = config.lines().filter_map(|line| line.split_once('='));
    let found = pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case("SELINUXTYPE"));
    found.map(|(_, value)| value.trim().to_owned())
}

/// Adds the expressions and labels of a file.
fn parse(
    path: &str,
    text: &str,
    patterns: &mut Vec<String>,
    labels: &mut Vec<Option<Arc<[u8]>>>,
) -> Result<()> {
    for (line, number) in text.lines().zip(1..) {
        let wrong = |what: &str| corrupt(format!("{path}:{number}"), what);
        let mut words = line.split_whitespace();
        let Some(regex) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let second = words.next().ok_or_else(|| wrong("the line has no label"))?;
        let (letter, label) = match second.strip_prefix('-') {
            Some(letter @ ("b" | "c" | "d" | "p" | "l" | "s" | "-")) => {
                (letter, words.next().ok_or_else(|| wrong("the line has no label"))?)
            }
            Some(_) => return Err(wrong("a file type that there is not")),
            None => (".", second),
        };
        patterns.push(format!("^({regex}){letter}$"));
        labels.push((label != "<<none>>").then(|| label.as_bytes().into()));
        if patterns.len() > MOST_LINES {
            return Err(too_large(path, &format!("more than {MOST_LINES} lines")));
        }
    }
    Ok(())
}

fn compile(patterns: &[String]) -> Result<(DFA, Cache)> {
    let syntax = syntax::Config::new().unicode(false).utf8(false).line_terminator(0);
    for pattern in patterns {
        syntax::parse_with(pattern, &syntax).map_err(|_| {
            let what = format!("the expression {pattern} of file_contexts cannot be matched");
            unsupported(what, Some("only what is not a regular language in it is not supported"))
        })?;
    }
    let nfa = thompson::Config::new().utf8(false).nfa_size_limit(Some(NFA_BYTES));
    let config = DFA::config()
        .cache_capacity(CACHE_BYTES)
        .skip_cache_capacity_check(true)
        .minimum_cache_clear_count(Some(MOST_CLEARS));
    let built = DFA::builder().syntax(syntax).thompson(nfa).configure(config).build_many(patterns);
    let dfa = built.map_err(|error| too_complex(&error.to_string()))?;
    let cache = dfa.create_cache();
    Ok((dfa, cache))
}

fn too_complex(reason: &str) -> anyhow::Error {
    unsupported(format!("the file_contexts are too complex: {reason}"), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Kind, Metadata};

    fn policy(files: &[(&str, &str)]) -> ImagePolicy {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut tree = Tree::new(Metadata::root(0o755));
        let config = "SELINUX=disabled\n#SELINUXTYPE=no\nSELINUXTYPE = test\n";
        let base = "etc/selinux/test/contexts/files/file_contexts";
        let named = files.iter().map(|(name, text)| (format!("{base}{name}"), *text));
        for (path, text) in named.chain([("etc/selinux/config".to_owned(), config)]) {
            let (above, name) = path.rsplit_once('/').unwrap();
            let above = tree.make_directories(above, &Metadata::root(0o755));
            let content = contents.insert_bytes(text.as_bytes()).unwrap();
            tree.create(above, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
        }
        ImagePolicy::load(&tree, &contents).unwrap().unwrap()
    }

    #[test]
    fn last_line_wins_even_over_an_exact_path() {
        let policy = policy(&[
            ("", "/usr/exact exact\n/usr(/.*)? usr\n/dev/x -c char\n/a|/b alt\n"),
            (".homedirs", "/home/.* home\n/none <<none>>\n"),
            (".local", "/home/me local\n"),
            (".subs_dist", "/lib /usr/lib\n"),
        ]);
        let label = |path: &str, mode| {
            let label = policy.label(path.as_bytes(), mode).unwrap();
            label.map_or("none".to_owned(), |label| String::from_utf8(label.to_vec()).unwrap())
        };
        assert_eq!(label("/usr/exact", 0o100_644), "usr");
        // The files of homes come last, and win over local ones.
        assert_eq!(label("/home/me", 0o040_755), "home");
        assert_eq!(label("/none", 0o100_644), "none");
        assert_eq!(label("/dev/x", 0o020_644), "char");
        assert_eq!(label("/dev/x", 0o060_644), "none");
        // Alternatives are of the whole path, unlike with libselinux.
        assert_eq!(
            (label("/a", 0o100_644), label("/ac", 0o100_644)),
            ("alt".into(), "none".into())
        );
        assert_eq!(policy.alias(b"/lib").as_deref(), Some(&b"/usr/lib"[..]));
        assert_eq!(policy.alias(b"/lib/x"), None);
    }
}
