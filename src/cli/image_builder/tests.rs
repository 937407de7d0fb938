//! What image-builder's command line is taken for.

use clap::CommandFactory;

use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.replace('~', " ")).collect()
}

fn build_options(line: &str) -> (ImageBuilderFlags, BuildOptions) {
    let mut flags = ImageBuilderFlags::try_parse_from(words(line)).unwrap();
    let verb = std::mem::replace(&mut flags.verb, Verb::Version { format: None });
    let Verb::Build(options) = verb else { panic!("{line} builds nothing") };
    (flags, *options)
}

fn refusal(line: &str) -> String {
    let (flags, options) = build_options(line);
    format!("{:#}", press(&options, &flags).unwrap_err())
}

#[test]
fn command_line_is_consistent() {
    ImageBuilderFlags::command().debug_assert();
}

/// As documents, pipelines and desktop applications of that tool have them.
#[test]
fn command_line_in_use_is_accepted() {
    for line in [
        "image-builder build qcow2 --bootc-ref quay.io/centos-bootc/centos-bootc:stream10",
        "image-builder build --bootc-ref quay.io/fedora/fedora-bootc:43 --bootc-default-fs ext4 qcow2",
        "image-builder build bootc-installer --bootc-ref localhost/installer --bootc-installer-payload-ref quay.io/x/y:1",
        "image-builder build bootc-generic-iso --bootc-ref localhost/live:1 --output-dir out --output-name live.iso",
        "image-builder build raw --bootc-ref quay.io/x/y:1 --blueprint config.toml --seed 42 --arch aarch64 --verbose",
        "image-builder -v build ami --bootc-ref x/y:1 --image-size 10~GiB --with-manifest --with-buildlog --with-metrics",
        "image-builder build vhd --bootc-ref x/y:1 --progress verbose --in-vm --cache /var/cache/image-builder/store",
        "image-builder build qcow2 --bootc-ref x/y:1 --bootc-build-ref x/z:1 --bootc-pull-container --bootc-no-default-kernel-args",
        "image-builder build ami --bootc-ref x/y:1 --aws-ami-name a --aws-bucket b --aws-region c --aws-tag k=v",
        "image-builder build qcow2 --bootc-ref x/y:1 --format json --with-upload-result --ignore-warnings",
        "image-builder manifest qcow2 --bootc-ref x/y:1 --use-librepo=false --rpmmd-cache /tmp --preview=false",
        "image-builder list --filter type:qcow2 --filter arch:x86_64 --format json",
        "image-builder list-images --filter qcow2",
        "image-builder describe qcow2 --arch x86_64 --distro fedora-43",
        "image-builder describe-image qcow2",
        "image-builder upload disk.raw --to aws --aws-region x",
        "image-builder version --format json",
    ] {
        if let Err(error) = ImageBuilderFlags::try_parse_from(words(line)) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn file_goes_where_that_tool_leaves_it() {
    let name = |line: &str| {
        let (_, options) = build_options(line);
        let kind = judged(&options.source).unwrap();
        let name = basename(&options.source, kind, options.output_name.as_deref());
        name.map(|name| format!("{name}.{}", kind.extension())).map_err(|error| error.to_string())
    };
    let build = "image-builder build --bootc-ref x/y:1 --arch x86_64";
    let named = |rest: &str| name(&format!("{build} {rest}"));
    assert_eq!(named("qcow2").unwrap(), "bootc-qcow2-x86_64.qcow2");
    assert_eq!(named("ami").unwrap(), "bootc-ami-x86_64.raw");
    assert_eq!(named("gce --output-name os.tar.gz").unwrap(), "os.tar.gz");
    assert_eq!(named("qcow2 --output-name os").unwrap(), "os.qcow2");
    assert!(named("qcow2 --output-name a/b").unwrap_err().contains("--output-name"));
}

#[test]
fn request_that_cannot_be_honoured_says_why() {
    for (line, told) in [
        ("build qcow2 --distro fedora-43", "building from packages is not supported"),
        ("build qcow2 --distro x --bootc-ref y", "cannot use --distro with --bootc-ref"),
        ("build qcow2 --bootc-ref y --with-rpmlist", "--with-rpmlist is about systems"),
        ("build qcow2 --bootc-ref y --ostree-url u", "--ostree-url is about systems"),
        ("build anaconda-iso --bootc-ref y", "anaconda-iso is not supported"),
        ("build pxe-tar-xz --bootc-ref y", "pxe-tar-xz is not supported"),
        ("build wsl --bootc-ref y", "expected one of: ami, bootc-generic-iso"),
        ("build raw --bootc-ref y --azure-image-name n", "uploads are not supported"),
        ("build raw --bootc-ref y --bootc-installer-payload-ref z", "is for the image type"),
    ] {
        let said = refusal(&format!("image-builder {line}"));
        assert!(said.contains(told), "{line}: {said}");
    }
}

#[test]
fn list_is_filtered_by_key_and_pattern() {
    let matches = |filter: &str| {
        let filter: flags::Filter = filter.parse().unwrap();
        ImageType::ALL
            .into_iter()
            .filter(|kind| filter.matches(*kind, Architecture::X86_64))
            .map(ImageType::name)
            .collect::<Vec<_>>()
    };
    assert_eq!(matches("type:bootc-*"), ["bootc-generic-iso", "bootc-installer"]);
    assert_eq!(matches("arch:aarch64"), [""; 0]);
    assert_eq!(matches("vmdk"), ["vmdk"]);
    assert_eq!(matches("distro:b*c").len(), ImageType::ALL.len());
    assert!("colour:red".parse::<flags::Filter>().is_err());
}
