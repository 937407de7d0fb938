//! A small image that bootpress presses: everything that a bootc image must have, in a few kilobytes. Nothing of it runs.

use crate::tiny_image::{Item, TinyImage, tiny_image};

/// The version that its kernel says it has.
const KERNEL: &str = "6.17.1-tiny";

/// Two layers, with UEFI payload, set-uid, hard links, attributes, empty files, whiteouts, `/etc` and `/var`.
pub fn bootc_image() -> TinyImage {
    without_bootloader().layer(|layer| {
        const UPDATES: &str = "usr/lib/bootupd/updates";
        let metadata =
            r#"{"timestamp":"2025-01-02T03:04:05Z","version":"grub2-1:2.12-1,shim-15.8-3"}"#;
        layer
            .file(format!("{UPDATES}/EFI.json"), metadata)
            .file(format!("{UPDATES}/EFI/BOOT/BOOTX64.EFI"), "shim")
            .file(format!("{UPDATES}/EFI/BOOT/fbx64.efi"), "fallback")
            .file(format!("{UPDATES}/EFI/tiny/shimx64.efi"), "shim")
            .file(format!("{UPDATES}/EFI/tiny/grubx64.efi"), "grub")
            .file(format!("{UPDATES}/EFI/tiny/BOOTX64.CSV"), "shimx64.efi,tiny,,\n")
            .file("usr/lib/bootupd/grub2-static/grub-static-pre.cfg", "pre\n")
            .file("usr/lib/bootupd/grub2-static/grub-static-efi.cfg", "stub\n")
            .file("usr/lib/bootupd/grub2-static/configs.d/10_blscfg.cfg", "blscfg\n")
    })
}

/// The same without anything that firmware could start.
pub fn without_bootloader() -> TinyImage {
    let modules = format!("usr/lib/modules/{KERNEL}");
    tiny_image()
        .label("containers.bootc", "1")
        .label("org.opencontainers.image.version", "43.1")
        .layer(|layer| {
            layer
                .directory("./")
                .directory("boot")
                .directory("sysroot")
                .directory("var/")
                .directory("var/tmp")
                .symlink("ostree", "sysroot/ostree")
                .symlink("bin", "usr/bin")
                .symlink("root", "var/roothome")
                .file(format!("{modules}/vmlinuz"), vec![0x4b; 70_000])
                .file(format!("{modules}/initramfs.img"), vec![0x49; 50_000])
                .file("usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n")
                .file("usr/lib/os-release", "ID=tiny\nPRETTY_NAME=\"Tiny Linux 43\"\n")
                .file("usr/lib/bootc/kargs.d/10-console.toml", "kargs = [\"console=ttyS0\"]\n")
                .file("usr/lib/tmpfiles.d/tiny.conf", "d /var/log 0755 root root -\n")
                .file("usr/share/empty", "")
                .file("usr/share/removed", "by the next layer")
                .file("etc/hosts", "127.0.0.1 localhost\n")
        })
        .layer(|layer| {
            layer
                .add(Item::file("usr/bin/su", "set-uid").mode(0o4755))
                .hardlink("usr/bin/su-again", "usr/bin/su")
                .add(Item::file("usr/bin/ping", "capable").xattr("security.capability", CAPABILITY))
                .add(Item::file("etc/shadow", "root:!::\n").mode(0o000).owner(0, 42))
                .whiteout("usr/share/removed")
        })
}

/// `cap_net_raw=ep`, as the kernel stores it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
