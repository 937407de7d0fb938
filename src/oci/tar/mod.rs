//! Reads tar archives: ustar, PAX and GNU, binary-safe, from front to back.
//!
//! ```text
//! | header | data, padded to 512 | header | data … | zeros     a block is 512 bytes; a block of zeros ends the archive
//!
//! headers that only extend the entry after them:
//!   x   PAX records        L   GNU long name        K   GNU long link target
//!
//! a header that is about the archive, and is passed over:
//!   V   GNU volume label
//! ```
//!
//! Where archives are ambiguous and programs read them differently, nothing is guessed: such an archive is corrupt.

mod number;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::{self, Read};

use ::tar::Header;
use anyhow::{Context, Result};

use self::number::{decimal, header_number};
use self::pax::Pax;
pub(super) use self::sparse::{Run, Sparse};
use crate::error::{corrupt, unsupported};
use crate::tree::Xattrs;

const BLOCK: u64 = 512;

/// The largest extended header or long name; real ones have a few hundred bytes.
const MAXIMUM_EXTENSION: u64 = 1 << 20;

/// Something to read an archive from.
pub(super) trait Input: Read {
    /// Passes over bytes; returns how many there were, fewer than asked for only at the end.
    fn skip(&mut self, count: u64) -> io::Result<u64>;
}

/// A stream, which passes over bytes by reading them.
pub(super) struct Stream<R>(pub(super) R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Input for Stream<R> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        io::copy(&mut self.0.by_ref().take(count), &mut io::sink())
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member, extensions applied; its data comes next in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) kind: MemberKind,
    pub(super) path: Vec<u8>,
    /// Target of a link, else whatever the header holds.
    pub(super) link: Vec<u8>,
    /// Permission bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) nanoseconds: u32,
    pub(super) xattrs: Xattrs,
    /// Major and minor number, for devices.
    pub(super) device: (u32, u32),
    /// Bytes of the file; other kinds have none.
    pub(super) size: u64,
    /// The shape of a sparse file.
    pub(super) sparse: Option<Sparse>,
}

/// The members of an archive, in order.
pub(super) struct Members<I> {
    input: I,
    subject: String,
    position: u64,
    /// Bytes of the current member's data that were not read, and of padding behind them.
    left: u64,
    padding: u64,
}

/// What came before a member's own header.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.path.is_none() && self.link.is_none()
    }
}

impl<I: Input> Members<I> {
    /// `subject` names the archive in errors.
    pub(super) fn new(input: I, subject: impl Into<String>) -> Self {
        Self { input, subject: subject.into(), position: 0, left: 0, padding: 0 }
    }

    /// Where in the archive reading stands.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// An error that blames the archive.
    pub(super) fn corrupt(&self, reason: impl Into<String>) -> anyhow::Error {
        corrupt(self.subject.as_str(), reason)
    }

