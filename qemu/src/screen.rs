//! What the machine's screen shows: pictures taken through QMP, of which those that differ are kept as PNG.
//!
//! ```text
//! due ──screendump──► QEMU writes a PPM ──answered──► compared ──► kept, if enough of it changed; the last one always
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use self::text::Font;

mod text;

/// Time between two pictures. Each is some megabytes that QEMU writes while its guest waits.
const INTERVAL: Duration = Duration::from_secs(2);

/// So many pixels may change without that being a change: a blinking cursor is at most a cell of 10 by 20.
const CURSOR: usize = 200;

/// How many pictures are kept; when there are more, every second one goes, and those that come are taken half as often.
const MOST: usize = 24;

/// A larger screen than QEMU's cards show; what claims to be one is not decoded.
const LARGEST_SIDE: u32 = 16_384;

/// A picture of the screen.
#[derive(Clone, Serialize)]
pub struct Shot {
    /// When, since power-on.
    pub seconds: f64,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The file in the evidence directory, as in `screens/00012.4s.png`.
    pub file: String,
    /// The bytes of that file.
    #[serde(skip)]
    pub png: Vec<u8>,
}

impl fmt::Debug for Shot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} by {})", self.file, self.width, self.height)
    }
}

/// The screen of a machine that runs.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Where QEMU is told to write.
    dump: PathBuf,
    evidence: Option<PathBuf>,
    kept: Vec<Shot>,
    spacing: Duration,
    shown: Option<Picture>,
    shown_at: Duration,
    /// The picture that was last found different, and when.
    different: Option<Picture>,
    changed: Duration,
    /// When the picture before that was taken.
    before_change: Option<Duration>,
    next: Duration,
    waiting: bool,
    absent: bool,
    font: Option<Font>,
    /// What it last said in letters.
    lines: Vec<String>,
}

