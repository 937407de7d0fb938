//! What machines boot from over the network: a directory for a server of TFTP or HTTP.
//!
//! ```text
//! vmlinuz  initramfs.img     the image's own; the second only where it brings one with systemd
//! live.img                   what the ISO has, too: modules, programs and units
//! root.img                   the disk, compressed, in a cpio: boot loaders fetch it and the kernel unpacks it, so that the
//!                            machine needs no network of its own, but memory
//! grub.cfg  boot.ipxe        menus for GRUB and iPXE, with the names of all of these
//! EFI/                       the image's shim and GRUB, for firmware that speaks TFTP or HTTP itself; only with a GRUB that does
//! id  SHA256SUMS
//! ```
//!
//! Everything is found relative to the menus, wherever the directory is unless a URL is built in.

use anyhow::{Context, Result};

use super::initramfs::{self, Kindred};
use super::{Efi, Live, MIB, Wishes, menu, sums};
use crate::content::{Content, ContentStore};
use crate::error::unsupported;
use crate::progress::{Code, Progress};
use crate::tree::{Kind, Metadata, Tree};

/// What a live system needs besides what it carries; an installation from a medium takes 1 GiB with the changes that it keeps.
const RUNNING: u64 = 640 * MIB;
/// Memory that is needed besides while the kernel still unpacks.
const UNPACKING: u64 = 384 * MIB;

/// Arguments by which the scripts of the live system know where it comes from.
const CARRIED: &str = "bootpress.root=initrd";

/// Where Debian's GRUB for networks looks, which does not look beside itself.
const DEBIAN: &str = "grub/grub.cfg";

/// What a directory is made of.
pub(super) struct Parts<'a> {
    /// The image's tree.
    pub(super) image: &'a Tree,
    pub(super) linux: &'a Content,
    pub(super) initrd: Option<&'a Content>,
    pub(super) live: &'a Live,
    pub(super) efi: &'a Efi,
    /// The squashfs with the disk.
    pub(super) container: &'a Content,
    pub(super) extents: &'a str,
    pub(super) wishes: &'a Wishes,
}

/// Lays a directory out. `Unsupported`: the disk is too large for an initramfs, or a kernel argument cannot be written for iPXE.
pub(super) fn lay_out(
    parts: &Parts<'_>,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Tree> {
    let mut tree = Tree::new(Metadata::root(0o755));
    let mut initrds = Vec::new();
    tree.put("vmlinuz", parts.linux.clone());
    if let (Kindred::Systemd, Some(initrd)) = (parts.live.kindred, parts.initrd) {
        tree.put("initramfs.img", padded(initrd, contents)?);
        initrds.push("initramfs.img");
    }
    tree.put("live.img", padded(&parts.live.initramfs, contents)?);
    let root = root(parts.container, parts.extents, contents).context("packing the disk")?;
    tree.put("root.img", root);
    initrds.extend(["live.img", "root.img"]);

    let memory = memory(parts.container.size);
    let grub = contents.insert_bytes(grub_cfg(parts, &initrds, memory)?.as_bytes())?;
    match network_grub(parts, contents)? {
        Some(program) => {
            put_efi(&mut tree, &parts.efi.with_menu(&grub), parts, program);
            tree.put(DEBIAN, grub.clone());
        }
        None => progress.warn(Code::Medium, format!(
            "the image has no GRUB that speaks HTTP, neither grub{0}.efi nor grubnet{0}.efi: machines boot from the network with \
             iPXE, or a GRUB of yours",
            parts.efi.suffix()
        )),
    }
    tree.put("grub.cfg", grub);
    let script = contents.insert_bytes(ipxe(parts, &initrds, memory)?.as_bytes())?;
    tree.put("boot.ipxe", script);
    let id = format!("{}\n", parts.live.build_id);
    tree.put("id", contents.insert_bytes(id.as_bytes())?);
    let sums = sums(&tree, contents).context("hashing what goes into the directory")?;
    tree.put("SHA256SUMS", contents.insert_bytes(sums.as_bytes())?);
    Ok(tree)
}

