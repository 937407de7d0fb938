//! `deploy/`: the steps of the Tekton Task run by an ordinary user, the Containerfile built by buildah, and every other file read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::bootc_image::bootc_image;
use support::program::{bootpress_for_everybody, program};
use support::server::Server;
use support::tool::{is_root, run, tool};

use crate::bib;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

/// A YAML file as Python reads it.
fn yaml(name: &str) -> Option<Value> {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let said = run(tool("python3")?.args(["-c", script]).arg(Path::new(DEPLOY).join(name)));
    Some(serde_json::from_str(&said).unwrap())
}

/// A task run: the workspace, and values of parameters.
struct TaskRun<'a> {
    task: &'a Value,
    place: &'a Path,
    params: BTreeMap<&'a str, String>,
}

impl TaskRun<'_> {
    /// Replaces what Tekton replaces.
    fn filled(&self, text: &str) -> String {
        let mut text = text.replace("/var/workdir", self.place.join("workdir").to_str().unwrap());
        text =
            text.replace("$(workspaces.source.path)", self.place.join("source").to_str().unwrap());
        for param in self.task["spec"]["params"].as_array().unwrap() {
            let name = param["name"].as_str().unwrap();
            let given = self.params.get(name).map(String::as_str).or(param["default"].as_str());
            text = text.replace(&format!("$(params.{name})"), given.unwrap_or_default());
        }
        for result in self.task["spec"]["results"].as_array().unwrap() {
            let name = result["name"].as_str().unwrap();
            let path = self.place.join("results").join(name);
            text = text.replace(&format!("$(results.{name}.path)"), path.to_str().unwrap());
        }
        assert!(!text.contains("$(params.") && !text.contains("$(results."), "{text}");
        text
    }

    /// Runs the steps with scripts, as nobody.
    fn run(&self) {
        let spec = &self.task["spec"];
        for step in
            spec["steps"].as_array().unwrap().iter().filter(|step| step["script"].is_string())
        {
            let name = step["name"].as_str().unwrap();
            assert_eq!(step["securityContext"]["runAsNonRoot"], true, "{name}");
            let script = self.place.join(format!("{name}.sh"));
            fs::write(&script, self.filled(step["script"].as_str().unwrap())).unwrap();
            let mut command = Command::new(if is_root() { "setpriv" } else { "env" });
            if is_root() {
                command.args([
                    "--reuid",
                    "65534",
                    "--regid",
                    "65534",
                    "--clear-groups",
                    "--no-new-privs",
                ]);
                command.args(["--inh-caps", "-all", "--bounding-set", "-all"]);
            }
            command.arg("/bin/sh").arg(&script).current_dir("/").env_clear();
            for variable in [&spec["stepTemplate"]["env"], &step["env"]]
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
            {
                let value = self.filled(variable["value"].as_str().unwrap());
                command.env(variable["name"].as_str().unwrap(), value);
            }
            command.env("PATH", format!("{}:/usr/bin:/bin", self.place.join("bin").display()));
            run(&mut command);
        }
    }

    fn result(&self, name: &str) -> String {
        fs::read_to_string(self.place.join("results").join(name)).unwrap()
    }
}

