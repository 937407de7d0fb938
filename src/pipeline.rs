//! The pipeline, top to bottom. Each step uses only what the steps above made.

use anyhow::{Context, Result};

use crate::bootc::{self, Settings};
use crate::bootloader::{self, Boot};
use crate::bound;
use crate::config;
use crate::content::ContentStore;
use crate::disk;
use crate::filesystem::{erofs, verity};
use crate::identity::Identity;
use crate::iso::{self, Made};
use crate::oci;
use crate::ostree;
use crate::output::{self, Format, Target};
use crate::plan::{self, Layouts, Plan};
use crate::progress::Progress;
use crate::report::{MediumReport, Report};
use crate::request::Request;
use crate::selinux::Policy;
use crate::storage;
use crate::trust;

/// Builds the disks that a request asks for.
pub fn build(request: &Request, progress: &Progress) -> Result<Report> {
    plan::check(request)?;
    bound::check(request)?;
    let contents = ContentStore::create_in(&request.work_directory)?;
    let source = oci::open_with(&request.access, &request.image, request.architecture, progress)?;
    let image = &source.image;
    let verdict = trust::check(&request.trust, &source.subject(), &|wanted| source.claims(wanted))?;
    let targets = request.targets(image)?;
    let identity = Identity::derive(&image.manifest_digest, &request.seed);

    let layers = source.unpack(&contents, progress)?;
    let union = ostree::unite(image, layers, &contents).context("uniting the layers")?;
    bootc::check(image, &union.root)?;
    let settings = Settings::load(&union.root, &contents, image.architecture, progress)?;
    let policy = Policy::load(&union.root, &contents)?;
    let labels = policy.as_ref().map(|policy| |path: &str, mode| policy.label(path, mode));
    let labels = labels.as_ref().map(|labels| labels as &ostree::Labels<'_>);

    let layout = plan::layout(request, &union.root, &contents, progress)?;
    let identity = disk::identify(identity, layout.as_ref())?;
    let asked = Layouts { layout: layout.as_ref(), root: &union.root };
    let plan = Plan::of(request, image, &settings, &identity, asked, progress)?;
    let applications = bound::fetch(request, &settings.bound_images, &contents, progress)?;
    let containers = bound::fetch_configured(request, &contents, progress)?;
    let payload = bound::payload(request, &source, &contents, progress)?;
    let mut boot = match plan.bootloader(image) {
        Some(options) => bootloader::prepare(&union.root, &contents, &options)?,
        None => Boot::none(),
    };
    config::customize_boot(&mut boot.boot, &request.config.blueprint, &contents)?;
    let (repository, committed) = union.commit(image, &plan.target, labels, &contents, progress)?;
    let customize = |tree: &mut _, parts| plan.customize(tree, parts, &contents, progress);
    let deployment = plan.deployment(&boot, &erofs::ostree_image, &verity::measure, &customize);
    let mut sysroot = ostree::deploy(repository, &committed, image, labels, &deployment, &contents)
        .context("deploying")?;
    storage::place(&mut sysroot.root, &applications, labels, &contents)?;
    let (directory, tree) = sysroot.directory(plan.container_storage());
    storage::fill(tree, &directory, &containers, labels, &contents)?;

    let disk = disk::lay_out(&sysroot, &boot, &plan.disk(), &contents, progress)?;
    let media = match plan.media(image, &committed.tree, payload, &contents, progress)? {
        Some(wishes) => {
            let title = &settings.title;
            let image = &committed.tree;
            let parts = iso::Parts { image, boot: &boot, sysroot: &sysroot, disk: &disk, title };
            iso::lay_out(&parts, &wishes, &contents, progress).context("making the medium")?
        }
        None => Vec::new(),
    };
    let written = if request.dry_run { &[] } else { targets.as_slice() };
    let files = output::write(&disk.map, &contents, written, &plan.files(image), progress)?;
    let stored: Vec<_> = applications.iter().chain(&containers).collect();
    let bound = (settings.bound_images.as_slice(), stored.as_slice());
    let mut report = Report::of(image, &plan.root, bound, &boot, &sysroot, disk, files);
    for (kind, made) in media.iter().filter(|_| !request.dry_run) {
        let path = request.medium_path(image, *kind);
        report.add_medium(match made {
            Made::Volume(map) => {
                let target = Target::new(Format::Raw, path);
                let mut files =
                    output::write(map, &contents, &[target], &plan.files(image), progress)?;
                MediumReport::of_file(kind.name(), files.remove(0))
            }
            Made::Directory(tree) => MediumReport::of_directory(
                kind.name(),
                output::write_directory(tree, &contents, &path, progress)?,
            ),
        });
    }
    if request.dry_run {
        report.would_write(targets, &request.media(image));
    }
    Ok(report.judged(verdict))
}
