//! The next version of a disk's image, as a machine upgrades to it.

use std::sync::Arc;

use bootpress::architecture::Architecture;
use bootpress::progress::Progress;
use bootpress::request::Request;
use bootpress::trust::Demand;
use bootpress::update;
use qemu::Guest;
use qemu::chain::{Page, Site, Update};

use crate::carried::{NEXT, layout};
use crate::disk::Disk;

/// What the harness serves.
struct Served(update::Update);

impl Site for Served {
    fn page(&self, path: &str) -> Option<Page<'_>> {
        self.0.file(path).map(|file| Page { size: file.size, body: file.body })
    }
}

/// The upgrade to the version that [`carried::remake`](crate::carried::remake) has put beside the disk's own.
pub(crate) fn to_next(disk: &Disk) -> Update {
    let layout = layout(disk);
    let reference = format!("oci:{}:{NEXT}", layout.display()).parse().unwrap();
    let mut request = Request::new(reference, Architecture::X86_64, &layout);
    request.image.trust = Demand::Nothing;
    let made = update::Update::of(&request, &Progress::default()).unwrap();
    Update {
        name: NEXT.to_owned(),
        commit: made.commit.clone(),
        references: made.layers.clone(),
        site: Arc::new(Served(made)),
    }
}

/// What both versions have was not fetched again: the guest found the layers' commits and objects where a disk has them.
pub(crate) fn shares_layers(guest: &Guest) {
    let pulled = guest.fact("upgrade.pulled").expect("ostree tells what it fetched");
    let count = |what: &str| -> u32 {
        let (before, _) = pulled.split_once(what).unwrap_or_else(|| panic!("{pulled}"));
        before.trim().rsplit([' ', ',']).next().unwrap().parse().unwrap()
    };
    assert!(count("content object") < 20, "{pulled}");
    assert!(count("metadata") < 40, "{pulled}");
    eprintln!("upgrade: {pulled}");
}
