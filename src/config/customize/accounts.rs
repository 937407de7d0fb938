//! Users and groups in `/etc/passwd`, `shadow`, `group` and `gshadow`, homes below `/var/home`, ssh keys inside.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use anyhow::Result;

use super::crypt;
use super::system::{Access, System};
use crate::config::accounts::{Group, Owner, User, is_hash};
use crate::error::{corrupt, unsupported};

/// A file of lines whose fields are separated by colons.
struct Lines {
    path: &'static str,
    lines: Vec<Vec<String>>,
    changed: bool,
}

impl Lines {
    fn read(system: &System<'_>, path: &'static str) -> Result<Self> {
        let text = system.read(path)?.unwrap_or_default();
        let fields = |line: &str| line.split(':').map(str::to_owned).collect();
        let lines = text.lines().filter(|line| !line.is_empty()).map(fields).collect();
        Ok(Self { path, lines, changed: false })
    }

    fn find(&self, name: &str) -> Option<&Vec<String>> {
        self.lines.iter().find(|line| line[0] == name)
    }

    /// The line of a name, to change it, with at least so many fields.
    fn find_mut(&mut self, name: &str, fields: usize) -> Option<&mut Vec<String>> {
        let line = self.lines.iter_mut().find(|line| line[0] == name)?;
        self.changed = true;
        line.resize(line.len().max(fields), String::new());
        Some(line)
    }

    fn add(&mut self, fields: &[&str]) {
        self.changed = true;
        self.lines.push(fields.iter().map(|&field| field.to_owned()).collect());
    }

    /// The numbers in a field.
    fn numbers(&self, field: usize) -> impl Iterator<Item = u32> {
        self.lines.iter().filter_map(move |line| line.get(field)?.parse().ok())
    }

    fn write(&self, system: &mut System<'_>, mode: u16) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        let text: String = self.lines.iter().map(|line| line.join(":") + "\n").collect();
        let access = system.access(self.path).unwrap_or(Access::root(mode));
        system.write(self.path, text.as_bytes(), access)
    }
}

/// The account files of a system.
pub(super) struct Accounts {
    passwd: Lines,
    shadow: Lines,
    group: Lines,
    gshadow: Lines,
    /// What the image keeps besides: names that the files in `/etc` need not repeat.
    more_passwd: Lines,
    more_group: Lines,
    subordinates: [Lines; 2],
    defaults: Defaults,
}

/// What `login.defs` and useradd's configuration say.
struct Defaults {
    ids: RangeInclusive<u32>,
    subordinate: (u64, u64),
    shell: String,
}

impl Defaults {
    fn read(system: &System<'_>) -> Result<Self> {
        let text = system.read("/etc/login.defs")?.unwrap_or_default();
        let number = |key: &str, otherwise: u64| {
            let value = text.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next()? == key).then(|| words.next())?
            });
            value.and_then(|value| value.parse().ok()).unwrap_or(otherwise)
        };
        let useradd = system.read("/etc/default/useradd")?.unwrap_or_default();
        let configured = useradd.lines().find_map(|line| line.trim().strip_prefix("SHELL="));
        let shells = configured.into_iter().chain(["/bin/bash", "/bin/sh"]);
        let shell =
            shells.map(|shell| shell.trim().trim_matches('"')).find(|shell| system.exists(shell));
        let id = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Self {
            ids: id(number("UID_MIN", 1000))..=id(number("UID_MAX", 60000)),
            subordinate: (number("SUB_UID_MIN", 100_000), number("SUB_UID_COUNT", 65_536).max(1)),
            shell: shell.unwrap_or("/bin/sh").to_owned(),
        })
    }
}

impl Accounts {
    pub(super) fn read(system: &System<'_>) -> Result<Self> {
        Ok(Self {
            passwd: Lines::read(system, "/etc/passwd")?,
            shadow: Lines::read(system, "/etc/shadow")?,
            group: Lines::read(system, "/etc/group")?,
            gshadow: Lines::read(system, "/etc/gshadow")?,
            more_passwd: Lines::read(system, "/usr/lib/passwd")?,
            more_group: Lines::read(system, "/usr/lib/group")?,
            subordinates: [
                Lines::read(system, "/etc/subuid")?,
                Lines::read(system, "/etc/subgid")?,
            ],
            defaults: Defaults::read(system)?,
        })
    }

