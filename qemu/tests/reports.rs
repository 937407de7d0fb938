//! The reports, before those who read them: xmllint, prove, JSON Schema, tmt's own schemas, and a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use qemu::{
    Acceleration, Accelerator, Architecture, BootReport, Case, Earlier, Finding, Firmware, Format,
    Machine, Milestone, Outcome, Proof, Reached, Severity, Suite, Test, Verdict, boot, table,
};
use serde_json::Value;
use support::tool::{fetched, run, tool};

/// A real boot of nothing, from which the others are made. `None` where QEMU is not installed, unless tools are required.
fn nothing() -> Option<BootReport> {
    static REPORT: OnceLock<Option<BootReport>> = OnceLock::new();
    let boot = || {
        tool("qemu-system-x86_64")?;
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("nothing.raw");
        fs::write(&disk, vec![0; 4096]).unwrap();
        let machine = Machine {
            firmware: Firmware::Bios,
            memory_mib: 64,
            ..Machine::new(Architecture::X86_64)
        };
        let test = Test {
            acceleration: Acceleration::Tcg,
            time_limit: Some(Duration::from_secs(60)),
            proof: Proof::Console("never".to_owned()),
            ..Test::new(&disk, machine)
        };
        Some(boot(&test, &mut |_| {}, &|| false).unwrap())
    };
    REPORT.get_or_init(boot).clone()
}

/// A suite with a case of every kind, and with text that is dangerous to every form.
fn suite() -> Option<Suite> {
    let failed = nothing()?;
    assert!(!failed.screens.is_empty(), "a PC has a screen");
    let mut passed = failed.clone();
    passed.verdict = Verdict::Passed;
    passed.seconds = 74.5;
    let times = [5.5, 6.6, 11.9, 19.2, 25.9, 64.5];
    passed.reached = Milestone::ALL
        .into_iter()
        .zip(times)
        .map(|(milestone, seconds)| Reached { milestone, seconds })
        .collect();
    for check in &mut passed.checks {
        check.passed = true;
    }
    passed.checks[0].passed = false;
    passed.checks[0].tolerated = true;
    passed.findings.clear();
    let mut panicked = failed.clone();
    panicked.verdict =
        Verdict::Failed { reason: "the kernel panicked: <b>&\"']]>\u{1b}[1m # no".to_owned() };
    panicked.seconds = 21.0;
    panicked.reached = passed.reached[..4].to_vec();
    panicked.console_tail = vec!["<script>alert('x')</script> & --> \u{0} ünïcode".to_owned()];
    panicked.findings = vec![Finding {
        rule: "kernel-panic".to_owned(),
        severity: Severity::Fatal,
        meaning: "the kernel panicked".to_owned(),
        line: "Kernel panic - not syncing: <x>".to_owned(),
        seconds: 20.0,
    }];
    let mut broken = failed.clone();
    let reason = "KVM internal error. Suberror: 1, emulation failure".to_owned();
    broken.verdict = Verdict::Error { reason: reason.clone() };
    passed.earlier = vec![Earlier {
        accelerator: Accelerator::Kvm,
        reason,
        seconds: 0.2,
        reached: Vec::new(),
        evidence: "kvm".to_owned(),
        command: failed.command.clone(),
    }];
    let case = |disk: &str, machine: &str, outcome: Outcome| Case {
        disk: PathBuf::from("/srv/out").join(disk),
        machine: machine.to_owned(),
        began: UNIX_EPOCH + Duration::from_secs(1_795_392_000),
        outcome,
        evidence: Some(PathBuf::from("/srv/evidence")),
    };
    let (one, other) = ("Fedora-IoT-43.x86_64.qcow2", "Fedora \"IoT\" # <43>.x86_64.raw.xz");
    let left_out = || Outcome::LeftOut("a BIOS boots only from sectors of 512 bytes".to_owned());
    Some(Suite {
        tool: "bootpress 0.1.0".to_owned(),
        began: UNIX_EPOCH + Duration::from_secs(1_795_392_000),
        seconds: 130.2,
        compose: Some("Fedora-IoT-43-20261123.0".to_owned()),
        subvariant: Some("IoT".to_owned()),
        cases: vec![
            case(one, "vm", Outcome::Tried(Box::new(passed.clone()))),
            case(one, "bios", Outcome::Tried(Box::new(failed))),
            case(one, "bare-metal", Outcome::Tried(Box::new(panicked.clone()))),
            case(other, "vm", Outcome::Tried(Box::new(panicked))),
            case(other, "bios", left_out()),
            case(other, "bare-metal", Outcome::NotTried("swtpm was not found".to_owned())),
            case(other, "edge", Outcome::Tried(Box::new(passed))),
            case(one, "edge", Outcome::Tried(Box::new(broken))),
        ],
    })
}

