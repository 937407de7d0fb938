//! All expressions that can match a file type in one automaton, built when the first such file comes.
//!
//! A lazy DFA looks at each byte of a path once, however many thousand expressions there are, and tells the first of them, in
//! order of precedence, that matches.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

use super::file_contexts::Spec;
use super::pattern::translate;
use crate::error::unsupported;

/// States that are kept, a file type: policies of 6,000 lines need a third of it for all paths of a system.
const CACHE_BYTES: usize = 32 << 20;
/// No policy comes near it; nested repetitions could.
const NFA_BYTES: usize = 256 << 20;

/// Finds the line for a path.
pub(super) struct Matchers {
    /// In order of precedence.
    specs: Vec<Spec>,
    /// For `regex-automata`; one for each of `specs`.
    patterns: Vec<String>,
    /// By type bits, and the first of `specs` that it has.
    matchers: Mutex<BTreeMap<(u32, usize), Shared>>,
}

/// Each search needs the automaton's cache for itself.
type Shared = Arc<Mutex<Matcher>>;

impl Matchers {
    /// `specs` in order of precedence. Fails if an expression cannot be matched.
    pub(super) fn new(specs: Vec<Spec>) -> Result<Self> {
        let mut patterns = Vec::with_capacity(specs.len());
        for spec in &specs {
            let pattern = translate(&spec.regex).map_err(|reason| refusal(spec, &reason))?;
            let parsed = syntax::parse_with(&pattern, &syntax());
            parsed.map_err(|error| refusal(spec, &error.to_string()))?;
            patterns.push(pattern);
        }
        Ok(Self { specs, patterns, matchers: Mutex::default() })
    }

    /// The label of a path, after substitutions.
    pub(super) fn label(&self, path: &[u8], st_mode: u32) -> Result<Option<Arc<[u8]>>> {
        let mut first = 0;
        loop {
            let matcher = self.matcher(st_mode & 0o170_000, first)?;
            let found = matcher.lock().unwrap_or_else(PoisonError::into_inner).find(path)?;
            let Some(found) = found else { return Ok(None) };
            let spec = &self.specs[found];
            if spec.stem_fits(path) {
                return Ok(spec.label.clone());
            }
            // Only an expression such as `/usr/?` comes here: libselinux never compares it with `/usr`. Go on behind it.
            first = found + 1;
        }
    }

    fn matcher(&self, type_bits: u32, first: usize) -> Result<Shared> {
        let mut matchers = self.matchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matcher) = matchers.get(&(type_bits, first)) {
            return Ok(matcher.clone());
        }
        let fits = |i: &usize| self.specs[*i].file_type.is_none_or(|bits| bits == type_bits);
        let lines: Vec<usize> = (first..self.specs.len()).filter(fits).collect();
        let patterns: Vec<&str> = lines.iter().map(|&i| &*self.patterns[i]).collect();
        let matcher = Arc::new(Mutex::new(Matcher::new(lines, &patterns)?));
        matchers.insert((type_bits, first), matcher.clone());
        Ok(matcher)
    }
}

impl fmt::Debug for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matchers").field("specs", &self.specs.len()).finish_non_exhaustive()
    }
}

/// Some of the expressions.
struct Matcher {
    /// Which.
    lines: Vec<usize>,
    dfa: DFA,
    cache: Cache,
}

impl Matcher {
    fn new(lines: Vec<usize>, patterns: &[&str]) -> Result<Self> {
        let nfa = thompson::Config::new().utf8(false).nfa_size_limit(Some(NFA_BYTES));
        let config = DFA::config().cache_capacity(CACHE_BYTES).skip_cache_capacity_check(true);
        let dfa = DFA::builder()
            .syntax(syntax())
            .thompson(nfa)
            .configure(config)
            .build_many(patterns)
            .map_err(|error| {
                unsupported(format!("the file_contexts are too complex: {error}"), None)
            })?;
        let cache = dfa.create_cache();
        Ok(Self { lines, dfa, cache })
    }

    /// The first expression that matches all of a path, by its place among all.
    fn find(&mut self, path: &[u8]) -> Result<Option<usize>> {
        let input = Input::new(path).anchored(Anchored::Yes);
        let found = self.dfa.try_search_fwd(&mut self.cache, &input);
        let found = found.map_err(|error| anyhow!("{error}"))?;
        Ok(found.map(|found| self.lines[found.pattern().as_usize()]))
    }
}

/// Bytes, not characters; `.` matches all of them. So libselinux compiles for PCRE.
fn syntax() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true)
}

fn refusal(spec: &Spec, reason: &str) -> anyhow::Error {
    let what = format!(
        "{}: the regular expression {} cannot be matched: {reason}",
        spec.origin,
        String::from_utf8_lossy(&spec.regex)
    );
    unsupported(what, None)
}
