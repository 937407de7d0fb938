//! What GRUB reads on a medium: the menu, and the settings that can be changed afterwards without making the medium anew.

use anyhow::Result;

use crate::command_line;
use crate::error::unsupported;

/// Bytes of the settings, whatever is in them.
pub(super) const SETTINGS_SIZE: usize = 4096;

/// Seconds until the first entry boots.
pub(super) const TIMEOUT: u32 = 5;

/// Arguments of the disk's own command line that name its root; the live root is another device.
const OF_THE_ROOT: [&str; 6] = ["root", "boot", "rootflags", "rootfstype", "rw", "ro"];

/// What is asked of a medium besides what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Further kernel arguments of both entries.
    pub kernel_arguments: Vec<String>,
    /// Which disk to install to without asking.
    pub install_to: Option<Selector>,
}

/// Which of a machine's disks is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(String);

impl Selector {
    /// Reads `serial=…`, `wwn=…`, `path=/dev/…`, `size>=…` (bytes, or with K, M, G, T) or `only-disk`; the error says what does.
    pub fn parse(text: &str) -> Result<Self, String> {
        const KINDS: &str = "serial=TEXT, wwn=TEXT, path=/dev/NAME, size>=SIZE or only-disk";
        let value = |prefix: &str| text.strip_prefix(prefix).filter(|value| !value.is_empty());
        if let Some(size) = value("size>=") {
            let digits = size.trim_end_matches("iB").trim_end_matches('B');
            let unit = digits.trim_start_matches(|c: char| c.is_ascii_digit());
            let shift = ["", "K", "M", "G", "T"]
                .iter()
                .position(|known| *known == unit.to_ascii_uppercase());
            let number = digits[..digits.len() - unit.len()].parse::<u64>().ok();
            let bytes =
                shift.zip(number).and_then(|(shift, number)| number.checked_mul(1 << (10 * shift)));
            return bytes
                .map(|bytes| Self(format!("size>={bytes}")))
                .ok_or_else(|| format!("`{size}` is not a size such as 100G"));
        }
        let known = value("serial=").or(value("wwn=")).is_some()
            || value("path=").is_some_and(|path| path.starts_with("/dev/"))
            || text == "only-disk";
        if !known {
            return Err(format!("`{text}` selects no disk: {KINDS}"));
        }
        check_word(text).map_err(|reason| format!("`{text}`: {reason}"))?;
        Ok(Self(text.to_owned()))
    }

