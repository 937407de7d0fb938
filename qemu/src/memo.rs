//! What was found out about this machine, kept for the next process: one small file for each question, in the user's cache.
//!
//! ```text
//! $XDG_CACHE_HOME/bootpress-machine/UUID     the question, an empty line, the answer; the UUID is version 5 of the question
//! ```
//!
//! A cache that cannot be read or written costs time and nothing else, so none of its errors is told.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The directory below the user's cache.
const NAME: &str = "bootpress-machine";

/// The answer to a question, if one is known. `cache` is the user's cache, see [`cache`].
pub(crate) fn recall(cache: &Path, question: &str) -> Option<String> {
    let text = fs::read_to_string(file(cache, question)).ok()?;
    let (asked, answer) = text.split_once("\n\n")?;
    (asked == question.trim_end()).then(|| answer.trim_end().to_owned())
}

/// Keeps the answer to a question.
pub(crate) fn keep(cache: &Path, question: &str, answer: &str) {
    let file = file(cache, question);
    let write = || -> std::io::Result<()> {
        let directory = file.parent().unwrap_or(cache);
        fs::create_dir_all(directory)?;
        let mut whole = tempfile::NamedTempFile::new_in(directory)?;
        write!(whole, "{}\n\n{answer}\n", question.trim_end())?;
        whole.persist(&file)?;
        Ok(())
    };
    // Another process will find it out once more.
    let _ = write();
}

/// The user's cache, if there is one.
pub(crate) fn cache() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")))
}

fn file(cache: &Path, question: &str) -> PathBuf {
    let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, question.trim_end().as_bytes());
    cache.join(NAME).join(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_with_their_questions() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(recall(cache.path(), "a\nb"), None);
        keep(cache.path(), "a\nb\n", "no: because");
        assert_eq!(recall(cache.path(), "a\nb").as_deref(), Some("no: because"));
        assert_eq!(recall(cache.path(), "a\nc"), None);
        fs::write(file(cache.path(), "a\nc"), "a\nb\n\nforged\n").unwrap();
        assert_eq!(recall(cache.path(), "a\nc"), None, "the answer to another question");
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        keep(Path::new("/dev/null"), "q", "a");
        assert_eq!(recall(Path::new("/dev/null"), "q"), None);
    }
}
