//! What fetching costs: `bootpress pull` into an empty cache against `skopeo copy docker:// oci:` of the same image from the same
//! registry, both verifying every byte.
//!
//! The image is made here: 600 MB in eight layers that do not compress. `BENCH_FETCH_MB` changes its size.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use support::bootpress;
use support::server::Server;
use support::tiny_image::{Compression, tiny_image};
use support::tool::{run, tool};
use tempfile::TempDir;

/// How much slower than skopeo it may be: what two runs of the same program differ by.
const TOLERANCE: f64 = 1.15;

fn main() {
    let megabytes: usize =
        std::env::var("BENCH_FETCH_MB").ok().and_then(|mb| mb.parse().ok()).unwrap_or(600);
    let (Some(registry), Some(_)) = (Server::registry(None, false, None), tool("skopeo")) else {
        return;
    };
    let place = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| place.path().join(name);
    make_image(megabytes, &at("image"));
    let name = format!("{}/bench:1", registry.address);
    let mut push = tool("skopeo").unwrap();
    push.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]);
    run(push.arg(format!("oci:{}:x", at("image").display())).arg(format!("docker://{name}")));
    fs::remove_dir_all(at("image")).unwrap();
    println!("{:>4} {:>12} {:>12} {:>8}", "run", "skopeo copy", "pull", "ratio");
    let mut ratios = Vec::new();
    for number in 0..=3 {
        let theirs = timed(&at("theirs"), |to| {
            let mut skopeo = tool("skopeo").unwrap();
            skopeo.args([
                "--insecure-policy",
                "copy",
                "--src-tls-verify=false",
                &format!("docker://{name}"),
            ]);
            skopeo.arg(format!("oci:{}:x", to.display()));
            skopeo
        });
        let ours = timed(&at("ours"), |to| {
            let mut pull = bootpress();
            pull.args(["pull", &name, "--arch", "x86_64", "--progress", "none"]);
            pull.env("XDG_CACHE_HOME", to);
            pull
        });
        let ratio = ours / theirs;
        println!("{number:>4} {theirs:>10.2} s {ours:>10.2} s {ratio:>8.2}");
        // The first finds the registry's files on the disk, the others in memory.
        if number > 0 {
            ratios.push(ratio);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median ratio {median:.2} (1 = skopeo copy docker:// oci:)");
    assert!(median < TOLERANCE, "fetching is slower than with skopeo");
}

/// Seconds that a command takes to fill an empty directory.
fn timed(to: &Path, command: impl Fn(&Path) -> Command) -> f64 {
    fs::create_dir(to).unwrap();
    let began = Instant::now();
    run(&mut command(to));
    let took = began.elapsed().as_secs_f64();
    fs::remove_dir_all(to).unwrap();
    took
}

fn make_image(megabytes: usize, to: &Path) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut image = tiny_image().compression(Compression::None).tag("x");
    for layer in 0..8 {
        let words = megabytes * 1_000_000 / 8 / 8;
        let bytes: Vec<u8> = (0..words)
            .flat_map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.to_le_bytes()
            })
            .collect();
        image = image.layer(|files| files.file(format!("usr/{layer}"), bytes));
    }
    image.write_oci_layout(to);
}
