//! How much of the time since power-on the host let the guest have.
//!
//! ```text
//! by the clock   ├─────────────────────────────────┤
//! lost           ████    ██████      ████                a processor of the guest was ready to run, and the host ran others
//! the guest's        ├──┤      ├────┤    ├─────────┤     what time limits count
//! ```
//!
//! The kernel tells for each thread how long it ran and how long it waited for a processor (`/proc/PID/task/TID/schedstat`,
//! Documentation/scheduler/sched-stats.rst). Where it does not, a guest that is busy has had what its threads ran (`stat`, fields
//! 14 and 15), and one that is idle has lost nothing. All times are of the monotonic clock: a clock that is set, or a machine that
//! sleeps, changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// When nobody looked for longer than this, this process was held up itself, and the rest counts as lost.
const LONGEST: Duration = Duration::from_secs(3);

/// A guest that ran for less than this part of the time was idle.
const IDLE: u32 = 20;

/// `USER_HZ`: the unit of `/proc/PID/task/TID/stat`, the same on all of Linux' x86 and Arm.
const TICK: Duration = Duration::from_millis(10);

/// What one thread has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Thread {
    ran: Duration,
    /// `None` where the kernel does not tell.
    waited: Option<Duration>,
}

/// The time that a running QEMU got.
#[derive(Debug)]
pub(crate) struct Pace {
    /// `/proc/PID/task`.
    tasks: PathBuf,
    main: u32,
    /// The threads of the guest's processors; empty while they are not known, then all threads are looked at.
    cpus: Vec<u32>,
    looked: Duration,
    threads: BTreeMap<u32, Thread>,
    /// Time lost so far, at each look.
    lost: Vec<(Duration, Duration)>,
}

impl Pace {
    /// For a process that has just begun to run its guest.
    pub(crate) fn new(process: u32) -> Self {
        Self::below(Path::new("/proc"), process)
    }

    fn below(proc: &Path, process: u32) -> Self {
        let tasks = proc.join(process.to_string()).join("task");
        let mut pace = Self {
            tasks,
            main: process,
            cpus: Vec::new(),
            looked: Duration::ZERO,
            threads: BTreeMap::new(),
            lost: Vec::new(),
        };
        pace.threads = pace.read();
        pace
    }

    /// Says which threads are the guest's processors.
    pub(crate) fn processors(&mut self, threads: Vec<u32>) {
        self.cpus = threads;
    }

    /// Looks, if it is time to.
    pub(crate) fn tick(&mut self, now: Duration) {
        let step = now.saturating_sub(self.looked);
        if step < INTERVAL {
            return;
        }
        let threads = self.read();
        // The process may have ended.
        if threads.is_empty() {
            return;
        }
        let held_up = step.saturating_sub(LONGEST);
        let step = step - held_up;
        let (mut waited, mut ran) = (None, Duration::ZERO);
        for (number, after) in &threads {
            let Some(before) = self.threads.get(number) else { continue };
            if self.cpus.contains(number) || self.cpus.is_empty() {
                ran = ran.max(after.ran.saturating_sub(before.ran));
            }
            if let (Some(before), Some(after)) = (before.waited, after.waited) {
                waited = waited.max(Some(after.saturating_sub(before)));
            }
        }
        let lost = match waited {
            Some(waited) => waited.min(step),
            None if ran * IDLE >= step => step.saturating_sub(ran),
            None => Duration::ZERO,
        };
        self.lost.push((now, self.total_lost() + lost + held_up));
        self.threads.extend(threads);
        self.looked = now;
    }

    /// The guest's time between two times by the clock.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> Duration {
        let lost = self.lost_by(to).saturating_sub(self.lost_by(from));
        to.saturating_sub(from).saturating_sub(lost)
    }

    /// What the host kept from the guest so far.
    pub(crate) fn total_lost(&self) -> Duration {
        self.lost.last().map_or(Duration::ZERO, |(_, lost)| *lost)
    }

    /// The time that the guest's processors ran, taken together.
    pub(crate) fn processor_time(&self) -> Duration {
        self.cpus.iter().filter_map(|cpu| self.threads.get(cpu)).map(|thread| thread.ran).sum()
    }

    fn lost_by(&self, time: Duration) -> Duration {
        let after = self.lost.partition_point(|(at, _)| *at <= time);
        after.checked_sub(1).map_or(Duration::ZERO, |index| self.lost[index].1)
    }

    /// What the threads have had: those of the guest's processors and the main one, which is the guest's devices.
    fn read(&self) -> BTreeMap<u32, Thread> {
        let numbers: Vec<u32> = if self.cpus.is_empty() {
            let entries = fs::read_dir(&self.tasks).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        } else {
            self.cpus.iter().copied().chain([self.main]).collect()
        };
        let thread = |number: u32| {
            let directory = self.tasks.join(number.to_string());
            let read = |name| fs::read_to_string(directory.join(name)).ok();
            let told = read("schedstat").and_then(|text| from_schedstat(&text));
            Some((number, told.or_else(|| from_stat(&read("stat")?))?))
        };
        numbers.into_iter().filter_map(thread).collect()
    }
}