    /// As the installer reads it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl Settings {
    /// The file that GRUB sources: always [`SETTINGS_SIZE`] bytes. `Unsupported`: too much, or what GRUB would not take.
    pub(super) fn file(&self) -> Result<Vec<u8>> {
        for argument in &self.kernel_arguments {
            check_word(argument).map_err(|reason| {
                unsupported(format!("the kernel argument {argument:?}: {reason}"), None)
            })?;
        }
        let text = format!(
            "# Settings of this medium; changed with `bootpress iso set`, always {SETTINGS_SIZE} bytes.\n\
             set bootpress_kargs=\"{}\"\nset bootpress_install_to=\"{}\"\n",
            self.kernel_arguments.join(" "),
            self.install_to.as_ref().map_or("", Selector::text)
        );
        if text.len() >= SETTINGS_SIZE {
            return Err(unsupported(
                format!(
                    "the settings of a medium have {} bytes at most, and these need {}",
                    SETTINGS_SIZE,
                    text.len()
                ),
                Some("build arguments in with `bootpress build --karg`"),
            ));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(SETTINGS_SIZE - 1, b'#');
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads back what [`Settings::file`] made; `None`: it did not.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let value = |name: &str| {
            let start = format!("set {name}=\"");
            text.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'))
        };
        let selector = value("bootpress_install_to")?;
        Some(Self {
            kernel_arguments: value("bootpress_kargs")?
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            install_to: if selector.is_empty() {
                None
            } else {
                Some(Selector::parse(selector).ok()?)
            },
        })
    }
}

/// Why a word cannot stand between GRUB's double quotes and reach the kernel as one argument.
fn check_word(word: &str) -> Result<(), String> {
    match word.chars().find(|c| !c.is_ascii_graphic() || "\"\\$`'".contains(*c)) {
        Some(c) => Err(format!("a medium's settings cannot hold {c:?}")),
        None if word.is_empty() => Err("it is empty".to_owned()),
        None => Ok(()),
    }
}

/// The kernel arguments of the live system, from those of the installed one.
pub(super) fn live_arguments(line: &str, root_type: &str, root_flags: &str) -> Vec<String> {
    let own = command_line::split(line)
        .filter(|argument| !OF_THE_ROOT.contains(&argument.split('=').next().unwrap_or_default()));
    // An installed twin in the same machine has the same UUIDs, so the live root goes by its device, and nothing is mounted
    // because a table or fstab names it.
    let live = [
        "root=/dev/bootpress/root".to_owned(),
        "rw".to_owned(),
        format!("rootfstype={root_type}"),
        format!("rootflags={root_flags}"),
        "fsck.mode=skip".to_owned(),
        "fstab=no".to_owned(),
        "systemd.gpt_auto=0".to_owned(),
        "rd.systemd.gpt_auto=0".to_owned(),
    ];
    live.into_iter().chain(own.map(str::to_owned)).collect()
}

/// The menu. `initrds`: paths on the medium, in the order in which they are loaded.
pub(super) fn grub_cfg(
    title: &str,
    build_id: &str,
    arguments: &[String],
    initrds: &[&str],
) -> Result<String> {
    let arguments: Vec<String> =
        arguments.iter().map(|argument| quoted(argument)).collect::<Result<_>>()?;
    Ok(include_str!("guest/grub.cfg")
        .replace("@BUILD_ID@", build_id)
        .replace("@TIMEOUT@", &TIMEOUT.to_string())
        .replace("@TITLE@", title)
        .replace("@ARGUMENTS@", &arguments.join(" "))
        .replace("@INITRDS@", &initrds.join(" ")))
}

/// A kernel argument as a word of GRUB's language.
///
/// Its double quotes go: GRUB's `linux` puts them back around an argument with blanks, and would pass those that are there on
/// as `\"`.
pub(super) fn quoted(argument: &str) -> Result<String> {
    let word = command_line::bare(argument);
    if word.contains(['\'', '\n']) {
        return Err(unsupported(
            format!("the kernel argument {word:?} cannot be written down for GRUB"),
            None,
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "=/._-,:@+%".contains(c);
    Ok(if word.chars().all(plain) { word } else { format!("'{word}'") })
}

/// A title that menus, shells and firmware take as it is.
pub(super) fn safe_title(title: &str) -> String {
    let safe: String = title
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || " ._()+-".contains(c) { c } else { ' ' })
        .collect();
    let safe = safe.split_whitespace().collect::<Vec<_>>().join(" ");
    if safe.is_empty() { "Linux".to_owned() } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_say_what_they_mean() {
        for (text, meant) in [
            ("serial=S3Z1NB0K", "serial=S3Z1NB0K"),
            ("wwn=0x5002538e", "wwn=0x5002538e"),
            ("path=/dev/nvme0n1", "path=/dev/nvme0n1"),
            ("size>=100G", "size>=107374182400"),
            ("size>=4096", "size>=4096"),
            ("size>=1TiB", "size>=1099511627776"),
            ("only-disk", "only-disk"),
        ] {
            assert_eq!(Selector::parse(text).unwrap().text(), meant);
        }
        for text in [
            "",
            "serial=",
            "path=sda",
            "size>=",
            "size>=x",
            "size>=99999999999T",
            "first",
            "serial=a b",
            "serial=\"",
            "only-disk ",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_come_back_and_keep_their_size() {
        let settings = Settings {
            kernel_arguments: vec!["console=ttyS0".to_owned(), "quiet".to_owned()],
            install_to: Some(Selector::parse("size>=10G").unwrap()),
        };
        for settings in [settings, Settings::default()] {
            let file = settings.file().unwrap();
            assert_eq!(file.len(), SETTINGS_SIZE);
            assert_eq!(Settings::parse(&file), Some(settings));
        }
        assert_eq!(Settings::parse(b"set default=0"), None);
        for bad in ["a b", "$x", "\"", "x\\", "", "it's"] {
            let settings =
                Settings { kernel_arguments: vec![bad.to_owned()], ..Settings::default() };
            assert!(settings.file().is_err(), "{bad}");
        }
        let long = Settings { kernel_arguments: vec!["x".repeat(4000)], ..Settings::default() };
        assert!(long.file().is_err());
    }

    #[test]
    fn the_live_root_is_another_one() {
        let line = "root=UUID=1 rw boot=UUID=2 console=ttyS0 rootflags=x systemd.foo=1 ostree=/ostree/boot.1/default/x/0";
        let arguments = live_arguments(line, "ext4", "noinit_itable").join(" ");
        assert!(
            arguments.starts_with(
                "root=/dev/bootpress/root rw rootfstype=ext4 rootflags=noinit_itable "
            )
        );
        assert!(arguments.ends_with(
            "rd.systemd.gpt_auto=0 console=ttyS0 systemd.foo=1 ostree=/ostree/boot.1/default/x/0"
        ));
    }

    #[test]
    fn quoted_arguments_of_the_disk_stay_whole() {
        let line = r#"root=UUID=1 rw foo="a b" "bar=root=x y" quiet"#;
        let arguments = live_arguments(line, "ext4", "x");
        assert!(arguments.ends_with(&[
            r#"foo="a b""#.to_owned(),
            r#""bar=root=x y""#.to_owned(),
            "quiet".to_owned()
        ]));
        let menu = grub_cfg("t", "id", &arguments, &["/initrd"]).unwrap();
        assert!(menu.contains(" 'foo=a b' 'bar=root=x y' quiet $bootpress_kargs"), "{menu}");
    }

    #[test]
    fn what_grub_would_read_otherwise_is_quoted() {
        assert_eq!(quoted("root=UUID=1").unwrap(), "root=UUID=1");
        assert_eq!(quoted("a=$b;c").unwrap(), "'a=$b;c'");
        for argument in [r#"foo="a b""#, r#""foo=a b""#] {
            assert_eq!(quoted(argument).unwrap(), "'foo=a b'");
        }
        assert_eq!(quoted(r#"foo="a""#).unwrap(), "foo=a");
        assert!(quoted("it's").is_err());
        assert_eq!(safe_title("Fedora Linux 43 \"x\" {$y}"), "Fedora Linux 43 x y");
    }
}
