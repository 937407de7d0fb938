//! The pipeline, top to bottom. Each step uses only what the steps above made.

use anyhow::Result;

use crate::content::ContentStore;
use crate::identity::Identity;
use crate::progress::Progress;
use crate::report::Report;
use crate::request::Request;
use crate::{bootc, bootloader, disk, oci, ostree, output, selinux};

/// Builds the disks that a request asks for.
pub fn build(request: &Request, progress: &Progress) -> Result<Report> {
    let contents = ContentStore::create_in(&request.work_directory)?;

    let source = oci::open(&request.image, request.architecture, progress)?;
    let image = &source.image;
    let identity = Identity::derive(&image.manifest_digest, &request.seed);

    let layers = source.unpack(&contents, progress)?;
    let union = ostree::unite(image, layers, &contents)?;
    let settings = bootc::Settings::load(image, &union.root, &contents, progress)?;
    let policy = selinux::Policy::load(&union.root, &contents)?;

    let plan = request.plan(&settings, &identity);
    let boot = bootloader::prepare(&union.root, &contents, &plan.bootloader())?;
    let (repository, committed) = union.commit(image, &plan.target, plan.labels(&policy), &contents, progress)?;
    let sysroot = ostree::deploy(repository, &committed, image, plan.labels(&policy), &plan.deployment(), &contents)?;

    let disk = disk::lay_out(&sysroot, &boot, &identity, &plan.disk(), &contents, progress)?;
    let files = output::write(&disk.map, &contents, &plan.targets(image), progress)?;
    Ok(Report::new())
}