    /// Adds groups and users, and makes the users' homes.
    pub(super) fn apply(
        &mut self,
        system: &mut System<'_>,
        groups: &[Group],
        users: &[User],
        seed: &str,
    ) -> Result<()> {
        for group in groups {
            self.add_group(group)?;
        }
        for user in users {
            self.user(system, user, seed)?;
        }
        self.passwd.write(system, 0o644)?;
        self.shadow.write(system, 0o000)?;
        self.group.write(system, 0o644)?;
        self.gshadow.write(system, 0o000)?;
        let subordinates = std::mem::replace(&mut self.subordinates, [empty(), empty()]);
        subordinates.iter().try_for_each(|lines| lines.write(system, 0o644))
    }

    /// The number of an owner.
    pub(super) fn uid(&self, owner: &Owner) -> Result<u32> {
        match owner {
            Owner::Number(uid) => Ok(*uid),
            Owner::Name(name) => {
                let line = self.passwd.find(name).or_else(|| self.more_passwd.find(name));
                number(line, "user", name)
            }
        }
    }

    /// The number of a group.
    pub(super) fn gid(&self, owner: &Owner) -> Result<u32> {
        match owner {
            Owner::Number(gid) => Ok(*gid),
            Owner::Name(name) => number(self.find_group(name), "group", name),
        }
    }

    fn find_group(&self, name: &str) -> Option<&Vec<String>> {
        self.group.find(name).or_else(|| self.more_group.find(name))
    }

    fn add_group(&mut self, group: &Group) -> Result<()> {
        if let Some(line) = self.find_group(&group.name) {
            let there = line.get(2).map_or("", String::as_str);
            if group.gid.is_none_or(|gid| there == gid.to_string()) {
                return Ok(());
            }
            return Err(unsupported(
                format!("the image has a group {} with the gid {there}", group.name),
                Some("leave its gid away"),
            ));
        }
        let gid = match group.gid {
            Some(gid) => {
                let taken = [&self.group, &self.more_group]
                    .into_iter()
                    .any(|lines| lines.numbers(2).any(|n| n == gid));
                if taken {
                    return Err(unsupported(
                        format!("the gid {gid} of group {} is taken in the image", group.name),
                        None,
                    ));
                }
                gid
            }
            None => self.unused(None, &self.defaults.ids)?,
        };
        self.write_group(&group.name, gid);
        Ok(())
    }

    fn write_group(&mut self, name: &str, gid: u32) {
        self.group.add(&[name, "x", &gid.to_string(), ""]);
        self.gshadow.add(&[name, "!", "", ""]);
    }

    /// A number that neither a user nor a group has; `wish` if that is so of it.
    fn unused(&self, wish: Option<u32>, ids: &RangeInclusive<u32>) -> Result<u32> {
        let passwd =
            [&self.passwd, &self.more_passwd].into_iter().flat_map(|lines| lines.numbers(2));
        let group = [&self.group, &self.more_group].into_iter().flat_map(|lines| lines.numbers(2));
        let taken: BTreeSet<u32> = passwd.chain(group).collect();
        let free = |id: &u32| !taken.contains(id);
        let found = wish.filter(free).or_else(|| ids.clone().find(free));
        found.ok_or_else(|| {
            let (low, high) = (ids.start(), ids.end());
            unsupported(format!("no id between {low} and {high} is free"), None)
        })
    }

    /// Adds a user, or changes what was asked of one that is there.
    fn user(&mut self, system: &mut System<'_>, user: &User, seed: &str) -> Result<()> {
        if self.passwd.find(&user.name).is_none() {
            match self.more_passwd.find(&user.name).cloned() {
                Some(line) => self.passwd.add(&line.iter().map(String::as_str).collect::<Vec<_>>()),
                None => self.add_user(system, user)?,
            }
        }
        self.change(user)?;
        self.set_password(user, seed);
        for group in &user.groups {
            self.join(system, &user.name, group)?;
        }
        self.write_keys(system, user)
    }

