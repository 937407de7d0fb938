//! The pipeline, top to bottom. Each step uses only what the steps above made.
//!
//! ```text
//! Request ─► load: an accepted image, united ─┬─► plan: every choice ─► make: system, disk, media ─► write: files ─► attest: documents ─► Report
//!                                             └─► bound: other images ───┘
//! ```

use anyhow::Result;

use crate::attest;
use crate::bound;
use crate::load::load;
use crate::make::make;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Report;
use crate::request::Request;
use crate::written;

/// Builds the disks and media that a request asks for.
pub fn build(request: &Request, progress: &Progress) -> Result<Report> {
    request.check()?;
    bound::check(request)?;
    let loaded = load(request, progress)?;
    let plan = Plan::of(request, loaded.known())?;
    progress.warn_all(&plan.warnings);
    let known = attest::read(request, &loaded, progress);
    let others = bound::fetch(request, &loaded, progress)?;
    let made = make(request, loaded, &plan, others, progress)?;
    let written = written::write(request, &plan, &made, progress)?;
    let documents = attest::write(request, known, &plan, &made, &written)?;
    Ok(Report::of(&plan, made, written).with_documents(documents))
}
