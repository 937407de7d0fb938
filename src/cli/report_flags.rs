//! Flags that say where reports of boots go, and in which forms.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::Args;
use qemu::{Case, Format, Suite};

#[derive(Debug, Args)]
pub(super) struct ReportFlags {
    /// Write a report; repeat for several
    ///
    /// FORM is junit, tap, json, tmt (results.yaml), resultsdb or html.
    #[arg(long = "report", value_name = "FORM=FILE", value_parser = report, help_heading = "Reports")]
    reports: Vec<(Format, PathBuf)>,

    /// Name the compose, such as Fedora-IoT-43-20251014.0
    #[arg(long, hide_short_help = true, value_name = "ID", help_heading = "Reports")]
    compose_id: Option<String>,

    /// Name the subvariant of the compose, such as IoT
    #[arg(long, hide_short_help = true, value_name = "NAME", help_heading = "Reports")]
    subvariant: Option<String>,
}

impl ReportFlags {
    /// Before hours of booting: whether the reports can be written at all.
    pub(super) fn check(&self) -> Result<()> {
        for (_, file) in &self.reports {
            let directory = match file.parent() {
                Some(directory) if !directory.as_os_str().is_empty() => directory,
                _ => Path::new("."),
            };
            if !directory.is_dir() {
                bail!(
                    "cannot write report {}: {} is not a directory",
                    file.display(),
                    directory.display()
                );
            }
        }
        Ok(())
    }

    /// Writes the reports on cases that began at a time and have all ended now.
    pub(super) fn write(&self, began: SystemTime, cases: Vec<Case>) -> Result<()> {
        let suite = Suite {
            tool: concat!("bootpress ", env!("CARGO_PKG_VERSION")).to_owned(),
            began,
            seconds: began.elapsed().unwrap_or_default().as_secs_f64(),
            compose: self.compose_id.clone(),
            subvariant: self.subvariant.clone(),
            cases,
        };
        for (format, file) in &self.reports {
            format.write(&suite, file).with_context(|| {
                format!("writing the {} report {}", format.name(), file.display())
            })?;
        }
        Ok(())
    }
}

fn report(text: &str) -> Result<(Format, PathBuf), String> {
    let known = || format!("expected one of: {}", Format::ALL.map(Format::name).join(", "));
    let (form, file) = text.split_once('=').ok_or("expected FORM=FILE, such as junit=boot.xml")?;
    match Format::parse(form) {
        Some(format) if !file.is_empty() => Ok((format, PathBuf::from(file))),
        Some(_) => Err("expected FORM=FILE, such as junit=boot.xml".to_owned()),
        None => Err(known()),
    }
}
