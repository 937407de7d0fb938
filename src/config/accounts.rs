//! Users and groups that a blueprint asks for: `user`, `group` and the older `sshkey`.

use super::document::Value;
use super::table::{Found, Gravity, Problems, Table};

/// The largest number of a user or group; the one above it means "none".
const MOST: i64 = u32::MAX as i64 - 1;

/// The number that 16-bit interfaces take for "none".
const NOBODY_16: i64 = 65535;

/// A user to add, or to change if the image has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The comment field, which mostly is the person's name.
    pub description: Option<String>,
    /// As it stands in the configuration: a hash of crypt(3), plain text, or empty for an account that is locked.
    pub password: Option<String>,
    /// Public ssh keys, one line each.
    pub keys: Vec<String>,
    /// Home; absolute, without a final slash.
    pub home: Option<String>,
    /// Login shell; absolute.
    pub shell: Option<String>,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// Number; `None`: the next that is free.
    pub uid: Option<u32>,
    /// Number of the primary group; `None`: a group of the user's own.
    pub gid: Option<u32>,
    /// The day, counted from 1970, on which the account expires.
    pub expire_day: Option<u32>,
    /// Whether the password must be changed at the first login.
    pub force_password_reset: bool,
}

/// A group to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name.
    pub name: String,
    /// Number; `None`: the next that is free.
    pub gid: Option<u32>,
}

pub(super) fn users(table: &mut Table<'_>, problems: &mut Problems) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    for mut entry in table.tables("sshkey", problems) {
        let (name, key) = (entry.required("user", problems), entry.required("key", problems));
        if let (Some(name), Some(key)) = (name, key) {
            check_name("user", &name, problems);
            let keys = keys(&key, problems);
            match users.iter_mut().find(|user| user.name == name.value) {
                Some(user) => user.keys.extend(keys),
                None => users.push(User { name: name.value, keys, ..User::default() }),
            }
        }
        entry.finish(problems);
    }
    let mut named: Vec<String> = Vec::new();
    for mut entry in table.tables("user", problems) {
        let at = entry.at();
        let name = entry.required("name", problems);
        let user = user(&mut entry, problems);
        entry.finish(problems);
        let Some(name) = name else { continue };
        check_name("user", &name, problems);
        if named.contains(&name.value) {
            problems.wrong(at, format!("user {name} is defined twice"));
        }
        named.push(name.value.clone());
        let user = User { name: name.value, ..user };
        match users.iter_mut().find(|other| other.name == user.name) {
            Some(other) => *other = User { keys: [&other.keys[..], &user.keys].concat(), ..user },
            None => users.push(user),
        }
    }
    users
}

fn user(entry: &mut Table<'_>, problems: &mut Problems) -> User {
    let description = entry.text("description", problems);
    let password = entry.text("password", problems);
    let key = entry.text("key", problems);
    let home = entry.text("home", problems);
    let shell = entry.text("shell", problems);
    for field in [&description, &password, &home, &shell].into_iter().flatten() {
        if field.value.contains([':', '\n', '\0']) && !is_hash(&field.value) {
            problems.wrong(field.at, "a `:` or a line break cannot stand in an account's fields");
        }
    }
    if let Some(password) = password.as_ref().filter(|password| password.value.is_empty()) {
        let name = entry.name("password");
        problems.add(
            password.at,
            Gravity::Idle,
            format!(
                "{name} is empty: the account is locked, and nobody logs in to it with a password"
            ),
        );
    }
    let empty = |path: &&Found<String>| path.value.is_empty();
    for path in [&home, &shell].into_iter().flatten().filter(|path| !empty(path)) {
        // `/home/../etc` would put keys where nobody looks for them.
        if !is_plain_path(&path.value) {
            problems.wrong(
                path.at,
                format!(
                    "invalid path `{path}`: expected an absolute path without `.`, `..` and `//`"
                ),
            );
        }
    }
    let groups = entry.texts("groups", problems);
    groups.iter().for_each(|group| check_name("group", group, problems));
    let id = |value: i64| u32::try_from(value).ok();
    User {
        name: String::new(),
        description: description.map(|text| text.value),
        password: password.map(|text| text.value),
        keys: key.map(|key| keys(&key, problems)).unwrap_or_default(),
        home: home.filter(|home| !home.value.is_empty()).map(|home| trimmed(&home.value)),
        shell: shell.map(|shell| shell.value).filter(|shell| !shell.is_empty()),
        groups: groups.into_iter().map(|group| group.value).collect(),
        uid: number(entry, "uid", problems),
        gid: number(entry, "gid", problems),
        expire_day: entry.integer("expiredate", 0..=i64::from(u32::MAX), problems).and_then(id),
        force_password_reset: entry.bool("force_password_reset", problems) == Some(true),
    }
}

