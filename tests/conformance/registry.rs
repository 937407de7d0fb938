//! `bootpress` against the registry that Debian ships, as people run it: with logins, certificates, proxies, and an nginx in
//! front of it that does what networks do. Every fault ends in the same disk or in one clear error.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::bootc_image;
use support::bootpress;
use support::server::{Authority, Server, cutter};
use support::tiny_image::{TinyImage, tiny_image, tiny_index};
use support::tool::{run, tool};
use tempfile::TempDir;

/// A user's machine: a home, and nothing else of this one's environment that matters.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { directory: TempDir::new().unwrap() };
        for part in ["home", "run", "out"] {
            fs::create_dir(machine.path(part)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bootpress();
        command.args(arguments).current_dir(self.path("out"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.env_clear().env("PATH", path).env("HOME", self.path("home"));
        command.env("XDG_RUNTIME_DIR", self.path("run"));
        command
    }

    /// What was said, standard error last, and whether it went well.
    fn said(&self, arguments: &[&str]) -> (bool, String) {
        told(&self.command(arguments).output().unwrap())
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let (well, said) = self.said(arguments);
        assert!(well, "{arguments:?}: {said}");
        said
    }

    /// The error, which must be one line.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let (well, said) = self.said(arguments);
        assert!(!well, "{arguments:?}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    #[track_caller]
    fn inspects(&self, image: &str, more: &[&str]) -> String {
        self.succeeds(&[&["inspect", image, "--no-cache"], more].concat())
    }

    #[track_caller]
    fn refuses(&self, image: &str, more: &[&str]) -> String {
        self.fails(&[&["inspect", image, "--no-cache"], more].concat())
    }

    /// Builds `os.example.org/x:1`, which `address` serves, without a cache unless `cached`: the name is on the disk, so it must not
    /// differ. The disk's bytes, or the error; after an error nothing is left.
    fn build(&self, address: &str, cached: bool) -> Result<Vec<u8>, String> {
        let image = "os.example.org/x:1";
        self.write(
            "home/.config/containers/registries.conf",
            &format!(
                "[[registry]]\nprefix = 'os.example.org'\nlocation = '{address}'\ninsecure = true\n"
            ),
        );
        let mut arguments =
            vec!["build", image, "--bootloader", "none", "--arch", "x86_64", "--progress", "none"];
        arguments.extend(["--target-imgref", "example.com/x:1", "--output", "disk.qcow2"]);
        if !cached {
            arguments.push("--no-cache");
        }
        let (well, said) = self.said(&arguments);
        let disk = self.path("out/disk.qcow2");
        if well {
            let bytes = fs::read(&disk).unwrap();
            fs::remove_file(disk).unwrap();
            return Ok(bytes);
        }
        assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
        assert_eq!(fs::read_dir(self.path("out")).unwrap().count(), 0, "{said}");
        Err(said)
    }
}

fn told(output: &Output) -> (bool, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Bytes that do not compress, so that sizes on the wire are known.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Bootable enough, with a layer of 3 MB.
fn image() -> TinyImage {
    bootc_image::without_bootloader()
        .layer(|l| l.directory("usr/share").file("usr/share/noise", noise(3_000_000)))
        .tag("x")
}

/// Pushes an image with skopeo.
fn push(image: &TinyImage, to: &str, options: &[&str]) {
    let directory = TempDir::new().unwrap();
    image.clone().tag("x").write_oci_layout(directory.path());
    push_layout(directory.path(), to, options);
}

fn push_layout(layout: &Path, to: &str, options: &[&str]) {
    let mut skopeo = tool("skopeo").unwrap();
    skopeo.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]).args(options);
    run(skopeo.arg(format!("oci:{}:x", layout.display())).arg(format!("docker://{to}")));
}

fn small() -> TinyImage {
    tiny_image()
        .label("containers.bootc", "1")
        .label("ostree.linux", "6.1.0-test")
        .layer(|l| l.file("a", noise(5000)))
}

#[test]
fn logins_are_found_where_other_tools_leave_them() {
    let Some(mut htpasswd) = tool("htpasswd") else { return };
    let machine = Machine::new();
    machine.write("users", &run(htpasswd.args(["-nbB", "me", "pass:word"])));
    let registry = Server::registry(None, false, Some(&machine.path("users")));
    let (Some(registry), Some(mut skopeo)) = (registry, tool("skopeo")) else { return };
    push(&small(), &format!("{}/team/x:1", registry.address), &["--dest-creds", "me:pass:word"]);
    let image = format!("{}/team/x:1", registry.address);
    assert!(machine.fails(&["pull", &image, "--no-cache"]).contains("no cache to pull into"));
    let refused = machine.refuses(&image, &[]);
    assert!(
        refused.contains("asked without a login: 401") && refused.contains("podman login"),
        "{refused}"
    );
    let refused = machine.refuses(&image, &["--creds", "me:wrong"]);
    assert!(refused.contains("asked as me (from --creds): 401"), "{refused}");
    machine.inspects(&image, &["--creds", "me:pass:word"]);

    let file = machine.path("auth.json");
    run(skopeo
        .args(["login", "--tls-verify=false", "-u", "me", "-p", "pass:word", "--authfile"])
        .arg(&file)
        .arg(&registry.address));
    machine.inspects(&image, &["--authfile", file.to_str().unwrap()]);
    for place in [
        "run/containers/auth.json",
        "home/.config/containers/auth.json",
        "home/.docker/config.json",
    ] {
        fs::create_dir_all(machine.path(place).parent().unwrap()).unwrap();
        fs::copy(&file, machine.path(place)).unwrap();
        machine.inspects(&image, &[]);
        fs::remove_file(machine.path(place)).unwrap();
    }
    let (well, said) = told(
        &machine.command(&["inspect", &image]).env("REGISTRY_AUTH_FILE", &file).output().unwrap(),
    );
    assert!(well, "{said}");

    machine.write(
        "home/.docker/config.json",
        &format!(r#"{{"credHelpers": {{"{}": "test"}}}}"#, registry.address),
    );
    let missing = machine.refuses(&image, &[]);
    assert!(missing.contains("starting docker-credential-test"), "{missing}");
    let script = |text: &str| {
        machine
            .write("bin/docker-credential-test", &format!("#!/bin/sh\nread -r server\n{text}\n"));
        fs::set_permissions(
            machine.path("bin/docker-credential-test"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
    };
    script(&format!(
        r#"[ "$1 $server" = "get {}" ] && echo '{{"ServerURL":"x","Username":"me","Secret":"pass:word"}}'"#,
        registry.address
    ));
    machine.inspects(&image, &[]);
    script("echo credentials not found in native keychain; exit 1");
    assert!(machine.refuses(&image, &[]).contains("without a login"));
    script("echo locked; exit 1");
    assert!(machine.refuses(&image, &[]).contains("locked"));
}

#[test]
fn certificates_are_checked_unless_somebody_says_not_to() {
    let Some(authority) = Authority::new() else { return };
    let (Some(registry), Some(_)) =
        (Server::registry(Some(&authority), false, None), tool("skopeo"))
    else {
        return;
    };
    let machine = Machine::new();
    push(&small(), &format!("{}/x:1", registry.address), &[]);
    let image = format!("{}/x:1", registry.address);
    let refused = machine.refuses(&image, &[]);
    assert!(
        refused.contains("certificate is not accepted") && refused.contains("--cert-dir"),
        "{refused}"
    );
    machine.inspects(&image, &["--tls-verify=false"]);
    authority.copy("ca.crt", &machine.path("certs/ca.crt"));
    let directory = machine.path("certs").display().to_string();
    machine.inspects(&image, &["--cert-dir", &directory]);
    let conf = "home/.config/containers/registries.conf";
    machine.write(
        conf,
        &format!("[[registry]]\nlocation = '{}'\ninsecure = true\n", registry.address),
    );
    machine.inspects(&image, &[]);
    machine.refuses(&image, &["--tls-verify"]);
    fs::remove_file(machine.path(conf)).unwrap();
    let usual = format!("home/.config/containers/certs.d/{}/ca.crt", registry.address);
    authority.copy("ca.crt", &machine.path(&usual));
    machine.inspects(&image, &[]);

    // A server that lets in only those whom the authority knows.
    let Some(strict) = Server::registry(Some(&authority), true, None) else { return };
    let certificates = machine.path("certs").display().to_string();
    for name in ["client.crt", "client.key"] {
        let to = name.replace(".crt", ".cert");
        authority.copy(name, &machine.path(&format!("ours/{to}")));
    }
    authority.copy("ca.crt", &machine.path("ours/ca.crt"));
    let ours = machine.path("ours").display().to_string();
    push(&small(), &format!("{}/x:1", strict.address), &["--dest-cert-dir", &ours]);
    let image = format!("{}/x:1", strict.address);
    let inspect =
        |directory: &str| machine.said(&["inspect", &image, "--no-cache", "--cert-dir", directory]);
    let (well, said) = inspect(&certificates);
    assert!(!well && said.contains("certificate"), "{said}");
    let (well, said) = inspect(&ours);
    assert!(well, "{said}");
}

#[test]
fn certificates_that_are_their_own_authority_are_taken_from_who_is_known() {
    for (name, right) in [("IP:127.0.0.1", true), ("DNS:elsewhere.example.org", false)] {
        let Some(itself) = Authority::of_itself(name) else { return };
        let (Some(registry), Some(_)) =
            (Server::registry(Some(&itself), false, None), tool("skopeo"))
        else {
            return;
        };
        let machine = Machine::new();
        push(&small(), &format!("{}/x:1", registry.address), &[]);
        let image = format!("{}/x:1", registry.address);
        let refused = machine.refuses(&image, &[]);
        assert!(refused.contains("is its own authority"), "{refused}");
        itself.copy("ca.crt", &machine.path("certs/ca.crt"));
        let directory = machine.path("certs").display().to_string();
        if right {
            machine.inspects(&image, &["--cert-dir", &directory]);
        } else {
            let refused = machine.refuses(&image, &["--cert-dir", &directory]);
            assert!(refused.contains("certificate is not accepted"), "{refused}");
        }
    }
}

#[test]
fn a_machine_without_authorities_speaks_to_itself_and_to_whom_it_is_told() {
    let Some(authority) = Authority::new() else { return };
    let (Some(plain), Some(safe), Some(_)) = (
        Server::registry(None, false, None),
        Server::registry(Some(&authority), false, None),
        tool("skopeo"),
    ) else {
        return;
    };
    let machine = Machine::new();
    authority.copy("ca.crt", &machine.path("certs/ca.crt"));
    let directory = machine.path("certs").display().to_string();
    for (server, more) in [(&plain, &[][..]), (&safe, &["--cert-dir", &directory])] {
        let image = format!("{}/x:1", server.address);
        push(&small(), &image, &[]);
        let mut command = machine.command(&[&["inspect", &image, "--no-cache"], more].concat());
        command.env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere");
        let (well, said) = told(&command.output().unwrap());
        assert!(well, "{said}");
    }
}

/// What goes wrong, nginx's words for it outside and inside of its server, and what a build should come to.
type Fault = (&'static str, (String, String), Result<(), &'static str>);

#[test]
fn faults_of_the_network_end_in_the_same_disk_or_an_error() {
    let (Some(registry), Some(_), Some(_)) =
        (Server::registry(None, false, None), tool("skopeo"), tool("nginx"))
    else {
        return;
    };
    let machine = Machine::new();
    push(&image(), &format!("{}/x:1", registry.address), &[]);
    let expected = machine.build(&registry.address, false).unwrap();
    let upstream = &registry.address;
    let pass = format!(
        "proxy_pass http://{upstream}; proxy_set_header Host $http_host; proxy_buffering off;"
    );
    let busy = |status: u16| {
        let zone = "limit_req_zone $server_addr zone=z:1m rate=3r/s;".to_owned();
        let limits = format!(
            "limit_req zone=z burst=1 nodelay; limit_req_status {status}; add_header Retry-After 1 always;"
        );
        (zone, format!("location / {{ {limits} {pass} }}"))
    };
    let blobs = |more: &str| {
        let server = format!("location / {{ {pass} }} location ~ /blobs/ {{ {pass} {more} }}");
        (String::new(), server)
    };
    let everywhere = |what: &str| (String::new(), format!("location / {{ {what} }}"));
    let only_blobs = |what: &str| {
        (String::new(), format!("location / {{ {pass} }} location ~ /blobs/ {{ {what} }}"))
    };
    let page = "default_type text/html; return 200 '<html>';";
    // The large layer with one bit turned.
    let layers = image().blobs().blobs;
    let (digest, bytes) = layers.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut bytes = bytes.clone();
    bytes[2_000_000] ^= 1;
    fs::write(machine.path("wrong"), bytes).unwrap();
    let wrong = format!(
        "location / {{ {pass} }} location ~ /blobs/{digest} {{ alias {}; }}",
        machine.path("wrong").display()
    );
    let faults: [Fault; 10] = [
        ("429 now and then", busy(429), Ok(())),
        ("503 now and then", busy(503), Ok(())),
        ("slow", blobs("limit_rate 1500k;"), Ok(())),
        ("blobs are not answered", only_blobs("return 444;"), Err("fetching")),
        ("503 always", everywhere("return 503;"), Err("has trouble (it answers 503)")),
        ("403 in HTML", everywhere("return 403;"), Err("refuses")),
        ("404 for blobs", only_blobs("return 404;"), Err("404")),
        ("wrong bytes", (String::new(), wrong), Err("is corrupt")),
        (
            "truncated, whatever is asked",
            blobs("proxy_set_header Range bytes=0-999;"),
            Err("the connection ended after 1000 of"),
        ),
        ("a page instead", everywhere(page), Err("is corrupt")),
    ];
    let attempt = |fault: &str, (outside, server): (String, String), outcome, cached| {
        let nginx = Server::nginx(&outside, &server).unwrap();
        // With a cache of its own, in which nothing is.
        let machine = Machine::new();
        let began = Instant::now();
        let built = machine.build(&nginx.address, cached);
        assert!(began.elapsed() < Duration::from_secs(120), "{fault}");
        match (&built, outcome) {
            (Ok(disk), Ok(())) => assert!(*disk == expected, "{fault}: another disk"),
            (Err(said), Err(words)) => assert!(said.contains::<&str>(words), "{fault}: {said}"),
            (Ok(_), Err(_)) => panic!("{fault}: built"),
            (Err(said), Ok(())) => panic!("{fault}: {said}"),
        }
    };
    std::thread::scope(|scope| {
        for (fault, server, outcome) in faults {
            for cached in [false, true] {
                let (attempt, server) = (&attempt, server.clone());
                scope.spawn(move || attempt(fault, server, outcome, cached));
            }
        }
    });
}

#[test]
fn cut_connections_are_resumed_where_they_broke() {
    let (Some(registry), Some(_)) = (Server::registry(None, false, None), tool("skopeo")) else {
        return;
    };
    let machine = Machine::new();
    push(&image(), &format!("{}/x:1", registry.address), &[]);
    let expected = machine.build(&registry.address, false).unwrap();
    for cached in [false, true] {
        let (address, cuts) = cutter(&registry.address, 1_200_000, 2);
        let disk = machine.build(&address, cached).unwrap();
        assert!(disk == expected);
        assert_eq!(cuts.load(std::sync::atomic::Ordering::SeqCst), 2);
    }
    // Nothing comes through: an error, and what came stays for the next time.
    let (address, _) = cutter(&registry.address, 150_000, usize::MAX);
    let reference = format!("{address}/x:1");
    let arguments = ["pull", &reference, "--arch", "x86_64", "--progress", "none"];
    let machine = Machine::new();
    let said = machine.fails(&arguments);
    assert!(said.contains("fetching sha256:"), "{said}");
    let left = |machine: &Machine| -> u64 {
        let ingest = fs::read_dir(machine.path("home/.cache/bootpress/ingest")).unwrap();
        ingest.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let first = left(&machine);
    assert!(first > 100_000, "{first}");
    machine.fails(&arguments);
    assert!(left(&machine) > first);
}

#[test]
fn names_mirrors_and_proxies_are_those_of_the_machine() {
    let (Some(registry), Some(_), Some(_)) =
        (Server::registry(None, false, None), tool("skopeo"), tool("nginx"))
    else {
        return;
    };
    let machine = Machine::new();
    push(&small(), &format!("{}/mirrored/x:1", registry.address), &[]);
    let conf = "home/.config/containers/registries.conf";
    machine.write(conf, &format!(
        "unqualified-search-registries = ['one.example.org', 'two.example.org']\n\
         [aliases]\n'short' = 'registry.example.org/x'\n\
         [[registry]]\nlocation = 'evil.example.org'\nblocked = true\n\
         [[registry]]\nlocation = 'registry.example.org'\n[[registry.mirror]]\nlocation = '{}/mirrored'\n",
        registry.address
    ));
    for name in ["registry.example.org/x:1", "short:1"] {
        let said = machine.succeeds(&["inspect", name]);
        assert!(said.contains("docker://registry.example.org/x:1"), "{said}");
    }
    let unclear = machine.fails(&["inspect", "unknown:1"]);
    assert!(
        unclear.contains("one.example.org/unknown:1, two.example.org/unknown:1: say which"),
        "{unclear}"
    );
    assert!(machine.fails(&["inspect", "evil.example.org/x"]).contains("is blocked"));

    // A proxy, which alone knows the registry.
    let proxy =
        Server::nginx("", &format!("location / {{ proxy_pass http://{}; }}", registry.address))
            .unwrap();
    machine.write(conf, "[[registry]]\nlocation = 'behind.example.org:81'\ninsecure = true\n");
    let address = format!("http://{}", proxy.address);
    let mut command = machine.command(&["inspect", "behind.example.org:81/mirrored/x:1"]);
    command.env("HTTP_PROXY", &address).env("HTTPS_PROXY", &address);
    let (well, said) = told(&command.output().unwrap());
    assert!(well, "{said}");
    command.env("NO_PROXY", "example.org");
    let (well, said) = told(&command.output().unwrap());
    assert!(!well, "{said}");
}

#[test]
fn storage_elsewhere_is_not_told_who_we_are() {
    let Some(mut htpasswd) = tool("htpasswd") else { return };
    let machine = Machine::new();
    machine.write("users", &run(htpasswd.args(["-nbB", "me", "secret"])));
    let registry = Server::registry(None, false, Some(&machine.path("users")));
    let (Some(registry), Some(_), Some(_)) = (registry, tool("skopeo"), tool("nginx")) else {
        return;
    };
    push(&small(), &format!("{}/x:1", registry.address), &["--dest-creds", "me:secret"]);
    let upstream = &registry.address;
    // base64 of me:secret
    let storage = Server::nginx("", &format!(
        "location / {{ if ($http_authorization) {{ return 400; }} proxy_set_header Authorization 'Basic bWU6c2VjcmV0'; proxy_pass http://{upstream}; }}"
    )).unwrap();
    let front = Server::nginx("", &format!(
        "location / {{ proxy_set_header Host $http_host; proxy_pass http://{upstream}; }} location ~ /blobs/ {{ return 307 http://{}$request_uri; }}",
        // By another name, as hosts are compared by name.
        storage.address.replace("127.0.0.1", "localhost")
    )).unwrap();
    let image = format!("{}/x:1", front.address);
    machine.succeeds(&["pull", &image, "--arch", "x86_64", "--creds", "me:secret"]);
}

#[test]
fn the_cache_serves_builds_and_other_tools() {
    let (Some(registry), Some(mut skopeo)) = (Server::registry(None, false, None), tool("skopeo"))
    else {
        return;
    };
    let machine = Machine::new();
    push(&image(), &format!("{}/x:1", registry.address), &[]);
    let (address, name) = (registry.address.clone(), "os.example.org/x:1");
    let expected = machine.build(&address, false).unwrap();
    let pulled = machine.succeeds(&["pull", name, "--arch", "x86_64", "--progress", "none"]);
    assert!(pulled.contains("sha256:"), "{pulled}");
    // Two builds at once, one of them by another user of the same cache.
    let other = Machine::new();
    std::os::unix::fs::symlink(machine.path("home/.cache"), other.path("home/.cache")).unwrap();
    std::thread::scope(|scope| {
        let builds = [&machine, &other]
            .map(|who| (who, &address))
            .map(|(who, address)| scope.spawn(move || who.build(address, true).unwrap()));
        builds.into_iter().for_each(|build| assert!(build.join().unwrap() == expected));
    });
    drop(registry);
    assert!(machine.build(&address, true).unwrap() == expected);
    let offline =
        machine.succeeds(&["pull", name, "--arch", "x86_64", "--offline", "--progress", "none"]);
    assert!(offline.contains("0 B fetched"), "{offline}");
    let layout = machine.path("home/.cache/bootpress").display().to_string();
    let inspected = run(skopeo.arg("inspect").arg(format!("oci:{layout}:{name}")));
    assert!(inspected.contains("amd64"), "{inspected}");
    let listed = machine.succeeds(&["cache", "list"]);
    assert!(listed.contains(name) && listed.contains("linux/amd64"), "{listed}");
    let pruned = machine.succeeds(&["cache", "prune", "--max-size", "0"]);
    assert!(
        pruned.contains(&format!("removed {name}")) && pruned.ends_with("0 B left\n"),
        "{pruned}"
    );
    assert!(machine.build(&address, true).is_err());
}

#[test]
fn images_are_described_without_their_layers() {
    let (Some(registry), Some(_)) = (Server::registry(None, false, None), tool("skopeo")) else {
        return;
    };
    let machine = Machine::new();
    let directory = TempDir::new().unwrap();
    let arm64 = small().architecture("arm64");
    let index = tiny_index(&[small().tag("x"), arm64]);
    index.write_oci_layout(directory.path());
    let address = &registry.address;
    push_layout(directory.path(), &format!("{address}/x:1"), &[]);
    let of_image = small().tag("x").blobs().manifest["digest"].as_str().unwrap().replace(':', "-");
    push(
        &tiny_image().layer(|l| l.file("signature", b"")),
        &format!("{address}/x:{of_image}.sig"),
        &[],
    );
    let said = machine.succeeds(&["inspect", &format!("{address}/x:1"), "--arch", "x86_64"]);
    for expected in [
        "can be built  probably",
        "linux/amd64",
        "linux/arm64",
        "6.1.0-test",
        "signature     cosign of the image",
        "containers.bootc = 1",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let json =
        machine.succeeds(&["inspect", &format!("{address}/x:1"), "--json", "--arch", "aarch64"]);
    let facts: serde_json::Value =
        serde_json::from_str(json.split("fetching").next().unwrap()).unwrap();
    assert_eq!(facts["architecture"], "aarch64");
    assert_eq!(facts["top"]["entries"].as_array().unwrap().len(), 2);
    assert_eq!(facts["pressable"]["verdict"], "probably");
    assert_eq!(facts["signatures"].as_array().unwrap().len(), 0);
    // No layer came for this.
    let blobs = fs::read_dir(machine.path("home/.cache/bootpress/blobs/sha256")).unwrap();
    assert!(blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).all(|size| size < 4000));
    let deep =
        machine.succeeds(&["inspect", &format!("{address}/x:1"), "--deep", "--arch", "x86_64"]);
    assert!(deep.contains("can be built  no: ") && deep.contains("it lacks a kernel"), "{deep}");
    push(&bootc_image::bootc_image(), &format!("{address}/good:1"), &[]);
    let deep =
        machine.succeeds(&["inspect", &format!("{address}/good:1"), "--deep", "--arch", "x86_64"]);
    assert!(deep.contains("can be built  yes") && deep.contains("boot loader   UEFI"), "{deep}");
    let gone = machine.fails(&["inspect", &format!("{address}/gone:1")]);
    assert!(gone.contains("the registry has no"), "{gone}");
}
