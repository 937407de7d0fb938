//! Completions of a shell: those that follow from the flags, and the names of images in the cache. Files, such as disks, are completed by the
//! shells themselves.

use clap::CommandFactory;
use clap_complete::Shell;

use super::flags::Flags;

/// Adds names of images to what the generated function found. bash ends words at colons, so what is before the last one is cut off.
const BASH: &str = r#"
_bootpress_with_images() {
    _bootpress "$@"
    local line=${COMP_LINE:0:COMP_POINT} word name there=
    word=${line##* }
    case ${COMP_WORDS[1]} in build|pull|inspect) ;; *) return 0 ;; esac
    case $word in -*) return 0 ;; esac
    case $COMP_WORDBREAKS in *:*) there=${word%"${word##*:}"} ;; esac
    while IFS= read -r name; do
        case $name in "$word"*) COMPREPLY+=("${name#"$there"}") ;; esac
    done < <(bootpress cache list --names 2>/dev/null)
    return 0
}
complete -F _bootpress_with_images -o bashdefault -o default bootpress
"#;

const FISH: &str = r#"
complete -c bootpress -n "__fish_bootpress_using_subcommand build pull inspect" -a "(bootpress cache list --names 2>/dev/null)" -d "image in the cache"
"#;

const ZSH: &str = r#"
_bootpress_images() {
    local -a images
    images=(${(f)"$(bootpress cache list --names 2>/dev/null)"})
    compadd -a images
    _files
}

_bootpress() {"#;

/// The script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Flags::command(), "bootpress", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        Shell::Zsh => with_images(&script.replacen("\n_bootpress() {", ZSH, 1)),
        _ => script,
    }
}

/// A script for zsh in which arguments that name images are completed by `_bootpress_images`.
fn with_images(script: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in script.lines() {
        let named = line.starts_with("':image -- ")
            || line.starts_with("':disk -- Name a disk, or an image");
        let end = line.rfind(":_").filter(|_| named);
        lines.push(match end {
            Some(end) => format!("{}:_bootpress_images' \\", &line[..end]),
            None => line.to_owned(),
        });
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_arguments_in_zsh_are_completed_from_the_cache() {
        let script = script(Shell::Zsh);
        assert_eq!(script.matches(":_bootpress_images' \\\n").count(), 3, "{script}");
        assert_eq!(script.matches("\n_bootpress_images() {\n").count(), 1);
        assert!(script.contains("\n_bootpress() {\n"));
    }
}
