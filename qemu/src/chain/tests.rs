//! What legs lead to, without a machine.

use super::*;
use crate::accelerator::Accelerator;
use crate::architecture::Architecture;
use crate::machine::Machine;
use crate::report::MachineReport;

const OLD: char = 'a';
const NEW: char = 'b';

struct Nothing;

impl Site for Nothing {
    fn page(&self, _path: &str) -> Option<Page<'_>> {
        None
    }
}

fn update() -> Update {
    Update {
        name: "new".to_owned(),
        commit: NEW.to_string().repeat(64),
        references: vec!["ostree/x".to_owned()],
        site: Arc::new(Nothing),
    }
}

fn ran(commit: Option<char>) -> BootReport {
    let mut guest = Guest::default();
    if let Some(commit) = commit {
        let status = format!("* default {}.0\n    origin\n", commit.to_string().repeat(64));
        guest.tell("ostree", &status);
    }
    let accelerator = Accelerator::Tcg { why: String::new() };
    BootReport {
        verdict: Verdict::Passed,
        proof: Level::Report,
        seconds: 1.0,
        processor_seconds: 1.0,
        lost_seconds: 0.0,
        machine: MachineReport::of(
            &Machine::new(Architecture::X86_64),
            &accelerator,
            String::new(),
        ),
        reached: Vec::new(),
        checks: Vec::new(),
        findings: Vec::new(),
        suspicions: Vec::new(),
        console_tail: Vec::new(),
        startup: std::collections::BTreeMap::new(),
        screens: Vec::new(),
        guest,
        command: Vec::new(),
        earlier: Vec::new(),
    }
}

/// What each leg comes to, if these commits run.
fn judged(chain: &str, commits: &[Option<char>]) -> Vec<String> {
    let steps = Step::parse(chain).unwrap();
    let steps: Vec<Step<Update>> =
        steps.into_iter().map(|step| step.map(|_| Ok::<_, ()>(update())).unwrap()).collect();
    let legs = legs(&steps).unwrap();
    assert_eq!(legs.len(), commits.len());
    let mut state = State::default();
    let reports = legs.iter().zip(commits).map(|(leg, commit)| state.judge(leg, ran(*commit)));
    reports
        .map(|report| match report.boot.verdict {
            Verdict::Passed => "passed".to_owned(),
            Verdict::Failed { reason } | Verdict::Error { reason } => reason,
        })
        .collect()
}

#[test]
fn the_commit_that_the_steps_lead_to_must_run() {
    let chain = "boot,upgrade=x,reboot,rollback,reboot";
    let (old, new) = (Some(OLD), Some(NEW));
    assert_eq!(judged(chain, &[old, new, old]), ["passed"; 3]);
    assert_eq!(
        judged(chain, &[old, old, old]),
        ["passed", "commit: aaaaaaaaaaaa runs, not bbbbbbbbbbbb", "passed"]
    );
    assert_eq!(judged(chain, &[old, new, new])[2], "commit: bbbbbbbbbbbb runs, not aaaaaaaaaaaa");
}

#[test]
fn after_a_power_cut_either_may_run() {
    let (old, new) = (Some(OLD), Some(NEW));
    for chain in ["boot,cut-upgrade=x,boot", "boot,upgrade=x,cut,boot"] {
        assert_eq!(judged(chain, &[old, old]), ["passed"; 2], "{chain}");
        assert_eq!(judged(chain, &[old, new]), ["passed"; 2], "{chain}");
        assert_eq!(
            judged(chain, &[old, Some('c')])[1],
            "commit: cccccccccccc runs, not aaaaaaaaaaaa or bbbbbbbbbbbb"
        );
    }
    assert_eq!(judged("cut-boot,boot,boot", &[None, old, old]), ["passed"; 3]);
}

#[test]
fn errands_follow_from_steps() {
    let steps = [
        Step::Boot,
        Step::Upgrade(update()),
        Step::Reboot,
        Step::Rollback,
        Step::Do("true".to_owned()),
    ];
    let legs = legs(&steps).unwrap();
    let (script, servers) = errand(&legs[0], false).unwrap();
    assert_eq!(servers.len(), 1);
    assert!(script.contains(&format!("\nurl={}\ncommit=bbbb", servers[0].url())), "{script}");
    let (script, servers) = errand(&legs[1], true).unwrap();
    assert!(servers.is_empty() && script.contains("set-default 1"), "{script}");
    assert!(script.starts_with(KEPT) && script.ends_with("(\ntrue\n) || exit\n"), "{script}");
    let sh = |script: &str| std::process::Command::new("/bin/sh").args(["-nc", script]).status();
    assert!(sh(&script).unwrap().success());
}
