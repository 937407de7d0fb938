//! What a build costs, beside the least that anybody has to do (`floor`) and beside other tools, in one run on one machine.
//!
//! ```text
//! tests/bench [--shape NAME]… [--megabytes N]… [--runs N] [--plot FILE.svg]     builds
//! tests/bench --growth                                                          how time and memory grow with numbers
//! ```
//!
//! Everything is a process of its own (`measure`), runs alternate, and of several runs the best counts. Images are made here, from a
//! seed (`shape`), and stay in the target directory. What an issue asks for is printed with what was reached; only memory is an
//! assertion, because it depends on nothing but us.

mod floor;
mod measure;
mod peers;
mod plot;
mod shape;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::Build;

use self::measure::{Cost, measured};
use self::shape::Shape;

/// What a build may use.
const MEMORY_LIMIT: u64 = 256 << 20;

/// Tell this program to do one thing alone, in a process of its own.
const MAKE: &str = "--make-image";
const GROW: &str = "--make-grown";
const FLOOR: &str = "--floor";

fn main() {
    let mut arguments = env::args_os().skip(1);
    let all: Vec<String> = env::args().skip(1).collect();
    let text = |at: usize| all[at].as_str();
    match all.first().map(String::as_str) {
        Some(measure::HELPER) => {
            arguments.next();
            measure::help(arguments)
        }
        Some(MAKE) => drop(Shape::make(text(1), text(2).parse().unwrap(), Path::new(text(3)))),
        Some(GROW) => shape::grown(text(1), text(2).parse().unwrap(), Path::new(text(3))),
        Some(FLOOR) => {
            let shape = Shape::at(Path::new(text(1)));
            floor::reach(&shape.layers(), text(2).parse().unwrap(), Path::new(text(1)));
        }
        _ => benchmark(&Options::of(&all)),
    }
}

/// What was asked for.
struct Options {
    shapes: Vec<String>,
    megabytes: Vec<usize>,
    runs: usize,
    plot: Option<PathBuf>,
    growth: bool,
}

impl Options {
    fn of(arguments: &[String]) -> Self {
        let mut options =
            Self { shapes: vec![], megabytes: vec![], runs: 3, plot: None, growth: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} of what?"));
            match argument.as_str() {
                "--shape" => {
                    let name = value();
                    let names = || shape::SHAPES.map(|(name, what)| format!("{name} ({what})"));
                    let known = shape::SHAPES.iter().any(|(known, _)| known == name);
                    assert!(known, "no shape {name}: there are {}", names().join(", "));
                    options.shapes.push(name.clone());
                }
                "--megabytes" => options.megabytes.push(value().parse().unwrap()),
                "--runs" => options.runs = value().parse().unwrap(),
                "--plot" => options.plot = Some(value().into()),
                "--growth" => options.growth = true,
                // Cargo's own.
                "--bench" => {}
                other => panic!("{other} is nothing that this benchmark knows"),
            }
        }
        if options.shapes.is_empty() {
            options.shapes.extend(["gzip".to_owned(), "selinux".to_owned()]);
        }
        if options.megabytes.is_empty() {
            options.megabytes.push(400);
        }
        options
    }
}

fn benchmark(options: &Options) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    fs::create_dir_all(&place).unwrap();
    if options.growth {
        return growth(&place);
    }
    println!("on one core:");
    for (what, speed) in floor::speeds() {
        println!("  {what:<24} {speed:>6.2} GB/s");
    }
    let mut results = Vec::new();
    for &megabytes in &options.megabytes {
        for shape in &options.shapes {
            let result = Bench::new(shape, megabytes, &place).run(options.runs);
            result.print();
            results.push(result);
        }
    }
    goals(&results);
    if let Some(path) = &options.plot {
        fs::write(path, plot::svg(&results)).unwrap();
        println!("\n{} is plotted", path.display());
    }
}

/// One image, and what is done with it.
struct Bench {
    name: String,
    megabytes: usize,
    place: PathBuf,
    shape: Shape,
}

/// What came of it.
pub(crate) struct Results {
    pub(crate) name: String,
    pub(crate) megabytes: usize,
    /// In the order in which they ran.
    pub(crate) rows: Vec<Row>,
    /// Bytes of the raw disk, and of those on the host.
    raw: (u64, u64),
    /// Sizes of compressed qcow2: ours, qemu-img's.
    compressed: (u64, u64),
}

/// One thing that was measured.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) cost: Cost,
    /// Seconds by stage, for builds.
    pub(crate) stages: Vec<(String, f64)>,
}

