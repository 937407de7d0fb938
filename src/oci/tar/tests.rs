//! Each case of the archive reader, with archives made byte by byte.

use ::tar::{EntryType, Header};
use proptest::prelude::*;
use support::tiny_image::{Item, TinyLayer, append, record};

use super::*;
use crate::error::{Corrupt, Unsupported};

fn members(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>> {
    let mut members = Members::new(Stream(archive), "it");
    let mut found = Vec::new();
    while let Some(member) = members.next()? {
        let stored = match &member.sparse {
            Some(sparse) => sparse.runs.iter().map(|run| run.size).sum(),
            None => member.size,
        };
        let mut data = Vec::new();
        for _ in 0..stored {
            let mut byte = [0];
            members.read_data(&mut byte)?;
            data.push(byte[0]);
        }
        found.push((member, data));
    }
    Ok(found)
}

fn only(archive: &[u8]) -> (Member, Vec<u8>) {
    let mut found = members(archive).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn refused(archive: &[u8]) -> String {
    let error = members(archive).unwrap_err();
    assert!(error.is::<Corrupt>() || error.is::<Unsupported>(), "{error:#}");
    format!("{error:#}")
}

fn gnu(kind: u8, name: &[u8]) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[test]
fn metadata_comes_from_header_and_records() {
    let item = Item::file("./a", b"abc").mode(0o104_755).owner(1, 1 << 31).mtime(7);
    let (member, data) = only(&TinyLayer::default().add(item.clone()).archive());
    assert_eq!((&*member.path, &*data), (&b"./a"[..], &b"abc"[..]));
    assert_eq!((member.mode, member.uid, member.gid), (0o4755, 1, 1 << 31));
    assert_eq!((member.mtime, member.size, member.kind), (7, 3, MemberKind::File));
    let item = item
        .record("uid", b"5")
        .record("gid", b"6")
        .record("mtime", b"-0.5")
        .record("path", b"b\xff")
        .record("comment", b"no matter");
    let (member, _) = only(&TinyLayer::default().add(item).archive());
    assert_eq!((&*member.path, member.uid, member.gid), (&b"b\xff"[..], 5, 6));
    assert_eq!(member.mtime, -1);
}

#[test]
fn long_names_in_every_dialect() {
    let long = vec![b'x'; 200];
    let mut archive = Vec::new();
    append(&mut archive, gnu(b'L', b"././@LongLink"), &[&long[..], b"\0"].concat());
    append(&mut archive, gnu(b'K', b"././@LongLink"), &[b"to/", &long[..], b"\0"].concat());
    append(&mut archive, gnu(b'2', b"short"), b"");
    let (member, _) = only(&archive);
    assert_eq!((&member.path, &*member.link), (&long, &*[b"to/", &long[..]].concat()));

    let layer = TinyLayer::default().add(Item::symlink(&long, [b"to/", &long[..]].concat()));
    assert_eq!(only(&layer.archive()).0.link, member.link);

    let mut header = Header::new_ustar();
    header.as_ustar_mut().unwrap().prefix[..5].copy_from_slice(b"pre/f");
    header.as_old_mut().name = [b'n'; 100];
    header.set_mode(0);
    let mut archive = Vec::new();
    append(&mut archive, header, b"");
    assert_eq!(only(&archive).0.path, [b"pre/f/", &[b'n'; 100][..]].concat());
    // In a GNU header there are times where ustar has the prefix.
    let mut header = gnu(b'0', b"name");
    header.as_gnu_mut().unwrap().set_atime(1);
    let mut archive = Vec::new();
    append(&mut archive, header, b"");
    assert_eq!(only(&archive).0.path, b"name");
}

#[test]
fn old_types_and_all_kinds() {
    for (flag, name, kind) in [
        (0, &b"f"[..], MemberKind::File),
        (b'7', b"f", MemberKind::File),
        (0, b"d/", MemberKind::Directory),
        (b'0', b"d/", MemberKind::Directory),
        (b'5', b"d", MemberKind::Directory),
        (b'1', b"l", MemberKind::HardLink),
        (b'6', b"p", MemberKind::Fifo),
    ] {
        let mut header = Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkflag[0] = flag;
        let mut archive = Vec::new();
        append(&mut archive, header, b"");
        assert_eq!(only(&archive).0.kind, kind, "{flag}");
    }
    let device = Item::new(EntryType::Char, "c").device(1, 3);
    let (member, _) = only(&TinyLayer::default().add(device).archive());
    assert_eq!((member.kind, member.device), (MemberKind::CharacterDevice, (1, 3)));
    let mut archive = Vec::new();
    append(&mut archive, gnu(b'M', b"rest"), b"");
    assert!(refused(&archive).contains("type 'M'"));
}

#[test]
fn volume_labels_are_passed_over() {
    let file = TinyLayer::default().file("a", b"abc").archive();
    for data in [&b""[..], b"what somebody put there"] {
        let mut archive = Vec::new();
        append(&mut archive, gnu(b'V', b"my volume"), data);
        assert_eq!(only(&[&archive[..], &file].concat()).0.path, b"a");
        let mut between = TinyLayer::default().file("b", b"").unfinished();
        between.extend_from_slice(&archive);
        assert_eq!(members(&[&between[..], &file].concat()).unwrap().len(), 2);
    }
    let mut archive = Vec::new();
    append(&mut archive, gnu(b'L', b"L"), b"name\0");
    append(&mut archive, gnu(b'V', b"label"), b"");
    assert!(refused(&archive).contains("extended headers"));
}

#[test]
fn ends_of_archives() {
    let whole = TinyLayer::default().file("a", b"abc");
    let archive = whole.clone().archive();
    assert_eq!(members(b"").unwrap().len(), 0);
    assert_eq!(members(&[0; 512]).unwrap().len(), 0);
    assert_eq!(members(&whole.clone().unfinished()).unwrap().len(), 1);
    assert_eq!(members(&[&archive[..], b"garbage"].concat()).unwrap().len(), 1);
    for cut in [1, 511, 513, 515, 1023] {
        assert!(refused(&archive[..cut]).contains("unexpected end of stream"), "{cut}");
    }
    let huge = {
        let mut header = gnu(b'0', b"huge");
        header.set_size(1 << 60);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let mut reader = Members::new(Stream(&huge[..]), "it");
    assert_eq!(reader.next().unwrap().unwrap().size, 1 << 60);
    assert!(reader.next().unwrap_err().to_string().contains("unexpected end"));
}

#[test]
fn a_wrong_checksum_is_corrupt_and_a_signed_one_is_not() {
    let mut archive = TinyLayer::default().file("a", b"abc").archive();
    archive[0] = b'b';
    assert!(refused(&archive).contains("checksum"));
    let mut archive = TinyLayer::default().file("\u{e9}", b"").archive();
    let sum: i64 = (0..512)
        .map(|i| if (148..156).contains(&i) { 32 } else { i64::from(archive[i] as i8) })
        .sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(only(&archive).0.path, "\u{e9}".as_bytes());
}

#[test]
fn extensions_must_extend_one_entry() {
    let pax = {
        let mut archive = Vec::new();
        append(&mut archive, gnu(b'x', b"x"), &record("mtime", b"1"));
        archive
    };
    let file = TinyLayer::default().file("a", b"").archive();
    assert!(members(&[&pax[..], &file].concat()).is_ok());
    assert!(refused(&[&pax[..], &pax, &file].concat()).contains("two extended headers"));
    assert!(refused(&pax).contains("extends nothing"));
    assert!(refused(&[&pax[..], &[0; 1024]].concat()).contains("extends nothing"));
    let mut global = Vec::new();
    append(&mut global, gnu(b'g', b"g"), &record("comment", b"x"));
    assert!(members(&global).unwrap_err().is::<Unsupported>());
    let mut long = Vec::new();
    append(&mut long, gnu(b'L', b"L"), b"name\0");
    let named = TinyLayer::default().add(Item::file("a", b"").record("path", b"b")).archive();
    assert!(refused(&[&long[..], &named].concat()).contains("two long names"));
    let mut header = gnu(b'x', b"x");
    header.set_size(MAXIMUM_EXTENSION + 1);
    header.set_cksum();
    assert!(members(header.as_bytes()).unwrap_err().is::<Unsupported>());
}

#[test]
fn only_files_have_data() {
    for kind in *b"3456" {
        let mut archive = Vec::new();
        append(&mut archive, gnu(kind, b"x"), b"data");
        assert!(refused(&archive).contains("has data"), "{kind}");
    }
}

/// What bootc's importer takes for the data of a link is passed over, unless other programs would find an entry there.
#[test]
fn links_may_have_a_size() {
    let file = TinyLayer::default().file("a", b"abc").archive();
    for kind in *b"12" {
        for data in [&b"data"[..], &[b'x'; 512], &[b'x'; 1300]] {
            let mut archive = Vec::new();
            append(&mut archive, gnu(kind, b"x"), data);
            let (member, found) = only(&archive);
            assert_eq!((member.size, &found[..]), (0, &b""[..]));
            let both = members(&[&archive[..], &file].concat()).unwrap();
            assert_eq!((both.len(), &both[1].1[..]), (2, &b"abc"[..]));
        }
        // Without data: at the end both readings agree, before an entry they do not.
        let mut header = gnu(kind, b"x");
        header.set_size(3);
        header.set_cksum();
        let bare = header.as_bytes();
        assert_eq!(only(&[&bare[..], &[0; 1024]].concat()).0.size, 0);
        assert!(refused(&[&bare[..], &file].concat()).contains("where its data would be"));
        assert!(refused(&[&bare[..], b"cut"].concat()).contains("unexpected end"));
    }
    let link = Item::symlink("l", "t").record("size", b"3");
    assert_eq!(only(&TinyLayer::default().add(link).archive()).0.size, 0);
}

#[test]
fn numbers_that_are_none() {
    let mut header = gnu(b'0', b"x");
    header.as_old_mut().uid = *b"0000009\0";
    let mut archive = Vec::new();
    append(&mut archive, header, b"");
    assert!(refused(&archive).contains("uid"));
    let item = Item::file("x", b"").record("gid", b"4294967296");
    assert!(refused(&TinyLayer::default().add(item).archive()).contains("gid"));
    let mut header = gnu(b'0', b"x");
    header.as_old_mut().size = [0xff; 12];
    header.set_cksum();
    assert!(refused(header.as_bytes()).contains("size"));
}

fn old_sparse(runs: &[(u64, u64)], size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = gnu(b'S', b"s");
    let gnu = header.as_gnu_mut().unwrap();
    let mut rest = runs.iter();
    for (field, run) in gnu.sparse.iter_mut().zip(rest.by_ref()) {
        field.set_offset(run.0);
        field.set_length(run.1);
    }
    gnu.set_real_size(size);
    gnu.set_is_extended(runs.len() > 4);
    let mut archive = Vec::new();
    append(&mut archive, header, data);
    let mut at = 512;
    let left: Vec<_> = runs.iter().skip(4).collect();
    for (i, chunk) in left.chunks(21).enumerate() {
        let mut block = ::tar::GnuExtSparseHeader::new();
        for (field, run) in block.sparse.iter_mut().zip(chunk) {
            field.set_offset(run.0);
            field.set_length(run.1);
        }
        block.set_is_extended((i + 1) * 21 < left.len());
        archive.splice(at..at, block.as_bytes().iter().copied());
        at += 512;
    }
    archive
}

#[test]
fn sparse_files_in_every_dialect() {
    let runs = [(4096, 3), (8192, 2)];
    let expected = Sparse {
        size: 10_000,
        runs: vec![Run { offset: 4096, size: 3 }, Run { offset: 8192, size: 2 }],
    };
    let sparse = |major: &str, minor: &str| {
        Item::file("GNUSparseFile.1/s", b"abcde")
            .record("GNU.sparse.major", major)
            .record("GNU.sparse.minor", minor)
            .record("GNU.sparse.name", "s")
    };
    let mut map = b"3\n4096\n3\n8192\n2\n10000\n0\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    let one = Item::file("x", map)
        .record("GNU.sparse.major", "1")
        .record("GNU.sparse.minor", "0")
        .record("GNU.sparse.name", "s")
        .record("GNU.sparse.realsize", "10000");
    let layer = |item: Item| TinyLayer::default().add(item).file("after", b"x").archive();
    let archives = [
        [old_sparse(&runs, 10_000, b"abcde"), TinyLayer::default().file("after", b"x").archive()]
            .concat(),
        layer(
            sparse("0", "0")
                .record("GNU.sparse.size", "10000")
                .record("GNU.sparse.numblocks", "2")
                .record("GNU.sparse.offset", "4096")
                .record("GNU.sparse.numbytes", "3")
                .record("GNU.sparse.offset", "8192")
                .record("GNU.sparse.numbytes", "2"),
        ),
        layer(
            sparse("0", "1")
                .record("GNU.sparse.size", "10000")
                .record("GNU.sparse.map", "4096,3,8192,2"),
        ),
        layer(one),
    ];
    for archive in archives {
        let found = members(&archive).unwrap();
        let (member, data) = &found[0];
        assert_eq!((&*member.path, &**data), (&b"s"[..], &b"abcde"[..]));
        assert_eq!((member.size, member.sparse.as_ref()), (10_000, Some(&expected)));
        assert_eq!(found[1].0.path, b"after");
    }
}

#[test]
fn old_sparse_files_with_many_runs() {
    let runs: Vec<(u64, u64)> = (0..60).map(|i| (i * 1000, 1)).collect();
    let (member, data) = only(&old_sparse(&runs, 60_000, &[7; 60]));
    assert_eq!(member.sparse.unwrap().runs.len(), 60);
    assert_eq!(data, [7; 60]);
}

#[test]
fn sparse_maps_that_are_none() {
    assert!(refused(&old_sparse(&[(10, 1), (5, 1)], 20, b"ab")).contains("order"));
    assert!(refused(&old_sparse(&[(10, 1)], 20, b"ab")).contains("runs of 1 bytes"));
    assert!(refused(&old_sparse(&[(20, 2)], 20, b"ab")).contains("ends after"));
    let item = |bytes: &[u8]| {
        Item::file("x", bytes).record("GNU.sparse.major", "1").record("GNU.sparse.realsize", "9")
    };
    let refused_item = |item| refused(&TinyLayer::default().add(item).archive());
    assert!(refused_item(item(b"1\n")).contains("no end"));
    assert!(refused_item(item(&[b'1'; 512])).contains("malformed"));
    let mut many = b"99999999\n".to_vec();
    many.resize(512, b'0');
    assert!(refused_item(item(&many)).contains("too many holes"));
    assert!(refused_item(item(b"").record("GNU.sparse.map", "0,1")).contains("not one map"));
    let new =
        Item::file("x", b"").record("GNU.sparse.major", "2").record("GNU.sparse.realsize", "9");
    assert!(refused_item(new).contains("2.0"));
    let no_size = Item::file("x", b"").record("GNU.sparse.map", "0,1");
    assert!(refused_item(no_size).contains("no size"));
    let link = Item::symlink("x", "y").record("GNU.sparse.size", "1");
    assert!(refused_item(link).contains("not a file is sparse"));
}

fn rich() -> Vec<u8> {
    let long = [b'y'; 150];
    TinyLayer::default()
        .directory("usr/")
        .add(Item::file(long, b"abc").xattr("security.capability", b"\n\0"))
        .symlink("l", long)
        .add(
            Item::file("s", b"ab")
                .record("GNU.sparse.size", "9")
                .record("GNU.sparse.map", "1,1,5,1"),
        )
        .raw(&old_sparse(&(0..30).map(|i| (i * 9, 1)).collect::<Vec<_>>(), 900, &[1; 30]))
        .archive()
}

/// Makes the checksums right again, so that a mutation reaches what is behind them.
fn mend(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        if block[257..262] == *b"ustar" {
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = members(&bytes);
    }

    #[test]
    fn arbitrary_records_never_panic(bytes in "([0-9]{1,3} (path|size|GNU.sparse.(map|offset|size))=[0-9,]{0,9}\n){0,5}") {
        let _ = Pax::parse(bytes.as_bytes());
    }

    #[test]
    fn mutated_archives_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = rich();
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let end = cut.index(archive.len() * 4);
        archive.truncate(end.max(512));
        mend(&mut archive);
        // Sizes are not bounded here, so only headers are read.
        let mut reader = Members::new(Stream(&archive[..]), "it");
        while let Ok(Some(_)) = reader.next() {}
    }
}
