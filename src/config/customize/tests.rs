//! Systems that are changed, and what is in their trees afterwards.

use super::*;
use crate::config::{Config, Purpose, Reading};
use crate::error::Unsupported;

/// A system with as much in it as a test needs.
struct Sandbox {
    tree: Tree,
    places: Places,
    contents: ContentStore,
}

/// A configuration for a medium, so that all keys are read; the files that it names say what they are.
fn blueprint(toml: &str) -> Result<Blueprint> {
    let read = |path: &std::path::Path| Ok(format!("content of {}", path.display()).into_bytes());
    let reading = Reading { purpose: Purpose::Medium, ..Reading::default() };
    Ok(Config::read(toml, "config.toml", reading, &read)?.blueprint)
}

const PASSWD: &str = "root:x:0:0:Super User:/root:/bin/bash\nbin:x:1:1:bin:/bin:/sbin/nologin\n";
const SHADOW: &str = "root:*::0:99999:7:::\nbin:*::0:99999:7:::\n";
const GROUP: &str = "root:x:0:\nbin:x:1:\n";

impl Sandbox {
    fn new(files: &[(&str, &str)]) -> Self {
        let plain = Metadata::root(0o755);
        let mut tree = Tree::new(plain.clone());
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let deployment = tree.make_directories("deploy", &plain);
        let etc = tree.make_directories("deploy/etc", &plain);
        let var = tree.make_directories("var", &plain);
        tree.make_directories("deploy/usr/bin", &plain);
        for (name, target) in [("root", "var/roothome"), ("home", "var/home"), ("bin", "usr/bin")] {
            tree.create(
                deployment,
                name.as_bytes(),
                Metadata::root(0o777),
                Kind::Symlink(target.as_bytes().into()),
            );
        }
        let usr = tree.make_directories("deploy/usr", &plain);
        tree.create(
            usr,
            b"local",
            Metadata::root(0o777),
            Kind::Symlink((*b"../var/usrlocal").into()),
        );
        let mut sandbox = Self { tree, places: Places { deployment, etc, var }, contents };
        let basic = [
            ("/etc/passwd", PASSWD),
            ("/etc/shadow", SHADOW),
            ("/etc/group", GROUP),
            ("/etc/gshadow", "root:::\nbin:::\n"),
            ("/usr/bin/bash", ""),
        ];
        for (path, text) in basic.iter().chain(files) {
            sandbox.put(path, text);
        }
        sandbox
    }

    fn put(&mut self, path: &str, text: &str) {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let into = match directory.strip_prefix("/var") {
            Some(rest) => format!("var{rest}"),
            None => format!("deploy{directory}"),
        };
        let into = self.tree.make_directories(&into, &Metadata::root(0o755));
        let content = self.contents.insert_bytes(text.as_bytes()).unwrap();
        let mode = if path.contains("shadow") { 0o000 } else { 0o644 };
        self.tree.create(into, name.as_bytes(), Metadata::root(mode), Kind::File(content));
    }

    fn apply(&mut self, toml: &str) -> Result<Changes> {
        self.mount(toml, &Mounting::default())
    }

    fn mount(&mut self, toml: &str, mounting: &Mounting) -> Result<Changes> {
        let blueprint = blueprint(toml)?;
        customize(&mut self.tree, self.places, &blueprint, mounting, "seed", &self.contents)
    }

    /// What an error that says "not in this image" says.
    fn refusal(&mut self, toml: &str) -> String {
        let error = self.apply(toml).unwrap_err();
        assert!(error.downcast_ref::<Unsupported>().is_some(), "{error:#}");
        format!("{error:#}")
    }

    fn system(&mut self) -> System<'_> {
        System::new(&mut self.tree, self.places, &self.contents)
    }

    fn text(&mut self, path: &str) -> String {
        self.system().read(path).unwrap().unwrap_or_else(|| panic!("no {path}"))
    }

    fn link(&mut self, path: &str) -> Option<String> {
        self.system().link(path)
    }

    fn access(&mut self, path: &str) -> String {
        let Access { uid, gid, mode } =
            self.system().access(path).unwrap_or_else(|| panic!("no {path}"));
        format!("{mode:o} {uid}:{gid}")
    }

    fn line(&mut self, path: &str, name: &str) -> String {
        let text = self.text(path);
        let start = format!("{name}:");
        text.lines()
            .find(|line| line.starts_with(&start))
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    }
}

