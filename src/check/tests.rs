//! Every rule on facts that keep it, and on facts that violate it; the messages are in `tests/golden/check.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use expect_test::{expect, expect_file};

use super::facts::*;
use super::*;
use crate::inspect::{
    self, BootEntry, DiskHealth, EfiProgram, FilesystemFacts, Implanted, IsoHealth, Labels,
    PartitionFacts, Room, Signature,
};
use crate::oci::Attached;

/// 2026-12-01.
const NOW: i64 = 1_796_083_200;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A policy that asks for everything that a rule can ask for.
fn strict() -> Policy {
    let text = "
        rule_data:
          disallowed_inherited_labels: [{ name: summary }]
          deprecated_labels: [{ name: Version, replacement: version }]
        bootpress:
          extends: fedora
          tags: { required: [latest], agree: [[latest, '@newest']] }
    ";
    Policy::of(&[("strict".to_owned(), Some(text.to_owned()))]).unwrap()
}

/// Facts that keep every rule.
fn good() -> Facts {
    let digest = format!("sha256:{}", "11".repeat(32));
    let tags = TagFacts {
        unknown: None,
        names: ["43.20261130.0", "43.20261201.0", "latest"].map(str::to_owned).to_vec(),
        digests: labels(&[("43.20261201.0", "sha256:aa"), ("latest", "sha256:aa")]),
    };
    let image = ImageFacts {
        repository: Some("quay.io/fedora/fedora-bootc".to_owned()),
        tag: Some("43.20261201.0".to_owned()),
        digest: digest.clone(),
        top_digest: digest.clone(),
        platforms: Some(vec!["linux/amd64".to_owned(), "linux/arm64/v8".to_owned()]),
        architecture: "x86_64".to_owned(),
        labels: labels(&[
            ("name", "fedora-bootc"),
            ("summary", "Fedora that updates as a container image"),
            ("description", "Base image of Fedora for bootc"),
            ("maintainer", "somebody@example.org"),
            ("url", "https://example.org/"),
            ("version", "43"),
            ("release", "20261201.0"),
            ("architecture", "x86_64"),
            ("vendor", "Fedora Project"),
            ("containers.bootc", "1"),
            ("ostree.bootable", "1"),
            ("org.opencontainers.image.title", "fedora-bootc"),
            ("org.opencontainers.image.url", "https://example.org/"),
            ("org.opencontainers.image.version", "43"),
            ("org.opencontainers.image.source", "https://example.org/source"),
            ("org.opencontainers.image.revision", "0123456"),
            ("org.opencontainers.image.licenses", "MIT AND GPL-2.0-or-later"),
        ]),
        annotations: labels(&[
            ("org.opencontainers.image.created", "2026-12-01T00:00:00Z"),
            ("org.opencontainers.image.version", "43"),
        ]),
        created: Some("2026-12-01T00:00:00Z".to_owned()),
        parent: Parent::Known(labels(&[("summary", "Base")])),
        tags,
        signatures: Some(Vec::new()),
        trust: TrustFacts::Accepted { verified: true, by: "a key".to_owned() },
        sboms: Some(vec![Attached {
            form: "spdx",
            about: digest,
            digest: "sha256:00".to_owned(),
            size: 1,
            media_type: "text/spdx+json".to_owned(),
            place: "a tag".to_owned(),
        }]),
    };
    let content = ContentFacts {
        kernels: vec!["6.17.1-300.fc43.x86_64".to_owned()],
        initramfs: Some(Initramfs { ostree: Some(true), bootc: None }),
        os_release: labels(&[
            ("ID", "fedora"),
            ("NAME", "Fedora Linux"),
            ("PRETTY_NAME", "Fedora Linux 43"),
            ("VERSION_ID", "43"),
        ]),
        machine_id: Some("uninitialized\n".to_owned()),
        set_id: vec![SetId { path: "usr/bin/sudo".to_owned(), mode: 0o4111, uid: 0 }],
        ..ContentFacts::default()
    };
    let partition = |number, role, start: u64, size: u64, used: u64| PartitionFacts {
        number,
        role: Some(role),
        type_name: "x",
        type_guid: String::new(),
        guid: String::new(),
        name: String::new(),
        start,
        size,
        filesystem: Some(FilesystemFacts {
            kind: "ext4",
            label: None,
            uuid: None,
            used: Some(used),
        }),
    };
    let signature =
        |issuer: &str| Signature { signer: None, issuer: issuer.to_owned(), intact: Some(true) };
    let program = |path: &str, issuers: &[&str]| EfiProgram {
        path: path.to_owned(),
        architecture: None,
        signatures: issuers.iter().map(|issuer| signature(issuer)).collect(),
        vendor_certificate: None,
    };
    let entry = BootEntry { path: "/loader/entries/1.conf".to_owned(), ..BootEntry::default() };
    let facts = inspect::Facts {
        version: 1,
        format: "raw",
        compression: None,
        size: 1 << 30,
        sector_size: 512,
        table: "gpt",
        guid: String::new(),
        architecture: None,
        partitions: vec![partition(2, "esp", 1 << 20, 512 << 20, 8 << 20)],
        esp: Vec::new(),
        programs: vec![
            program(
                "EFI/BOOT/BOOTX64.EFI",
                &["Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"],
            ),
            program("EFI/fedora/grubx64.efi", &["Fedora Secure Boot CA"]),
        ],
        boot_entries: vec![entry],
        deployments: Vec::new(),
        bootupd: Vec::new(),
        warnings: Vec::new(),
    };
    let room =
        Room { place: "/boot".to_owned(), free: 300 << 20, kernel_size: 120 << 20, kernels: 1 };
    let disk = DiskHealth {
        facts,
        table: Vec::new(),
        esp: Vec::new(),
        rooms: vec![room],
        entries: Vec::new(),
        unified: 0,
        unclean: Vec::new(),
        labels: Labels::Read { files: 7, missing: Vec::new() },
    };
    let iso = IsoHealth { md5: Implanted::Right, ..IsoHealth::default() };
    Facts { image: Some(image), content: Some(content), disk: Some(disk), iso: Some(iso), now: NOW }
}