/// Nanoseconds on a processor, nanoseconds of waiting for one, number of time slices.
fn from_schedstat(text: &str) -> Option<Thread> {
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    let (ran, waited) = (numbers.next()??, numbers.next()??);
    // Kernels that do not count have zeros.
    (ran > 0).then(|| Thread {
        ran: Duration::from_nanos(ran),
        waited: Some(Duration::from_nanos(waited)),
    })
}

/// Fields 14 and 15, user and system time. The second field is a name in parentheses, which may contain anything.
fn from_stat(text: &str) -> Option<Thread> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_whitespace().skip(11);
    let (user, system) = (words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?);
    Some(Thread { ran: TICK * (user.saturating_add(system)), waited: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Writes what a thread has had, in seconds.
    fn write(proc: &Path, thread: u32, ran: f64, waited: Option<f64>) {
        let directory = proc.join("7/task").join(thread.to_string());
        fs::create_dir_all(&directory).unwrap();
        let ticks = (ran * 100.0).round();
        let stat = format!("{thread} (CPU 0) (x) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0");
        fs::write(directory.join("stat"), stat).unwrap();
        if let Some(waited) = waited {
            let text = format!("{:.0} {:.0} 9\n", ran * 1e9, waited * 1e9);
            fs::write(directory.join("schedstat"), text).unwrap();
        }
    }

    #[test]
    fn time_spent_waiting_for_a_processor_is_lost() {
        let proc = tempfile::tempdir().unwrap();
        write(proc.path(), 7, 1.0, Some(0.0));
        write(proc.path(), 8, 1.0, Some(0.5));
        let mut pace = Pace::below(proc.path(), 7);
        pace.processors(vec![8]);
        for second in 1..=10 {
            // Runs a quarter of the time, waits for a processor half of it, and for its devices the rest.
            let passed = f64::from(second);
            write(proc.path(), 8, 1.0 + passed / 4.0, Some(0.5 + passed / 2.0));
            pace.tick(SECOND * second);
        }
        assert_eq!(pace.between(Duration::ZERO, SECOND * 10), SECOND * 5);
        assert_eq!(pace.between(SECOND * 4, SECOND * 10), SECOND * 3);
        assert_eq!(pace.total_lost(), SECOND * 5);
        assert_eq!(pace.processor_time(), Duration::from_secs_f64(3.5));
    }

    #[test]
    fn without_schedstat_a_busy_guest_has_what_it_ran_and_an_idle_one_all() {
        let proc = tempfile::tempdir().unwrap();
        write(proc.path(), 7, 0.0, None);
        let mut pace = Pace::below(proc.path(), 7);
        let (mut ran, mut now) = (0.0, 0);
        for (share, expected) in [(0.5, 1), (0.01, 3), (1.0, 5)] {
            for _ in 0..2 {
                ran += share;
                now += 1;
                write(proc.path(), 7, ran, None);
                pace.tick(SECOND * now);
            }
            assert_eq!(pace.between(Duration::ZERO, SECOND * now), SECOND * expected, "{share}");
        }
    }

    #[test]
    fn time_in_which_nobody_looked_is_lost() {
        let proc = tempfile::tempdir().unwrap();
        write(proc.path(), 7, 1.0, Some(0.0));
        let mut pace = Pace::below(proc.path(), 7);
        pace.tick(SECOND * 60);
        assert_eq!(pace.between(Duration::ZERO, SECOND * 60), LONGEST);
    }

    #[test]
    fn this_process_is_looked_at() {
        let mut pace = Pace::new(std::process::id());
        pace.tick(SECOND);
        assert!(!pace.threads.is_empty() && pace.total_lost() <= SECOND);
    }
}
