//! The command lines in the README and in the documents are ones that the program accepts.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::flags::Flags;
use super::{bib, image_builder};

/// Programs whose command lines are ours to judge.
const OURS: [&str; 3] = ["bootpress", "bootc-image-builder", "image-builder"];

#[test]
fn documented_command_line_is_accepted() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for words in command_lines(&text) {
            seen += 1;
            if let Err(error) = judge(&words) {
                wrong.push(format!("{}: {}\n{error}", file.display(), words.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} command lines were found");
}

#[test]
fn command_line_is_found_wherever_a_shell_would_find_it() {
    let text = "bootpress build prose\n```sh\nx save a | bootpress build oci-archive:- # why\nbootpress man > x\nbootpress pull a && \\\n  bootpress \
                build --config 'a b' $X\npodman run --rm bootc-image-builder --type raw x\n```\n```yaml\n- run: bootpress build \
                ghcr.io/${{ a.b }}:1\n```\nbootpress prose\n";
    let found: Vec<String> = command_lines(text).iter().map(|words| words.join(" ")).collect();
    assert_eq!(
        found,
        [
            "bootpress build oci-archive:-",
            "bootpress man",
            "bootpress pull a",
            "bootpress build --config a b x",
            "bootc-image-builder --type raw x",
            "bootpress build ghcr.io/x:1",
        ]
    );
    assert!(judge(&["bootpress".into(), "build".into(), "--colour".into()]).is_err());
}

/// The README and every other document of the repository.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)).to_vec();
    let mut directories = vec![root.join("docs/src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The words of each command of ours in the code blocks of a document.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut inside = false;
    let text = text.replace("\\\n", " ");
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            for command in commands(line) {
                let run = command.first().is_some_and(|word| word == "podman" || word == "sudo");
                let at = command.iter().position(|word| OURS.contains(&word.as_str()));
                match at {
                    Some(0) => found.push(command),
                    Some(at) if run && command.iter().any(|word| word == "run") => {
                        found.push(command[at..].to_vec());
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

/// The commands of a line of shell, or of a list item with one; variables become `x`.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.trim().trim_start_matches("- ").trim_start_matches("run: ");
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (_, '$') => {
                word.push('x');
                if characters.peek() == Some(&'{') {
                    let mut depth = 0;
                    for c in characters.by_ref() {
                        depth += i32::from(c == '{') - i32::from(c == '}');
                        if depth == 0 {
                            break;
                        }
                    }
                } else {
                    while characters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_').is_some() {
                    }
                }
            }
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if word.is_empty() => break,
            // Where the output goes is nothing to judge.
            (None, '>') => break,
            (None, '|' | ';' | '&') => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                commands.push(std::mem::take(&mut words));
            }
            (None, c) if c.is_whitespace() => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            (None, c) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    commands
}

/// Whether the program takes a command line; help that is asked for is fine.
fn judge(words: &[String]) -> Result<(), String> {
    let judged = match words[0].as_str() {
        "bootpress" => Flags::try_parse_from(words).map(drop),
        "image-builder" => image_builder::try_parse(words),
        _ => bib::try_parse(words),
    };
    match judged {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        _ => Ok(()),
    }
}
