//! The blueprint: a configuration file in osbuild's form, TOML or JSON, read and checked before anything is fetched.

use super::accounts::{Group, User};
use super::document::Node;
use super::files::{Directory, File, ReadFile};
use super::layout::Layout;
use super::system::{Firewall, Ignition, Locale, Script, Services, Sshd, Timezone};
use super::table::{Gravity, Problems, Table};
use super::{accounts, disk, files, system};

/// Everything that a blueprint asks of the installed system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blueprint {
    /// Name of the machine.
    pub hostname: Option<String>,
    /// Kernel arguments to add, as one line.
    pub kernel_append: Option<String>,
    /// Users, in order.
    pub users: Vec<User>,
    /// Groups, in order.
    pub groups: Vec<Group>,
    /// Clock.
    pub timezone: Timezone,
    /// Language and keyboard.
    pub locale: Locale,
    /// What is let in.
    pub firewall: Firewall,
    /// What starts.
    pub services: Services,
    /// How ssh lets in.
    pub sshd: Sshd,
    /// Directories, in order.
    pub directories: Vec<Directory>,
    /// Files, in order.
    pub files: Vec<File>,
    /// Certificates to trust, as DER.
    pub certificates: Vec<Vec<u8>>,
    /// Scripts of the first boot, in order.
    pub scripts: Vec<Script>,
    /// First boot by ignition.
    pub ignition: Option<Ignition>,
    /// Whether only what FIPS 140 allows is used.
    pub fips: bool,
    /// Commands for GRUB's console.
    pub console: Option<String>,
    /// What an installer is told; a disk has none.
    pub installer: Installer,
    /// Partitions.
    pub layout: Option<Layout>,
}

/// `installer`, `iso`, `installation_device`: for media that install, not for disks that boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installer {
    /// Whether it asks nothing.
    pub unattended: bool,
    /// Users and groups (`%wheel`) that need no password for sudo.
    pub sudo_without_password: Vec<String>,
    /// Text of a kickstart file.
    pub kickstart: Option<String>,
    /// Modules to switch on.
    pub modules_enabled: Vec<String>,
    /// Modules to switch off.
    pub modules_disabled: Vec<String>,
    /// Seconds that the boot menu waits.
    pub menu_timeout: Option<u32>,
    /// Where to install to.
    pub device: Option<String>,
    /// Volume id, application id and publisher of the ISO.
    pub volume_id: Option<String>,
    /// Application id.
    pub application_id: Option<String>,
    /// Publisher.
    pub publisher: Option<String>,
}

const IN_THE_IMAGE: &str = "a bootc image brings its packages; add them in its Containerfile";
const FOR_PACKAGES: &str = "it configures systems that are installed from packages";
const FOR_INSTALLERS: &str = "it is for installation media, and a disk installs nothing";

/// Reads a whole blueprint.
pub(super) fn read(node: &Node, read_file: &ReadFile<'_>, problems: &mut Problems) -> Blueprint {
    let mut top = Table::of(node, "", problems);
    // Sent to osbuild's services, blueprints travel inside of this.
    if let Some(inner) = top.take("blueprint") {
        top.finish(problems);
        return read(inner, read_file, problems);
    }
    for key in ["name", "description", "distro", "architecture", "arch"] {
        top.text(key, problems);
    }
    if let Some(version) = top.text("version", problems).filter(|version| !version.value.is_empty())
    {
        let core = version.value.split(['-', '+']).next().unwrap_or_default();
        let numbers =
            core.split('.').map(|part| part.parse::<u64>()).collect::<Result<Vec<_>, _>>();
        if !numbers.is_ok_and(|numbers| numbers.len() == 3) {
            problems.wrong(
                version.at,
                format!("version `{version}` is no semantic version such as 1.0.0"),
            );
        }
    }
    for key in ["packages", "modules", "groups", "enabled_modules"] {
        refuse(&mut top, key, IN_THE_IMAGE, problems);
    }
    refuse(
        &mut top,
        "containers",
        "bootpress puts no second image on a disk; bind it to the image",
        problems,
    );
    let blueprint = top
        .table("customizations", problems)
        .map(|table| customizations(table, read_file, problems));
    top.finish(problems);
    blueprint.unwrap_or_default()
}

/// A key that says something we cannot do; empty lists say nothing.
fn refuse(table: &mut Table<'_>, key: &'static str, reason: &str, problems: &mut Problems) {
    if let Some(node) = table.take(key)
        && node.value != super::document::Value::List(Vec::new())
    {
        problems.add(
            node.at,
            Gravity::Refused,
            format!("{} cannot be honoured: {reason}", table.name(key)),
        );
    }
}

