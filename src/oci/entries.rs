//! An archive's members as entries of a layer: names checked, contents in the store.

use std::io::Write;

use anyhow::{Context, Result};

use super::tar::{Input, Member, MemberKind, Members, Run};
use crate::content::{Content, ContentStore, ContentWriter, PutUp};
use crate::error::unsupported;
use crate::layer::{Entry, EntryKind};
use crate::limits::Budget;
use crate::tree::Metadata;

/// Bytes that move at once from an archive into the store.
const BUFFER: usize = 128 * 1024;

/// No Linux file system holds a longer component (`NAME_MAX`).
const NAME_MAXIMUM: usize = 255;

/// `PATH_MAX` without its NUL: no program could open a longer path or read a longer link.
const PATH_MAXIMUM: usize = 4095;

/// Bytes that one entry takes in memory besides its name, from the layer to the disk's inode.
const ENTRY_COST: usize = 256;

/// Where contents go.
#[derive(Clone, Copy)]
pub(super) enum Room<'a> {
    /// To the others of this build.
    Spool(&'a ContentStore),
    /// To a file that is kept for later builds.
    Kept(&'a PutUp),
}

impl<'a> Room<'a> {
    fn writer(self, size: u64) -> ContentWriter<'a> {
        match self {
            Self::Spool(contents) => contents.writer(size),
            Self::Kept(put_up) => put_up.writer(size),
        }
    }

    const fn writing(self) -> &'static str {
        match self {
            Self::Spool(_) => "writing to the spool",
            Self::Kept(_) => "writing to the cache; --no-cache does without",
        }
    }
}

/// Reads an archive to its end blocks; with the entries comes how many bytes of metadata were taken from the budget. Unsupported
/// and corrupt entries are errors that name their path.
pub(super) fn read(
    members: &mut Members<impl Input>,
    room: Room<'_>,
    budget: &Budget,
) -> Result<(Vec<Entry>, u64)> {
    let mut entries = Vec::new();
    let mut metadata = 0;
    let mut buffer = vec![0; BUFFER];
    while let Some(member) = members.next()? {
        let context = |member: &Member| format!("reading {}", member.path.escape_ascii());
        let footprint = footprint(&member);
        metadata += footprint;
        budget.take_entry(footprint).with_context(|| context(&member))?;
        let kind = check(members, &member)
            .and_then(|()| entry_kind(members, &member, room, budget, &mut buffer))
            .with_context(|| context(&member))?;
        entries.push(Entry {
            metadata: Metadata {
                mode: member.mode,
                uid: member.uid,
                gid: member.gid,
                mtime: member.mtime,
                xattrs: member.xattrs,
                immutable: false,
            },
            path: member.path.into(),
            nanoseconds: member.nanoseconds,
            kind,
        });
    }
    Ok((entries, metadata))
}

/// Bytes of memory that an entry costs.
fn footprint(member: &Member) -> u64 {
    let xattrs = member.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64);
    let runs = member.sparse.as_ref().map_or(0, |sparse| sparse.runs.len());
    let names = member.path.len() + member.link.len() + xattrs.sum::<usize>();
    (names + runs * 2 * size_of::<Run>() + ENTRY_COST) as u64
}

/// What may not be in any tree, whoever unites the layers.
fn check(members: &Members<impl Input>, member: &Member) -> Result<()> {
    let is_link = matches!(member.kind, MemberKind::HardLink | MemberKind::Symlink);
    if member.path.is_empty() {
        return Err(members.corrupt("an entry has no name"));
    }
    check_path(members, &member.path)?;
    if is_link && member.link.is_empty() {
        return Err(members.corrupt("a link has no target"));
    }
    match member.kind {
        MemberKind::HardLink => check_path(members, &member.link).context("reading its target"),
        MemberKind::Symlink if member.link.contains(&0) => {
            Err(members.corrupt("a link target contains NUL"))
        }
        MemberKind::Symlink if member.link.len() > PATH_MAXIMUM => {
            let what = format!("link targets over {PATH_MAXIMUM} bytes are not supported by Linux");
            Err(unsupported(what, None))
        }
        _ => Ok(()),
    }
}

fn check_path(members: &Members<impl Input>, path: &[u8]) -> Result<()> {
    if path.contains(&0) {
        return Err(members.corrupt("a name contains NUL"));
    }
    if path.len() > PATH_MAXIMUM {
        let what = format!("paths over {PATH_MAXIMUM} bytes are not supported by Linux");
        return Err(unsupported(what, None));
    }
    for component in path.split(|&byte| byte == b'/') {
        if component == b".." {
            return Err(members.corrupt("a name has a component '..'"));
        }
        if component.len() > NAME_MAXIMUM {
            let what = format!("names over {NAME_MAXIMUM} bytes are not supported by Linux");
            return Err(unsupported(what, None));
        }
    }
    Ok(())
}

fn entry_kind(
    members: &mut Members<impl Input>,
    member: &Member,
    room: Room<'_>,
    budget: &Budget,
    buffer: &mut [u8],
) -> Result<EntryKind> {
    let (major, minor) = member.device;
    Ok(match member.kind {
        MemberKind::File => EntryKind::File(content(members, member, room, budget, buffer)?),
        MemberKind::HardLink => EntryKind::HardLink(member.link.as_slice().into()),
        MemberKind::Symlink => EntryKind::Symlink(member.link.as_slice().into()),
        MemberKind::CharacterDevice => EntryKind::CharacterDevice(major, minor),
        MemberKind::BlockDevice => EntryKind::BlockDevice(major, minor),
        MemberKind::Directory => EntryKind::Directory,
        MemberKind::Fifo => EntryKind::Fifo,
    })
}

fn content(
    members: &mut Members<impl Input>,
    member: &Member,
    room: Room<'_>,
    budget: &Budget,
    buffer: &mut [u8],
) -> Result<Content> {
    if member.size == 0 {
        return Ok(Content::EMPTY);
    }
    budget.take_content(member.size)?;
    let mut writer = room.writer(member.size);
    let whole = [Run { offset: 0, size: member.size }];
    let runs = member.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.runs);
    let mut position = 0;
    for run in runs {
        writer.skip(run.offset - position);
        let mut left = run.size;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = &mut buffer[..count];
            members.read_data(chunk)?;
            writer.write_all(chunk).context(room.writing())?;
            left -= count as u64;
        }
        position = run.offset + run.size;
    }
    writer.skip(member.size - position);
    writer.finish()
}