/// A change that violates a rule.
type Spoil = fn(&mut Facts, &mut Policy);

fn image(facts: &mut Facts) -> &mut ImageFacts {
    facts.image.as_mut().unwrap()
}

fn content(facts: &mut Facts) -> &mut ContentFacts {
    facts.content.as_mut().unwrap()
}

fn disk(facts: &mut Facts) -> &mut DiskHealth {
    facts.disk.as_mut().unwrap()
}

fn iso(facts: &mut Facts) -> &mut IsoHealth {
    facts.iso.as_mut().unwrap()
}

fn label(facts: &mut Facts, key: &str, value: Option<&str>) {
    match value {
        Some(value) => image(facts).labels.insert(key.to_owned(), value.to_owned()),
        None => image(facts).labels.remove(key),
    };
}

/// What violates each rule; several lines for rules that can be violated in several ways.
const SPOILED: &[(&str, Spoil)] = &[
    ("image.bootc-label", |facts, _| {
        label(facts, "containers.bootc", None);
        label(facts, "ostree.bootable", None);
    }),
    ("image.repository-name", |facts, _| {
        image(facts).repository = Some("quay.io/fedora/fedora-bootc-43".to_owned());
    }),
    ("image.repository-name", |facts, _| {
        image(facts).repository = Some("quay.io/fedora/fedora-bootc-rawhide".to_owned());
    }),
    ("image.tag-form", |facts, _| image(facts).tag = Some("my-test".to_owned())),
    ("image.tags-present", |facts, _| {
        image(facts).tags.names.retain(|name| name != "latest");
    }),
    ("image.tags-agree", |facts, _| {
        let tags = &mut image(facts).tags;
        tags.digests.insert("latest".to_owned(), "sha256:bb".to_owned());
    }),
    ("image.index-complete", |facts, _| {
        image(facts).platforms = Some(vec!["linux/amd64".to_owned(), "linux/arm".to_owned()]);
    }),
    ("image.index-complete", |facts, _| image(facts).platforms = None),
    ("image.created", |facts, _| image(facts).created = None),
    ("image.created", |facts, _| image(facts).created = Some("1970-01-01T00:00:00Z".to_owned())),
    ("image.created", |facts, _| image(facts).created = Some("2027-12-01T00:00:00Z".to_owned())),
    ("image.created", |facts, _| image(facts).created = Some("yesterday".to_owned())),
    ("image.version-labels-agree", |facts, _| label(facts, "version", Some("42"))),
    ("image.version-labels-agree", |facts, _| label(facts, "architecture", Some("arm64"))),
    ("image.source-revision", |facts, _| {
        label(facts, "org.opencontainers.image.source", Some("git@example.org:x"));
        label(facts, "org.opencontainers.image.revision", None);
    }),
    ("image.licences", |facts, _| {
        label(facts, "org.opencontainers.image.licenses", Some("GPLv2+ and MIT"));
    }),
    ("image.annotations", |facts, _| image(facts).annotations.clear()),
    ("image.signed", |facts, _| {
        image(facts).trust = TrustFacts::Refused("nobody vouches for it".to_owned());
    }),
    ("image.signed", |facts, _| {
        image(facts).trust = TrustFacts::Accepted { verified: false, by: "no policy".to_owned() };
    }),
    ("image.sbom", |facts, _| image(facts).sboms = Some(Vec::new())),
    ("labels.required_labels", |facts, _| {
        label(facts, "summary", None);
        label(facts, "vendor", Some("Nobody"));
    }),
    ("labels.optional_labels", |facts, _| label(facts, "maintainer", None)),
    ("labels.deprecated_labels", |facts, _| label(facts, "Version", Some("43"))),
    ("labels.disallowed_inherited_labels", |facts, _| label(facts, "summary", Some("Base"))),
    ("labels.inaccessible_parent_manifest", |facts, _| {
        image(facts).parent =
            Parent::Inaccessible("example.org/base@sha256:00".to_owned(), "not found".to_owned());
    }),
    ("labels.rule_data_provided", |_, policy| {
        policy.data_errors = vec!["Rule data x has unexpected format: y".to_owned()];
    }),
    ("quay_expiration.expires_label", |facts, _| label(facts, "quay.expires-after", Some("2w"))),
    ("content.importable", |facts, _| {
        content(facts).broken = Some("unpacking layer 1 of 2: sha256:00 is corrupt".to_owned());
    }),
    ("content.utf8-names", |facts, _| {
        content(facts).bad_names = vec!["usr/share/caf\\xe9".to_owned()];
    }),
    ("content.single-kernel", |facts, _| content(facts).kernels.clear()),
    ("content.single-kernel", |facts, _| content(facts).kernels.push("6.18".to_owned())),
    ("content.initramfs", |facts, _| content(facts).initramfs = None),
    ("content.initramfs", |facts, _| {
        content(facts).initramfs = Some(Initramfs { ostree: Some(false), bootc: None });
    }),
    ("content.initramfs", |facts, _| {
        content(facts).backend = Backend::Composefs;
        content(facts).initramfs = Some(Initramfs { ostree: Some(true), bootc: Some(false) });
    }),
    ("content.boot-payload", |facts, _| {
        content(facts).boot_payload = Some("the image has no boot loader".to_owned());
    }),
    ("content.kargs-valid", |facts, _| {
        content(facts).kargs = Some("usr/lib/bootc/kargs.d/x.toml is corrupt: line 1".to_owned());
    }),
    ("content.install-config-valid", |facts, _| {
        content(facts).install = Some("usr/lib/bootc/install/x.toml is corrupt".to_owned());
    }),
    ("content.root-config-valid", |facts, _| {
        content(facts).root_config = Some("[composefs] enabled=maybee is not known".to_owned());
    }),
    ("content.os-release", |facts, _| {
        content(facts).os_release.remove("VERSION_ID");
    }),
    ("content.base-directories", |facts, _| {
        content(facts).missing_base = vec!["the directory /sysroot is missing".to_owned()];
    }),
    ("content.etc-usr-etc", |facts, _| content(facts).usr_etc = true),
    ("content.boot-empty", |facts, _| content(facts).boot = vec!["boot/vmlinuz-6".to_owned()]),
    ("content.var-empty", |facts, _| {
        content(facts).var = (0..25).map(|n| format!("var/cache/{n}")).collect();
    }),
    ("content.run-tmp-empty", |facts, _| content(facts).run_tmp = vec!["run/lock/x".to_owned()]),
    ("content.no-machine-id", |facts, _| content(facts).machine_id = Some("ab".repeat(16))),
    ("content.no-host-keys", |facts, _| {
        content(facts).host_keys = vec!["etc/ssh/ssh_host_rsa_key".to_owned()];
    }),
    ("content.no-random-seed", |facts, _| {
        content(facts).random_seeds = vec!["var/lib/systemd/random-seed".to_owned()];
    }),
    ("content.no-passwords", |facts, _| {
        content(facts).passwords = vec![("root".to_owned(), "an empty password".to_owned())];
    }),
    ("content.setuid", |facts, _| {
        content(facts).set_id = vec![
            SetId { path: "usr/bin/sudo".to_owned(), mode: 0o4777, uid: 0 },
            SetId { path: "opt/x".to_owned(), mode: 0o2755, uid: 1 },
        ];
    }),
    ("disk.table-consistent", |facts, _| {
        disk(facts).table = vec!["the primary GPT and its backup differ".to_owned()];
    }),
    ("disk.esp-readable", |facts, _| {
        disk(facts).esp = vec!["the EFI system partition has no EFI/BOOT/BOOTX64.EFI".to_owned()];
    }),
    ("disk.esp-room", |facts, _| disk(facts).rooms[0].free = 100 << 20),
    ("disk.boot-entries", |facts, _| {
        let entry = "/loader/entries/1.conf".to_owned();
        disk(facts).entries = vec![(entry, "its kernel /vmlinuz is not there".to_owned())];
    }),
    ("disk.boot-entries", |facts, _| disk(facts).facts.boot_entries.clear()),
    ("disk.filesystems-clean", |facts, _| {
        disk(facts).unclean = vec![(3, "the journal of the ext4 has to be replayed".to_owned())];
    }),
    ("disk.selinux-labels", |facts, _| {
        disk(facts).labels = Labels::Read { files: 7, missing: vec!["/ostree/x".to_owned()] };
    }),
    ("disk.secure-boot", |facts, _| {
        disk(facts).facts.programs[0].signatures[0].intact = Some(false);
        disk(facts).facts.programs[1].signatures.clear();
    }),
    ("disk.secure-boot-2023", |facts, _| {
        disk(facts).facts.programs[0].signatures.pop();
    }),
    ("iso.volume", |facts, _| {
        iso(facts).volume = vec!["the volume has 4096 bytes, and the file 2048".to_owned()];
    }),
    ("iso.boot-catalog", |facts, _| {
        iso(facts).boot_catalog = vec!["the boot catalogue has no entry for UEFI".to_owned()];
    }),
    ("iso.hybrid", |facts, _| {
        iso(facts).hybrid = vec!["no partition is an EFI system partition".to_owned()];
    }),
    ("iso.md5", |facts, _| iso(facts).md5 = Implanted::Absent),
    ("iso.md5", |facts, _| {
        iso(facts).md5 = Implanted::Wrong { says: "00".to_owned(), is: "01".to_owned() };
    }),
];

