//! The blueprint: a configuration file in osbuild's form, TOML or JSON, read and checked before anything is fetched.

use super::accounts::{Group, User};
use super::containers::Containers;
use super::document::{Node, Value};
use super::files::{Directory, File, ReadFile};
use super::installer::Installer;
use super::layout::Layout;
use super::system::{Firewall, Ignition, Locale, Script, Services, Sshd, Timezone};
use super::table::{Gravity, Problems, Table};
use super::{Purpose, accounts, containers, disk, files, installer, system};
use crate::command_line;

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
    /// Application images to put on the disk.
    pub containers: Containers,
    /// Partitions.
    pub layout: Option<Layout>,
}

const IN_THE_IMAGE: &str = "a bootc image brings its packages; add them in its Containerfile";
const FOR_OSBUILD: &str = "it is for osbuild's own manifests; use the options of this command";
const FOR_PACKAGES: &str = "it configures systems that are installed from packages";

/// Reads a whole blueprint.
pub(super) fn read(
    node: &Node,
    purpose: Purpose,
    read_file: &ReadFile<'_>,
    problems: &mut Problems,
) -> Blueprint {
    let mut top = Table::of(node, "", problems);
    if let Some(inner) = top.take("blueprint") {
        build_config(top, problems);
        return read(inner, purpose, read_file, problems);
    }
    // The reference tool never looks at a version's form: most real files say "1.0".
    for key in ["name", "description", "version", "distro", "architecture"] {
        top.text(key, problems);
    }
    for key in ["packages", "modules", "groups", "enabled_modules"] {
        refuse(&mut top, key, IN_THE_IMAGE, problems);
    }
    let images = containers::images(&mut top, problems);
    let blueprint = top
        .table("customizations", problems)
        .map(|table| customizations(table, purpose, read_file, problems));
    top.finish(problems);
    let mut blueprint = blueprint.unwrap_or_default();
    blueprint.containers.images = images;
    blueprint
}

/// Reads what stands beside `blueprint` in osbuild's build configurations: nothing of it reaches a bootc disk.
fn build_config(mut wrapper: Table<'_>, problems: &mut Problems) {
    wrapper.text("name", problems);
    for key in ["options", "custom_repos"] {
        let empty = [Value::Table(Vec::new()), Value::List(Vec::new())];
        if let Some(node) = wrapper.take(key).filter(|node| !empty.contains(&node.value)) {
            let text = format!("{key} has no effect: {FOR_OSBUILD}");
            problems.add(node.at, Gravity::Idle, text);
        }
    }
    // They order osbuild's own tests.
    for key in ["depends", "solver"] {
        wrapper.take(key);
    }
    wrapper.finish(problems);
}

/// A key that says something we cannot do; what is empty says nothing.
pub(super) fn refuse(
    table: &mut Table<'_>,
    key: &'static str,
    reason: &str,
    problems: &mut Problems,
) {
    let empty = [Value::List(Vec::new()), Value::Text(String::new()), Value::Table(Vec::new())];
    if let Some(node) = table.take(key)
        && !empty.contains(&node.value)
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
    purpose: Purpose,
    read_file: &ReadFile<'_>,
    problems: &mut Problems,
) -> Blueprint {
    let table = &mut table;
    let hostname = table.text("hostname", problems).filter(|name| !name.value.is_empty());
    if let Some(name) = &hostname
        && !is_hostname(&name.value)
    {
        problems.wrong(name.at, format!("`{name}` is not a host name"));
    }
    let kernel_append = table.table("kernel", problems).and_then(|mut kernel| {
        // The reference tool's default is the package of this name.
        let name = kernel.text("name", problems);
        if let Some(name) = name.filter(|name| !["", "kernel"].contains(&name.value.as_str())) {
            let text = "customizations.kernel.name cannot be honoured: the kernel is the image's";
            problems.add(name.at, Gravity::Refused, text);
        }
        let append = kernel.text("append", problems);
        if let Some(append) = append.as_ref().filter(|append| append.value.contains('\n')) {
            problems.wrong(append.at, "kernel arguments are one line");
        }
        if let Some(append) = &append
            && let Err(why) = command_line::check(&append.value)
        {
            problems.wrong(append.at, format!("{}: {why}", kernel.name("append")));
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
        installer: installer::installer(table, purpose, problems),
        containers: containers::storage(table, problems),
        layout: layout(table, problems),
    };
    let idle = ["fdo", "openscap", "rpm", "rhsm", "dnf", "repositories"];
    system::idle(table, &idle, FOR_PACKAGES, problems);
    std::mem::replace(table, Table::of(&EMPTY, "", problems)).finish(problems);
    blueprint
}

/// Stands in for a table that has been read.
static EMPTY: Node =
    Node { value: Value::Table(Vec::new()), at: super::document::Place { line: 1, column: 1 } };

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