/// Pixels, three bytes each, in rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Screen {
    /// `dump` is a file that QEMU may write; `evidence` the directory in which `screens/` is made.
    pub(crate) fn new(dump: PathBuf, evidence: Option<&Path>) -> Self {
        Self {
            dump,
            evidence: evidence.map(Path::to_owned),
            kept: Vec::new(),
            spacing: Duration::ZERO,
            shown: None,
            shown_at: Duration::ZERO,
            different: None,
            changed: Duration::ZERO,
            before_change: None,
            next: Duration::ZERO,
            waiting: false,
            absent: false,
            font: Font::find(Path::new("/")),
            lines: Vec::new(),
        }
    }

    /// The file to ask QEMU for, if it is time to.
    pub(crate) fn due(&mut self, now: Duration) -> Option<&Path> {
        if self.absent || self.waiting || now < self.next {
            return None;
        }
        self.waiting = true;
        self.next = now + INTERVAL;
        Some(&self.dump)
    }

    /// The next picture is due at once.
    pub(crate) const fn hurry(&mut self) {
        self.next = Duration::ZERO;
    }

    /// Whether QEMU still owes a picture.
    pub(crate) const fn waiting(&self) -> bool {
        self.waiting
    }

    /// QEMU has written the file.
    ///
    /// # Errors
    /// When a kept picture cannot be written into the evidence directory.
    pub(crate) fn answered(&mut self, now: Duration) -> io::Result<()> {
        self.waiting = false;
        // A picture that cannot be read is one the less; there will be others.
        let Some(picture) = fs::read(&self.dump).ok().as_deref().and_then(Picture::decode) else {
            return Ok(());
        };
        let differs = self.different.as_ref().is_none_or(|known| known.differs(&picture) > CURSOR);
        if differs {
            self.before_change = self.shown.as_ref().map(|_| self.shown_at);
            self.changed = now;
            self.different = Some(picture.clone());
        }
        // A single line that has changed may be less than a cursor.
        if self.shown.as_ref() != Some(&picture) {
            self.lines = self.font.as_ref().map(|font| font.read(&picture)).unwrap_or_default();
        }
        let last = self.kept.last().map(|shot| Duration::from_secs_f64(shot.seconds));
        let spaced = last.is_none_or(|last| now >= last + self.spacing);
        self.shown = Some(picture);
        self.shown_at = now;
        if differs && spaced { self.keep() } else { Ok(()) }
    }

    /// The lines of text that it shows, as far as they can be read.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// QEMU has no picture to give: the machine has no screen.
    pub(crate) const fn refused(&mut self) {
        self.waiting = false;
        self.absent = true;
    }

    /// From when to when nothing but a cursor has moved; `None` while nothing was seen.
    pub(crate) fn still(&self) -> Option<(Duration, Duration)> {
        self.shown.as_ref().map(|_| (self.changed, self.shown_at))
    }

    /// When more than a cursor last moved.
    pub(crate) const fn changed(&self) -> Duration {
        self.changed
    }

    /// Whether more than a cursor has moved between two pictures that were both taken after this time.
    pub(crate) fn changed_since(&self, time: Duration) -> bool {
        self.before_change.is_some_and(|before| before >= time)
    }

    /// Whether the screen shows a single colour, or nothing was seen.
    pub(crate) fn blank(&self) -> bool {
        self.shown.as_ref().is_none_or(|picture| {
            picture.pixels.chunks_exact(3).all(|pixel| pixel == &picture.pixels[..3])
        })
    }

    /// The pictures kept, the last one seen among them whatever it shows.
    ///
    /// # Errors
    /// As [`answered`](Self::answered).
    pub(crate) fn finish(&mut self) -> io::Result<Vec<Shot>> {
        let last = self.kept.last().map(|shot| shot.seconds);
        if self.shown.is_some() && last != Some(self.shown_at.as_secs_f64()) {
            self.keep()?;
        }
        Ok(std::mem::take(&mut self.kept))
    }

    fn keep(&mut self) -> io::Result<()> {
        let Some(picture) = &self.shown else { return Ok(()) };
        let seconds = self.shown_at.as_secs_f64();
        let shot = Shot {
            seconds,
            width: picture.width,
            height: picture.height,
            file: format!("screens/{seconds:07.1}s.png"),
            png: picture.png()?,
        };
        if let Some(evidence) = &self.evidence {
            fs::create_dir_all(evidence.join("screens"))?;
            fs::write(evidence.join(&shot.file), &shot.png)?;
        }
        self.kept.push(shot);
        if self.kept.len() > MOST { self.thin() } else { Ok(()) }
    }

    /// Drops every second picture, but neither the first nor the last.
    fn thin(&mut self) -> io::Result<()> {
        self.spacing = (self.spacing * 2).max(INTERVAL * 2);
        let last = self.kept.len() - 1;
        let (kept, dropped): (Vec<_>, Vec<_>) = std::mem::take(&mut self.kept)
            .into_iter()
            .enumerate()
            .partition(|(index, _)| index % 2 == 0 || *index == last);
        self.kept = kept.into_iter().map(|(_, shot)| shot).collect();
        for (_, shot) in dropped {
            if let Some(evidence) = &self.evidence {
                fs::remove_file(evidence.join(&shot.file))?;
            }
        }
        Ok(())
    }
}

impl Picture {
    /// Reads a binary PPM of 8 bits, which is what QEMU writes: `P6`, width, height, 255, pixels.
    fn decode(ppm: &[u8]) -> Option<Self> {
        let mut rest = ppm.strip_prefix(b"P6")?;
        let mut number = || -> Option<u32> {
            let start = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
            let end = start + rest[start..].iter().position(u8::is_ascii_whitespace)?;
            let number = std::str::from_utf8(&rest[start..end]).ok()?.parse().ok();
            rest = &rest[end..];
            number
        };
        let (width, height, most) = (number()?, number()?, number()?);
        let sound = |side: u32| (1..=LARGEST_SIDE).contains(&side);
        if !sound(width) || !sound(height) || most != 255 {
            return None;
        }
        let pixels = rest.get(1..)?;
        let whole = pixels.len() as u64 == u64::from(width) * u64::from(height) * 3;
        whole.then(|| Self { width, height, pixels: pixels.to_vec() })
    }

    /// How many pixels differ; all of them, if the sizes do.
    fn differs(&self, other: &Self) -> usize {
        if (self.width, self.height) != (other.width, other.height) {
            return usize::MAX;
        }
        if self.pixels == other.pixels {
            return 0;
        }
        let pairs = self.pixels.chunks_exact(3).zip(other.pixels.chunks_exact(3));
        pairs.filter(|(one, two)| one != two).count()
    }

