//! The bootupd inside an image: how old it is and which version, without running it.

use std::io::Read;

use anyhow::Result;

use crate::content::{Content, ContentStore};
use crate::layer::{EntryKind, Layer};
use crate::tree::Tree;

/// Where its program lies, best first; the second is a link to the first.
const PROGRAMS: [&str; 2] = ["usr/libexec/bootupd", "usr/bin/bootupctl"];

/// Databases of packages: rpm's, where it is in ostree systems and elsewhere.
const RPM: [&str; 3] =
    ["usr/share/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite"];
/// Debian's.
const DPKG: [&str; 2] = ["var/lib/dpkg/status", "usr/lib/sysimage/dpkg/status"];

/// Programs and databases above this are not looked through.
const LARGEST: u64 = 1 << 30;

/// When the program of bootupd was built: the time of its file in the topmost layer that has it, in seconds since 1970.
///
/// ostree's importer sets all times to 0, so this is asked of the layers. `None`: no layer has the program.
pub fn age(layers: &[Layer]) -> Option<i64> {
    let entries = || layers.iter().rev().flat_map(|layer| layer.entries.iter().rev());
    let of = |program: &str| {
        entries().find_map(|entry| {
            let path = std::str::from_utf8(&entry.path).ok()?;
            let file = matches!(entry.kind, EntryKind::File(_) | EntryKind::HardLink(_));
            (file && path.trim_start_matches(['.', '/']) == program).then_some(entry.metadata.mtime)
        })
    };
    PROGRAMS.into_iter().find_map(of)
}

/// The version of the image's bootupd, as its package's database says it, else as paths in its program do.
pub(super) fn version(root: &Tree, contents: &ContentStore) -> Result<Option<String>> {
    let looks: [(&[&str], Pattern); 3] = [
        // The data of an RPM header: its strings one after the other, name and version first (rpm's tags 1000 and 1001).
        (&RPM, Pattern { before: b"\0bootupd\0", after: b"\0" }),
        (&DPKG, Pattern { before: b"Package: bootupd\n", after: b"\n" }),
        // Rust keeps the paths of sources for its panics: …/BUILD/bootupd-0.2.27/vendor/….
        (&PROGRAMS, Pattern { before: b"/bootupd-", after: b"/-" }),
    ];
    for (paths, pattern) in looks {
        for content in paths.iter().filter_map(|path| root.file(path)) {
            if content.size <= LARGEST
                && let Some(version) = pattern.find(contents, content)?
            {
                return Ok(Some(version));
            }
        }
    }
    Ok(None)
}

/// What stands before a version, and what may end it.
struct Pattern {
    before: &'static [u8],
    after: &'static [u8],
}

impl Pattern {
    /// The first version behind the pattern in a content.
    fn find(&self, contents: &ContentStore, content: &Content) -> Result<Option<String>> {
        /// How much is looked at behind what stands before the version; a paragraph of dpkg has a dozen lines before it.
        const AHEAD: usize = 2 << 10;
        const STEP: usize = 1 << 20;
        let mut reader = contents.reader(content);
        let mut window: Vec<u8> = Vec::with_capacity(STEP + AHEAD);
        let mut chunk = vec![0; STEP];
        loop {
            let count = reader.read(&mut chunk)?;
            window.extend_from_slice(&chunk[..count]);
            if let Some(version) = self.search(&window) {
                return Ok(Some(version));
            }
            if count == 0 {
                return Ok(None);
            }
            let from = window.len().saturating_sub(AHEAD);
            window.drain(..from);
        }
    }

    fn search(&self, bytes: &[u8]) -> Option<String> {
        let first = *self.before.first()?;
        let mut at = 0;
        while let Some(found) = bytes[at..].iter().position(|byte| *byte == first) {
            at += found;
            if let Some(rest) = bytes[at..].strip_prefix(self.before)
                && let Some(version) = self.version(rest)
            {
                return Some(version);
            }
            at += 1;
        }
        None
    }

