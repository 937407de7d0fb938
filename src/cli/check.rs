//! `bootpress check`: rules judged over an image or a disk, for people, for programs, and as an exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bootpress::check::{self, Facts, Policy, Report, Rule, Severity, Status, Wanted};
use bootpress::oci::Reference;
use clap::{Args, ValueEnum};

use super::flags::{self, registry::RegistryFlags};
use super::say::{self, Page};
use super::trust_flags::TrustFlags;
use super::{build, exit, inspect_image, terminal};

/// Characters of a line of prose.
const WIDTH: usize = 100;

/// Files of policies; real ones have 100 kB.
const LARGEST_POLICY: u64 = 8 << 20;

#[derive(Debug, Args)]
pub(crate) struct CheckFlags {
    /// Image, disk or ISO to check
    ///
    /// An image is named as `build` takes it. A disk is raw or qcow2, also as .xz, .zst or .gz; it is only read.
    #[arg(value_name = "IMAGE|DISK|ISO", required_unless_present_any = ["list", "explain"])]
    target: Option<PathBuf>,

    /// Policy to judge by; repeat to combine several
    ///
    /// Built in are `default`, which suits any bootc image, and `fedora`, which asks more. A file is YAML: Conforma's rule data
    /// (required_labels and the like, under rule_data or in a policy resource) is read as it is, and the section `bootpress` has
    /// the rest. Later policies replace what earlier ones say, key by key.
    #[arg(long = "policy", value_name = "NAME|FILE", default_value = "default")]
    policies: Vec<String>,

    /// Fail from this severity on
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = FailOn::Error)]
    fail_on: FailOn,

    /// Judge by labels, tags and attachments only
    ///
    /// Layers are not fetched, and rules about files are left out.
    #[arg(long)]
    no_content: bool,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Write a report: json, sarif or junit; repeat for several
    #[arg(long = "report", value_name = "FORM=FILE", value_parser = report_file)]
    reports: Vec<(Form, PathBuf)>,

    /// Judge as if it were this time: 2026-12-31 or RFC 3339
    ///
    /// It decides which entries of the rule data count already (effective_on), and which times are in the future. The default
    /// is the time of the system's clock.
    #[arg(long, value_name = "TIME", value_parser = time)]
    effective_time: Option<i64>,

    /// List all rules
    #[arg(long, conflicts_with = "explain")]
    list: bool,

    /// Explain a rule: what it looks at, why, and how to fix it
    #[arg(long, value_name = "RULE")]
    explain: Option<String>,

    /// Architecture to check
    ///
    /// The default is this machine's, else what the image has.
    #[arg(long, value_parser = flags::architecture)]
    arch: Option<String>,

    /// Directory for unpacked layers
    #[arg(long, value_name = "DIR", default_value = ".")]
    work_directory: PathBuf,

    #[command(flatten)]
    trust: TrustFlags,

    #[command(flatten)]
    registry: RegistryFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Error,
    Warning,
    Note,
    /// only when the check itself fails
    Never,
}

impl FailOn {
    fn fails(self, severity: Severity) -> bool {
        match self {
            Self::Never => false,
            Self::Note => true,
            Self::Warning => severity >= Severity::Warning,
            Self::Error => severity >= Severity::Error,
        }
    }
}

/// A form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Sarif,
    Junit,
}

impl Form {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Json, "json"), (Self::Sarif, "sarif"), (Self::Junit, "junit")];
}

fn report_file(text: &str) -> Result<(Form, PathBuf), String> {
    let (form, file) = text
        .split_once('=')
        .filter(|(_, file)| !file.is_empty())
        .ok_or("expected FORM=FILE, as in sarif=check.sarif")?;
    let known = Form::ALL.iter().find(|(_, name)| *name == form);
    match known {
        Some((form, _)) => Ok((*form, PathBuf::from(file))),
        None => Err(format!("expected one of: {}", Form::ALL.map(|(_, name)| name).join(", "))),
    }
}

fn time(text: &str) -> Result<i64, String> {
    check::parse_date(text).ok_or_else(|| "expected 2026-12-31 or 2026-12-31T12:00:00Z".to_owned())
}

