//! Whose credentials a registry gets, found where the container tools keep them.
//!
//! ```text
//! {"auths": {"quay.io/fedora": {"auth": base64("user:password")},        the longest name that fits
//!            "https://index.docker.io/v1/": {"identitytoken": "…"}},
//!  "credHelpers": {"gcr.io": "gcloud"},                                  docker-credential-gcloud knows it
//!  "credsStore": "secretservice"}                                        docker-credential-secretservice knows all
//! ```
//!
//! Specification: containers-auth.json(5), docker's credential helpers.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_client::Reference;
use serde::Deserialize;

use super::conf::{Registries, Source};
use crate::error::corrupt;
use crate::oci::access::{Access, Places};
use crate::signature::from_base64;

/// What a registry is told about who asks.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::oci) enum Credentials {
    Anonymous,
    Password {
        user: String,
        password: String,
        from: String,
    },
    /// A token to get tokens with.
    IdentityToken {
        token: String,
        from: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: String,
}

/// What a credential helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// What there is for an image: the longest name in the first file that has one. What the user gives is for the registry that the
/// user names, and not for mirrors of it.
pub(super) fn find(
    access: &Access,
    registries: &Registries,
    source: &Source,
) -> Result<Credentials> {
    let reference = &source.reference;
    if let Some(given) = access.credentials.as_ref().filter(|_| !source.mirror) {
        let (user, password) = (given.user.clone(), given.password.clone());
        return Ok(Credentials::Password { user, password, from: "--creds".to_owned() });
    }
    let files = "containers-auth.json".to_owned();
    let stores = registries.credential_helpers.clone().unwrap_or_else(|| vec![files.clone()]);
    for store in &stores {
        let found = if *store == files {
            in_files(access, reference)?
        } else {
            ask(access, store, reference.registry())?
        };
        if found != Credentials::Anonymous {
            return Ok(found);
        }
    }
    Ok(Credentials::Anonymous)
}

fn in_files(access: &Access, reference: &Reference) -> Result<Credentials> {
    for (path, is_old) in files(access)? {
        let context = || format!("reading {}", path.display());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // Another user's, such as one left by sudo; container tools look further, too.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                tracing::info!("{} cannot be read: {error}", path.display());
                continue;
            }
            Err(error) => return Err(error).with_context(context),
        };
        let file = parse(&text, is_old)
            .map_err(|error| corrupt(path.display().to_string(), error.to_string()))?;
        let found = look_up(&file, access, reference, &path).with_context(context)?;
        if found != Credentials::Anonymous {
            return Ok(found);
        }
    }
    Ok(Credentials::Anonymous)
}

/// The files in the order in which they count, and whether each is of docker's oldest format.
fn files(access: &Access) -> Result<Vec<(PathBuf, bool)>> {
    let named = access.auth_file.as_ref();
    let told = access.places.as_ref().and_then(|places| places.auth_file.as_ref());
    if let Some(file) = named.or(told) {
        ensure!(file.exists(), "{} is not there, and credentials should be", file.display());
        return Ok(vec![(file.clone(), false)]);
    }
    let Some(Places { runtime_auth, config, docker, home, .. }) = &access.places else {
        return Ok(Vec::new());
    };
    let below = |directory: &Option<PathBuf>, name: &str| {
        directory.as_ref().map(|directory| (directory.join(name), false))
    };
    let mut files = vec![(runtime_auth.clone(), false)];
    files.extend(below(config, "containers/auth.json"));
    files.extend(below(docker, "config.json"));
    files.extend(home.as_ref().map(|home| (home.join(".dockercfg"), true)));
    Ok(files)
}

fn parse(text: &[u8], is_old: bool) -> serde_json::Result<File> {
    if is_old {
        Ok(File { auths: serde_json::from_slice(text)?, ..File::default() })
    } else {
        serde_json::from_slice(text)
    }
}