#[test]
fn every_rule_is_a_text_and_a_function() {
    let texts: Vec<&str> = rules().iter().map(|rule| rule.id.as_str()).collect();
    let functions: Vec<&str> = judges().map(|(id, _)| id).collect();
    assert_eq!(texts.iter().collect::<BTreeSet<_>>(), functions.iter().collect::<BTreeSet<_>>());
    assert_eq!(texts.len(), functions.len());
    for rule in rules() {
        for text in [&rule.title, &rule.why, &rule.fix] {
            assert!(text.len() > 10 && text.trim() == text, "{}: {text:?}", rule.id);
        }
    }
}

#[test]
fn good_facts_keep_every_rule() {
    let report = judge("good", &good(), &strict(), NOW);
    assert_eq!(report.findings.len(), rules().len());
    for finding in &report.findings {
        assert_eq!(finding.status, Status::Passed, "{finding:#?}");
    }
}

#[test]
fn spoiled_facts_violate_their_rule_with_a_message() {
    let mut told = String::new();
    for (id, spoil) in SPOILED {
        let (mut facts, mut policy) = (good(), strict());
        spoil(&mut facts, &mut policy);
        let report = judge("spoiled", &facts, &policy, NOW);
        let finding = report.findings.iter().find(|finding| finding.rule == *id);
        let finding = finding.unwrap_or_else(|| panic!("{id} is not judged"));
        assert_eq!(finding.status, Status::Failed, "{id}");
        for counted in &finding.violations {
            let Counted { severity, violation } = counted;
            writeln!(told, "{id}: {}: {}", severity.name(), violation.message).unwrap();
        }
    }
    let tried: BTreeSet<&str> = SPOILED.iter().map(|(id, _)| *id).collect();
    let all: BTreeSet<&str> = rules().iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(tried, all, "every rule is violated once");
    expect_file!["../../tests/golden/check.txt"].assert_eq(&told);
}