    /// `0.2.27` at the beginning; in dpkg's database, at the line that begins with `Version:`.
    fn version(&self, bytes: &[u8]) -> Option<String> {
        let bytes = if self.after == b"\n" {
            let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
            let paragraph = if bytes.starts_with(b"\n") { 0 } else { end };
            let key = b"Version: ";
            let at = bytes[..paragraph].windows(key.len()).position(|window| window == key)?;
            &bytes[at + key.len()..]
        } else {
            bytes
        };
        let end = bytes.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let version = std::str::from_utf8(&bytes[..end]).ok()?;
        // dpkg's version goes on with `-1`, the revision of the package.
        let ends = self.after.contains(&bytes[end]) || self.after == b"\n" && bytes[end] == b'-';
        let numbers: Vec<&str> = version.split('.').collect();
        (ends && numbers.len() >= 2 && numbers.iter().all(|number| !number.is_empty()))
            .then(|| version.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Entry;
    use crate::tree::{Kind, Metadata};

    fn image(path: &str, bytes: &[u8]) -> (Tree, ContentStore) {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut tree = Tree::new(Metadata::root(0o755));
        let (above, name) = path.rsplit_once('/').unwrap();
        let above = tree.make_directories(above, &Metadata::root(0o755));
        let content = contents.insert_bytes(bytes).unwrap();
        tree.create(above, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
        (tree, contents)
    }

    #[test]
    fn version_is_found_where_packages_and_programs_have_it() {
        let padding = |before: usize, text: &[u8]| [vec![b'.'; before], text.to_vec()].concat();
        for (path, bytes, expected) in [
            (RPM[0], padding(3, b"C\0bootupd\x000.2.27\x003.fc42\0"), Some("0.2.27")),
            // Over the border between two reads.
            (RPM[1], padding((1 << 20) - 12, b"C\0bootupd\x000.2.31\x001.fc43\0"), Some("0.2.31")),
            // A package that needs it is not it.
            (RPM[0], b"\0bootupd\0coreutils\0".to_vec(), None),
            (
                DPKG[0],
                b"Package: bootupd\nStatus: ok\nVersion: 0.2.18-1\n\n".to_vec(),
                Some("0.2.18"),
            ),
            (DPKG[0], b"Package: bootupd\n\nPackage: x\nVersion: 1.2\n".to_vec(), None),
            (PROGRAMS[0], b"\x7fELF/BUILD/bootupd-0.2.27/vendor/x".to_vec(), Some("0.2.27")),
            (PROGRAMS[0], b"\x7fELF/BUILD/bootupd-0.3.0-build/x".to_vec(), Some("0.3.0")),
            (PROGRAMS[0], b"\x7fELF/bootupd-state.json".to_vec(), None),
            (PROGRAMS[0], b"/bootupd-".to_vec(), None),
        ] {
            let (tree, contents) = image(path, &bytes);
            assert_eq!(version(&tree, &contents).unwrap().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn age_is_of_the_topmost_file() {
        let entry = |path: &str, mtime, kind| Entry {
            path: path.as_bytes().into(),
            metadata: Metadata { mtime, ..Metadata::root(0o755) },
            nanoseconds: 0,
            kind,
        };
        let layer =
            |entries| Layer { digest: String::new(), diff_id: String::new(), size: 0, entries };
        let file = || EntryKind::File(Content::EMPTY);
        let layers = [
            layer(vec![entry("usr/libexec/bootupd", 5, file())]),
            layer(vec![
                entry("./usr/libexec/bootupd", 7, file()),
                entry("usr/bin/bootupctl", 9, EntryKind::Symlink((*b"../libexec/bootupd").into())),
            ]),
        ];
        assert_eq!(age(&layers), Some(7));
        assert_eq!(age(&layers[..1]), Some(5));
        assert_eq!(age(&[layer(vec![entry("usr/bin/bootupctl", 3, file())])]), Some(3));
        assert_eq!(age(&[]), None);
    }
}