fn look_up(
    file: &File,
    access: &Access,
    reference: &Reference,
    path: &Path,
) -> Result<Credentials> {
    let registry = reference.registry();
    let found = |key: &str| file.auths.get(key).map(|entry| decode(key, entry, path));
    // Who asks a helper for one registry has not left its secret in the file.
    if let Some(helper) = file.cred_helpers.get(registry) {
        return ask(access, helper, registry);
    }
    let mut names = vec![format!("{registry}/{}", reference.repository())];
    while let Some((shorter, _)) = names[names.len() - 1].rsplit_once('/') {
        names.push(shorter.to_owned());
    }
    for name in &names {
        match found(name).transpose()? {
            None | Some(Credentials::Anonymous) => {}
            Some(credentials) => return Ok(credentials),
        }
    }
    // Docker once kept addresses of its interface there.
    let wanted = host_of(registry);
    for (key, entry) in &file.auths {
        if host_of(key) == wanted {
            let credentials = decode(key, entry, path)?;
            if credentials != Credentials::Anonymous {
                return Ok(credentials);
            }
        }
    }
    match &file.creds_store {
        Some(helper) => {
            let server =
                if wanted == "index.docker.io" { "https://index.docker.io/v1/" } else { registry };
            ask(access, helper, server)
        }
        None => Ok(Credentials::Anonymous),
    }
}

/// The registry that a key of docker's means.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match key.split('/').next().unwrap_or(key) {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        host => host,
    }
}

fn decode(key: &str, entry: &Entry, path: &Path) -> Result<Credentials> {
    let from = format!("{} in {}", key, path.display());
    if !entry.identitytoken.is_empty() {
        return Ok(Credentials::IdentityToken { token: entry.identitytoken.clone(), from });
    }
    if entry.auth.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let broken = || corrupt(from.clone(), "its auth is not the base64 of USER:PASSWORD");
    let text = from_base64(&entry.auth).ok().and_then(|text| String::from_utf8(text).ok());
    let text = text.ok_or_else(broken)?;
    // As docker does, what names no user is passed over.
    let Some((user, password)) = text.split_once(':') else { return Ok(Credentials::Anonymous) };
    // Old dockers padded it.
    let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    Ok(Credentials::Password { user, password, from })
}

fn ask(access: &Access, helper: &str, server: &str) -> Result<Credentials> {
    let Some(ask) = &access.helper else { return Ok(Credentials::Anonymous) };
    let from = format!("docker-credential-{helper}");
    let Some(printed) =
        ask(helper, server).with_context(|| format!("asking {from} for {server}"))?
    else {
        return Ok(Credentials::Anonymous);
    };
    let Helped { username, secret } = serde_json::from_str(&printed)
        .map_err(|error| corrupt(format!("the answer of {from}"), error.to_string()))?;
    Ok(match username.as_str() {
        // Their way to say that the secret is a token.
        "<token>" => Credentials::IdentityToken { token: secret, from },
        "" => Credentials::Anonymous,
        _ => Credentials::Password { user: username, password: secret, from },
    })
}

impl Credentials {
    /// Who we are to the registry, for error messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Anonymous => "without a login".to_owned(),
            Self::Password { user, from, .. } => format!("as {user} (from {from})"),
            Self::IdentityToken { from, .. } => format!("by a token (from {from})"),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::error::Corrupt;
    use crate::oci::access::Password;

    fn source(name: &str) -> Source {
        Source { reference: name.parse().unwrap(), insecure: false, mirror: false }
    }

