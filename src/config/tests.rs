//! Files as people have them, and the verdict on each.

use std::fs;
use std::path::Path;

use super::*;
use crate::error::Unsupported;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

fn read(text: &str, file: &str, lenient: bool) -> Result<Config> {
    read_for(text, file, Reading { lenient, ..Reading::default() })
}

fn read_for(text: &str, file: &str, reading: Reading) -> Result<Config> {
    Config::read(text, file, reading, &|_| Err(std::io::ErrorKind::NotFound.into()))
}

#[test]
fn files_that_people_have_are_accepted() {
    let mut count = 0;
    for entry in fs::read_dir(corpus().join("accepted")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let medium = text.contains("# medium:");
        let purpose = match (medium, text.contains("# anaconda:")) {
            (_, true) => Purpose::Anaconda,
            (true, false) => Purpose::Medium,
            (false, false) => Purpose::Disk,
        };
        let config = read_for(&text, name, Reading { lenient: false, purpose })
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        if medium {
            let error = read(&text, name, false).unwrap_err();
            assert!(error.downcast_ref::<Unsupported>().is_some(), "{name}: {error}");
            let lenient = read(&text, name, true).unwrap();
            assert!(!lenient.warnings.is_empty(), "{name} for a disk");
            assert_eq!(lenient.blueprint.installer, Installer::default());
        }
        let asks = config.blueprint != Blueprint::default() || name == "nothing.json";
        assert!(asks, "{name} asks for nothing");
        count += 1;
    }
    assert!(count >= 10, "only {count} files");
}

#[test]
fn files_that_make_no_sense_are_rejected_with_the_reason() {
    let corpus = fs::read_to_string(corpus().join("rejected.txt")).unwrap();
    let mut count = 0;
    for case in corpus.split("### ").skip(1) {
        let (head, text) = case.split_once('\n').unwrap();
        let (language, expected) = head.split_once(": ").unwrap();
        let (language, purpose) = match language.split_once(" for ") {
            Some((language, "a medium")) => (language, Purpose::Medium),
            Some((language, "anaconda")) => (language, Purpose::Anaconda),
            Some((_, other)) => panic!("{other}"),
            None => (language, Purpose::Disk),
        };
        let file = if language == "json" { "config.json" } else { "config.toml" };
        let expected = expected.replace("config:", &format!("{file}:"));
        match read_for(text, file, Reading { lenient: false, purpose }) {
            Ok(config) => panic!("{expected}: accepted, {config:?}"),
            Err(error) => assert!(error.to_string().contains(&expected), "{expected}: {error}"),
        }
        count += 1;
    }
    assert!(count >= 60, "only {count} cases");
}

#[test]
fn what_cannot_be_honoured_is_a_warning_for_the_lenient_only() {
    let text = "packages = [{ name = \"vim\" }]\ncolour = 1\n[customizations.fdo]\nx = 1\n";
    let error = read(text, "c.toml", false).unwrap_err();
    assert!(error.downcast_ref::<Unsupported>().is_none(), "an unknown key is a mistake: {error}");
    assert_eq!(error.to_string().lines().count(), 2, "{error}");
    let config = read(text, "c.toml", true).unwrap();
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
    let error = read("packages = [\"vim\"]\n", "c.toml", false).unwrap_err();
    assert!(error.downcast_ref::<Unsupported>().is_some(), "{error}");
    // What is merely for another kind of system never fails a build.
    let idle = read("[customizations.fdo]\nx = 1\n", "c.toml", false).unwrap();
    assert_eq!(
        idle.warnings,
        [
            "c.toml:1:1: customizations.fdo has no effect: it configures systems that are installed from packages"
        ]
    );
    // Nonsense stays nonsense.
    assert!(read("[customizations]\nhostname = 5\n", "c.toml", true).is_err());
}

/// Whatever somebody types: an answer, not a crash.
#[test]
fn broken_files_are_errors() {
    let whole = fs::read_to_string(corpus().join("accepted/everything.toml")).unwrap();
    let json = fs::read_to_string(corpus().join("accepted/desktop-app.json")).unwrap();
    for (text, file) in [(whole, "c.toml"), (json, "c.json")] {
        for at in (0..text.len()).step_by(7).filter(|at| text.is_char_boundary(*at)) {
            let _ = read(&text[..at], file, true);
            let mut changed = text.clone();
            changed.replace_range(at..=at, "[");
            let _ = read(&changed, file, false);
        }
    }
}

/// An empty field of shadow would let anybody in, in group wheel, too.
#[test]
fn empty_password_is_told_to_lock_the_account() {
    let text = "[[customizations.user]]\nname = \"ann\"\ngroups = [\"wheel\"]\npassword = \"\"\n";
    let read = |text: &str| {
        Config::read(text, "c.toml", Reading::default(), &|_| unreachable!("it names no files"))
    };
    let warnings = read(text).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("password is empty: the account is locked"), "{warnings:?}");
    assert!(warnings[0].starts_with("c.toml:4:"), "{warnings:?}");
}

#[test]
fn unbalanced_quote_in_kernel_append_is_wrong() {
    let read = |append: &str| {
        let text = format!("[customizations.kernel]\nappend = '{append}'\n");
        Config::read(&text, "c.toml", Reading::default(), &|_| unreachable!("it names no files"))
    };
    let error = format!("{:#}", read("quiet a=\"b").unwrap_err());
    assert!(
        error.contains("c.toml:2:") && error.contains("a double quote is not closed"),
        "{error}"
    );
    assert!(read("a=\"b c\" $x").is_ok());
}
