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

/// osbuild's own examples, rebuilt: the verdicts are those of its tools, or the difference has a reason.
#[test]
fn osbuild_examples_get_the_verdict_of_the_corpus() {
    let corpus = fs::read_to_string(corpus().join("osbuild.txt")).unwrap();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for case in corpus.split("### ").skip(1) {
        let (head, text) = case.split_once('\n').unwrap();
        let expected = head.split(',').next().unwrap();
        let result = read(text, "config.json", false);
        let verdict = match &result {
            Ok(config) if config.warnings.is_empty() => "accepted",
            Ok(_) => "idle",
            Err(error) if error.downcast_ref::<Unsupported>().is_some() => "refused",
            Err(_) => "wrong",
        };
        if verdict != expected {
            wrong.push(format!("{verdict} instead of {head}: {text}{result:?}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} cases");
}

/// A document in which a key of the schema has a value of its kind.
fn document_with(key: &str, value: serde_json::Value) -> serde_json::Value {
    let mut document = value;
    for part in key.rsplit('.') {
        let (name, list) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        // What kind of thing it is decides which keys it has.
        let kind = match key.rsplit('.').next().unwrap() {
            _ if name == "partitions" && key.contains("subvolumes") => "btrfs",
            _ if name == "partitions" && key.contains("logical_volumes") => "lvm",
            "name" if name == "partitions" => "lvm",
            "command" | "cacerts" if name == "scripts" => "satellite",
            "job_template_url" | "host_config_key" if name == "scripts" => "aap",
            _ if name == "scripts" => "custom",
            _ => "",
        };
        if !kind.is_empty() && document.get("type").is_none() {
            document["type"] = kind.into();
        }
        document = if list {
            serde_json::json!({ name: [document] })
        } else {
            serde_json::json!({ name: document })
        };
    }
    document
}

/// Keys that we read and the schema has not, each with its reason.
const OURS: [(&str, &str); 7] = [
    ("blueprint", "build configurations wrap the blueprint"),
    ("options", "it stands beside a wrapped blueprint"),
    ("custom_repos", "it stands beside a wrapped blueprint"),
    ("depends", "it stands beside a wrapped blueprint"),
    ("solver", "it stands beside a wrapped blueprint"),
    ("customizations.filesystem[].size", "the schema's own decoder reads it beside minsize"),
    (
        "customizations.sshd.challenge_response_authentication",
        "OpenSSH's older name for kbd_interactive_authentication",
    ),
];

#[test]
fn keys_of_the_schema_are_known_and_no_others() {
    let schema = fs::read_to_string(corpus().join("schema.txt")).unwrap();
    let lines = schema.lines().filter(|line| !line.starts_with('#'));
    let keys: Vec<(&str, &str)> = lines.map(|line| line.split_once(' ').unwrap()).collect();
    assert!(keys.len() > 140, "only {} keys", keys.len());
    table::asked::clear();
    for (key, kind) in &keys {
        let value = match *kind {
            "text" | "owner" => "x".into(),
            "list" => serde_json::json!(["x"]),
            "number" | "size" => 1.into(),
            "bool" => true.into(),
            other => panic!("{key} is a {other}"),
        };
        for purpose in [Purpose::Disk, Purpose::Anaconda] {
            let text = document_with(key, value.clone()).to_string();
            let said = match read_for(&text, "c.json", Reading { lenient: true, purpose }) {
                Ok(config) => config.warnings.join("\n"),
                Err(error) => error.to_string(),
            };
            assert!(!said.contains("unknown key"), "{key}: {said}\n{text}");
            let kind = format!("{key} must be");
            assert!(!said.replace("[0]", "[]").contains(&kind), "{key}: {said}");
        }
    }
    let wrapped = r#"{"name": "x", "blueprint": {}, "options": {}}"#;
    read(wrapped, "c.json", false).unwrap();
    let known = |asked: &str| {
        let inside =
            |key: &str| key.strip_prefix(asked).is_some_and(|rest| rest.starts_with(['.', '[']));
        keys.iter().any(|(key, _)| *key == asked || inside(key))
            || OURS.iter().any(|(key, _)| *key == asked)
    };
    let asked = table::asked::all();
    let invented: Vec<&String> = asked.iter().filter(|key| !known(key)).collect();
    assert!(invented.is_empty(), "the schema has no {invented:?}");
    let unused: Vec<_> = OURS.iter().filter(|(key, _)| !asked.contains(*key)).collect();
    assert!(unused.is_empty(), "nobody reads {unused:?}");
}
