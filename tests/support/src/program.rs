//! Runs the program under test: `bootpress` for any command, `Build` for builds.
//!
//! ```ignore
//! let built = Build::new("oci:image").format("raw").flags(["--karg", "quiet"]).output("disk.raw").run();
//! assert_eq!(built.partition("root")["filesystem"]["kind"], "ext4");
//! let refusal = Build::new("oci:image").format("floppy").fails();
//! assert_eq!(refusal.code, 2);
//! ```

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The file of the program that Cargo built for the running test or benchmark.
pub fn program() -> PathBuf {
    // Cargo 1.94 and later says it to tests when they run; earlier ones only to the compiler, and only for tests of that package.
    if let Some(file) = env::var_os("CARGO_BIN_EXE_bootpress") {
        return file.into();
    }
    // target/PROFILE/deps/TEST → target/PROFILE/bootpress
    let test = env::current_exe().unwrap();
    let file = test.ancestors().nth(2).unwrap().join("bootpress");
    assert!(file.is_file(), "{} does not exist: build the package bootpress", file.display());
    file
}

/// A command that runs the program.
pub fn bootpress() -> Command {
    Command::new(program())
}

/// A command that runs the program under another name, by a symbolic link that is made in `directory`.
pub fn bootpress_named(name: &str, directory: &Path) -> Command {
    let link = directory.join(name);
    if !link.exists() {
        symlink(program(), &link).unwrap();
    }
    Command::new(link)
}

/// A copy of the program in `directory`, made once, that every user may run wherever the target directory is.
pub fn bootpress_for_everybody(directory: &Path) -> PathBuf {
    let copy = directory.join("bootpress");
    if !copy.exists() {
        std::fs::copy(program(), &copy).unwrap();
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    }
    copy
}

/// A build to run: `bootpress build IMAGE --arch x86_64 --progress none …`.
#[derive(Debug)]
pub struct Build {
    wrapper: Option<Command>,
    program: PathBuf,
    architecture: String,
    arguments: Vec<OsString>,
    changes: Vec<Change>,
}

/// What a build's process has that differs from this process.
#[derive(Debug)]
enum Change {
    Directory(PathBuf),
    Variable(OsString, OsString),
    NoVariable(OsString),
}

impl Build {
    /// A build of an image, such as `oci:DIRECTORY`, for x86_64.
    pub fn new(image: impl AsRef<OsStr>) -> Self {
        Self {
            wrapper: None,
            program: program(),
            architecture: "x86_64".to_owned(),
            arguments: vec![image.as_ref().to_owned()],
            changes: Vec::new(),
        }
    }

    /// The architecture, instead of x86_64.
    pub fn architecture(mut self, name: &str) -> Self {
        name.clone_into(&mut self.architecture);
        self
    }

    /// One more `--format`, or several with commas between them.
    pub fn format(self, format: &str) -> Self {
        self.flags(["--format", format])
    }

    /// `--output`.
    pub fn output(mut self, path: impl AsRef<OsStr>) -> Self {
        self.arguments.extend(["--output".into(), path.as_ref().to_owned()]);
        self
    }

    /// One more argument.
    pub fn flag(self, argument: impl AsRef<OsStr>) -> Self {
        self.flags([argument])
    }

    /// More arguments.
    pub fn flags(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|one| one.as_ref().to_owned()));
        self
    }

    /// The directory to run in.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.changes.push(Change::Directory(path.into()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.changes.push(Change::Variable(name, value));
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.changes.push(Change::NoVariable(name.as_ref().to_owned()));
        self
    }

    /// Another copy of the program.
    pub fn by(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// A command, such as `strace`, that is given the program and its arguments.
    pub fn under(mut self, wrapper: Command) -> Self {
        self.wrapper = Some(wrapper);
        self
    }

    /// The build as a command, without `--json`. It builds from scratch unless it has a place for a cache.
    pub fn command(mut self) -> Command {
        let decides = |argument: &OsString| argument == "--no-cache" || argument == "--offline";
        let places = ["HOME", "XDG_CACHE_HOME"];
        let places = |change: &Change| matches!(change, Change::Variable(name, _) if places.iter().any(|place| name == place));
        if !self.arguments.iter().any(decides) && !self.changes.iter().any(places) {
            self.arguments.push("--no-cache".into());
        }
        let mut command = match self.wrapper {
            None => Command::new(self.program),
            Some(mut wrapper) => {
                wrapper.arg(self.program);
                wrapper
            }
        };
        command.args(["build", "--arch", &self.architecture, "--progress", "none"]);
        command.args(self.arguments);
        for change in self.changes {
            match change {
                Change::Directory(path) => command.current_dir(path),
                Change::Variable(name, value) => command.env(name, value),
                Change::NoVariable(name) => command.env_remove(name),
            };
        }
        command
    }

    /// Runs the build with `--json`, which must succeed.
    #[track_caller]
    pub fn run(self) -> Built {
        self.tried().unwrap_or_else(|Failed { code, said }| panic!("exit code {code}: {said}"))
    }

    /// Runs the build with `--json`, which must fail.
    #[track_caller]
    pub fn fails(self) -> Failed {
        match self.tried() {
            Err(failed) => failed,
            Ok(Built { report, .. }) => panic!("the build succeeds: {report:#}"),
        }
    }

    /// Runs the build with `--json`.
    #[track_caller]
    pub fn tried(self) -> Result<Built, Failed> {
        let mut command = self.flag("--json").command();
        let Output { status, stdout, stderr } =
            command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = String::from_utf8_lossy(&stderr).into_owned();
        if status.success() {
            let report = serde_json::from_slice(&stdout)
                .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&stdout)));
            return Ok(Built { report, said });
        }
        let code = status.code().unwrap_or_else(|| panic!("{command:?}: {status}: {said}"));
        Err(Failed { code, said })
    }
}

/// What a build that succeeded reports.
#[derive(Debug)]
pub struct Built {
    /// The document on standard output.
    pub report: Value,
    /// Standard error.
    pub said: String,
}

impl Built {
    /// The path of a file that was built, counted from 0 in the order of the formats.
    #[track_caller]
    pub fn file(&self, number: usize) -> PathBuf {
        self.report["files"][number]["path"].as_str().unwrap().into()
    }

    /// The partition with a role, such as `esp`, `boot` or `root`, as the report describes it.
    #[track_caller]
    pub fn partition(&self, role: &str) -> &Value {
        let partitions = self.report["partitions"].as_array().unwrap();
        let found = partitions.iter().find(|partition| partition["role"] == role);
        found.unwrap_or_else(|| panic!("no partition is {role}: {partitions:#?}"))
    }
}

/// How a build failed.
#[derive(Debug)]
pub struct Failed {
    /// The exit code.
    pub code: i32,
    /// Standard error.
    pub said: String,
}
