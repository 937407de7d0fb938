//! The cache through what fills it: an image comes once, damage is found, two at a time do not disturb each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use support::tiny_image::{TinyImage, tiny_image};

use super::super::registry::testing::{Manners, Server};
use super::super::{Access, open_with, pull};
use super::*;
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::Corrupt;
use crate::layer::Layer;
use crate::progress::{Event, Progress};

/// Two layers that do not compress.
fn image() -> TinyImage {
    let noise = |seed: u32| {
        let mut state = seed;
        let next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(200_000).collect::<Vec<_>>()
    };
    tiny_image().layer(|l| l.file("a", noise(1))).layer(|l| l.file("b", noise(2)))
}

struct Place {
    directory: tempfile::TempDir,
    access: Access,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let access = Access { cache: Some(directory.path().join("cache")), ..Access::default() };
        Self { directory, access }
    }

    fn cache(&self) -> Cache {
        Cache::open(&self.directory.path().join("cache")).unwrap()
    }

    fn unpack(&self, server: &Server, access: &Access) -> Result<Vec<Layer>> {
        let contents = ContentStore::create_in(&std::env::temp_dir())?;
        let source =
            open_with(access, &server.reference(), Architecture::X86_64, &Progress::default())?;
        source.unjudged("tests vouch for what they make").unpack(&contents, &Progress::default())
    }

    fn pull(&self, server: &Server) -> Result<u64> {
        pull(&self.access, &server.reference(), Architecture::X86_64, &Progress::default())
            .map(|(_, sent)| sent)
    }

    /// The blob of the second layer.
    fn blob(&self) -> PathBuf {
        let digest =
            image().blobs().blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone();
        self.cache().path(&Digest::parse(&digest).unwrap())
    }
}