/// Whether a path is absolute and names its target without detours; a slash at its end is allowed.
fn is_plain_path(path: &str) -> bool {
    let inner = path.strip_prefix('/').map(|rest| rest.trim_end_matches('/'));
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    inner.is_some_and(|inner| inner.is_empty() || inner.split('/').all(plain))
}

fn trimmed(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

pub(super) fn groups(table: &mut Table<'_>, problems: &mut Problems) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for mut entry in table.tables("group", problems) {
        let at = entry.at();
        let name = entry.required("name", problems);
        let gid = number(&mut entry, "gid", problems);
        entry.finish(problems);
        let Some(name) = name else { continue };
        check_name("group", &name, problems);
        if groups.iter().any(|group| group.name == name.value) {
            problems.wrong(at, format!("group {name} is defined twice"));
        }
        if gid.is_some() && groups.iter().any(|group| group.gid == gid) {
            problems.wrong(at, format!("the group {name} has the gid of another"));
        }
        groups.push(Group { name: name.value, gid });
    }
    groups
}

fn number(entry: &mut Table<'_>, key: &'static str, problems: &mut Problems) -> Option<u32> {
    let at = entry.at();
    let value = entry.integer(key, 0..=MOST, problems)?;
    if value == NOBODY_16 {
        problems
            .wrong(at, format!("{} = {NOBODY_16} means \"none\" to old programs", entry.name(key)));
    }
    u32::try_from(value).ok()
}

/// Names as useradd takes them, and capital letters and dots, which it takes when told to.
pub(super) fn is_name(name: &str) -> bool {
    let body = name.strip_suffix('$').unwrap_or(name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !body.is_empty()
        && name.len() <= 32
        && body.chars().all(allowed)
        && !body.starts_with(['-', '.'])
        && !body.chars().all(|c| c.is_ascii_digit())
}

fn check_name(what: &str, name: &Found<String>, problems: &mut Problems) {
    if !is_name(&name.value) {
        problems.wrong(
            name.at,
            format!(
                "`{name}` is not a name for a {what}: letters, digits, `_`, `.` and `-`, at most 32"
            ),
        );
    }
}

/// The lines of a key field that hold keys.
fn keys(text: &Found<String>, problems: &mut Problems) -> Vec<String> {
    let lines: Vec<String> = text.value.lines().map(|line| line.trim().to_owned()).collect();
    let keys: Vec<String> =
        lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    for key in &keys {
        if key.starts_with("-----BEGIN") || key.split_whitespace().count() < 2 {
            problems
                .wrong(text.at, "this is not a public ssh key such as `ssh-ed25519 AAAA… name`");
            return Vec::new();
        }
    }
    keys
}

/// Whether a password is one already hashed for crypt(3), or one that lets nobody in.
pub(super) fn is_hash(password: &str) -> bool {
    const METHODS: [&str; 11] =
        ["$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$", "$sm3$", "$8$"];
    METHODS.iter().any(|method| password.trim_start_matches('!').starts_with(method))
        || ["!", "!!", "*", "!*"].contains(&password)
}

/// An owner of a file: a name or a number; `None` if absent.
pub(super) fn owner(
    entry: &mut Table<'_>,
    key: &'static str,
    problems: &mut Problems,
) -> Option<Owner> {
    let node = entry.take(key)?;
    match &node.value {
        Value::Text(name) if is_name(name) => Some(Owner::Name(name.clone())),
        Value::Integer(number) if (0..=MOST).contains(number) => {
            u32::try_from(*number).ok().map(Owner::Number)
        }
        _ => {
            problems.wrong(node.at, format!("{} must be a name or a number", entry.name(key)));
            None
        }
    }
}

/// Whose a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// By name, looked up in the image and among the accounts that are added.
    Name(String),
    /// By number.
    Number(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hashes_are_told_from_others() {
        for name in ["alice", "_apt", "Bob.B", "machine$", "a-1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-x", "1000", "a:b", "a b", "..", "$", "x/y", &"a".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_hash("$6$salt$x") && is_hash("$y$j9T$x") && is_hash("!$6$x$y") && is_hash("*"));
        assert!(!is_hash("secret") && !is_hash("$dollar") && !is_hash(""));
    }
}