/// Judges, prints, and says by the exit code whether the target passes.
pub(super) fn run(flags: &CheckFlags) -> Result<ExitCode> {
    if flags.list {
        return say::print(&list(), "printing the rules").map(|()| ExitCode::SUCCESS);
    }
    if let Some(id) = &flags.explain {
        let Some(rule) = check::rule(id) else {
            bail!("unknown rule {id:?}: `bootpress check --list` has all rules");
        };
        return say::print(&explain(rule), "printing the rule").map(|()| ExitCode::SUCCESS);
    }
    let Some(target) = &flags.target else { bail!("name an image, a disk or an ISO to check") };
    let policy = Policy::of(&policies(&flags.policies)?)?;
    for (_, file) in &flags.reports {
        check_place(file)?;
    }
    let now = flags.effective_time.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    });
    let facts = facts(flags, target, &policy, now)?;
    let report = check::judge(&target.to_string_lossy(), &facts, &policy, now);
    for (form, file) in &flags.reports {
        let text = match form {
            Form::Json => check::json(&report)? + "\n",
            Form::Sarif => check::sarif(&report)? + "\n",
            Form::Junit => check::junit(&report, |severity| flags.fail_on.fails(severity)),
        };
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    if flags.json {
        say::print_json(&report, "printing the report")?;
    } else {
        say::print(&text(&report), "printing the report")?;
    }
    let fails = report.worst().is_some_and(|worst| flags.fail_on.fails(worst));
    Ok(if fails { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

fn facts(flags: &CheckFlags, target: &Path, policy: &Policy, now: i64) -> Result<Facts> {
    if !inspect_image::is_image(target) {
        return check::gather_file(target, now);
    }
    let text = target.to_str().context("the image's name is not UTF-8")?;
    let reference: Reference =
        text.parse().with_context(|| format!("invalid image name {text:?}"))?;
    let architecture = flags.arch.as_deref().map(|arch| build::architecture(Some(arch)));
    let wanted = Wanted {
        reference: &reference,
        architecture: architecture.transpose()?,
        access: &flags.registry.access()?,
        trust: &flags.trust.demand(),
        content: !flags.no_content,
        work_directory: &flags.work_directory,
        now,
    };
    check::gather_image(&wanted, policy, &terminal::automatic())
}

/// Names of built-in policies, and files with their texts.
fn policies(names: &[String]) -> Result<Vec<(String, Option<String>)>> {
    let read = |name: &String| {
        if Policy::built_in_names().any(|known| known == name) {
            return Ok((name.clone(), None));
        }
        let file = Path::new(name);
        let reading = || format!("reading policy {name}");
        let size = match fs::metadata(file) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "unknown policy {name:?}: expected a file or one of: {}",
                Policy::built_in_names().collect::<Vec<_>>().join(", ")
            ),
            Err(error) => return Err(error).with_context(reading),
        };
        if size > LARGEST_POLICY {
            bail!("policy {name} has {size} bytes; the limit is {LARGEST_POLICY}");
        }
        Ok((name.clone(), Some(fs::read_to_string(file).with_context(reading)?)))
    };
    names.iter().map(read).collect()
}

/// Before anything is fetched: whether a report can be written.
fn check_place(file: &Path) -> Result<()> {
    let directory = match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        bail!("cannot write {}: {} is not a directory", file.display(), directory.display());
    }
    Ok(())
}

/// The report for people: what is violated first, then what was not judged, then how many rules are kept.
fn text(report: &Report) -> String {
    let mut page = Page::default();
    page.line(format_args!("{:<10} {}", "target", report.target));
    if let Some(digest) = &report.digest {
        page.line(format_args!("{:<10} {digest}", "digest"));
    }
    page.line(format_args!("{:<10} {}", "policy", report.policies.join(", ")));
    for severity in Severity::ALL.into_iter().rev() {
        let with = |finding: &&check::Finding| {
            finding.status == Status::Failed && finding.severity == severity
        };
        for finding in report.findings.iter().filter(with) {
            page.blank();
            page.line(format_args!("{:<8} {}", severity.name(), finding.rule));
            for counted in &finding.violations {
                let later = match &counted.violation.effective_on {
                    Some(date) if counted.severity < severity || severity < Severity::Error => {
                        format!(" (from {date} on)")
                    }
                    _ => String::new(),
                };
                page.line(format_args!("         {}{later}", counted.violation.message));
            }
            let fix = check::rule(finding.rule).map_or("", |rule| &rule.fix);
            page.line(format_args!("         fix: {fix}"));
        }
    }
    let skipped: Vec<_> =
        report.findings.iter().filter_map(|one| Some((one.rule, one.skipped.as_ref()?))).collect();
    if !skipped.is_empty() {
        page.blank();
        page.line("not judged");
    }
    for (rule, why) in skipped {
        page.line(format_args!("  {rule:<36} {why}"));
    }
    page.blank();
    page.line(format_args!(
        "{} rules kept, {} violated ({} errors, {} warnings, {} notes), {} not judged",
        report.with_status(Status::Passed),
        report.with_status(Status::Failed),
        report.count(Severity::Error),
        report.count(Severity::Warning),
        report.count(Severity::Note),
        report.with_status(Status::Skipped),
    ));
    page.into_text()
}

/// All rules, a line each.
fn list() -> String {
    let mut page = Page::default();
    for rule in check::rules() {
        page.line(format_args!("{:<36} {:<8} {}", rule.id, rule.severity.name(), rule.title));
    }
    page.into_text()
}

/// A rule in full.
fn explain(rule: &Rule) -> String {
    let mut page = Page::default();
    page.line(&rule.id);
    page.line(format_args!(
        "{} (severity: {}; about: {})",
        rule.title,
        rule.severity.name(),
        rule.about.name()
    ));
    for (name, prose) in [("Why", &rule.why), ("Fix", &rule.fix)] {
        page.blank();
        page.line(name);
        wrapped(prose, &mut page);
    }
    page.into_text()
}

/// Prose in lines, indented.
fn wrapped(prose: &str, page: &mut Page) {
    let mut line = String::new();
    for word in prose.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() + 3 > WIDTH {
            page.line(format_args!("  {line}"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    page.line(format_args!("  {line}"));
}