/// Writes a report into a directory.
fn written(suite: &Suite, format: Format, directory: &Path) -> PathBuf {
    let file = directory.join(format!("report.{}", format.name()));
    format.write(suite, &file).unwrap();
    file
}

/// Debian's Python has Debian's modules; another one may come first in PATH.
fn python() -> Option<std::process::Command> {
    let debian = Path::new("/usr/bin/python3");
    if debian.is_file() { Some(std::process::Command::new(debian)) } else { tool("python3") }
}

#[test]
fn junit_is_valid_and_counts_right() {
    let Some(suite) = suite() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = written(&suite, Format::Junit, directory.path());
    let Some(mut xmllint) = tool("xmllint") else { return };
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/junit.xsd");
    run(xmllint.args(["--noout", "--schema", schema]).arg(&file));
    let count = |path: &str| {
        let text = run(tool("xmllint").unwrap().args(["--xpath", path]).arg(&file));
        text.trim().parse::<usize>().unwrap()
    };
    assert_eq!(count("count(//testsuite)"), suite.cases.len());
    for (attribute, element) in [
        ("tests", "testcase"),
        ("failures", "failure"),
        ("errors", "error"),
        ("skipped", "skipped"),
    ] {
        let told = count(&format!("sum(//testsuite/@{attribute})"));
        assert_eq!(told, count(&format!("count(//{element})")), "{attribute}");
        assert!(told > 0, "{attribute}");
    }
}

#[test]
fn tap_is_read_by_prove() {
    let Some(suite) = suite() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = written(&suite, Format::Tap, directory.path());
    let Some(mut prove) = tool("prove") else { return };
    let output = prove.args(["-v", "--exec", "cat"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("Failed tests:  2-4, 6, 8") || said.contains("Failed 5/8 subtests"),
        "{said}"
    );
    assert!(!said.contains("Parse errors"), "{said}");
    for number in [6, 8] {
        let line = said.lines().find(|line| line.starts_with(&format!("not ok {number} ")));
        assert!(line.is_some_and(|line| line.ends_with(" # host")), "{said}");
    }
    let Some(mut python) = python() else { return };
    // The blocks below the lines are YAML, whatever is in them.
    let script = "import sys, yaml\nblocks = open(sys.argv[1]).read().split('  ---\\n')[1:]\n\
                  print([yaml.safe_load(b.split('  ...\\n')[0]).get('message') for b in blocks])";
    let messages = run(python.args(["-c", script]).arg(&file));
    assert!(messages.contains("the kernel panicked: <b>"), "{messages}");
}

#[test]
fn json_is_what_its_schema_says() {
    let Some(suite) = suite() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = written(&suite, Format::Json, directory.path());
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/result.schema.json");
    let Some(mut python) = python() else { return };
    let script = "import json, sys, jsonschema\nschema = json.load(open(sys.argv[1]))\nreport = json.load(open(sys.argv[2]))\n\
                  V = jsonschema.Draft202012Validator\nV.check_schema(schema)\nV(schema).validate(report)\n\
                  known = schema['$defs']['boot']['properties']\n\
                  print(sorted({key for case in report['cases'] for key in case.get('report', {})} - set(known)))\n\
                  broken = json.loads(json.dumps(report))\ndel broken['cases'][0]['report']['seconds']\n\
                  assert not V(schema).is_valid(broken)\nbroken = json.loads(json.dumps(report))\n\
                  broken['cases'][0]['outcome'] = 'fine'\nassert not V(schema).is_valid(broken)";
    let unknown = run(python.args(["-c", script, schema]).arg(&file));
    assert_eq!(unknown.trim(), "[]", "fields that the schema does not describe");
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["counts"]["failed"], 3);
    assert_eq!(report["counts"]["error"], 2);
    assert_eq!(report["cases"][7]["outcome"], "error");
    assert_eq!(report["cases"][6]["report"]["earlier"][0]["accelerator"]["name"], "kvm");
    assert_eq!(report["passed"], false);
    assert_eq!(report["cases"][4]["outcome"], "left-out");
}