fn customizations(
    mut table: Table<'_>,
    read_file: &ReadFile<'_>,
    problems: &mut Problems,
) -> Blueprint {
    let table = &mut table;
    let hostname = table.text("hostname", problems).filter(|name| !name.value.is_empty());
    if let Some(name) = &hostname
        && !is_hostname(&name.value)
    {
        problems.wrong(name.at, format!("`{name}` is no host name"));
    }
    let kernel_append = table.table("kernel", problems).and_then(|mut kernel| {
        if kernel.has("name") {
            refuse(&mut kernel, "name", "the kernel is the one of the image", problems);
        }
        let append = kernel.text("append", problems);
        if let Some(append) = append.as_ref().filter(|append| append.value.contains('\n')) {
            problems.wrong(append.at, "kernel arguments are one line");
        }
        kernel.finish(problems);
        append.map(|append| append.value)
    });
    let directories = files::directories(table, problems);
    let (scripts, mut certificates) = system::firstboot(table, problems);
    certificates.extend(system::cacerts(table, problems));
    let blueprint = Blueprint {
        hostname: hostname.map(|name| name.value),
        kernel_append,
        users: accounts::users(table, problems),
        groups: accounts::groups(table, problems),
        timezone: system::timezone(table, problems),
        locale: system::locale(table, problems),
        firewall: system::firewall(table, problems),
        services: system::services(table, problems),
        sshd: system::sshd(table, problems),
        files: files::files(table, &directories, read_file, problems),
        directories,
        certificates,
        scripts,
        ignition: system::ignition(table, problems),
        fips: table.bool("fips", problems) == Some(true),
        console: system::console(table, problems),
        installer: installer(table, problems),
        layout: layout(table, problems),
    };
    refuse(table, "containers-storage", "bootpress puts no second image on a disk", problems);
    let idle = ["fdo", "openscap", "rpm", "rhsm", "dnf", "repositories"];
    system::idle(table, &idle, FOR_PACKAGES, problems);
    system::idle(table, &["partitioning_mode"], FOR_INSTALLERS, problems);
    std::mem::replace(table, Table::of(&EMPTY, "", problems)).finish(problems);
    blueprint
}

/// Stands in for a table that has been read.
static EMPTY: Node = Node {
    value: super::document::Value::Table(Vec::new()),
    at: super::document::Place { line: 1, column: 1 },
};

/// RFC 1123, with the length that Linux allows.
fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

fn layout(table: &mut Table<'_>, problems: &mut Problems) -> Option<Layout> {
    let at = table.at();
    match (disk::filesystem(table, problems), disk::disk(table, problems)) {
        (Some(_), Some(_)) => {
            problems
                .wrong(at, "customizations.filesystem and customizations.disk exclude each other");
            None
        }
        (filesystem, disk) => filesystem.or(disk),
    }
}

fn installer(table: &mut Table<'_>, problems: &mut Problems) -> Installer {
    let mut read = Installer {
        device: table.text("installation_device", problems).map(|text| text.value),
        ..Installer::default()
    };
    if let Some(mut entry) = table.table("installer", problems) {
        let at = entry.at();
        read.unattended = entry.bool("unattended", problems) == Some(true);
        read.sudo_without_password = values(entry.texts("sudo-nopasswd", problems));
        if let Some(mut kickstart) = entry.table("kickstart", problems) {
            read.kickstart = kickstart
                .text("contents", problems)
                .map(|text| text.value)
                .filter(|text| !text.is_empty());
            kickstart.finish(problems);
        }
        if let Some(mut modules) = entry.table("modules", problems) {
            read.modules_enabled = values(modules.texts("enable", problems));
            read.modules_disabled = values(modules.texts("disable", problems));
            modules.finish(problems);
        }
        if let Some(mut bootloader) = entry.table("bootloader", problems) {
            if let Some(mut grub) = bootloader.table("grub2", problems) {
                let seconds = grub.integer("menu-timeout", 0..=3600, problems);
                read.menu_timeout = seconds.and_then(|seconds| u32::try_from(seconds).ok());
                grub.finish(problems);
            }
            bootloader.finish(problems);
        }
        // Flatpaks for the installed system: whoever makes installers has to read them.
        entry.take("payload");
        entry.finish(problems);
        if read.kickstart.is_some() && (read.unattended || !read.sudo_without_password.is_empty()) {
            problems.wrong(at, "installer.unattended and installer.sudo-nopasswd are not supported when adding custom kickstart contents");
        }
        problems.add(
            at,
            Gravity::Idle,
            format!("customizations.installer has no effect: {FOR_INSTALLERS}"),
        );
    }
    if let Some(mut iso) = table.table("iso", problems) {
        let at = iso.at();
        let volume_id = iso.text("volume_id", problems);
        let fits = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if let Some(id) = volume_id.as_ref().filter(|id| !fits(&id.value)) {
            problems.wrong(
                id.at,
                format!("volume_id `{id}` has other characters than letters, digits, `_` and `-`"),
            );
        }
        read.volume_id = volume_id.map(|text| text.value);
        read.application_id = iso.text("application_id", problems).map(|text| text.value);
        read.publisher = iso.text("publisher", problems).map(|text| text.value);
        iso.finish(problems);
        problems.add(
            at,
            Gravity::Idle,
            format!("customizations.iso has no effect: {FOR_INSTALLERS}"),
        );
    }
    read
}

fn values(found: Vec<super::table::Found<String>>) -> Vec<String> {
    found.into_iter().map(|found| found.value).collect()
}
