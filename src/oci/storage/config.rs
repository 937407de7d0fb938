//! Where the stores are: the specification in a reference, or `storage.conf` as container tools look for it.
//!
//! ```text
//! [overlay@/var/lib/containers/storage+/run/containers/storage:option=value]NAME
//! [DRIVER @ ROOT                      + RUNROOT               :OPTIONS     ]
//! ```

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::error::{corrupt, unsupported};

/// A store as a reference spells it, brackets left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    driver: Option<String>,
    root: Option<PathBuf>,
    run_root: Option<String>,
    options: Option<String>,
}

/// Where to look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stores {
    /// `None`: whichever is there.
    pub(super) driver: Option<String>,
    /// The store first, then those that only are read.
    pub(super) roots: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    storage: Section,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    driver: Option<String>,
    graphroot: Option<String>,
    rootless_storage_path: Option<String>,
    imagestore: Option<String>,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(default)]
    additionalimagestores: Vec<String>,
}

/// What of the process decides; given, so that tests can.
pub(super) struct Surroundings<'a> {
    /// The user whose store it is: 0 is the system's.
    pub(super) uid: u32,
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(super) read: &'a dyn Fn(&Path) -> Result<Option<String>>,
}

impl Spec {
    /// Splits `[…]NAME`.
    pub(crate) fn parse(text: &str) -> Result<(Option<Self>, &str)> {
        let Some(rest) = text.strip_prefix('[') else { return Ok((None, text)) };
        let (spec, name) =
            rest.split_once(']').with_context(|| format!("{text:?} lacks a closing ]"))?;
        let (driver, spec) = match spec.split_once('@') {
            Some((driver, spec)) => (Some(driver.to_owned()), spec),
            None => (None, spec),
        };
        let (spec, options) = match spec.split_once(':') {
            Some((spec, options)) => (spec, Some(options.to_owned())),
            None => (spec, None),
        };
        let (root, run_root) = match spec.split_once('+') {
            Some((root, run_root)) => (root, Some(run_root.to_owned())),
            None => (spec, None),
        };
        ensure!(
            driver.as_deref() != Some("") && (root.starts_with('/') || root.is_empty()),
            "{text:?} is not a store: say [DRIVER@/ROOT+/RUNROOT]"
        );
        let root = Some(PathBuf::from(root)).filter(|root| !root.as_os_str().is_empty());
        ensure!(driver.is_some() || root.is_some(), "{text:?} has an empty store");
        Ok((Some(Self { driver, root, run_root, options }), name))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        self.driver.iter().try_for_each(|driver| write!(f, "{driver}@"))?;
        self.root.iter().try_for_each(|root| write!(f, "{}", root.display()))?;
        self.run_root.iter().try_for_each(|root| write!(f, "+{root}"))?;
        self.options.iter().try_for_each(|options| write!(f, ":{options}"))?;
        f.write_str("]")
    }
}

impl Stores {
    /// The stores of this process, or those that a reference names.
    pub(crate) fn locate(spec: Option<&Spec>) -> Result<Self> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        // Inside `podman unshare` we are root, but the store is that of the user outside.
        let outside = variable("_CONTAINERS_ROOTLESS_UID").and_then(|uid| uid.parse().ok());
        let uid = match outside {
            Some(uid) if uid != 0 => uid,
            _ => nix::unistd::geteuid().as_raw(),
        };
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        };
        Self::in_surroundings(spec, &Surroundings { uid, variable: &variable, read: &read })
    }

    pub(super) fn in_surroundings(
        spec: Option<&Spec>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self> {
        let asked = spec.and_then(|spec| spec.driver.clone());
        if let Some(root) = spec.and_then(|spec| spec.root.clone()) {
            return Self { driver: asked, roots: vec![root] }.checked();
        }
        let Surroundings { uid, variable, .. } = surroundings;
        let home = variable("HOME").unwrap_or_else(|| "/".to_owned());
        let (system, user) = configuration(surroundings, &home)?;
        let expand = |path: &str| {
            let user = variable("USER").unwrap_or_default();
            PathBuf::from(
                path.replace("$HOME", &home)
                    .replace("$UID", &uid.to_string())
                    .replace("$USER", &user),
            )
        };
        let data = variable("XDG_DATA_HOME").unwrap_or_else(|| format!("{home}/.local/share"));
        let user = user.unwrap_or_default();
        let root = if let Some(root) = &user.graphroot {
            expand(root)
        } else if *uid == 0 {
            system.graphroot.as_deref().map_or_else(|| "/var/lib/containers/storage".into(), expand)
        } else if let Some(root) =
            user.rootless_storage_path.as_ref().or(system.rootless_storage_path.as_ref())
        {
            expand(root)
        } else {
            Path::new(&data).join("containers/storage")
        };
        let driver = [asked, variable("STORAGE_DRIVER"), user.driver, system.driver]
            .into_iter()
            .flatten()
            .find(|driver| !driver.is_empty());
        let mut roots = vec![root];
        let additional = [&user.options, &system.options];
        let others = additional.into_iter().flat_map(|options| &options.additionalimagestores);
        roots.extend(
            user.imagestore
                .iter()
                .chain(&system.imagestore)
                .chain(others)
                .filter(|path| !path.is_empty())
                // Some entries have options behind a colon.
                .map(|path| expand(path.split(':').next().unwrap_or(path))),
        );
        Self { driver, roots }.checked()
    }

    fn checked(mut self) -> Result<Self> {
        // fuse-overlayfs is how old configurations called what still is overlay.
        if matches!(self.driver.as_deref(), Some("overlay2" | "fuse-overlayfs")) {
            self.driver = Some("overlay".to_owned());
        }
        match self.driver.as_deref() {
            None | Some("overlay" | "vfs") => Ok(self),
            Some(other) => {
                let what = format!("container storage of the driver {other} is not supported");
                let hint = "`skopeo copy containers-storage:NAME oci:DIR` makes a copy that bootpress reads";
                Err(unsupported(what, Some(hint)))
            }
        }
    }
}

/// The system's configuration, and the user's: one file of each, the first that is there.
fn configuration(
    surroundings: &Surroundings<'_>,
    home: &str,
) -> Result<(Section, Option<Section>)> {
    let Surroundings { uid, variable, read } = surroundings;
    let section = |path: &Path| -> Result<Option<Section>> {
        let Some(text) = read(path)? else { return Ok(None) };
        let file: File = toml::from_str(&text)
            .map_err(|error| corrupt(path.display().to_string(), error.to_string()))?;
        Ok(Some(file.storage))
    };
    if let Some(path) = variable("CONTAINERS_STORAGE_CONF") {
        let path = Path::new(&path);
        let own = section(path)?.with_context(|| {
            format!("CONTAINERS_STORAGE_CONF names {}, which is not there", path.display())
        })?;
        return Ok((Section::default(), Some(own)));
    }
    let mut system = Section::default();
    for path in ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"] {
        if let Some(found) = section(Path::new(path))? {
            system = found;
            break;
        }
    }
    if *uid == 0 {
        return Ok((system, None));
    }
    let config = variable("XDG_CONFIG_HOME").unwrap_or_else(|| format!("{home}/.config"));
    let user = section(&Path::new(&config).join("containers/storage.conf"))?;
    Ok((system, user))
}