#[test]
fn users_get_lines_homes_and_keys() {
    let mut sandbox = Sandbox::new(&[
        ("/etc/skel/.bashrc", "# skel\n"),
        ("/etc/subuid", ""),
        ("/etc/subgid", ""),
        ("/usr/lib/group", "wheel:x:10:\n"),
        ("/usr/lib/sysusers.d/x.conf", "g render 105\ng lp -\n"),
    ]);
    let changes = sandbox
        .apply(
            r#"
[[customizations.sshkey]]
user = "alice"
key = "ssh-ed25519 AAAA first"
[[customizations.user]]
name = "alice"
description = "Alice"
password = "$6$x$y"
key = "ssh-rsa BBBB second"
groups = ["wheel", "render", "lp", "staff"]
uid = 1042
expiredate = 20500
force_password_reset = true
[[customizations.user]]
name = "bob"
password = "secret"
home = "/var/home/elsewhere/"
shell = "/bin/sh"
[[customizations.user]]
name = "root"
password = ""
key = "ssh-ed25519 CCCC root"
[[customizations.group]]
name = "staff"
gid = 2000
"#,
        )
        .unwrap();
    assert_eq!(changes.warnings, [""; 0]);
    assert_eq!(
        sandbox.line("/etc/passwd", "alice"),
        "alice:x:1042:1042:Alice:/var/home/alice:/bin/bash"
    );
    assert_eq!(sandbox.line("/etc/passwd", "bob"), "bob:x:1000:1000::/var/home/elsewhere:/bin/sh");
    assert_eq!(sandbox.line("/etc/shadow", "alice"), "alice:$6$x$y:0:0:99999:7::20500:");
    let hashed = crypt::sha512(b"secret", &crypt::salt("seed", "bob"));
    assert_eq!(sandbox.line("/etc/shadow", "bob"), format!("bob:{hashed}::0:99999:7:::"));
    assert_eq!(sandbox.line("/etc/shadow", "root"), "root:!::0:99999:7:::", "locked, not open");
    assert_eq!(sandbox.access("/etc/shadow"), "0 0:0");
    assert_eq!(sandbox.line("/etc/group", "wheel"), "wheel:x:10:alice");
    assert_eq!(sandbox.line("/etc/group", "render"), "render:x:105:alice");
    assert_eq!(sandbox.line("/etc/group", "lp"), "lp:x:999:alice");
    assert_eq!(sandbox.line("/etc/group", "staff"), "staff:x:2000:alice");
    assert_eq!(sandbox.line("/etc/gshadow", "staff"), "staff:!::alice");
    assert_eq!(sandbox.text("/etc/subuid"), "alice:100000:65536\nbob:165536:65536\n");
    assert_eq!(sandbox.access("/var/home/alice"), "700 1042:1042");
    assert_eq!(sandbox.access("/var/home"), "755 0:0");
    assert_eq!(sandbox.access("/home/alice/.bashrc"), "644 1042:1042");
    assert_eq!(sandbox.access("/home/alice/.ssh"), "700 1042:1042");
    assert_eq!(sandbox.access("/home/alice/.ssh/authorized_keys"), "600 1042:1042");
    assert_eq!(
        sandbox.text("/home/alice/.ssh/authorized_keys"),
        "ssh-ed25519 AAAA first\nssh-rsa BBBB second\n"
    );
    assert_eq!(sandbox.access("/var/roothome"), "700 0:0");
    assert_eq!(sandbox.text("/var/roothome/.ssh/authorized_keys"), "ssh-ed25519 CCCC root\n");
    let written: Vec<&str> = changes.written.iter().map(|(path, _)| path.as_str()).collect();
    assert!(written.contains(&"/var/home/alice/.ssh/authorized_keys"), "{written:?}");
}