/// The image's GRUB for UEFI, if it can fetch what it boots: the usual one, or one that is made for it.
fn network_grub<'a>(parts: &Parts<'a>, contents: &ContentStore) -> Result<Option<&'a Content>> {
    let name = |kind: &str| format!("grub{kind}{}.efi", parts.efi.suffix());
    let (usual, special) = (name(""), name("net"));
    let signed = format!("{special}.signed");
    let named = |path: &[u8]| {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        name == special.as_bytes() || name == signed.as_bytes()
    };
    let others = parts.image.walk().filter(|(path, _)| named(path)).filter_map(|(_, id)| {
        match &parts.image.inode(id).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    });
    for program in parts.efi.boot_file(&usual).into_iter().chain(others) {
        if speaks_http(program, contents).context("looking into GRUB")? {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

/// Modules of a GRUB that firmware starts are in it, not compressed; the one for HTTP asks in these words.
fn speaks_http(program: &Content, contents: &ContentStore) -> Result<bool> {
    const ASKS: &[u8] = b" HTTP/1.1\r\n";
    const LARGEST: u64 = 64 << 20;
    if program.size > LARGEST {
        return Ok(false);
    }
    let bytes = contents.bytes(program)?;
    Ok(bytes.windows(ASKS.len()).any(|window| window == ASKS))
}

/// Adds shim and GRUB; every shim starts the GRUB that fetches.
fn put_efi(tree: &mut Tree, efi: &Tree, parts: &Parts<'_>, program: &Content) {
    let grub = format!("/grub{}.efi", parts.efi.suffix());
    for (path, id) in efi.walk() {
        if let (Ok(path), Kind::File(content)) = (String::from_utf8(path), &efi.inode(id).kind) {
            tree.put(&path, if path.ends_with(&grub) { program } else { content }.clone());
        }
    }
}

/// MiB of memory that a machine should have. The kernel has an initramfs twice while it unpacks it.
fn memory(container: u64) -> u64 {
    (2 * container + UNPACKING).max(container + RUNNING).div_ceil(MIB).next_multiple_of(64)
}

/// The archive that carries the disk.
fn root(container: &Content, extents: &str, contents: &ContentStore) -> Result<Content> {
    if container.size > u64::from(u32::MAX) {
        return Err(unsupported(
            format!(
                "the disk takes {} MiB compressed, and an initramfs holds files below 4096 MiB",
                container.size / MIB
            ),
            Some("install from an ISO, which has no such limit"),
        ));
    }
    // The scripts believe that the disk is whole when they find the last file.
    let whole = format!("{} {}\n", (container.size + RUNNING) / 1024, container.size / 1024);
    initramfs::carrying(container, extents, &whole, contents)
}

/// Boot loaders that put one archive behind the other do not all care for the alignment that the kernel expects of an
/// uncompressed one; what is added here reads as nothing.
fn padded(initrd: &Content, contents: &ContentStore) -> Result<Content> {
    if initrd.size.is_multiple_of(4) {
        return Ok(initrd.clone());
    }
    let mut writer = contents.writer(initrd.size.next_multiple_of(4));
    std::io::copy(&mut contents.reader(initrd), &mut writer).context("copying in the spool")?;
    let rest = initrd.size.next_multiple_of(4) - initrd.size;
    std::io::Write::write_all(&mut writer, &[0; 4][..rest as usize])
        .context("writing to the spool")?;
    writer.finish()
}

/// The first entry, or the one that installs where that is to happen by itself.
fn default(wishes: &Wishes) -> &'static str {
    if wishes.settings.install_to.is_some() { "install" } else { "live" }
}

fn selector(wishes: &Wishes) -> &str {
    wishes.settings.install_to.as_ref().map_or("", menu::Selector::text)
}

/// The kernel's arguments, those of the user behind the system's own.
fn arguments(parts: &Parts<'_>) -> impl Iterator<Item = String> {
    let added = &parts.wishes.settings.kernel_arguments;
    parts.live.arguments.iter().chain(added).cloned().chain([CARRIED.to_owned()])
}

fn grub_cfg(parts: &Parts<'_>, initrds: &[&str], memory: u64) -> Result<String> {
    let arguments =
        arguments(parts).map(|word| menu::quoted(&word)).collect::<Result<Vec<_>>>()?.join(" ");
    let initrds: Vec<String> = initrds.iter().map(|name| format!("$bootpress/{name}")).collect();
    let place = parts.wishes.url.as_ref().map_or(String::new(), Url::grub);
    Ok(include_str!("guest/pxe.cfg")
        .replace("@PLACE@", &place)
        .replace("@DEFAULT@", default(parts.wishes))
        .replace("@TIMEOUT@", &menu::TIMEOUT.to_string())
        .replace("@MEMORY@", &memory.to_string())
        .replace("@SELECTOR@", &menu::quoted(selector(parts.wishes))?)
        .replace("@INITRDS@", &initrds.join(" "))
        .replace("@ARGUMENTS@", &arguments)
        .replace("@TITLE@", &parts.live.title))
}

fn ipxe(parts: &Parts<'_>, initrds: &[&str], memory: u64) -> Result<String> {
    let arguments = arguments(parts).map(word_for_ipxe).collect::<Result<Vec<_>>>()?.join(" ");
    let url = parts.wishes.url.as_ref().map_or(String::new(), |url| format!("{}/", url.0));
    // Kernels before 5.7, and iPXE before 2021, find initramfs under UEFI by these names only.
    let names: Vec<String> = initrds.iter().map(|name| format!("initrd={name}")).collect();
    let commands: Vec<String> =
        initrds.iter().map(|name| format!("initrd --name {name} {url}{name}")).collect();
    let elsewhere = if url.is_empty() { String::new() } else { format!(", or rather {url}") };
    Ok(include_str!("guest/boot.ipxe")
        .replace("@ELSEWHERE@", &elsewhere)
        .replace("@PLACE@", &url)
        .replace("@DEFAULT@", default(parts.wishes))
        .replace("@TIMEOUT@", &menu::TIMEOUT.to_string())
        .replace("@MEMORY@", &memory.to_string())
        .replace("@SELECTOR@", selector(parts.wishes))
        .replace("@NAMES@", &names.join(" "))
        .replace("@INITRDS@", &commands.join("\n"))
        .replace("@ARGUMENTS@", &arguments)
        .replace("@TITLE@", &parts.live.title))
}

/// iPXE has no quotes of its own: what would mean something to it cannot be said.
fn word_for_ipxe(word: String) -> Result<String> {
    let operator = |word: &str| ["&&", "||", ";"].contains(&word) || word.starts_with('#');
    // iPXE joins words with single blanks: what is quoted for the kernel passes if it has no others.
    let words: Vec<&str> = word.split_ascii_whitespace().collect();
    let changed = words.join(" ") != word;
    if word.is_empty() || changed || word.contains("${") || words.iter().any(|one| operator(one)) {
        return Err(unsupported(
            format!("the kernel argument {word:?} cannot be written down for iPXE"),
            Some("leave it away with --karg-delete"),
        ));
    }
    Ok(word)
}

/// Where a directory will be: `http://HOST[:PORT][/PATH]`, without a final slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Reads one; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!(
                "`{text}` does not begin with http://, and GRUB speaks no other protocol in every build"
            ));
        };
        let safe = |c: char| c.is_ascii_alphanumeric() || "._~-/:[]%+".contains(c);
        let host = rest.split('/').next().unwrap_or_default();
        let port = host.rsplit_once(':').filter(|(name, _)| !name.ends_with(':'));
        let bad_port =
            port.is_some_and(|(_, port)| !port.ends_with(']') && port.parse::<u16>().is_err());
        if host.is_empty() || host.starts_with(':') || bad_port || !rest.chars().all(safe) {
            return Err(format!("`{text}` is not a URL such as http://192.0.2.1:8080/fedora"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// As GRUB spells it: `(http,HOST[:PORT])[/PATH]`.
    fn grub(&self) -> String {
        let rest = &self.0["http://".len()..];
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        format!("(http,{host}){path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_what_grub_reads() {
        for (text, grub) in [
            ("http://192.0.2.1", "(http,192.0.2.1)"),
            ("http://192.0.2.1/", "(http,192.0.2.1)"),
            ("http://boot.example.org:8080/os/43/", "(http,boot.example.org:8080)/os/43"),
        ] {
            assert_eq!(Url::parse(text).unwrap().grub(), grub);
        }
        for bad in [
            "",
            "https://x/",
            "http://",
            "http:///x",
            "http://:80/x",
            "http://x:http/",
            "http://x/a b",
            "http://x/$y",
            "http://x/\"",
            "tftp://x",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_what_unpacking_takes_or_running() {
        assert_eq!(memory(10 * MIB), 704);
        assert_eq!(memory(1000 * MIB), 2432);
    }

    #[test]
    fn what_ipxe_would_act_upon_is_refused() {
        assert_eq!(word_for_ipxe(r#"foo="a b""#.to_owned()).unwrap(), r#"foo="a b""#);
        for bad in ["&&", "||", "#x", "a=${mac}", "a=\"b  c\"", "a=\"b # c\"", "a=\"b\tc\""] {
            assert!(word_for_ipxe(bad.to_owned()).is_err(), "{bad}");
        }
        assert_eq!(word_for_ipxe("a=$b&c".to_owned()).unwrap(), "a=$b&c");
    }

    #[test]
    fn padding_is_zeros_up_to_four() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        for (len, padded_len) in [(4, 4), (5, 8), (7, 8)] {
            let content = contents.insert_bytes(&vec![1; len]).unwrap();
            let bytes = contents.bytes(&padded(&content, &contents).unwrap()).unwrap();
            let mut expected = vec![1; len];
            expected.resize(padded_len, 0);
            assert_eq!(bytes, expected);
        }
    }
}
