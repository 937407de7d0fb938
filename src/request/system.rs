//! What is asked of the installed system.

use anyhow::Result;

use crate::bootc::Backend;
use crate::command_line;
use crate::error::unsupported;
use crate::name::StaterootName;

/// What is asked of the installed system, besides what a configuration file asks for.
#[derive(Clone, Debug)]
pub struct SystemRequest {
    /// The storage backend; `None`: the one that the image chooses.
    pub backend: Option<Backend>,
    /// The stateroot; `None`: what the image configures, else `default`.
    pub stateroot: Option<StaterootName>,
    /// The value of `root=`, empty for none; `None`: what the image configures, else the root's UUID.
    pub root_mount_spec: Option<String>,
    /// What is mounted on `/boot`, empty for nothing; `None`: what the image configures, else its UUID if it has one.
    pub boot_mount_spec: Option<String>,
    /// Whether the kernel arguments of the preset are added: osbuild has some.
    pub preset_arguments: bool,
    /// Kernel arguments to add, in order.
    pub kernel_arguments: Vec<String>,
    /// Kernel arguments to take away: `key` or `key=value`.
    pub kernel_argument_deletes: Vec<String>,
    /// The image name that the machine follows; `None`: the image it is made from.
    pub target_image: Option<String>,
    /// How the machine gets at that image.
    pub target_transport: Transport,
    /// Whether the machine's container policy decides about updates, even if the image does not ask for it.
    pub enforce_container_sigpolicy: bool,
    /// Public keys that let root log in by ssh: the text of an `authorized_keys` file.
    pub root_ssh_keys: Option<Vec<u8>>,
}

impl SystemRequest {
    /// Refuses kernel arguments that GRUB could not read.
    pub(super) fn check(&self) -> Result<()> {
        self.kernel_arguments.iter().try_for_each(|argument| {
            command_line::check(argument).map_err(|why| {
                unsupported(
                    format!("invalid --karg {argument:?}: {why}"),
                    Some("put the value between double quotes, as in key=\"a b\""),
                )
            })
        })
    }
}

impl Default for SystemRequest {
    /// A system of which nobody asks for anything.
    fn default() -> Self {
        Self {
            backend: None,
            stateroot: None,
            root_mount_spec: None,
            boot_mount_spec: None,
            preset_arguments: true,
            kernel_arguments: Vec::new(),
            kernel_argument_deletes: Vec::new(),
            target_image: None,
            target_transport: Transport::Registry,
            enforce_container_sigpolicy: false,
            root_ssh_keys: None,
        }
    }
}

/// How a machine gets at the image that it follows; bootc's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// From a registry.
    #[default]
    Registry,
    /// An OCI layout on the machine.
    Oci,
    /// An OCI layout in an archive on the machine.
    OciArchive,
    /// What podman has on the machine.
    ContainersStorage,
    /// An archive of docker's.
    DockerArchive,
    /// A directory that skopeo wrote.
    Directory,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Registry,
        Self::Oci,
        Self::OciArchive,
        Self::ContainersStorage,
        Self::DockerArchive,
        Self::Directory,
    ];

    /// The name that bootc gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::ContainersStorage => "containers-storage",
            Self::DockerArchive => "docker-archive",
            Self::Directory => "dir",
        }
    }

    /// A reference as container tools print it: `docker://NAME`, `oci:NAME`.
    pub fn reference(self, name: &str) -> String {
        match self {
            Self::Registry => format!("docker://{name}"),
            other => format!("{}:{name}", other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_spelled_as_container_tools_do() {
        let spelled = Transport::ALL.map(|transport| transport.reference("x:1"));
        let expected = [
            "docker://x:1",
            "oci:x:1",
            "oci-archive:x:1",
            "containers-storage:x:1",
            "docker-archive:x:1",
            "dir:x:1",
        ];
        assert_eq!(spelled, expected);
    }
}
