//! Inputs that mean harm, or were damaged: images, archives, places and disks, each with what must come of it.
//!
//! Every case runs the program and is held to its exit code, its message, a time and an amount of memory; what it says is in
//! `tests/golden/hostile.txt`, to be read in one sitting (`UPDATE_EXPECT=1` writes it anew). Whatever the case, nobody panics,
//! no escape sequence reaches the terminal, no line is forged, and a failure leaves nothing behind.

mod archives;
mod disks;
mod documents;
mod places;
mod registries;
mod runner;
mod streams;
mod systems;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use expect_test::expect_file;
use runner::Case;

/// Fewer would mean that some were lost.
const LEAST_CASES: usize = 150;

#[test]
fn hostile_inputs_end_as_they_should() {
    let cases: Vec<Case> = [
        archives::cases(),
        documents::cases(),
        places::cases(),
        systems::cases(),
        disks::cases(),
        registries::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(cases.len() >= LEAST_CASES, "{} cases", cases.len());
    let began = Instant::now();
    let outcomes: Mutex<Vec<Option<String>>> = Mutex::new(cases.iter().map(|_| None).collect());
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((i, case)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cases.get(i)?)))
        {
            let (line, wrong) = case.run();
            faults.lock().unwrap().extend(wrong);
            outcomes.lock().unwrap()[i] = Some(line);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(work);
        }
    });
    let lines: Vec<String> = outcomes.into_inner().unwrap().into_iter().flatten().collect();
    eprintln!("{} cases in {:.0} s", lines.len(), began.elapsed().as_secs_f64());
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    expect_file!["../golden/hostile.txt"].assert_eq(&format!("{}\n", lines.join("\n")));
}
