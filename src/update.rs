//! An image as an upgrade: the commits that a machine would have if it had upgraded to it, ready to be pulled.
//!
//! They are those that a disk of the image would have, so what the two share is not fetched again.

use anyhow::Result;

use crate::content::ContentStore;
use crate::error::unsupported;
use crate::load::{Loaded, United, labels, load};
use crate::ostree::{Archived, Labels, Repository};
use crate::progress::Progress;
use crate::request::Request;

/// Beside it the repository has the commits of layers, and an alias of the merge commit that old importers look for.
const LAYERS: &str = "ostree/container/blob/";

/// An image's commits.
#[derive(Debug)]
pub struct Update {
    /// The merge commit: what is deployed.
    pub commit: String,
    /// References of the commits of its layers, as a machine names them.
    pub layers: Vec<String>,
    repository: Repository,
    contents: ContentStore,
}

impl Update {
    /// Makes the commits of an image, which has to be one that a build would accept.
    pub fn of(request: &Request, progress: &Progress) -> Result<Self> {
        let Loaded { contents, source, union, policy, .. } = load(request, progress)?;
        let United::Ostree(union) = union else {
            return Err(unsupported(
                "an image of the composefs backend has no commits to upgrade to",
                Some("upgrade such a machine from a registry"),
            ));
        };
        let labels = labels(policy.as_ref());
        let labels = labels.as_ref().map(|labels| labels as &Labels<'_>);
        // Which image the machine follows is its own affair; the name is in no commit.
        let target = "docker://localhost/update:latest";
        let (repository, committed) =
            union.commit(&source.image, target, labels, &contents, progress)?;
        let layers = repository.refs().keys().filter(|name| name.starts_with(LAYERS)).cloned();
        Ok(Self {
            commit: committed.checksum.to_string(),
            layers: layers.collect(),
            repository,
            contents,
        })
    }

    /// The file at a path of an ostree repository of mode `archive` that has all of it; `None` if there is none.
    pub fn file(&self, path: &str) -> Option<Archived<'_>> {
        self.repository.archived(path, &self.contents)
    }
}