    fn png(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(&self.pixels).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 40;
    const HEIGHT: usize = 30;

    /// A grey screen with so many white pixels from the top.
    fn ppm(white: usize) -> Vec<u8> {
        let mut bytes = format!("P6\n{WIDTH} {HEIGHT}\n255\n").into_bytes();
        bytes.extend((0..WIDTH * HEIGHT).flat_map(|at| [if at < white { 255 } else { 9 }; 3]));
        bytes
    }

    /// Shows a sequence of screens, two seconds apart; the pictures that are kept, and those found in the directory.
    fn shown(screens: &[usize]) -> (Vec<Shot>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let mut screen = Screen::new(directory.path().join("dump"), Some(directory.path()));
        for (second, white) in (0..).step_by(2).zip(screens) {
            let now = Duration::from_secs(second);
            let dump = screen.due(now).expect("it is time").to_owned();
            assert_eq!(screen.due(now), None, "one at a time");
            fs::write(dump, ppm(*white)).unwrap();
            screen.answered(now).unwrap();
        }
        let kept = screen.finish().unwrap();
        for shot in &kept {
            assert_eq!(fs::read(directory.path().join(&shot.file)).unwrap(), shot.png);
        }
        let files = fs::read_dir(directory.path().join("screens")).unwrap().count();
        (kept, files)
    }

    fn times(shots: &[Shot]) -> Vec<u32> {
        shots.iter().map(|shot| shot.seconds as u32).collect()
    }

    #[test]
    fn changes_are_kept_and_cursors_are_none() {
        let (kept, _) = shown(&[0, 0, 20, 0, 500, 500, 520, 500, 900]);
        assert_eq!(times(&kept), [0, 8, 16]);
    }

    #[test]
    fn the_last_picture_is_kept_whatever_it_shows() {
        let (kept, _) = shown(&[0, 0, 20]);
        assert_eq!(times(&kept), [0, 4]);
        let decoder = png::Decoder::new(io::Cursor::new(&kept[1].png));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels.len(), WIDTH * HEIGHT * 3);
        assert_eq!((pixels[19 * 3], pixels[20 * 3]), (255, 9));
    }

    #[test]
    fn a_screen_that_never_rests_does_not_fill_the_disk() {
        let restless: Vec<usize> = (0..400).map(|n| n % 2 * 600).collect();
        let (kept, files) = shown(&restless);
        assert!((MOST / 3..=MOST + 1).contains(&kept.len()), "{}", kept.len());
        assert_eq!(files, kept.len(), "what is dropped is removed");
        let times = times(&kept);
        assert_eq!((times[0], times[times.len() - 1]), (0, 798));
    }

    #[test]
    fn stillness_and_blankness_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut screen = Screen::new(directory.path().join("dump"), None);
        assert_eq!((screen.still(), screen.blank()), (None, true));
        for (second, white) in [(0, 0), (2, 700), (4, 710), (9, 700)] {
            let dump = screen.due(Duration::from_secs(second)).unwrap().to_owned();
            fs::write(dump, ppm(white)).unwrap();
            screen.answered(Duration::from_secs(second)).unwrap();
            assert_eq!(screen.blank(), white == 0);
        }
        assert_eq!(screen.still(), Some((Duration::from_secs(2), Duration::from_secs(9))));
        assert_eq!(screen.changed(), Duration::from_secs(2));
        assert!(
            screen.changed_since(Duration::ZERO) && !screen.changed_since(Duration::from_secs(1))
        );
        screen.due(Duration::from_secs(20)).unwrap();
        screen.refused();
        assert_eq!(screen.due(Duration::from_secs(40)), None, "no screen, no question");
    }

    #[test]
    fn what_is_no_picture_is_none() {
        assert!(Picture::decode(&ppm(3)).is_some());
        let mut longer = ppm(0);
        longer.push(0);
        for bytes in [
            &longer[..],
            &ppm(0)[..900],
            b"",
            b"P6",
            b"P6\n",
            b"P5\n1 1\n255\n\0\0\0",
            b"P6\n1 1\n65535\n\0\0\0",
            b"P6\n0 1\n255\n",
            b"P6\n4294967295 4294967295\n255\n\0",
            b"P6\n\xff\xff 1\n255\n\0\0\0",
        ] {
            assert_eq!(Picture::decode(bytes), None);
        }
    }
}