/// The verdicts that Conforma's documentation promises for each kind of rule data, in the forms in which it takes them.
#[test]
fn conforma_rule_data_is_read_unchanged() {
    let text = "
        rule_data:
          required_labels:
          - { name: name, description: Name of the image. }
          - { name: vendor, description: Vendor., values: [Example, Fedora Project] }
          - { name: later, description: Not yet., effective_on: '2027-01-01T00:00:00Z' }
          - { name: since, description: Already., effective_on: '2026-01-01T00:00:00Z' }
          optional_labels:
          - { name: maintainer, description: Whom to ask. }
          deprecated_labels:
          - { name: Version, replacement: version, effective_on: '2027-01-01T00:00:00Z' }
          - { name: RUN, replacement: run }
          disallowed_inherited_labels: [{ name: summary }, { name: absent }]
          fbc_required_labels: [{ name: catalogue, description: Only catalogues. }]
          trusted_tasks: [ignored]
        sources:
        - config: { exclude: ['labels.required_labels:name', quay_expiration] }
        bootpress: { extends: none, release: true }
    ";
    let policy = Policy::of(&[("c".to_owned(), Some(text.to_owned()))]).unwrap();
    let facts = |pairs: &[(&str, &str)]| {
        let parent = Parent::Known(labels(&[("summary", "Base")]));
        let image = ImageFacts { labels: labels(pairs), parent, ..ImageFacts::default() };
        Facts { image: Some(image), now: NOW, ..Facts::default() }
    };
    let verdicts = |facts: &Facts, now: i64| {
        let report = judge("x", facts, &policy, now);
        let mut told = String::new();
        for finding in report
            .findings
            .iter()
            .filter(|one| one.rule.starts_with("labels.") || one.rule.starts_with("quay"))
        {
            for Counted { severity, violation } in &finding.violations {
                writeln!(told, "{} {}: {}", severity.name(), finding.rule, violation.message)
                    .unwrap();
            }
        }
        told
    };
    let image = facts(&[
        ("vendor", "Nobody"),
        ("Version", "1"),
        ("RUN", "x"),
        ("summary", "Base"),
        ("quay.expires-after", "1d"),
    ]);
    expect![[r#"
        error labels.required_labels: The "vendor" label has an unexpected "Nobody" value. Must be one of: Example, Fedora Project
        warning labels.required_labels: The required "later" label is missing. Label description: Not yet.
        error labels.required_labels: The required "since" label is missing. Label description: Already.
        warning labels.optional_labels: The optional "maintainer" label is missing. Label description: Whom to ask.
        warning labels.deprecated_labels: The "Version" label is deprecated, replace with "version"
        error labels.deprecated_labels: The "RUN" label is deprecated, replace with "run"
        error labels.disallowed_inherited_labels: The "summary" label should not be inherited from the parent image
    "#]]
    .assert_eq(&verdicts(&image, NOW));
    let later = verdicts(&image, parse_date("2027-01-02").unwrap());
    assert!(
        later.contains("error labels.required_labels: The required \"later\" label"),
        "{later}"
    );
    let catalogue = facts(&[("operators.operatorframework.io.index.configs.v1", "/configs")]);
    expect![[r#"
        error labels.required_labels: The required "catalogue" label is missing. Label description: Only catalogues.
    "#]]
    .assert_eq(&verdicts(&catalogue, NOW));
}

#[test]
fn malformed_rule_data_is_told_by_the_rule_for_it() {
    let text = "
        sources:
        - ruleData:
            required_labels: [{ name: a }, { name: b, description: c, colour: red }, 3]
            optional_labels: word
            deprecated_labels: [{ name: a, replacement: 1 }]
            disallowed_inherited_labels: [{ name: a }, { name: a }, { name: b, values: [x] }]
        bootpress: { extends: none }
    ";
    let policy = Policy::of(&[("c".to_owned(), Some(text.to_owned()))]).unwrap();
    expect![[r#"
        [
            "Rule data required_labels has unexpected format: 0: description is required",
            "Rule data required_labels has unexpected format: 1: Additional property colour is not allowed",
            "Rule data required_labels has unexpected format: 2: Invalid type. Expected: object",
            "Rule data optional_labels has unexpected format: (Root): Invalid type. Expected: array",
            "Rule data disallowed_inherited_labels has unexpected format: (Root): array items must be unique",
            "Rule data disallowed_inherited_labels has unexpected format: 2: Additional property values is not allowed",
            "Rule data deprecated_labels has unexpected format: 0.replacement: Invalid type. Expected: string",
        ]
    "#]]
    .assert_debug_eq(&policy.data_errors);
}

#[test]
fn later_policy_changes_severity_and_switches_rules_off() {
    let mine = "
        bootpress:
          severity: { image.sbom: error, image.licences: off }
          setuid: [/opt/x]
    ";
    let policy =
        Policy::of(&[("fedora".to_owned(), None), ("mine".to_owned(), Some(mine.to_owned()))])
            .unwrap();
    let mut facts = good();
    image(&mut facts).sboms = Some(Vec::new());
    content(&mut facts).set_id.push(SetId { path: "opt/x".to_owned(), mode: 0o4755, uid: 0 });
    let report = judge("x", &facts, &policy, NOW);
    let of = |id: &str| report.findings.iter().find(|finding| finding.rule == id);
    assert_eq!(
        of("image.sbom").map(|one| (one.status, one.severity)),
        Some((Status::Failed, Severity::Error))
    );
    assert_eq!(of("image.licences"), None);
    assert_eq!(of("content.setuid").map(|one| one.status), Some(Status::Passed));
    assert_eq!(report.policies, ["fedora", "mine"]);
}

#[test]
fn reports_hold_what_strangers_wrote_without_breaking() {
    let mut facts = good();
    label(&mut facts, "vendor", Some("<a&b>\"\u{1b}[2J\u{0}\n"));
    let report = judge("docker://x/y:1?#", &facts, &strict(), NOW);
    let junit = junit(&report, |severity| severity == Severity::Error);
    assert!(junit.contains("&lt;a&amp;b&gt;") && !junit.contains('\u{1b}'), "{junit}");
    let sarif: serde_json::Value = serde_json::from_str(&sarif(&report).unwrap()).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "labels.required_labels");
    let place = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(place, "docker%3A//x/y%3A1%3F%23");
}