#[test]
fn accounts_that_collide_are_refused() {
    let user = |fields: &str| format!("[[customizations.user]]\nname = \"a\"\n{fields}\n");
    let mut sandbox = Sandbox::new(&[]);
    assert!(sandbox.refusal(&user("uid = 1")).contains("the uid 1 of user a is taken"));
    assert!(sandbox.refusal(&user("groups = [\"nowhere\"]")).contains("there is none"));
    let root = "[[customizations.user]]\nname = \"root\"\nuid = 5\n";
    assert!(sandbox.refusal(root).contains("whose number is 0"));
    let group = "[[customizations.group]]\nname = \"bin\"\ngid = 7\n";
    assert!(sandbox.refusal(group).contains("with the gid 1"));
    let file = "[[customizations.files]]\npath = \"/etc/x\"\nuser = \"nobody-here\"\n";
    assert!(sandbox.refusal(file).contains("there is no user nobody-here"));
}

#[test]
fn files_go_where_the_links_of_the_image_lead() {
    let mut sandbox = Sandbox::new(&[("/etc/motd", "old\n")]);
    sandbox
        .apply(
            r#"
[[customizations.directories]]
path = "/etc/a/b"
mode = "0750"
user = "bin"
group = 1
ensure_parents = true
[[customizations.files]]
path = "/etc/motd"
data = "new\n"
[[customizations.files]]
path = "/etc/a/b/c"
data = "x"
mode = "640"
group = "bin"
[[customizations.files]]
path = "/root/notes"
uri = "file:///srv/notes"
[[customizations.files]]
path = "/usr/local/bin/tool"
data = "x"
mode = "0755"
"#,
        )
        .unwrap();
    assert_eq!(sandbox.text("/etc/motd"), "new\n");
    assert_eq!(sandbox.access("/etc/a"), "755 0:0");
    assert_eq!(sandbox.access("/etc/a/b"), "750 1:1");
    assert_eq!(sandbox.access("/etc/a/b/c"), "640 0:1");
    assert_eq!(sandbox.text("/var/roothome/notes"), "content of /srv/notes");
    assert_eq!(sandbox.access("/var/usrlocal/bin/tool"), "755 0:0");
    let orphan = "[[customizations.directories]]\npath = \"/etc/x/y\"\n";
    assert!(sandbox.refusal(orphan).contains("there is no /etc/x"));
    // Where /usr/local is the image's own, it cannot be written.
    let usr = sandbox.tree.find("deploy/usr").unwrap();
    sandbox.tree.unlink(usr, b"local");
    let tool = "[[customizations.files]]\npath = \"/usr/local/bin/tool\"\ndata = \"x\"\n";
    assert!(sandbox.refusal(tool).contains("belongs to the image"));
}

#[test]
fn services_become_links_and_presets() {
    const UNITS: &str = "/usr/lib/systemd/system";
    let wanted = "[Install]\nWantedBy=multi-user.target\n";
    let mut sandbox = Sandbox::new(&[
        (
            "/usr/lib/systemd/system/sshd.service",
            "[Install]\nWantedBy=multi-user.target\nAlias=ssh.service\nAlso=sshd.socket\n",
        ),
        ("/usr/lib/systemd/system/sshd.socket", "[Install]\nWantedBy=sockets.target\n"),
        ("/usr/lib/systemd/system/cups.service", wanted),
        ("/usr/lib/systemd/system/static.service", "[Service]\n"),
        ("/usr/lib/systemd/system/loud.service", wanted),
    ]);
    sandbox
        .system()
        .make_link(
            "/etc/systemd/system/multi-user.target.wants/cups.service",
            "/usr/lib/systemd/system/cups.service",
        )
        .unwrap();
    let changes = sandbox
        .apply("[customizations.services]\nenabled = [\"sshd\", \"static.service\"]\ndisabled = [\"cups\"]\nmasked = [\"loud\"]\n")
        .unwrap();
    let links = "/etc/systemd/system";
    for (link, unit) in [
        ("multi-user.target.wants/sshd.service", "sshd.service"),
        ("ssh.service", "sshd.service"),
        ("sockets.target.wants/sshd.socket", "sshd.socket"),
    ] {
        assert_eq!(
            sandbox.link(&format!("{links}/{link}")),
            Some(format!("{UNITS}/{unit}")),
            "{link}"
        );
    }
    assert_eq!(sandbox.link(&format!("{links}/multi-user.target.wants/cups.service")), None);
    assert_eq!(sandbox.link(&format!("{links}/loud.service")).unwrap(), "/dev/null");
    let preset = sandbox.text("/etc/systemd/system-preset/00-bootpress.preset");
    assert!(preset.ends_with("enable sshd.service\nenable static.service\ndisable cups.service\ndisable loud.service\n"), "{preset}");
    assert!(
        changes.warnings[0].contains("static.service cannot be enabled"),
        "{:?}",
        changes.warnings
    );
    let none = "[customizations.services]\nenabled = [\"nothing\"]\n";
    assert!(sandbox.refusal(none).contains("no service nothing.service in the image"));
}