    /// The next member, passing over what was not read of the current one.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            self.pass()?;
            let Some(block) = self.header()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(self.corrupt("an extended header at the end extends nothing"))
                };
            };
            let header = Header::from_byte_slice(&block);
            let old = header.as_old();
            let size = self.unsigned("size", &old.size)?;
            let known = match old.linkflag[0] {
                b'x' => {
                    let records = self.extension(size)?;
                    let pax = Pax::parse(&records).map_err(|reason| self.corrupt(reason))?;
                    extensions.pax.replace(pax).is_some()
                }
                b'L' => {
                    let path = self.long_name(size)?;
                    extensions.path.replace(path).is_some()
                }
                b'K' => {
                    let link = self.long_name(size)?;
                    extensions.link.replace(link).is_some()
                }
                b'V' => {
                    self.expect_data(size);
                    !extensions.is_empty()
                }
                b'g' => {
                    let hint = "write the archive again without one, as container tools do";
                    let what = "a PAX header for the whole archive is not supported";
                    return Err(unsupported(what, Some(hint)));
                }
                _ => return self.member(header, size, extensions).map(Some),
            };
            if known {
                return Err(self.corrupt("two extended headers of one kind precede an entry"));
            }
        }
    }

    /// Fills `buffer` with the current member's data. Asking for more than its size is our mistake.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> Result<()> {
        let count = buffer.len() as u64;
        assert!(count <= self.left, "{count} bytes of the {} that are left", self.left);
        self.left -= count;
        if self.fill(buffer)? < buffer.len() {
            return Err(self.corrupt("unexpected end of stream"));
        }
        Ok(())
    }

    fn pass(&mut self) -> Result<()> {
        let count =
            std::mem::take(&mut self.left).saturating_add(std::mem::take(&mut self.padding));
        if count == 0 {
            return Ok(());
        }
        let passed = self.input.skip(count).map_err(|error| self.blame(error))?;
        self.position = self.position.saturating_add(passed);
        if passed < count { Err(self.corrupt("unexpected end of stream")) } else { Ok(()) }
    }

    /// A header block, its checksum verified; `None` at the end, with or without blocks of zeros.
    fn header(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if !Self::is_header(&block) {
            let at = self.position - BLOCK;
            return Err(self.corrupt(format!("the header at byte {at} has a wrong checksum")));
        }
        Ok(Some(block))
    }

    /// A block; `None` at the end, or if there are only zeros in it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        match self.fill(&mut block)? {
            0 => Ok(None),
            count if count < block.len() => Err(self.corrupt("unexpected end of stream")),
            _ if block == [0; BLOCK as usize] => Ok(None),
            _ => Ok(Some(block)),
        }
    }

    /// Whether a block's checksum is that of a header.
    fn is_header(block: &[u8; BLOCK as usize]) -> bool {
        // The checksum counts itself as spaces. Some old programs summed signed bytes.
        let counted = || {
            let field = 148..156;
            block.iter().enumerate().map(move |(i, &b)| if field.contains(&i) { b' ' } else { b })
        };
        let unsigned: i128 = counted().map(i128::from).sum();
        let signed: i128 = counted().map(|byte| i128::from(byte as i8)).sum();
        header_number(&block[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
    }

    /// Data of a header that extends; read at once, so its size is limited before anything is allocated.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAXIMUM_EXTENSION {
            let what = format!("an extended header of {size} bytes is larger than any real one");
            return Err(unsupported(what, None));
        }
        self.expect_data(size);
        let mut bytes = vec![0; size as usize];
        self.read_data(&mut bytes)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut name = self.extension(size)?;
        if let Some(end) = name.iter().position(|&byte| byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn expect_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Member> {
        let Extensions { pax, path, link } = extensions;
        let mut pax = pax.unwrap_or_default();
        if (path.is_some() && pax.path.is_some()) || (link.is_some() && pax.link.is_some()) {
            return Err(self.corrupt("an entry has two long names"));
        }
        let old = header.as_old();
        let long = path.or(pax.path.take());
        let path = pax.sparse.name.take().or(long).unwrap_or_else(|| header_path(header));
        let link = link.or(pax.link.take()).unwrap_or_else(|| until_nul(&old.linkname).to_vec());
        let context = format!("reading {}", path.escape_ascii());
        self.described(header, size, pax, path, link).context(context)
    }

    /// The rest of `member`, once it is known which entry errors are about.
    fn described(
        &mut self,
        header: &Header,
        size: u64,
        pax: Pax,
        path: Vec<u8>,
        link: Vec<u8>,
    ) -> Result<Member> {
        let old = header.as_old();
        let kind = match old.linkflag[0] {
            // Before there were directories in tar, a slash at the end meant one; some programs still write that.
            0 | b'0' | b'7' if path.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::CharacterDevice,
            b'4' => MemberKind::BlockDevice,
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            other => {
                let other = other.escape_ascii();
                return Err(unsupported(
                    format!("entries of type '{other}' are not supported"),
                    None,
                ));
            }
        };
        let stored = pax.size.unwrap_or(size);
        let is_link = matches!(kind, MemberKind::HardLink | MemberKind::Symlink);
        if kind != MemberKind::File && !is_link && stored > 0 {
            return Err(self.corrupt("an entry that is not a file has data"));
        }
        self.expect_data(stored);
        // Old programs gave links the size of what they link to, or the length of its name.
        if is_link && stored > 0 {
            self.pass_data_of_link()?;
        }
        let id = |name: &str, id: Option<u64>, field: &[u8]| {
            let id = id.map_or_else(|| self.unsigned(name, field), Ok)?;
            u32::try_from(id).map_err(|_| self.corrupt(format!("the {name} {id} is out of range")))
        };
        let (uid, gid) = (id("uid", pax.uid, &old.uid)?, id("gid", pax.gid, &old.gid)?);
        let device = match (kind, header.as_ustar(), header.as_gnu()) {
            (MemberKind::CharacterDevice | MemberKind::BlockDevice, ustar, gnu) => {
                let fields = ustar.map(|h| (&h.dev_major, &h.dev_minor));
                let fields = fields.or(gnu.map(|h| (&h.dev_major, &h.dev_minor)));
                let (major, minor) =
                    fields.ok_or_else(|| self.corrupt("a device has no number"))?;
                (id("device number", None, major)?, id("device number", None, minor)?)
            }
            _ => (0, 0),
        };
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => header_number(&old.mtime)
                .and_then(|mtime| i64::try_from(mtime).ok())
                .ok_or_else(|| self.corrupt("the mtime is not a number"))?,
        };
        let nanoseconds = pax.nanoseconds;
        let mode = (self.unsigned("mode", &old.mode)? & 0o7777) as u16;
        let xattrs = pax.xattrs.clone();
        let sparse = self.sparse(header, pax, stored)?;
        let size = match &sparse {
            _ if is_link => 0,
            Some(sparse) => sparse.size,
            None => stored,
        };
        Ok(Member {
            kind,
            path,
            link,
            mode,
            uid,
            gid,
            mtime,
            nanoseconds,
            xattrs,
            device,
            size,
            sparse,
        })
    }

    /// Passes over the first block of what a link seems to have for data. The importer takes it for data; other programs know that links
    /// have none, and take it for the next header. Where it is one, the two would read different archives.
    fn pass_data_of_link(&mut self) -> Result<()> {
        let stored = self.left + self.padding;
        if let Some(block) = self.block()?
            && Self::is_header(&block)
        {
            return Err(
                self.corrupt("a link has a size, and another entry where its data would be")
            );
        }
        self.left = stored.saturating_sub(BLOCK);
        self.padding = 0;
        Ok(())
    }

    fn sparse(&mut self, header: &Header, pax: Pax, stored: u64) -> Result<Option<Sparse>> {
        let flag = header.as_old().linkflag[0];
        let records = pax.sparse;
        let map = match (flag, records.are_there()) {
            (b'S', true) => return Err(self.corrupt("a sparse file has two maps")),
            (b'S', false) => {
                let gnu = header.as_gnu().ok_or_else(|| self.corrupt("no GNU header"))?;
                let size = self.unsigned("real size", &gnu.realsize)?;
                Some((size, self.gnu_map(gnu, stored)?, stored))
            }
            (0 | b'0' | b'7', true) => {
                let size = records.real_size;
                let size = size.ok_or_else(|| self.corrupt("a sparse file has no size"))?;
                match (records.major.unwrap_or(0), records.minor.unwrap_or(0), records.runs) {
                    (0, 0 | 1, Some(runs)) => Some((size, runs, stored)),
                    (1, 0, None) => {
                        let runs = self.map_before_data()?;
                        Some((size, runs, self.left))
                    }
                    (0, 0 | 1, None) | (1, 0, Some(_)) => {
                        return Err(self.corrupt("a sparse file has not one map"));
                    }
                    (major, minor, _) => {
                        let what =
                            format!("sparse files of version {major}.{minor} are not supported");
                        return Err(unsupported(what, None));
                    }
                }
            }
            (_, true) => return Err(self.corrupt("an entry that is not a file is sparse")),
            (_, false) => None,
        };
        map.map(|(size, runs, stored)| Sparse::new(size, runs, stored))
            .transpose()
            .map_err(|reason| self.corrupt(reason))
    }

    /// The map of an old GNU sparse file: four runs in its header, more in the blocks between header and data.
    fn gnu_map(&mut self, gnu: &::tar::GnuHeader, stored: u64) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let add = |runs: &mut Vec<Run>, this: &Self, fields: &[::tar::GnuSparseHeader]| {
            for field in fields.iter().filter(|field| field.offset[0] != 0) {
                let offset = this.unsigned("offset", &field.offset)?;
                runs.push(Run { offset, size: this.unsigned("size", &field.numbytes)? });
            }
            anyhow::Ok(())
        };
        add(&mut runs, self, &gnu.sparse)?;
        let mut extended = gnu.isextended[0] != 0;
        while extended {
            if runs.len() > sparse::MAXIMUM_RUNS {
                return Err(self.corrupt("the file has too many holes"));
            }
            let mut block = ::tar::GnuExtSparseHeader::new();
            if (self.fill(block.as_mut_bytes())? as u64) < BLOCK {
                return Err(self.corrupt("unexpected end of stream"));
            }
            add(&mut runs, self, &block.sparse)?;
            extended = block.isextended[0] != 0;
        }
        self.expect_data(stored);
        Ok(runs)
    }

    /// The map of a PAX 1.0 sparse file, from the front of its data.
    fn map_before_data(&mut self) -> Result<Vec<Run>> {
        let mut block = [0; BLOCK as usize];
        let mut used = block.len();
        let mut next = |this: &mut Self| -> Result<u64> {
            let mut digits = Vec::new();
            loop {
                if used == block.len() {
                    if this.left < BLOCK {
                        return Err(this.corrupt("the map of a sparse file has no end"));
                    }
                    this.read_data(&mut block)?;
                    used = 0;
                }
                let byte = block[used];
                used += 1;
                if byte == b'\n' {
                    let number = decimal(&digits);
                    return number
                        .ok_or_else(|| this.corrupt("the map of a sparse file is malformed"));
                }
                digits.push(byte);
                if digits.len() > 20 {
                    return Err(this.corrupt("the map of a sparse file is malformed"));
                }
            }
        };
        let count = next(self)?;
        if count > sparse::MAXIMUM_RUNS as u64 {
            return Err(self.corrupt("the file has too many holes"));
        }
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(Run { offset: next(self)?, size: next(self)? });
        }
        Ok(runs)
    }

    fn unsigned(&self, name: &str, field: &[u8]) -> Result<u64> {
        header_number(field).and_then(|number| u64::try_from(number).ok()).ok_or_else(|| {
            self.corrupt(format!("the {name} is not a number: {}", field.escape_ascii()))
        })
    }

    /// Reads until `buffer` is full or the archive ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.input.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.blame(error)),
            }
        }
        self.position = self.position.saturating_add(done as u64);
        Ok(done)
    }

    /// An error with a number is the operating system's, any other is a decoder's about its input.
    fn blame(&self, error: io::Error) -> anyhow::Error {
        match error.raw_os_error() {
            Some(_) => error.into(),
            None => self.corrupt(error.to_string()),
        }
    }
}

/// The path of a header that nothing extends.
fn header_path(header: &Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    match header.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}