    fn add_user(&mut self, system: &mut System<'_>, user: &User) -> Result<()> {
        if let Some(uid) = user.uid
            && self.passwd.numbers(2).chain(self.more_passwd.numbers(2)).any(|taken| taken == uid)
        {
            return Err(unsupported(
                format!("the uid {uid} of user {} is taken in the image", user.name),
                None,
            ));
        }
        // A group that has the user's name is the user's own, as with useradd.
        let own = self.find_group(&user.name).and_then(|line| line.get(2)?.parse().ok());
        let uid = match user.uid {
            Some(uid) => uid,
            None => self.unused(user.gid.or(own), &self.defaults.ids)?,
        };
        let gid = match user.gid.or(own) {
            Some(gid) => {
                let known = |lines: &Lines| lines.numbers(2).any(|other| other == gid);
                if !known(&self.group) && !known(&self.more_group) {
                    self.write_group(&user.name, gid);
                }
                gid
            }
            None => {
                let gid = self.unused(Some(uid), &self.defaults.ids)?;
                self.write_group(&user.name, gid);
                gid
            }
        };
        let home = user.home.clone().unwrap_or_else(|| format!("/var/home/{}", user.name));
        let shell = self.defaults.shell.clone();
        self.passwd.add(&[&user.name, "x", &uid.to_string(), &gid.to_string(), "", &home, &shell]);
        self.add_subordinates(system, &user.name);
        if !system.exists(&home) {
            system.make_directory(&home, Access { uid, gid, mode: 0o700 })?;
            system.copy_below("/etc/skel", &home, uid, gid)?;
        }
        Ok(())
    }

    /// Ids for containers without root, where the image keeps such lists.
    fn add_subordinates(&mut self, system: &System<'_>, name: &str) {
        let (first, count) = self.defaults.subordinate;
        for lines in &mut self.subordinates {
            if !system.exists(lines.path) || lines.find(name).is_some() {
                continue;
            }
            let number = |line: &Vec<String>, field: usize| line.get(field)?.parse::<u64>().ok();
            let end = |line: &Vec<String>| Some(number(line, 1)?.saturating_add(number(line, 2)?));
            let start = lines.lines.iter().filter_map(end).max().unwrap_or(first).max(first);
            lines.add(&[name, &start.to_string(), &count.to_string()]);
        }
    }

    /// Writes the fields of passwd that were asked for.
    fn change(&mut self, user: &User) -> Result<()> {
        let line = self.passwd.find_mut(&user.name, 7).expect("it was found or added");
        let fields = [
            (2, user.uid.map(|uid| uid.to_string())),
            (3, user.gid.map(|gid| gid.to_string())),
            (4, user.description.clone()),
            (5, user.home.clone()),
            (6, user.shell.clone()),
        ];
        for (field, value) in fields {
            let Some(value) = value else { continue };
            // Files belong to numbers: they would stay with the old one.
            if (field == 2 || field == 3) && line[field] != value {
                return Err(unsupported(
                    format!(
                        "the image has a user {} whose number is {}, not {value}",
                        user.name, line[field]
                    ),
                    Some("leave the number away, or change it in the image"),
                ));
            }
            line[field] = value;
        }
        Ok(())
    }

    fn set_password(&mut self, user: &User, seed: &str) {
        if self.shadow.find(&user.name).is_none() {
            // Since when a password is in use nobody can say here; without a day it does not age.
            self.shadow.add(&[&user.name, "!", "", "0", "99999", "7", "", "", ""]);
        }
        let line = self.shadow.find_mut(&user.name, 9).expect("it was found or added");
        if let Some(password) = &user.password {
            line[1] = hashed(password, seed, &user.name);
        }
        if user.force_password_reset {
            "0".clone_into(&mut line[2]);
        }
        if let Some(day) = user.expire_day {
            line[7] = day.to_string();
        }
    }

