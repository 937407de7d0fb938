//! Imports an image with ostree-ext, the importer inside bootc, or exports a commit with its exporter. A witness for tests.
//!
//! ```text
//! importer import oci:LAYOUT:TAG REPOSITORY [TARGET]      prints the merge commit
//! importer export REPOSITORY COMMIT LAYOUT:TAG            standard input: lines CHECKSUM COMPONENT; a chunk for each component
//! ```

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use ostree_ext::chunking::ObjectMetaSized;
use ostree_ext::container::store::{ImageImporter, PrepareResult};
use ostree_ext::container::{
    Config, ExportOpts, ImageReference, OstreeImageReference, SignatureSource, Transport,
    encapsulate,
};
use ostree_ext::containers_image_proxy::ImageProxyConfig;
use ostree_ext::objectsource::{ObjectMeta, ObjectSourceMeta};
use ostree_ext::{gio, ostree};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments[..] {
        ["import", image, repository] => runtime.block_on(import(image, repository, image)),
        ["import", image, repository, target] => {
            runtime.block_on(import(image, repository, target))
        }
        ["export", repository, commit, layout] => {
            runtime.block_on(export(repository, commit, layout))
        }
        _ => bail!(
            "usage: importer import IMAGE REPOSITORY [TARGET] | export REPOSITORY COMMIT LAYOUT:TAG"
        ),
    }
}

fn open(repository: &str) -> Result<ostree::Repo> {
    let repo = ostree::Repo::new_for_path(Path::new(repository));
    repo.open(gio::Cancellable::NONE).with_context(|| format!("opening {repository}"))?;
    Ok(repo)
}

async fn import(image: &str, repository: &str, target: &str) -> Result<()> {
    let reference = |image: &str| -> Result<OstreeImageReference> {
        Ok(OstreeImageReference {
            sigverify: SignatureSource::ContainerPolicyAllowInsecure,
            imgref: ImageReference::try_from(image)?,
        })
    };
    let repo = open(repository)?;
    let mut importer =
        ImageImporter::new(&repo, &reference(image)?, ImageProxyConfig::default()).await?;
    importer.set_target(&reference(target)?);
    // As bootc does, and as today's ostree would: /var stays where it is.
    importer.require_bootable();
    importer.set_ostree_version(2026, 4);
    let merge = match importer.prepare().await? {
        PrepareResult::AlreadyPresent(state) => state.merge_commit,
        PrepareResult::Ready(prepared) => importer.import(prepared).await?.merge_commit,
    };
    println!("{merge}");
    Ok(())
}

async fn export(repository: &str, commit: &str, layout: &str) -> Result<()> {
    let repo = open(repository)?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("reading the components")?;
    let mut meta = ObjectMeta::default();
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let (checksum, component) = line.split_once(' ').context("a line without component")?;
        meta.map.insert(checksum.to_owned(), Rc::from(component));
        names.insert(component);
    }
    for name in &names {
        let name: Rc<str> = Rc::from(*name);
        meta.set.insert(ObjectSourceMeta {
            identifier: Rc::clone(&name),
            name: Rc::clone(&name),
            srcid: name,
            change_time_offset: 0,
            change_frequency: 0,
        });
    }
    let meta = ObjectMetaSized::compute_sizes(&repo, meta)?;
    let mut options = ExportOpts::default();
    options.contentmeta = (!names.is_empty()).then_some(&meta);
    options.copy_meta_opt_keys = vec!["ostree.bootable".to_owned()];
    let config = Config {
        labels: Some([("containers.bootc".to_owned(), "1".to_owned())].into()),
        cmd: None,
    };
    let to = ImageReference { transport: Transport::OciDir, name: layout.to_owned() };
    let digest = encapsulate(&repo, commit, &config, Some(options), &to).await?;
    println!("{digest}");
    Ok(())
}