impl Bench {
    fn new(name: &str, megabytes: usize, place: &Path) -> Self {
        let place = place.join(format!("{name}-{megabytes}"));
        let shape = Shape::at(&place);
        if !shape.layout.join("index.json").is_file() {
            println!("making an image of {megabytes} MB in {}", place.display());
            let mut make = Command::new(env::current_exe().unwrap());
            make.args([MAKE, name, &megabytes.to_string()]).arg(&place);
            assert!(make.status().unwrap().success());
        }
        Self { name: name.to_owned(), megabytes, place, shape }
    }

    fn run(&self, runs: usize) -> Results {
        let mut results = Results {
            name: self.name.clone(),
            megabytes: self.megabytes,
            rows: Vec::new(),
            raw: (0, 0),
            compressed: (0, 0),
        };
        let peers = peers::Peers::prepare(&self.shape, &self.place);
        // Once without counting, so that all runs find their input in memory.
        for run in 0..=runs {
            let rows = self.once(&peers, &mut results);
            if run == 1 {
                results.rows = rows;
            } else if run > 1 {
                for (best, row) in results.rows.iter_mut().zip(rows) {
                    if row.cost.wall < best.cost.wall {
                        best.stages = row.stages;
                    }
                    best.cost = best.cost.min(row.cost);
                }
            }
        }
        results
    }

    fn once(&self, peers: &peers::Peers, results: &mut Results) -> Vec<Row> {
        let at = |name: &str| self.place.join(name);
        let cache = tempfile::tempdir_in(&self.place).unwrap();
        let cached = Some(cache.path());
        let (layout, changed) = (&self.shape.layout, &self.shape.changed);
        let mut rows = Vec::new();
        let raw = at("disk.raw");
        let row = self.build("build raw", layout, &["--format", "raw"], &raw, None, results);
        rows.push(row);
        let mut floor = Command::new(env::current_exe().unwrap());
        floor.arg(FLOOR).arg(&self.place).arg(results.raw.0.to_string());
        let cost = measured(&floor, &self.place).1;
        rows.insert(0, Row { what: "floor", cost, stages: Vec::new() });
        let qcow2 = ["--format", "qcow2"];
        rows.push(self.build("build qcow2", layout, &qcow2, &at("disk.qcow2"), None, results));
        let first = "build raw, filling a cache";
        rows.push(self.build(first, layout, &["--format", "raw"], &raw, cached, results));
        let other = "again as qcow2, from the cache";
        rows.push(self.build(other, layout, &qcow2, &at("disk.qcow2"), cached, results));
        let top = "raw with another top layer";
        rows.push(self.build(
            top,
            changed,
            &["--format", "raw"],
            &at("changed.raw"),
            cached,
            results,
        ));
        fs::remove_file(at("changed.raw")).unwrap();
        let zstd = ["--format", "qcow2", "--qcow2-compress", "zstd"];
        let compressed = at("compressed.qcow2");
        rows.push(self.build(
            "build qcow2, zstd inside",
            layout,
            &zstd,
            &compressed,
            None,
            results,
        ));
        results.compressed.0 = fs::metadata(&compressed).unwrap().len();
        for (what, command, output) in peers.commands(&raw) {
            let cost = measured(&command, &self.place).1;
            rows.push(Row { what, cost, stages: Vec::new() });
            if what == peers::CONVERT {
                results.compressed.1 = fs::metadata(&output).unwrap().len();
            }
            peers::remove(&output);
        }
        rows
    }

    fn build(
        &self,
        what: &'static str,
        layout: &Path,
        flags: &[&str],
        disk: &Path,
        cache: Option<&Path>,
        results: &mut Results,
    ) -> Row {
        let mut build = Build::new(format!("oci:{}", layout.display()))
            .flags(["--bootloader", "none", "--target-imgref", "example.com/bench:1", "--json"])
            .flags(flags)
            .output(disk);
        if let Some(cache) = cache {
            build = build.env("XDG_CACHE_HOME", cache);
        }
        let (report, cost) = measured(&build.command(), &self.place);
        let report: Value = serde_json::from_str(&report).unwrap();
        if what == "build raw" {
            let number = |key: &str| report["files"][0][key].as_u64().unwrap();
            results.raw = (number("size"), number("allocated"));
        }
        assert!(cost.memory < MEMORY_LIMIT, "{what} used {} MiB", cost.memory >> 20);
        let stages = report["stages"].as_array().unwrap().iter();
        let stages = stages.map(|stage| {
            (stage["stage"].as_str().unwrap().to_owned(), stage["seconds"].as_f64().unwrap())
        });
        Row { what, cost, stages: stages.collect() }
    }
}