#[test]
fn name_clock_language_and_ssh() {
    let mut sandbox = Sandbox::new(&[
        ("/usr/share/zoneinfo/Europe/Berlin", "TZif"),
        ("/usr/lib/systemd/systemd-timesyncd", ""),
        ("/usr/lib/kbd/keymaps/xkb/de-nodeadkeys.map.gz", ""),
        ("/etc/vconsole.conf", "FONT=eurlatgr\nKEYMAP=us\n"),
        ("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n"),
    ]);
    sandbox
        .apply(
            r#"
[customizations]
hostname = "box.example"
[customizations.timezone]
timezone = "Europe/Berlin"
ntpservers = ["a.example", "b.example"]
[customizations.locale]
languages = ["de_DE.UTF-8", "en_GB.UTF-8"]
keyboard = "de-nodeadkeys"
[customizations.sshd]
password_authentication = false
client_alive_interval = 60
permit_root_login = "prohibit-password"
kbd_interactive_authentication = true
"#,
        )
        .unwrap();
    assert_eq!(sandbox.text("/etc/hostname"), "box.example\n");
    assert_eq!(sandbox.link("/etc/localtime").unwrap(), "../usr/share/zoneinfo/Europe/Berlin");
    assert_eq!(
        sandbox.text("/etc/systemd/timesyncd.conf.d/50-bootpress.conf"),
        "[Time]\nNTP=a.example b.example\n"
    );
    assert_eq!(sandbox.text("/etc/locale.conf"), "LANG=de_DE.UTF-8\nLANGUAGE=de_DE:en_GB\n");
    assert_eq!(sandbox.text("/etc/vconsole.conf"), "FONT=eurlatgr\nKEYMAP=de-nodeadkeys\n");
    let sshd = sandbox.text("/etc/ssh/sshd_config.d/00-bootpress.conf");
    assert!(sshd.ends_with("PasswordAuthentication no\nKbdInteractiveAuthentication yes\nClientAliveInterval 60\nPermitRootLogin prohibit-password\n"), "{sshd}");
    assert_eq!(sandbox.access("/etc/ssh/sshd_config.d/00-bootpress.conf"), "600 0:0");
    let refused = |sandbox: &mut Sandbox, toml: &str, why: &str| {
        let error = sandbox.refusal(&format!("[customizations.{toml}"));
        assert!(error.contains(why), "{error}");
    };
    refused(&mut sandbox, "timezone]\ntimezone = \"Mars/Olympus\"", "no time zone Mars/Olympus");
    refused(&mut sandbox, "locale]\nkeyboard = \"xx\"", "no keyboard map xx");
    refused(&mut sandbox, "firewall]\nports = [\"22:tcp\"]", "no firewalld");
    refused(
        &mut sandbox,
        "cacerts]\npem_certs = [\"-----BEGIN CERTIFICATE-----\\nMIIBAAA=\\n-----END CERTIFICATE-----\"]",
        "update-ca-trust",
    );
    refused(&mut Sandbox::new(&[]), "sshd]\nclient_alive_interval = 1", "does not include");
    let with_chrony = &mut Sandbox::new(&[("/etc/chrony.conf", "pool x iburst\ndriftfile /y\n")]);
    with_chrony.apply("[customizations.timezone]\nntpservers = [\"n\"]\n").unwrap();
    assert_eq!(with_chrony.text("/etc/chrony.conf"), "driftfile /y\nserver n iburst\n");
}

