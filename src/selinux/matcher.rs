//! All expressions that can match a file type in one automaton, built when the first such file comes.
//!
//! A lazy DFA looks at each byte of a path once, however many thousand expressions there are, and tells the first of them, in
//! order of precedence, that matches. Where that one does not count, a second automaton tells all that match.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, PatternSet};

use super::file_contexts::Spec;
use super::pattern::{MOST_STEMS, has_meta_characters, translate};
use crate::error::unsupported;

/// States that are kept, a file type: policies of 6,000 lines need a third of it for all paths of a system.
const CACHE_BYTES: usize = 32 << 20;
/// No policy comes near it; nested repetitions could.
const NFA_BYTES: usize = 64 << 20;
/// How often the states may be thrown away and made anew. Policies never fill the cache; expressions that have states without
/// end would keep it busy for hours.
const MOST_CLEARS: usize = 8;

/// Finds the line for a path.
pub(super) struct Matchers {
    /// In order of precedence.
    specs: Vec<Spec>,
    /// For `regex-automata`; one for each of `specs`.
    patterns: Vec<String>,
    /// By type bits, scope, and what they look for.
    matchers: Mutex<BTreeMap<(u32, Scope, Search), Shared>>,
}

/// Which of the lines are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    /// Expressions that take labels away.
    None,
    /// Expressions with so many stems.
    Depth(usize),
}

impl Scope {
    fn has(self, spec: &Spec) -> bool {
        match self {
            Self::All => true,
            Self::None => spec.is_none(),
            Self::Depth(depth) => has_meta_characters(&spec.regex) && spec.stems.len() == depth,
        }
    }
}

/// What an automaton looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Search {
    /// The first expression that matches.
    First,
    /// All of them; slower.
    All,
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
        let type_bits = st_mode & 0o170_000;
        let Some(found) = self.find(path, type_bits, Scope::All)? else { return Ok(None) };
        let spec = &self.specs[found];
        let is_exact = !has_meta_characters(&spec.regex);
        // Few lines take labels away, so that this one is seldom hidden by a line before it.
        if is_exact || spec.label.is_none() || self.find(path, type_bits, Scope::None)?.is_none() {
            return Ok(spec.label.clone());
        }
        self.deepest(path, type_bits)
    }

    /// The label as libselinux ≥ 3.8 finds it: directory by directory, from the deepest that lines name up to the root, in each the last
    /// line that matches and comes behind what was found before. One that takes the label away ends the search.
    fn deepest(&self, path: &[u8], type_bits: u32) -> Result<Option<Arc<[u8]>>> {
        let mut best: Option<usize> = None;
        for depth in (0..=MOST_STEMS).rev() {
            let Some(found) = self.find(path, type_bits, Scope::Depth(depth))? else { continue };
            // In order of precedence: what is smaller comes later in the files.
            if best.is_none_or(|best| found < best) {
                if self.specs[found].label.is_none() {
                    return Ok(None);
                }
                best = Some(found);
            }
        }
        Ok(best.and_then(|best| self.specs[best].label.clone()))
    }

    /// The first line of a scope, in order of precedence, that matches a path.
    fn find(&self, path: &[u8], type_bits: u32, scope: Scope) -> Result<Option<usize>> {
        let Some(matcher) = self.matcher(type_bits, scope, Search::First)? else { return Ok(None) };
        let found = matcher.lock().unwrap_or_else(PoisonError::into_inner).first(path)?;
        match found {
            Some(found) if !self.specs[found].stems_fit(path) => {}
            found => return Ok(found),
        }
        // Only an expression such as `/usr/?` comes here: libselinux never compares it with `/usr`. Which others match?
        let Some(matcher) = self.matcher(type_bits, scope, Search::All)? else { return Ok(None) };
        let mut matcher = matcher.lock().unwrap_or_else(PoisonError::into_inner);
        let found = matcher.all(path)?.find(|&line| self.specs[line].stems_fit(path));
        Ok(found)
    }

    /// `None`: there are no such lines.
    fn matcher(&self, type_bits: u32, scope: Scope, search: Search) -> Result<Option<Shared>> {
        let mut matchers = self.matchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matcher) = matchers.get(&(type_bits, scope, search)) {
            return Ok(Some(matcher.clone()));
        }
        let fits = |i: &usize| {
            let spec = &self.specs[*i];
            spec.file_type.is_none_or(|bits| bits == type_bits) && scope.has(spec)
        };
        let lines: Vec<usize> = (0..self.specs.len()).filter(fits).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let patterns: Vec<&str> = lines.iter().map(|&i| &*self.patterns[i]).collect();
        let matcher = Arc::new(Mutex::new(Matcher::new(lines, &patterns, search)?));
        matchers.insert((type_bits, scope, search), matcher.clone());
        Ok(Some(matcher))
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
    /// Room for the patterns that match.
    found: PatternSet,
}

impl Matcher {
    fn new(lines: Vec<usize>, patterns: &[&str], search: Search) -> Result<Self> {
        let kind = match search {
            Search::First => MatchKind::LeftmostFirst,
            Search::All => MatchKind::All,
        };
        let nfa = thompson::Config::new().utf8(false).nfa_size_limit(Some(NFA_BYTES));
        let config = DFA::config()
            .match_kind(kind)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(MOST_CLEARS));
        let dfa = DFA::builder()
            .syntax(syntax())
            .thompson(nfa)
            .configure(config)
            .build_many(patterns)
            .map_err(|error| too_complex(&error.to_string()))?;
        let cache = dfa.create_cache();
        let found = PatternSet::new(lines.len());
        Ok(Self { lines, dfa, cache, found })
    }

    /// The first expression that matches all of a path, by its place among all.
    fn first(&mut self, path: &[u8]) -> Result<Option<usize>> {
        let input = Input::new(path).anchored(Anchored::Yes);
        let found = self.dfa.try_search_fwd(&mut self.cache, &input);
        let found = found.map_err(|error| too_complex(&error.to_string()))?;
        Ok(found.map(|found| self.lines[found.pattern().as_usize()]))
    }

    /// All expressions that match all of a path, by their places, in order of precedence.
    fn all(&mut self, path: &[u8]) -> Result<impl Iterator<Item = usize>> {
        let input = Input::new(path).anchored(Anchored::Yes);
        self.found.clear();
        self.dfa
            .try_which_overlapping_matches(&mut self.cache, &input, &mut self.found)
            .map_err(|error| too_complex(&error.to_string()))?;
        Ok(self.found.iter().map(|pattern| self.lines[pattern.as_usize()]))
    }
}

/// Bytes, not characters; `.` matches all of them. So libselinux compiles for PCRE.
fn syntax() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true)
}

fn too_complex(reason: &str) -> anyhow::Error {
    unsupported(format!("the file_contexts are too complex: {reason}"), None)
}

fn refusal(spec: &Spec, reason: &str) -> anyhow::Error {
    let what = format!(
        "{}: the regular expression {} cannot be matched: {reason}",
        spec.origin,
        String::from_utf8_lossy(&spec.regex)
    );
    unsupported(what, None)
}
