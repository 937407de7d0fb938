//! Machines that boot from the network, by what `--format pxe` makes: from QEMU's TFTP and a server of HTTP on this machine.
//!
//! ```text
//! OVMF ─TFTP─► shim, GRUB, menu ─HTTP─► kernel, initramfs, disk ─► live system
//! iPXE ─HTTP─► script, kernel, initramfs, disk ─► installer ─► disk
//! ```

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fixture::{Architecture, Recipe, Variant};

use crate::disk::directory;
use support::Build;
use support::tool::tool;

/// When to give up.
const TIME_LIMIT: Duration = Duration::from_secs(1800);

/// What the machine says when its root has been found in memory.
const CARRIED: &str = "bootpress: booting from the network";

#[test]
#[ignore = "takes minutes: tests/run full"]
fn grub_fetches_the_disk_and_it_runs_live() {
    let server = Server::start();
    let url = format!("http://10.0.2.2:{}", server.port);
    let out = press("pxe-grub", &["--pxe-url", &url], &server);
    let console = boot(&out, "EFI/BOOT/BOOTX64.EFI", "", 1024, None, "Reached target multi-user");
    assert!(console.contains(CARRIED), "{console}");
    assert!(!console.contains("Failed to start"), "{console}");
    let asked = server.asked();
    for name in ["/vmlinuz", "/live.img", "/root.img"] {
        assert!(asked.iter().any(|path| path == name), "{name}: {asked:?}");
    }
    // Not enough memory is said, not suffered: the disk would fit, but nothing could run.
    let console = boot(&out, "EFI/BOOT/BOOTX64.EFI", "", 640, None, "this system needs");
    assert!(console.contains("MiB when it comes from the network"), "{console}");
}

/// Fedora's GRUB sets `config_directory`, and where the path that it was told begins without a slash, there is none behind the
/// server either. Debian's does not set it: the configuration that it reads first plays Fedora's part.
#[test]
#[ignore = "takes minutes: tests/run full"]
fn grub_that_names_its_directory_without_a_slash_finds_the_disk() {
    let server = Server::start();
    let out = press("pxe-fedora", &[], &server);
    let place = format!("(http,10.0.2.2:{})", server.port);
    let first = format!(
        "set config_directory=\"{place}EFI/BOOT\"\nexport config_directory\nconfigfile {place}/EFI/BOOT/grub.cfg\n"
    );
    assert!(out.join("EFI/BOOT/grub.cfg").is_file());
    fs::write(out.join("grub/grub.cfg"), first).unwrap();
    // Another amount of memory than the others have, and so a directory of its own.
    let console = boot(&out, "EFI/BOOT/BOOTX64.EFI", "", 1032, None, CARRIED);
    let asked = server.asked();
    for name in ["/EFI/BOOT/grub.cfg", "/vmlinuz", "/live.img", "/root.img"] {
        assert!(asked.iter().any(|path| path == name), "{name}: {asked:?}: {console}");
    }
}

#[test]
#[ignore = "takes minutes: tests/run full"]
fn ipxe_fetches_the_disk_and_it_is_installed() {
    const ROM: &str = "/usr/lib/ipxe/qemu/efi-virtio.rom";
    let server = Server::start();
    let out = press("pxe-ipxe", &["--install-to", "only-disk"], &server);
    let target = directory("pxe-ipxe").join("target.raw");
    File::create(&target).unwrap().set_len(3 << 30).unwrap();
    let script = format!("http://10.0.2.2:{}/boot.ipxe", server.port);
    let console = boot(&out, &script, ROM, 1024, Some(&target), "install: done:");
    assert!(console.contains(CARRIED), "{console}");
    assert!(server.asked().contains(&"/root.img".to_owned()));
    fs::remove_file(&target).unwrap();
}

/// What the server hands out from now on.
fn press(name: &str, flags: &[&str], server: &Server) -> PathBuf {
    let recipe = Recipe { variant: Variant::Live, ..Recipe::new(Architecture::X86_64) };
    let layout = recipe.layout().unwrap();
    let out = directory("disks").join(name);
    // In a directory that is there it would make another one.
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    Build::new(format!("oci:{}:latest", layout.display()))
        .format("pxe")
        .flags(["--target-imgref", "example.com/fixture:1"])
        .flags(flags)
        .output(&out)
        .run();
    server.shared.lock().unwrap().0.clone_from(&out);
    out
}

/// Boots a machine without a disk, or with one, until the console says something or the machine goes off; the console.
fn boot(
    served: &Path,
    bootfile: &str,
    rom: &str,
    memory: u32,
    target: Option<&Path>,
    until: &str,
) -> String {
    const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    let directory =
        directory(&format!("pxe-{memory}-{}", if rom.is_empty() { "grub" } else { "ipxe" }));
    let (variables, console) = (directory.join("variables.fd"), directory.join("console.txt"));
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
    let _ = fs::remove_file(&console);
    let mut command = tool("qemu-system-x86_64").expect("QEMU is needed for boot tests");
    command
        .args(["-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-m", &memory.to_string()])
        .arg("-drive")
        .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={CODE}"))
        .arg("-drive")
        .arg(format!("if=pflash,format=raw,unit=1,file={}", variables.display()))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-netdev")
        .arg(format!("user,id=net,tftp={},bootfile={bootfile}", served.display()))
        .arg("-device")
        .arg(format!("virtio-net-pci,netdev=net,bootindex=1,romfile={rom}"))
        // Newer firmware uses no network without it.
        .args(["-device", "virtio-rng-pci"]);
    if let Some(target) = target {
        command
            .arg("-drive")
            .arg(format!("if=none,id=target,format=raw,file={}", target.display()))
            .args(["-device", "virtio-blk-pci,drive=target"]);
    }
    let mut machine = command.stdin(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let read = || plain(&String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()));
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let exited = machine.try_wait().unwrap().is_some();
        let text = read();
        if exited || text.contains(until) || begun.elapsed() > TIME_LIMIT {
            let _ = machine.kill();
            machine.wait().unwrap();
            eprintln!("{}: {:.0} s", directory.display(), begun.elapsed().as_secs_f64());
            assert!(text.contains(until), "{until}: {text}");
            return text;
        }
    }
}

/// A text without what colours it: ESC `[` numbers and a letter.
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

/// A server of one directory, on loopback, which QEMU's guests reach as 10.0.2.2.
struct Server {
    port: u16,
    /// The directory, and the paths that were asked for.
    shared: Arc<Mutex<(PathBuf, Vec<String>)>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new((PathBuf::new(), Vec::new())));
        let ours = Arc::clone(&shared);
        // It ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&ours);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { port, shared }
    }

    fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().1.clone()
    }
}

/// One request, whose body nobody sends; what goes wrong is the client's to tell.
fn answer(mut stream: TcpStream, shared: &Mutex<(PathBuf, Vec<String>)>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(request)) = lines.next() else { return };
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let file = {
        let mut shared = shared.lock().unwrap();
        shared.1.push(path.to_owned());
        shared.0.join(path.trim_start_matches('/'))
    };
    let Ok(mut file) = File::open(file) else {
        let _ = stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let size = file.metadata().unwrap().len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
    if stream.write_all(head.as_bytes()).is_ok() && method == "GET" {
        let _ = std::io::copy(&mut file, &mut stream);
    }
}
