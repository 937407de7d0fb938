//! How registries are reached: what the user says on the command line, and where this machine keeps the rest.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::Reference;
use crate::limits::Budget;

/// Asks a program for credentials: `docker-credential-NAME get`, with the server on its standard input. Returns what it printed,
/// or `None` when it knows nothing of that server. The engine starts no program, so somebody else does.
pub type CredentialHelper = dyn Fn(&str, &str) -> Result<Option<String>> + Send + Sync;

/// What a source of images may use besides the network. The default is nothing: no login, no configuration, no cache.
#[derive(Clone, Default)]
pub struct Access {
    /// Where this machine keeps its configuration; `None`: it is not looked at.
    pub places: Option<Places>,
    /// User and password for the image's registry; they win over everything that is configured.
    pub credentials: Option<Password>,
    /// The only file to look for credentials in; it has to be there.
    pub auth_file: Option<PathBuf>,
    /// The only directory to look for certificates in: `*.crt`, and pairs of `*.cert` and `*.key`.
    pub certificate_directory: Option<PathBuf>,
    /// Whether registries have to prove who they are; `None`: as configured, else yes.
    pub verify_tls: Option<bool>,
    /// Where an archive is kept that cannot be read in place; `None`: with the system's temporary files.
    pub spool: Option<PathBuf>,
    /// The directory of the cache; `None`: nothing is kept.
    pub cache: Option<PathBuf>,
    /// The directory of the cache whose unpacked layers are used and added to, wherever an image comes from; `None`: none are.
    pub unpacked: Option<PathBuf>,
    /// Whether the cache has to do, without any network.
    pub offline: bool,
    /// Who asks credential helpers; `None`: they are not asked.
    pub helper: Option<Arc<CredentialHelper>>,
    /// What all images that are read with this may take of the machine.
    pub budget: Budget,
}

/// A user and a password, kept out of debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// Directories and files of this machine that the container tools look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `/etc`.
    pub etc: PathBuf,
    /// `/usr/share`, where distributions put defaults.
    pub share: PathBuf,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub config: Option<PathBuf>,
    /// `$XDG_CACHE_HOME`, else `~/.cache`.
    pub cache: Option<PathBuf>,
    /// The file that `podman login` writes: `$XDG_RUNTIME_DIR/containers/auth.json`, else the same under `/run/containers/UID`.
    pub runtime_auth: PathBuf,
    /// `$DOCKER_CONFIG`, else `~/.docker`.
    pub docker: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`: instead of the usual `registries.conf`.
    pub registries_conf: Option<PathBuf>,
    /// `$REGISTRY_AUTH_FILE`: as if the user had named it.
    pub auth_file: Option<PathBuf>,
}

impl Access {
    /// Access to another image that an image needs: what the user gave for one registry is for no other.
    pub fn beside(&self, image: &Reference, other: &Reference) -> Self {
        let credentials = self.credentials.clone().filter(|_| image.shares_registry(other));
        Self { credentials, ..self.clone() }
    }
}

impl Places {
    /// The places that the environment of this process names.
    pub fn of_this_process() -> Self {
        Self::of(|name| std::env::var_os(name), nix::unistd::getuid().as_raw())
    }

    /// The places that an environment names, for a user. Empty variables count as unset.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>, user: u32) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let below = |name: &str| home.as_ref().map(|home| home.join(name));
        let runtime = path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers"));
        let runtime = runtime.unwrap_or_else(|| PathBuf::from(format!("/run/containers/{user}")));
        Self {
            etc: "/etc".into(),
            share: "/usr/share".into(),
            config: path("XDG_CONFIG_HOME").or_else(|| below(".config")),
            cache: path("XDG_CACHE_HOME").or_else(|| below(".cache")),
            runtime_auth: runtime.join("auth.json"),
            docker: path("DOCKER_CONFIG").or_else(|| below(".docker")),
            registries_conf: path("CONTAINERS_REGISTRIES_CONF"),
            auth_file: path("REGISTRY_AUTH_FILE"),
            home,
        }
    }

    /// The directory of our cache.
    pub fn image_cache(&self) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join("bootpress"))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("places", &self.places)
            .field("credentials", &self.credentials)
            .field("auth_file", &self.auth_file)
            .field("certificate_directory", &self.certificate_directory)
            .field("verify_tls", &self.verify_tls)
            .field("cache", &self.cache)
            .field("unpacked", &self.unpacked)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_places() {
        let plain = Places::of(|name| (name == "HOME").then(|| "/home/x".into()), 7);
        assert_eq!(plain.config, Some("/home/x/.config".into()));
        assert_eq!(plain.docker, Some("/home/x/.docker".into()));
        assert_eq!(plain.image_cache(), Some("/home/x/.cache/bootpress".into()));
        assert_eq!(plain.runtime_auth, PathBuf::from("/run/containers/7/auth.json"));
        let told = Places::of(|name| (name != "HOME").then(|| format!("/{name}").into()), 7);
        assert_eq!(told.config, Some("/XDG_CONFIG_HOME".into()));
        assert_eq!(told.runtime_auth, PathBuf::from("/XDG_RUNTIME_DIR/containers/auth.json"));
        assert_eq!(told.auth_file, Some("/REGISTRY_AUTH_FILE".into()));
        let nothing = Places::of(|_| Some(OsString::new()), 0);
        assert_eq!((nothing.home, nothing.cache, nothing.auth_file), (None, None, None));
    }

    #[test]
    fn passwords_stay_with_their_registry() {
        let password = Password { user: "me".into(), password: "s3cret".into() };
        let access = Access { credentials: Some(password), ..Access::default() };
        let kept = |other: &str| {
            let image = "quay.io/a/b:1".parse().unwrap();
            access.beside(&image, &other.parse().unwrap()).credentials.is_some()
        };
        assert!(kept("quay.io/c/d") && !kept("ghcr.io/a/b:1") && !kept("oci:quay.io/a"));
    }

    #[test]
    fn passwords_are_not_shown() {
        let password = Password { user: "me".into(), password: "s3cret".into() };
        let access = Access { credentials: Some(password), ..Access::default() };
        let shown = format!("{access:?}");
        assert!(shown.contains("me") && !shown.contains("s3cret"), "{shown}");
    }
}