impl Results {
    fn print(&self) {
        let (size, allocated) = self.raw;
        println!(
            "\n{} of {} MB: raw disk of {} MB, {} MB allocated",
            self.name,
            self.megabytes,
            size / 1_000_000,
            allocated / 1_000_000
        );
        println!(
            "{:<32} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10}",
            "", "wall", "/floor", "CPU", "/floor", "memory", "to device"
        );
        let floor = self.cost("floor");
        for Row { what, cost, .. } in &self.rows {
            println!(
                "{what:<32} {:>6.2} s {:>8.2} {:>6.2} s {:>8.2} {:>5} MiB {:>7} MB",
                cost.wall,
                cost.wall / floor.wall,
                cost.cpu,
                cost.cpu / floor.cpu,
                cost.memory >> 20,
                cost.written / 1_000_000
            );
        }
        for row in self.rows.iter().filter(|row| !row.stages.is_empty()) {
            let stages = row.stages.iter().map(|(stage, took)| format!("{stage} {took:.2} s"));
            println!("  {}: {}", row.what, stages.collect::<Vec<_>>().join(", "));
        }
    }

    pub(crate) fn cost(&self, what: &str) -> Cost {
        self.rows.iter().find(|row| row.what == what).map_or(Cost::default(), |row| row.cost)
    }

    pub(crate) fn row(&self, what: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.what == what)
    }
}

/// What is asked for, and what was reached.
fn goals(results: &[Results]) {
    println!("\n{:<58} {:>8} {:>8}", "goal", "at most", "reached");
    for result in results {
        let title = |what: &str| format!("{}, {} MB: {what}", result.name, result.megabytes);
        let tell = |what: &str, limit: f64, reached: f64| {
            let verdict = if reached <= limit { "" } else { "  missed" };
            println!("{:<58} {limit:>8.2} {reached:>8.2}{verdict}", title(what));
        };
        let (floor, raw) = (result.cost("floor"), result.cost("build raw"));
        tell("wall of raw / floor", 1.5, raw.wall / floor.wall);
        tell("processor of raw / floor", 1.3, raw.cpu / floor.cpu);
        tell("written / allocated", 1.15, raw.written as f64 / result.raw.1 as f64);
        let first = result.cost("build raw, filling a cache");
        let top = result.cost("raw with another top layer");
        tell("wall of another top / first", 0.3, top.wall / first.wall);
        tell("processor of another top / first", 0.3, top.cpu / first.cpu);
        let other = result.cost("again as qcow2, from the cache");
        tell("wall of another format / first", 0.5, other.wall / first.wall);
        tell("processor of another format / first", 0.5, other.cpu / first.cpu);
        if let Some(theirs) = result.row(peers::CONVERT) {
            let ours = result.row("build qcow2, zstd inside").unwrap();
            let writing = ours.stages.iter().find(|(stage, _)| stage == "writing");
            let writing = writing.map_or(f64::NAN, |(_, took)| *took);
            tell("writing zstd qcow2 / qemu-img", 0.6, writing / theirs.cost.wall);
            let (ours, theirs) = result.compressed;
            tell("its size / qemu-img's", 1.02, ours as f64 / theirs as f64);
        }
    }
    for labelled in results.iter().filter(|result| result.name == "selinux") {
        let plain =
            |result: &&Results| result.name == "gzip" && result.megabytes == labelled.megabytes;
        if let Some(plain) = results.iter().find(plain) {
            let (labelled, plain) = (labelled.cost("build raw"), plain.cost("build raw"));
            let ratio = labelled.cpu / plain.cpu;
            println!("{:<58} {:>8.2} {ratio:>8.2}", "processor with labels / without", 1.2);
        }
    }
}

/// How time and memory grow.
fn growth(place: &Path) {
    println!(
        "{:<34} {:>10} {:>8} {:>8} {:>9} {:>10}",
        "", "number", "wall", "CPU", "memory", "each"
    );
    for (name, numbers, what) in shape::GROWTH {
        let mut least = 0;
        for number in numbers {
            let place = tempfile::tempdir_in(place).unwrap();
            let layout = place.path().join("image");
            let mut make = Command::new(env::current_exe().unwrap());
            make.args([GROW, name, &number.to_string()]).arg(&layout);
            assert!(make.status().unwrap().success());
            let build = Build::new(format!("oci:{}", layout.display()))
                .flags(["--bootloader", "none", "--target-imgref", "example.com/bench:1", "--json"])
                .format("qcow2")
                .output(place.path().join("disk.qcow2"));
            let cost = measured(&build.command(), place.path()).1;
            let each = match least {
                0 => String::new(),
                least => format!(
                    "{} B",
                    cost.memory.saturating_sub(least) / (number - numbers[0]) as u64
                ),
            };
            println!(
                "{what:<34} {number:>10} {:>6.2} s {:>6.2} s {:>5} MiB {each:>10}",
                cost.wall,
                cost.cpu,
                cost.memory >> 20
            );
            least = if least == 0 { cost.memory } else { least };
        }
    }
}