    fn user(access: &Access, name: &str) -> String {
        find(access, &Registries::default(), &source(name)).unwrap().shown()
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn entry(key: &str, user: &str) -> String {
        format!(r#""{key}": {{"auth": "{}"}}"#, STANDARD.encode(format!("{user}:pass:word")))
    }

    #[test]
    fn the_first_file_with_the_longest_name_counts() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut places = Places::of(|_| None, 0);
        (places.runtime_auth, places.home) = (at("run/auth.json"), Some(at("home")));
        (places.config, places.docker) = (Some(at("config")), Some(at("docker")));
        let access = Access { places: Some(places), ..Access::default() };
        assert_eq!(user(&access, "quay.io/a/b:1"), "without a login");
        write(&at("home/.dockercfg"), &format!("{{{}}}", entry("https://quay.io/v1/", "oldest")));
        assert!(user(&access, "quay.io/a/b:1").starts_with("as oldest"));
        let auths = |entries: &[String]| format!(r#"{{"auths": {{{}}}}}"#, entries.join(","));
        write(
            &at("docker/config.json"),
            &auths(&[
                entry("https://quay.io", "docker"),
                entry("https://index.docker.io/v1/", "hub"),
            ]),
        );
        assert!(user(&access, "quay.io/a/b:1").starts_with("as docker"));
        assert!(user(&access, "fedora").starts_with("as hub"));
        write(
            &at("config/containers/auth.json"),
            &auths(&[
                entry("quay.io", "config"),
                entry("quay.io/a", "team"),
                entry("quay.io/a/b/c", "other"),
            ]),
        );
        assert!(user(&access, "quay.io/a/b:1").starts_with("as team"));
        assert!(user(&access, "quay.io/ab:1").starts_with("as config"));
        write(&at("run/auth.json"), &auths(&[entry("quay.io/a/b", "run")]));
        assert!(user(&access, "quay.io/a/b:1").starts_with("as run"));
        let named = Access { auth_file: Some(at("docker/config.json")), ..access.clone() };
        assert!(user(&named, "quay.io/a/b:1").starts_with("as docker"));
        let password = Password { user: "me".into(), password: "x".into() };
        let told = Access { credentials: Some(password), ..named };
        assert_eq!(user(&told, "quay.io/a/b:1"), "as me (from --creds)");
        let mirror = Source { mirror: true, ..source("quay.io/a/b:1") };
        assert!(
            find(&told, &Registries::default(), &mirror).unwrap().shown().starts_with("as docker")
        );
        let missing = Access { auth_file: Some(at("nowhere")), ..access };
        assert!(find(&missing, &Registries::default(), &source("x.io/y")).is_err());
    }

    /// The users are those whom `podman login --get-login` names (tests/conformance compares).
    #[test]
    fn files_of_the_corpus_give_the_user_that_podman_sends() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("auth.json");
        let access = Access { auth_file: Some(file.clone()), ..Access::default() };
        let corpus = include_str!("../../../tests/config/auth.txt");
        let mut count = 0;
        for case in corpus.split("### ").skip(1) {
            let (head, text) = case.split_once('\n').unwrap();
            let (name, expected) = head.split_once(" => ").unwrap();
            write(&file, text);
            let found = match find(&access, &Registries::default(), &source(name)) {
                Ok(Credentials::Password { user, .. }) => user,
                Ok(Credentials::IdentityToken { .. }) => "a token".to_owned(),
                Ok(Credentials::Anonymous) => "none".to_owned(),
                Err(_) => "error".to_owned(),
            };
            assert_eq!(found, expected, "{head}: {text}");
            count += 1;
        }
        assert!(count >= 25, "only {count} cases");
    }

    #[test]
    fn helpers_are_asked_and_files_are_decoded() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("auth.json");
        let helper = |helper: &str, server: &str| {
            Ok(match (helper, server) {
                ("cloud", "gcr.io") => {
                    Some(r#"{"ServerURL":"gcr.io","Username":"<token>","Secret":"t"}"#.to_owned())
                }
                ("store", "https://index.docker.io/v1/") => {
                    Some(r#"{"Username":"hub","Secret":"t"}"#.to_owned())
                }
                _ => None,
            })
        };
        let access = Access {
            auth_file: Some(file.clone()),
            helper: Some(Arc::new(helper)),
            ..Access::default()
        };
        write(
            &file,
            r#"{"auths": {"docker.io": {}}, "credHelpers": {"gcr.io": "cloud"}, "credsStore": "store"}"#,
        );
        assert_eq!(user(&access, "gcr.io/x"), "by a token (from docker-credential-cloud)");
        assert_eq!(user(&access, "fedora"), "as hub (from docker-credential-store)");
        assert_eq!(user(&access, "quay.io/x"), "without a login");
        let mut registries = Registries::default();
        registries.credential_helpers = Some(vec!["cloud".to_owned()]);
        let found = find(&access, &registries, &source("gcr.io/x")).unwrap();
        assert!(matches!(found, Credentials::IdentityToken { .. }));

        write(&file, &format!("{{\"auths\": {{{}}}}}", entry("x.io", "u")));
        let found = find(&access, &Registries::default(), &source("x.io/y")).unwrap();
        assert!(matches!(found, Credentials::Password { password, .. } if password == "pass:word"));
        for broken in [r#"{"auths": {"x.io": {"auth": "%%"}}}"#, r#"{"auths": 1}"#, "{"] {
            write(&file, broken);
            let error = find(&access, &Registries::default(), &source("x.io/y")).unwrap_err();
            assert!(error.is::<Corrupt>(), "{broken}: {error:#}");
        }
    }
}