#[test]
fn what_is_there_is_not_fetched_again_and_serves_without_a_network() {
    let (place, server) = (Place::new(), Server::start(image().blobs(), Manners::default()));
    assert_eq!(place.unpack(&server, &place.access).unwrap().len(), 2);
    assert_eq!(server.requests("/blobs/"), 3);
    assert_eq!(place.unpack(&server, &place.access).unwrap().len(), 2);
    assert_eq!(server.requests("/blobs/"), 3);
    assert_eq!(server.requests("/manifests/"), 2);

    let offline = Access { offline: true, ..place.access.clone() };
    assert_eq!(place.unpack(&server, &offline).unwrap().len(), 2);
    assert_eq!(server.requests("/manifests/"), 2);

    let cache = place.cache();
    let listed = cache.list().unwrap();
    assert_eq!(listed[0].name, format!("{}/x:latest", server.address));
    assert_eq!(listed[0].platforms, ["linux/amd64"]);
    assert_eq!(listed[0].size, cache.size().unwrap());
    // The same for whoever else reads layouts.
    let layout = format!("oci:{}:{}", cache.directory().display(), listed[0].name);
    let read =
        crate::oci::open(&layout.parse().unwrap(), Architecture::X86_64, &Progress::default());
    assert_eq!(read.unwrap().image.manifest_digest, listed[0].digest);

    // A digest says it all.
    let by_digest = format!("{}/x@{}", server.address, listed[0].digest).parse().unwrap();
    open_with(&place.access, &by_digest, Architecture::X86_64, &Progress::default()).unwrap();
    assert_eq!(server.requests("/v2/"), 7);
    // Nobody answers any more.
    let (warnings, reference) = (std::sync::Arc::new(AtomicUsize::new(0)), server.reference());
    drop(server);
    let heard = std::sync::Arc::clone(&warnings);
    let progress = Progress::to(move |event| {
        if matches!(event, Event::Warning { .. }) {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    });
    open_with(&place.access, &reference, Architecture::X86_64, &progress).unwrap();
    assert_eq!(warnings.load(Ordering::Relaxed), 1);
    let unknown = "127.0.0.1:1/other".parse().unwrap();
    let error =
        open_with(&offline, &unknown, Architecture::X86_64, &Progress::default()).unwrap_err();
    assert!(format!("{error:#}").contains("is not in the cache"), "{error:#}");
}

#[test]
fn damage_is_found_and_mended() {
    let (place, server) = (Place::new(), Server::start(image().blobs(), Manners::default()));
    place.pull(&server).unwrap();
    for damage in
        [|bytes: &mut Vec<u8>| bytes[1000] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(500)]
    {
        for through_pull in [true, false] {
            let mut bytes = fs::read(place.blob()).unwrap();
            damage(&mut bytes);
            fs::write(place.blob(), &bytes).unwrap();
            let before = server.requests("/blobs/");
            if through_pull {
                assert!(place.pull(&server).unwrap() > 100_000);
            } else {
                assert_eq!(place.unpack(&server, &place.access).unwrap().len(), 2);
            }
            assert_eq!(server.requests("/blobs/"), before + 1);
            let whole = image().blobs();
            assert!(whole.blobs.values().any(|blob| *blob == fs::read(place.blob()).unwrap()));
        }
    }
    // Documents, too.
    for blob in image().blobs().blobs.keys() {
        let path = place.cache().path(&Digest::parse(blob).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(place.unpack(&server, &place.access).unwrap().len(), 2);
    assert_eq!(place.pull(&server).unwrap(), 0);
}

#[test]
fn what_a_lying_registry_sends_is_not_kept() {
    let place = Place::new();
    let server =
        Server::start(image().blobs(), Manners { lies_about_layers: true, ..Manners::default() });
    let error = place.unpack(&server, &place.access).unwrap_err();
    assert!(error.is::<Corrupt>(), "{error:#}");
    assert!(!place.blob().exists());
    let error = place.pull(&server).unwrap_err();
    assert!(error.is::<Corrupt>(), "{error:#}");
    assert!(place.cache().list().unwrap().is_empty());
}

#[test]
fn a_broken_fetch_goes_on_where_it_broke() {
    let (place, server) = (
        Place::new(),
        Server::start(image().blobs(), Manners { ranges: true, ..Manners::default() }),
    );
    place.pull(&server).unwrap();
    let bytes = fs::read(place.blob()).unwrap();
    let digest =
        Digest::parse(&format!("sha256:{}", place.blob().file_name().unwrap().to_str().unwrap()))
            .unwrap();
    let ingest = place.cache().ingest(&digest);
    for (there, range) in
        [(bytes[..50_000].to_vec(), 50_000), (bytes.clone(), 0), (vec![0; 60_000], 60_000)]
    {
        fs::remove_file(place.blob()).unwrap();
        fs::write(&ingest, &there).unwrap();
        place.pull(&server).unwrap();
        assert!(fs::read(place.blob()).unwrap() == bytes);
        assert!(!ingest.exists());
        if range > 0 {
            assert!(server.requests(&format!("range: bytes={range}-")) > 0);
        }
    }
}

#[test]
fn several_at_a_time_fetch_everything_once() {
    let (place, server) = (Place::new(), Server::start(image().blobs(), Manners::default()));
    std::thread::scope(|scope| {
        for pulls in [true, false, true, false] {
            let (place, server) = (&place, &server);
            scope.spawn(move || {
                if pulls {
                    place.pull(server).unwrap();
                } else {
                    assert_eq!(place.unpack(server, &place.access).unwrap().len(), 2);
                }
            });
        }
    });
    let layers = image().blobs().blobs.iter().filter(|(_, bytes)| bytes.len() > 10_000).count();
    let fetched = server
        .log()
        .iter()
        .filter(|request| {
            image()
                .blobs()
                .blobs
                .iter()
                .any(|(digest, bytes)| bytes.len() > 10_000 && request.contains(digest))
        })
        .count();
    assert_eq!(fetched, layers);
}

#[test]
fn the_oldest_images_go_first() {
    let place = Place::new();
    let servers: Vec<Server> = (0..3_u8)
        .map(|i| {
            let shared = image().layer(|l| l.file("c", [i; 1000].repeat(100)));
            Server::start(shared.blobs(), Manners::default())
        })
        .collect();
    for server in &servers {
        place.pull(server).unwrap();
    }
    let cache = place.cache();
    for (image, age) in cache.list().unwrap().iter().zip([200, 100, 300]) {
        let file = File::open(cache.path(&Digest::parse(&image.digest).unwrap())).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(age)).unwrap();
    }
    let names: Vec<String> = cache.list().unwrap().into_iter().map(|image| image.name).collect();
    fs::write(cache.directory().join("ingest/left"), b"from a broken fetch").unwrap();
    let everything = cache.size().unwrap();

    let pruned = cache.prune(None, || panic!("nobody uses it")).unwrap();
    assert_eq!((pruned.images.len(), pruned.files), (0, 1));
    assert_eq!(pruned.left, everything - 19);
    let pruned = cache.prune(Some(pruned.left - 1), || ()).unwrap();
    assert_eq!(pruned.images, [names[1].clone()]);
    // What the others share stays.
    assert_eq!(cache.list().unwrap().iter().map(|image| image.platforms.len()).sum::<usize>(), 2);
    assert_eq!(pruned.left, cache.size().unwrap());
    let pruned = cache.prune(Some(0), || ()).unwrap();
    assert_eq!((pruned.images.len(), pruned.left), (2, 0));
    assert_eq!(cache.size().unwrap(), 0);
}

#[test]
fn nothing_is_removed_while_somebody_uses_it() {
    let place = Place::new();
    let cache = place.cache();
    let in_use = cache.enter().unwrap();
    let another = cache.enter().unwrap();
    let waited = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let pruning =
            scope.spawn(|| cache.prune(None, || waited.store(1, Ordering::SeqCst)).unwrap());
        while waited.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(another);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!pruning.is_finished());
        drop(in_use);
        pruning.join().unwrap();
    });
}