#[test]
fn the_firewall_lets_in_what_it_shall() {
    let zone = "<zone>\n  <short>Public</short>\n  <service name=\"ssh\"/>\n  <service name=\"cockpit\"/>\n</zone>\n";
    let mut sandbox = Sandbox::new(&[
        ("/etc/firewalld/firewalld.conf", "# c\nDefaultZone=office\n"),
        ("/usr/lib/firewalld/zones/office.xml", zone),
        ("/usr/lib/firewalld/services/ssh.xml", ""),
        ("/usr/lib/firewalld/services/https.xml", ""),
        ("/usr/lib/firewalld/services/cockpit.xml", ""),
        ("/etc/services", "imap2 143/tcp imap # mail\n"),
    ]);
    sandbox
        .apply(
            r#"
[customizations.firewall]
ports = ["8080:tcp", "30000-32767:udp", "imap:tcp"]
[customizations.firewall.services]
enabled = ["https", "ssh"]
disabled = ["cockpit"]
[[customizations.firewall.zones]]
name = "trusted"
sources = ["192.0.2.0/24", "52:54:00:12:34:56"]
"#,
        )
        .unwrap();
    assert_eq!(
        sandbox.text("/etc/firewalld/zones/office.xml"),
        "<zone>\n  <short>Public</short>\n  <service name=\"ssh\"/>\n  <port port=\"8080\" protocol=\"tcp\"/>\n  \
         <port port=\"30000-32767\" protocol=\"udp\"/>\n  <port port=\"143\" protocol=\"tcp\"/>\n  <service name=\"https\"/>\n</zone>\n"
    );
    let trusted = sandbox.text("/etc/firewalld/zones/trusted.xml");
    assert!(
        trusted.contains("<source address=\"192.0.2.0/24\"/>")
            && trusted.contains("<source mac=\"52:54:00:12:34:56\"/>"),
        "{trusted}"
    );
    let unknown = "[customizations.firewall.services]\nenabled = [\"gopher\"]\n";
    assert!(sandbox.refusal(unknown).contains("no service gopher"));
}

/// 130 bytes that begin like a certificate; nobody looks further.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIGCAAAA\n-----END CERTIFICATE-----\n";

