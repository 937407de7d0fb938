//! The command line as Markdown: a page for each command, with its subcommands below it.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

/// File names and pages of a command and its subcommands, sorted by name.
pub(super) fn pages(mut command: Command) -> Vec<(String, String)> {
    // Fills in usage lines and the flags that every command has.
    command.build();
    let file = |name: &str| format!("{}.md", name.replace(' ', "-"));
    let mut top = String::new();
    section(&mut command, 1, &mut top);
    top.push_str("## Commands\n\n| command | |\n|---|---|\n");
    let mut pages = Vec::new();
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
        let name = full_name(sub);
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        line(&mut top, format_args!("| [`{name}`]({}) | {} |", file(&name), escaped(&about)));
        let mut page = String::new();
        section(sub, 1, &mut page);
        for below in sub.get_subcommands_mut().filter(|below| !below.is_hide_set()) {
            section(below, 2, &mut page);
        }
        pages.push((file(&name), trimmed(&page)));
    }
    top.push('\n');
    after(&command, &mut top);
    pages.push((file(command.get_name()), trimmed(&top)));
    pages.sort();
    pages
}

/// What stands on a page about one command, under a heading of this level.
fn section(command: &mut Command, level: usize, page: &mut String) {
    let name = full_name(command);
    let usage = command.render_usage().to_string();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    line(page, format_args!("{} {name}\n", "#".repeat(level)));
    line(page, format_args!("{}\n", escaped(&about.unwrap_or_default())));
    line(page, format_args!("```text\n{}\n```\n", usage.trim()));
    let shown: Vec<&Arg> = command.get_arguments().filter(|arg| !is_of_every(arg)).collect();
    for heading in headings(&shown) {
        line(page, format_args!("{} {heading}\n", "#".repeat(level + 1)));
        for arg in shown.iter().filter(|arg| heading_of(arg) == heading) {
            flag(arg, page);
        }
        page.push('\n');
    }
    if level > 1 || !command.has_subcommands() {
        after(command, page);
    }
}

/// Examples and the like.
fn after(command: &Command, page: &mut String) {
    let text = command.get_after_long_help().or(command.get_after_help());
    if let Some(text) = text {
        line(page, format_args!("```text\n{}\n```\n", text.to_string().trim()));
    }
}

/// One flag or argument: a list item with its short help, and the long help below it.
fn flag(arg: &Arg, page: &mut String) {
    let short = arg.get_help().map(ToString::to_string).unwrap_or_default();
    line(page, format_args!("- `{}`: {}", spelled(arg), escaped(&short)));
    let long = arg.get_long_help().map(ToString::to_string).unwrap_or_default();
    for paragraph in long.split("\n\n").skip(1).map(str::trim).filter(|text| !text.is_empty()) {
        line(page, format_args!("\n  {}", escaped(&paragraph.replace('\n', "\n  "))));
    }
    let mut facts = Vec::new();
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() && takes_value(arg) {
        facts.push(format!("Default: `{}`.", defaults.join(" ")));
    }
    let values = arg.get_possible_values();
    let values = values.iter().filter(|value| !value.is_hide_set());
    let names: Vec<String> =
        values.clone().map(|value| format!("`{}`", value.get_name())).collect();
    if !names.is_empty() && takes_value(arg) && !arg.is_hide_possible_values_set() {
        facts.push(format!("Possible values: {}.", names.join(", ")));
    }
    if !facts.is_empty() {
        line(page, format_args!("\n  {}", facts.join(" ")));
    }
    for value in values {
        if let Some(help) = value.get_help() {
            line(page, format_args!("  - `{}`: {}", value.get_name(), escaped(&help.to_string())));
        }
    }
}

/// The flag as it is typed: `-o, --output <PATH>`.
fn spelled(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let value = names.first().map(|name| name.to_string());
    let value = value.unwrap_or_else(|| arg.get_id().to_string().to_uppercase());
    if arg.is_positional() {
        return if arg.is_required_set() { format!("<{value}>") } else { format!("[{value}]") };
    }
    let mut text = String::new();
    if let Some(short) = arg.get_short() {
        let _ = write!(text, "-{short}, ");
    }
    if let Some(long) = arg.get_long() {
        let _ = write!(text, "--{long}");
    }
    if takes_value(arg) {
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let _ = if optional { write!(text, "[=<{value}>]") } else { write!(text, " <{value}>") };
    }
    text
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// `--help` and `--version` need no page.
fn is_of_every(arg: &Arg) -> bool {
    arg.is_hide_set() || ["help", "version"].contains(&arg.get_id().as_str())
}

/// Headings in the order in which `--help` has them.
fn headings<'a>(args: &[&'a Arg]) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for usual in ["Arguments", "Options"] {
        if args.iter().any(|arg| heading_of(arg) == usual) {
            found.push(usual);
        }
    }
    for arg in args {
        if !found.contains(&heading_of(arg)) {
            found.push(heading_of(arg));
        }
    }
    found
}

fn heading_of(arg: &Arg) -> &str {
    arg.get_help_heading().unwrap_or(if arg.is_positional() { "Arguments" } else { "Options" })
}

fn full_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).to_owned()
}

/// Text with what Markdown acts on outside of code spans made harmless.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut code = false;
    for c in text.trim().chars() {
        code ^= c == '`';
        if !code && ['<', '*', '_', '[', '|'].contains(&c) {
            shown.push('\\');
        }
        shown.push(c);
    }
    shown
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{text}");
}

fn trimmed(page: &str) -> String {
    format!("{}\n", page.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_outside_code_is_escaped() {
        assert_eq!(escaped("`<a>` <b>_c*"), r"`<a>` \<b>\_c\*");
    }

    #[test]
    fn page_names_flags_values_and_subcommands() {
        let command = Command::new("tool").subcommand(
            Command::new("act").about("Act").arg(
                Arg::new("how")
                    .long("how")
                    .value_name("WAY")
                    .help("Choose a way")
                    .long_help("Choose a way\n\nBoth are good.")
                    .value_parser(["a", "b"])
                    .default_value("a"),
            ),
        );
        let pages = pages(command.disable_help_subcommand(true));
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tool-act.md", "tool.md"]);
        assert_eq!(
            pages[0].1,
            "# tool act\n\nAct\n\n```text\nUsage: tool act [OPTIONS]\n```\n\n## Options\n\n- `--how <WAY>`: Choose a way\n\n  Both are \
             good.\n\n  Default: `a`. Possible values: `a`, `b`.\n"
        );
        assert!(pages[1].1.contains("| [`tool act`](tool-act.md) | Act |"), "{}", pages[1].1);
    }
}