    fn join(&mut self, system: &System<'_>, user: &str, group: &str) -> Result<()> {
        if self.group.find(group).is_none() {
            match self.more_group.find(group).cloned() {
                Some(line) => self.group.add(&line.iter().map(String::as_str).collect::<Vec<_>>()),
                None => match self.sysusers_group(system, group)? {
                    Some(gid) => self.write_group(group, gid),
                    None => {
                        return Err(unsupported(
                            format!("the user {user} cannot join the group {group}: there is none"),
                            Some("add it with [[customizations.group]]"),
                        ));
                    }
                },
            }
        }
        let add = |field: &mut String| {
            if field.split(',').all(|member| member != user) {
                *field = if field.is_empty() { user.to_owned() } else { format!("{field},{user}") };
            }
        };
        add(&mut self.group.find_mut(group, 4).expect("it was found or added")[3]);
        if let Some(line) = self.gshadow.find_mut(group, 4) {
            add(&mut line[3]);
        }
        Ok(())
    }

    /// The number of a group that systemd-sysusers would make at boot.
    fn sysusers_group(&self, system: &System<'_>, group: &str) -> Result<Option<u32>> {
        const DIRECTORY: &str = "/usr/lib/sysusers.d";
        for name in system.names(DIRECTORY) {
            let text = system.read(&format!("{DIRECTORY}/{name}"))?.unwrap_or_default();
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [kind, name, rest @ ..] = &words[..] else { continue };
                if *name != group || !kind.starts_with(['g', 'u']) {
                    continue;
                }
                let id = rest.first().and_then(|id| id.split(':').next()?.parse().ok());
                return match id {
                    Some(gid) => Ok(Some(gid)),
                    // Numbers below those of people, from above, as sysusers takes them.
                    None => self.unused_system().map(Some),
                };
            }
        }
        Ok(None)
    }

    fn unused_system(&self) -> Result<u32> {
        let numbers = [&self.passwd, &self.group, &self.more_passwd, &self.more_group];
        let taken: BTreeSet<u32> = numbers.into_iter().flat_map(|lines| lines.numbers(2)).collect();
        let free = (100..=999).rev().find(|id| !taken.contains(id));
        free.ok_or_else(|| unsupported("no number of a system group is free", None))
    }

    fn write_keys(&self, system: &mut System<'_>, user: &User) -> Result<()> {
        if user.keys.is_empty() {
            return Ok(());
        }
        let line = self.passwd.find(&user.name).expect("it was found or added");
        let id = |field: usize| -> Result<u32> {
            line[field]
                .parse()
                .map_err(|_| corrupt("/etc/passwd", format!("the line of {}", user.name)))
        };
        let (uid, gid, home) = (id(2)?, id(3)?, line[5].clone());
        if !system.exists(&home) {
            system.make_directory(&home, Access { uid, gid, mode: 0o700 })?;
        }
        let directory = format!("{home}/.ssh");
        if !system.exists(&directory) {
            system.make_directory(&directory, Access { uid, gid, mode: 0o700 })?;
        }
        let file = format!("{directory}/authorized_keys");
        let mut text = system.read(&file)?.unwrap_or_default();
        for key in &user.keys {
            if text.lines().all(|line| line != key) {
                text += &format!("{key}\n");
            }
        }
        system.write(&file, text.as_bytes(), Access { uid, gid, mode: 0o600 })
    }
}

/// A password as the shadow file has it; what is a hash stays. An empty one locks the account: an empty field would let anybody in.
pub(in crate::config) fn hashed(password: &str, seed: &str, user: &str) -> String {
    if password.is_empty() {
        "!".to_owned()
    } else if is_hash(password) {
        password.to_owned()
    } else {
        crypt::sha512(password.as_bytes(), &crypt::salt(seed, user))
    }
}

fn empty() -> Lines {
    Lines { path: "", lines: Vec::new(), changed: false }
}

fn number(line: Option<&Vec<String>>, what: &str, name: &str) -> Result<u32> {
    line.and_then(|line| line.get(2)?.parse().ok()).ok_or_else(|| {
        unsupported(
            format!("there is no {what} {name}, neither in the image nor in the configuration"),
            Some("name the owner by number, or add it"),
        )
    })
}