#[test]
fn trust_and_first_boot() {
    let mut sandbox = Sandbox::new(&[
        ("/usr/bin/update-ca-trust", ""),
        ("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "# old\n"),
        ("/usr/share/crypto-policies/FIPS/openssl.txt", ""),
        ("/etc/crypto-policies/config", "DEFAULT\n"),
    ]);
    sandbox
        .apply(&format!(
            r##"
[customizations]
fips = true
[customizations.cacerts]
pem_certs = ["""{CERTIFICATE}"""]
[[customizations.firstboot.scripts]]
type = "custom"
name = "hello"
ignore_failure = true
contents = """#!/usr/bin/python3 -I
print("hello")
"""
[[customizations.firstboot.scripts]]
type = "aap"
job_template_url = "https://aap.example/9/callback/"
host_config_key = "it's"
after = ["db.service"]
before = ["network-online.target", "app.service"]
"##
        ))
        .unwrap();
    let anchors = sandbox.system().names("/etc/pki/ca-trust/source/anchors");
    assert_eq!(anchors.len(), 1);
    assert_eq!(
        sandbox.text(&format!("/etc/pki/ca-trust/source/anchors/{}", anchors[0])),
        CERTIFICATE
    );
    assert_eq!(
        sandbox.text("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
        format!("# old\n{CERTIFICATE}")
    );
    assert_eq!(sandbox.text("/etc/crypto-policies/config"), "FIPS\n");
    assert_eq!(
        sandbox.link("/etc/crypto-policies/back-ends/openssl.config").unwrap(),
        "/usr/share/crypto-policies/FIPS/openssl.txt"
    );
    let hello = sandbox.text("/etc/systemd/system/bootpress-firstboot-hello.service");
    assert!(
        hello.contains("ExecStart=-/usr/bin/python3 -I /etc/bootpress/firstboot/hello\n"),
        "{hello}"
    );
    assert_eq!(sandbox.access("/etc/bootpress/firstboot/hello"), "700 0:0");
    let second = sandbox.text("/etc/systemd/system/bootpress-firstboot-aap-2.service");
    assert!(
        hello.contains("Wants=network-online.target\nAfter=network-online.target\n"),
        "{hello}"
    );
    assert!(
        second.contains("After=db.service\nBefore=network-online.target app.service\n")
            && !second.contains("=network-online.target\n"),
        "it would wait for what waits for it: {second}"
    );
    assert!(
        second.contains("After=bootpress-firstboot-hello.service\n")
            && !second.contains("Requires="),
        "{second}"
    );
    assert!(sandbox.text("/etc/bootpress/firstboot/aap-2").contains("'host_config_key=it'\\''s'"));
    for unit in ["firstboot-hello", "firstboot-aap-2"] {
        let link = format!("/etc/systemd/system/multi-user.target.wants/bootpress-{unit}.service");
        assert_eq!(
            sandbox.link(&link).unwrap(),
            format!("/etc/systemd/system/bootpress-{unit}.service")
        );
    }
    assert!(
        sandbox
            .link("/etc/systemd/system/sysinit.target.wants/bootpress-ca-certificates.service")
            .is_some()
    );
}

#[test]
fn boot_gets_its_console_and_ignition() {
    let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
    let boot = |grub: &str| {
        let mut boot = Tree::new(Metadata::root(0o755));
        let directory = boot.make_directories("grub2", &Metadata::root(0o700));
        let content = contents.insert_bytes(grub.as_bytes()).unwrap();
        boot.create(directory, b"grub.cfg", Metadata::root(0o600), Kind::File(content));
        boot
    };
    let toml = "[customizations.bootloader.grub2]\nserial = \"serial --unit=0\"\nterminal_input = [\"serial\", \"console\"]\n[customizations.ignition.firstboot]\nurl = \"https://x.example/c.ign\"\n";
    let blueprint = blueprint(toml).unwrap();
    let mut tree = boot("source console.cfg ignition.firstboot");
    customize_boot(&mut tree, &blueprint, &contents).unwrap();
    let console = contents.bytes(tree.file("grub2/console.cfg").unwrap()).unwrap();
    assert_eq!(console, b"serial --unit=0\nterminal_input serial console\n");
    assert!(tree.file("ignition.firstboot").is_some());
    assert_eq!(
        kernel_arguments(&blueprint, Some("qemu")),
        [
            "$ignition_firstboot",
            "ignition.platform.id=qemu",
            "ignition.config.url=https://x.example/c.ign"
        ]
    );
    let named = kernel_arguments(&blueprint, None);
    assert!(named.iter().all(|argument| !argument.contains("platform")), "{named:?}");
    let error = customize_boot(&mut boot("console.cfg"), &blueprint, &contents).unwrap_err();
    assert!(error.to_string().contains("never reads ignition.firstboot"), "{error}");
}

#[test]
fn mounts_become_units_or_lines() {
    let mount = |mountpoint: Option<&str>, kind: &'static str| Mount {
        uuid: "0f1e-2d3c".to_owned(),
        mountpoint: mountpoint.map(str::to_owned),
        kind,
        options: "defaults".to_owned(),
        frequency: 0,
        pass: 2,
    };
    let mut mounting = Mounting {
        mounts: vec![
            mount(Some("/home"), "ext4"),
            mount(Some("/var/lib/data"), "vfat"),
            mount(None, "swap"),
        ],
        ..Mounting::default()
    };
    let mut sandbox = Sandbox::new(&[("/var/home/x", "")]);
    let changes = sandbox.mount("", &mounting).unwrap();
    assert_eq!(changes.volumes, ["/var/home", "/var/lib/data"]);
    let unit = sandbox.text("/etc/systemd/system/var-home.mount");
    assert!(
        unit.contains("Where=/var/home\nType=ext4\n")
            && unit.contains("What=/dev/disk/by-uuid/0f1e-2d3c\n"),
        "{unit}"
    );
    assert!(
        sandbox.link("/etc/systemd/system/local-fs.target.requires/var-lib-data.mount").is_some()
    );
    let swap = "dev-disk-by\\x2duuid-0f1e\\x2d2d3c.swap";
    assert!(sandbox.link(&format!("/etc/systemd/system/swap.target.wants/{swap}")).is_some());

    mounting.style = crate::config::MountStyle::Fstab;
    let mut sandbox = Sandbox::new(&[("/var/home/x", ""), ("/etc/fstab", "# mine")]);
    sandbox.mount("", &mounting).unwrap();
    assert_eq!(
        sandbox.text("/etc/fstab"),
        "# mine\nUUID=0f1e-2d3c /var/home ext4 defaults 0 2\nUUID=0f1e-2d3c /var/lib/data vfat defaults 0 2\n\
         UUID=0f1e-2d3c none swap defaults 0 2\n"
    );
    mounting.mounts = vec![mount(Some("/data"), "ext4")];
    let error = sandbox.mount("", &mounting).unwrap_err();
    assert!(error.to_string().contains("no directory /data"), "{error}");
}

#[test]
fn sudo_asks_nothing_of_those_who_are_named() {
    let toml = "[customizations.installer]\nsudo-nopasswd = [\"alice\", \"%wheel\"]\n";
    assert!(Sandbox::new(&[]).refusal(toml).contains("has no sudo"));
    let mut sandbox = Sandbox::new(&[("/usr/bin/sudo", "")]);
    sandbox.apply(toml).unwrap();
    let path = "/etc/sudoers.d/50-bootpress";
    assert_eq!(
        sandbox.text(path),
        "alice\tALL=(ALL)\tNOPASSWD: ALL\n%wheel\tALL=(ALL)\tNOPASSWD: ALL\n"
    );
    assert_eq!(sandbox.access(path), "440 0:0");
}

#[test]
fn podman_is_told_of_a_store_where_it_would_not_look() {
    let images = "[[containers]]\nsource = \"registry.example/app:1\"\n";
    let elsewhere = "[customizations.containers-storage]\ndestination-path = \"/var/lib/apps\"\n";
    let toml = format!("{images}{elsewhere}");
    let mut sandbox = Sandbox::new(&[]);
    sandbox.apply(images).unwrap();
    assert_eq!(sandbox.access("/var/lib/containers/storage"), "700 0:0");
    assert!(!sandbox.system().exists("/etc/containers/storage.conf"));
    for (there, expected) in [
        (
            "[storage]\n[storage.options]\nadditionalimagestores = [\n\"/x\",\n]\n",
            "[storage]\n[storage.options]\nadditionalimagestores = [\"/var/lib/apps\", \n\"/x\",\n]\n",
        ),
        (
            "[storage.options]\n# additionalimagestores = []\n",
            "[storage.options]\nadditionalimagestores = [\"/var/lib/apps\"]\n# additionalimagestores = []\n",
        ),
        (
            "driver = 1\n",
            "driver = 1\n\n[storage.options]\nadditionalimagestores = [\"/var/lib/apps\"]\n",
        ),
    ] {
        let mut sandbox = Sandbox::new(&[("/usr/share/containers/storage.conf", there)]);
        sandbox.apply(&toml).unwrap();
        let text = sandbox.text("/etc/containers/storage.conf");
        assert_eq!(text, expected);
        assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
    }
    sandbox.apply(&toml).unwrap();
    let text = sandbox.text("/etc/containers/storage.conf");
    assert!(text.contains("graphroot = \"/var/lib/containers/storage\"\n"), "{text}");
}