#[test]
fn steps_of_the_tekton_task_run_unprivileged_with_the_results_of_konflux() {
    let (Some(task), Some(registry)) =
        (yaml("tekton/task.yaml"), Server::registry(None, false, None))
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    fs::set_permissions(place, PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["bin", "source", "workdir", "results"] {
        fs::create_dir(place.join(name)).unwrap();
        fs::set_permissions(place.join(name), PermissionsExt::from_mode(0o777)).unwrap();
    }
    bootpress_for_everybody(&place.join("bin"));
    bootc_image().write_oci_layout(&place.join("image"));
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(place.join("image")));
    let source = format!("oci:{}", place.join("image").display());
    fs::write(
        place.join("source/bib.yaml"),
        format!("bootc-builder-image: \"x\"\nsource-image: \"{source}\"\ntagged-as: registry.example.org/os:43 # updates\n"),
    )
    .unwrap();
    fs::write(place.join("source/my.toml"), "[customizations]\nhostname = \"piped\"\n").unwrap();
    let image = format!("{}/disks/os:43", registry.address);
    let params = BTreeMap::from([
        ("PLATFORM", "linux/x86_64".to_owned()),
        ("IMAGE_APPEND_PLATFORM", "true".to_owned()),
        ("OUTPUT_IMAGE", image.clone()),
        ("IMAGE_TYPE", "raw".to_owned()),
        ("CONFIG_TOML_FILE", "/my.toml".to_owned()),
    ]);
    let task_run = TaskRun { task: &task, place, params };
    task_run.run();

    let url = task_run.result("IMAGE_URL");
    assert_eq!(url, format!("{image}-linux-x86-64"));
    let digest = task_run.result("IMAGE_DIGEST");
    assert_eq!(task_run.result("IMAGE_REFERENCE"), format!("{url}@{digest}"));
    let (repository, sbom) = task_run
        .result("SBOM_BLOB_URL")
        .rsplit_once('@')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(repository, image.rsplit_once(':').unwrap().0);
    let tag = format!("docker://{repository}:{}.sbom", digest.replace(':', "-"));
    let attached =
        run(tool("skopeo").unwrap().args(["inspect", "--tls-verify=false", "--raw", &tag]));
    assert!(attached.contains(&sbom), "{attached}");
    let Some(mut skopeo) = tool("skopeo") else { return };
    let raw = run(skopeo
        .args(["inspect", "--tls-verify=false", "--raw"])
        .arg(format!("docker://{}@{digest}", url.rsplit_once(':').unwrap().0)));
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.diskimage.raw.gzip");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    // Under the tag is that manifest itself, as Konflux leaves it.
    let mut skopeo = tool("skopeo").unwrap();
    let tagged =
        run(skopeo.args(["inspect", "--tls-verify=false", "--raw"]).arg(format!("docker://{url}")));
    assert_eq!(tagged, raw);
    let record = fs::read_to_string(place.join("workdir/build-metadata.json")).unwrap();
    assert!(record.contains("\"file\": \"disk.x86_64.raw.gz\""), "{record}");
    let origin = Command::new(program())
        .arg("inspect")
        .arg(place.join("workdir/output/disk.x86_64.raw.gz"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&origin.stdout);
    assert!(
        said.contains("registry.example.org/os:43"),
        "tagged-as is followed for updates: {said}"
    );
}

#[test]
fn containerfile_makes_an_image_that_an_ordinary_user_runs() {
    if !is_root() {
        eprintln!("skipped: buildah needs subordinate users for anybody but root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (Some(mut strip), Some(_)) = (tool("strip"), tool("buildah")) else { return };
    run(strip.arg("-o").arg(place.join("bootpress")).arg(program()));
    bib::base(&place.join("base"), &place.join("bootpress"));
    let recipe = fs::read_to_string(Path::new(DEPLOY).join("Containerfile")).unwrap();
    fs::write(place.join("Containerfile"), bib::recipe(&recipe)).unwrap();
    bootc_image().write_oci_layout(&place.join("image"));
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(place.join("image")));
    let buildah = bib::Buildah { place: place.to_owned() };
    buildah
        .say(&["bud", "--isolation", "chroot", "-t", "bootpress", "-f", "Containerfile", "."])
        .unwrap();
    let told = buildah.say(&["inspect", "--type", "image", "bootpress"]).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["OCIv1"]["config"]["User"], "1001");
    let container = buildah.say(&["from", "bootpress"]).unwrap();
    let container = container.trim();
    let image = format!("{}:/image:ro", place.join("image").display());
    let line =
        ["run", "--isolation", "chroot", "-v", &image, container, "--", "/usr/bin/bootpress"];
    let build = [
        "build",
        "oci:/image",
        "--arch",
        "x86_64",
        "--format",
        "qcow2",
        "--output",
        "/work/disk.qcow2",
        "--json",
    ];
    let said = buildah.say(&[&line[..], &build[..]].concat()).unwrap();
    assert!(said.contains("\"path\": \"/work/disk.qcow2\""), "{said}");
    buildah.say(&["rm", container]).unwrap();
}

/// Scripts inside the files are sound, and name flags that there are.
#[test]
fn every_pipeline_file_is_read_and_its_flags_exist() {
    let mut text = String::new();
    for name in [
        "tekton/task.yaml",
        "tekton/pipeline.yaml",
        "github/action.yml",
        "gitlab/build-disk.yml",
        "tmt/boot.fmf",
    ] {
        let Some(_) = yaml(name) else { return };
        text += &fs::read_to_string(Path::new(DEPLOY).join(name)).unwrap();
    }
    let help = |verb: &str| {
        String::from_utf8(Command::new(program()).args([verb, "--help"]).output().unwrap().stdout)
            .unwrap()
    };
    let known = help("build") + &help("push") + &help("test");
    // Those of other programs.
    let others = ["--locked", "--path"];
    for word in text
        .split(|c: char| c.is_whitespace() || "\"'=[]{}()`".contains(c))
        .filter(|word| word.starts_with("--") && word.len() > 2)
    {
        assert!(known.contains(word) || others.contains(&word), "{word}");
    }
    let action = yaml("github/action.yml").unwrap();
    let Some(mut bash) = tool("bash") else { return };
    for step in action["runs"]["steps"].as_array().unwrap() {
        run(bash.args(["-n", "-c", step["run"].as_str().unwrap()]));
        bash = Command::new("bash");
    }
    // Task and pipeline fit together.
    let (task, pipeline) =
        (yaml("tekton/task.yaml").unwrap(), yaml("tekton/pipeline.yaml").unwrap());
    let names: Vec<&Value> =
        task["spec"]["params"].as_array().unwrap().iter().map(|param| &param["name"]).collect();
    let build = &pipeline["spec"]["tasks"][0];
    assert_eq!(build["taskRef"]["name"], task["metadata"]["name"]);
    for param in build["params"]
        .as_array()
        .unwrap()
        .iter()
        .chain(build["matrix"]["params"].as_array().unwrap())
    {
        assert!(names.contains(&&param["name"]), "{param}");
    }
}
