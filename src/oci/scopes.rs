//! What an image is called in signature policies: in the words of its transport, from the most exact to the widest.
//!
//! ```text
//! docker      quay.io/a/b:1, quay.io/a/b, quay.io/a, quay.io, *.io
//! oci, dir    /path:tag, /path, / left out
//! storage     [overlay@/root]quay.io/a/b:1, …, [overlay@/root], [/root]
//! ```

use std::path::Path;

use super::Reference;
use super::reference::Place;

impl Reference {
    /// The transport, as policies call it.
    pub(super) fn transport(&self) -> &'static str {
        match &self.0 {
            Place::Registry(_) => "docker",
            Place::Layout { .. } => "oci",
            Place::Archive { .. } => "oci-archive",
            Place::DockerArchive { .. } => "docker-archive",
            Place::Directory(_) => "dir",
            Place::Storage { .. } => "containers-storage",
        }
    }

    /// The scopes, but for stores, which know their own.
    pub(super) fn scopes(&self) -> Vec<String> {
        match &self.0 {
            Place::Registry(name) => of_name(&name.whole()),
            Place::Layout { directory: path, tag } | Place::Archive { file: path, tag } => {
                of_path(path, tag.as_deref())
            }
            Place::Directory(directory) => of_path(directory, None),
            // Container tools know no scopes of these.
            Place::DockerArchive { .. } | Place::Storage { .. } => Vec::new(),
        }
    }
}

/// Scopes of a name in a registry.
pub(super) fn of_name(whole: &str) -> Vec<String> {
    let mut scopes = vec![whole.to_owned()];
    let (rest, _) = whole.split_once('@').unwrap_or((whole, ""));
    if rest != whole {
        scopes.push(rest.to_owned());
    }
    let repository = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => rest,
    };
    scopes.extend(prefixes(repository));
    let host = repository.split('/').next().unwrap_or(repository);
    let mut wild = host;
    while let Some((_, parent)) = wild.split_once('.') {
        scopes.push(format!("*.{parent}"));
        wild = parent;
    }
    scopes.dedup();
    scopes
}

/// `a/b/c`, `a/b`, `a`.
fn prefixes(path: &str) -> impl Iterator<Item = String> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
}

/// Scopes of a file or directory; none if it is not there, as standard input.
fn of_path(path: &Path, tag: Option<&str>) -> Vec<String> {
    let Ok(path) = path.canonicalize() else { return Vec::new() };
    let path = path.to_string_lossy();
    let mut scopes: Vec<String> = tag.map(|tag| format!("{path}:{tag}")).into_iter().collect();
    scopes.extend(prefixes(&path));
    scopes
}

/// Scopes of an image of a store.
pub(super) fn of_store(driver: &str, root: &Path, name: Option<&str>, id: &str) -> Vec<String> {
    let store = format!("[{driver}@{}]", root.display());
    let mut scopes = Vec::new();
    match name {
        Some(name) => {
            let known = of_name(name).into_iter().filter(|scope| !scope.starts_with("*."));
            scopes.extend(known.map(|scope| format!("{store}{scope}")));
        }
        None => scopes.push(format!("{store}@{id}")),
    }
    scopes.push(store);
    scopes.push(format!("[{}]", root.display()));
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_most_exact_to_the_widest() {
        let all = ["quay.io/a/b:1", "quay.io/a/b", "quay.io/a", "quay.io", "*.io"];
        assert_eq!(of_name("quay.io/a/b:1"), all);
        assert_eq!(
            of_name("localhost:5000/x:1"),
            ["localhost:5000/x:1", "localhost:5000/x", "localhost:5000"]
        );
        assert_eq!(
            of_name("r.example.com:5/x@sha256:0"),
            [
                "r.example.com:5/x@sha256:0",
                "r.example.com:5/x",
                "r.example.com:5",
                "*.example.com:5",
                "*.com:5"
            ]
        );
        assert_eq!(
            of_store("vfs", Path::new("/r"), Some("quay.io/b:1"), "0"),
            ["[vfs@/r]quay.io/b:1", "[vfs@/r]quay.io/b", "[vfs@/r]quay.io", "[vfs@/r]", "[/r]"]
        );
        assert_eq!(
            of_path(Path::new("/dev/null"), Some("t")),
            ["/dev/null:t", "/dev/null", "/dev"]
        );
        assert_eq!(of_path(Path::new("/not/there"), None), Vec::<String>::new());
    }
}