#[test]
fn tmt_takes_its_results() {
    let Some(suite) = suite() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = written(&suite, Format::Tmt, directory.path());
    let schemas = fetched("tmt");
    if !schemas.join("complete").is_file() {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "run tests/support/tmt target/tmt");
        return;
    }
    let Some(mut python) = python() else { return };
    let script = "import sys, yaml, jsonschema\nload = lambda name: yaml.safe_load(open(name))\n\
                  common, results = load(sys.argv[1] + '/common.yaml'), load(sys.argv[1] + '/results.yaml')\n\
                  store = {'/schemas/common': common, '/schemas/results': results}\n\
                  resolver = jsonschema.RefResolver('', results, store=store)\nreport = load(sys.argv[2])\n\
                  V = lambda r: jsonschema.Draft7Validator(results, resolver=resolver).is_valid(r)\n\
                  jsonschema.Draft7Validator(results, resolver=resolver).validate(report)\n\
                  assert not V([dict(report[0], result='passed')]) and not V([dict(report[0], color='red')])\n\
                  print([r['result'] for r in report], report[0]['name'], report[0]['duration'])";
    let said = run(python.args(["-W", "ignore", "-c", script]).arg(schemas).arg(&file));
    let results = "['pass', 'fail', 'fail', 'fail', 'skip', 'error', 'pass', 'error']";
    assert_eq!(said.trim(), format!("{results} /boot/Fedora-IoT-43.x86_64.qcow2/vm 00:01:15"));
}

#[test]
fn resultsdb_gets_the_fields_of_a_compose() {
    let Some(suite) = suite() else { return };
    let results: Value = serde_json::from_str(&Format::ResultsDb.render(&suite)).unwrap();
    let outcomes: Vec<_> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(
        outcomes.join(" "),
        "PASSED FAILED FAILED FAILED INFO NEEDS_INSPECTION PASSED NEEDS_INSPECTION"
    );
    let data = &results[0]["data"];
    for (key, value) in [
        ("item", "Fedora-IoT-43.x86_64.qcow2"),
        ("type", "compose"),
        ("scenario", "vm"),
        ("productmd.compose.id", "Fedora-IoT-43-20261123.0"),
        ("productmd.compose.short", "Fedora-IoT"),
        ("productmd.image.type", "qcow2"),
        ("productmd.image.arch", "x86_64"),
        ("productmd.image.subvariant", "IoT"),
    ] {
        assert_eq!(data[key], value, "{key}");
    }
    assert_eq!(results[0]["groups"].as_array().unwrap().len(), 5);
}

#[test]
fn the_table_tells_each_case_in_a_line() {
    let Some(suite) = suite() else { return };
    let text = table(&suite);
    assert_eq!(text.lines().count(), suite.cases.len() + 2);
    assert!(text.ends_with("2 passed, 3 failed, 2 error, 1 left out in 130 s\n"), "{text}");
    assert!(!suite.passed());
}

/// Headless, without network; what the page shows is asked of the browser's own document.
#[test]
fn the_page_is_whole_in_a_browser() {
    let Some(suite) = suite() else { return };
    let directory = tempfile::tempdir().unwrap();
    let page = written(&suite, Format::Html, directory.path());
    let text = fs::read_to_string(&page).unwrap();
    assert!(!text.contains("<script>") && !text.contains("http://") && !text.contains("https://"));
    let chromium = |arguments: &[&str]| {
        let mut chromium = tool("chromium")?;
        chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        chromium.arg(format!("--user-data-dir={}", directory.path().join("profile").display()));
        chromium.args(arguments).arg(format!("file://{}", page.display())).stderr(Stdio::null());
        Some(chromium.output().unwrap())
    };
    let Some(dumped) = chromium(&["--dump-dom"]) else { return };
    let dom = String::from_utf8_lossy(&dumped.stdout).into_owned();
    let count = |what: &str| dom.matches(what).count();
    assert_eq!(count("<details class=\"case\""), suite.cases.len(), "{dom}");
    assert_eq!(count("class=\"cell\""), suite.cases.len());
    assert_eq!(count("<svg class=\"bar\""), 6);
    assert_eq!(count("class=\"error\""), 2, "a colour of its own");
    assert!(dom.contains("&lt;script&gt;alert('x')&lt;/script&gt;"), "text stays text");
    for (name, width, arguments) in [
        ("wide", 1200, &["--blink-settings=preferredColorScheme=1"][..]),
        ("dark", 1200, &["--blink-settings=preferredColorScheme=0"]),
        ("narrow", 500, &["--blink-settings=preferredColorScheme=1"]),
    ] {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}.png"));
        let shot = format!("--screenshot={}", kept.display());
        let size = format!("--window-size={width},2400");
        chromium(&[&[shot.as_str(), size.as_str()], arguments].concat()).unwrap();
        let png = png::Decoder::new(std::io::Cursor::new(fs::read(&kept).unwrap()));
        assert_eq!(png.read_info().unwrap().info().width, width);
    }
}
