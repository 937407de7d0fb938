//! Machines side by side, as many as this one can bear: their processors and their memory are counted before they start.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use crate::accelerator::Accelerator;
use crate::machine::Machine;

/// What QEMU takes besides the guest's memory: translated code under TCG, buffers, the firmware's flash.
const OVERHEAD_MIB: u64 = 512;

/// What there is to share out, or what one of the takers wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Processors.
    pub cpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl Resources {
    /// What this process may use: the kernel's and the control group's word, whichever is less.
    pub fn of_host() -> Self {
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { cpus: u64::try_from(cpus).unwrap_or(1), memory_mib: memory_mib(Path::new("/")) }
    }

    /// What a machine takes. Its processors, of which each keeps one of ours busy while the guest boots, and its memory.
    pub fn of(machine: &Machine, accelerator: &Accelerator) -> Self {
        Self {
            cpus: u64::from(machine.cpus_under(accelerator)),
            memory_mib: u64::from(machine.memory_mib) + OVERHEAD_MIB,
        }
    }

    fn has_room_for(&self, used: &Self, more: &Self) -> bool {
        used.cpus + more.cpus <= self.cpus && used.memory_mib + more.memory_mib <= self.memory_mib
    }
}

/// Memory that can be had without pushing others out, in MiB. `root` is `/` but in tests. Where nothing is told, nothing is limited.
fn memory_mib(root: &Path) -> u64 {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let available = read("proc/meminfo").lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?;
        number(kib).map(|kib| kib >> 10)
    });
    let limit = number(&read("sys/fs/cgroup/memory.max")).map(|limit| {
        let used = number(&read("sys/fs/cgroup/memory.current")).unwrap_or_default();
        limit.saturating_sub(used) >> 20
    });
    available.unwrap_or(u64::MAX).min(limit.unwrap_or(u64::MAX))
}

/// Does `work` on every job, several at a time, and gives the results in the order of the jobs. They start in that order, too: a big
/// one waits until there is room and is not overtaken. One always runs, however little there is. `most` limits their number.
pub fn in_parallel<J: Sync, R: Send>(
    jobs: &[(J, Resources)],
    host: &Resources,
    most: Option<NonZeroUsize>,
    work: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    struct State<R> {
        next: usize,
        running: usize,
        used: Resources,
        results: Vec<Option<R>>,
    }
    let most = most.map_or(jobs.len(), NonZeroUsize::get).min(jobs.len());
    let used = Resources { cpus: 0, memory_mib: 0 };
    let results = jobs.iter().map(|_| None).collect();
    let state = Mutex::new(State { next: 0, running: 0, used, results });
    let changed = Condvar::new();
    // A panic in one job is that job's; scope() passes it on when the others are done.
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = || {
        loop {
            let mut now = lock();
            let (index, (job, wanted)) = loop {
                let Some(next) = jobs.get(now.next) else { return };
                if now.running == 0 || host.has_room_for(&now.used, &next.1) {
                    break (now.next, next);
                }
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
            };
            now.next += 1;
            now.running += 1;
            now.used.cpus += wanted.cpus;
            now.used.memory_mib += wanted.memory_mib;
            drop(now);
            let result = work(job);
            let mut now = lock();
            now.running -= 1;
            now.used.cpus -= wanted.cpus;
            now.used.memory_mib -= wanted.memory_mib;
            now.results[index] = Some(result);
            drop(now);
            changed.notify_all();
        }
    };
    thread::scope(|scope| {
        for _ in 0..most {
            scope.spawn(worker);
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.results.into_iter().map(|result| result.expect("every job has been done")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    /// Runs jobs of these sizes; the most processors and memory that were in use at once, and the results.
    fn peak(sizes: &[(u64, u64)], host: Resources, most: Option<usize>) -> (u64, u64, Vec<u64>) {
        let jobs: Vec<_> = sizes
            .iter()
            .map(|&(cpus, memory_mib)| ((cpus, memory_mib), Resources { cpus, memory_mib }))
            .collect();
        let (now, peak) = ([0, 0].map(AtomicU64::new), [0, 0].map(AtomicU64::new));
        let results =
            in_parallel(&jobs, &host, most.and_then(NonZeroUsize::new), |&(cpus, memory)| {
                for (index, amount) in [cpus, memory].into_iter().enumerate() {
                    let total = now[index].fetch_add(amount, Ordering::SeqCst) + amount;
                    peak[index].fetch_max(total, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_millis(30));
                for (index, amount) in [cpus, memory].into_iter().enumerate() {
                    now[index].fetch_sub(amount, Ordering::SeqCst);
                }
                memory
            });
        let [cpus, memory] = peak.map(AtomicU64::into_inner);
        (cpus, memory, results)
    }

    #[test]
    fn neither_processors_nor_memory_are_given_away_twice() {
        let sizes = [(1, 5), (2, 1), (1, 2), (1, 8), (3, 3), (1, 4)];
        let host = Resources { cpus: 3, memory_mib: 9 };
        let (cpus, memory, results) = peak(&sizes, host, None);
        assert!(cpus <= 3 && memory <= 9, "{cpus} {memory}");
        assert!(cpus > 1, "nothing ran side by side");
        assert_eq!(results, [5, 1, 2, 8, 3, 4], "in the order of the jobs");
    }

    #[test]
    fn what_is_too_big_runs_alone_and_few_may_be_asked_for() {
        let host = Resources { cpus: 2, memory_mib: 10 };
        assert_eq!(peak(&[(4, 50), (1, 1)], host, None).0, 4);
        let plenty = Resources { cpus: 99, memory_mib: 99 };
        assert_eq!(peak(&[(1, 1); 6], plenty, Some(2)).0, 2);
        assert_eq!(peak(&[], plenty, None).2, [0; 0]);
    }

    #[test]
    fn memory_is_what_the_kernel_and_the_control_group_allow() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(memory_mib(root.path()), u64::MAX);
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    4096000 kB\n");
        assert_eq!(memory_mib(root.path()), 4000);
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(memory_mib(root.path()), 4000);
        write("sys/fs/cgroup/memory.max", "3221225472\n");
        write("sys/fs/cgroup/memory.current", "1073741824\n");
        assert_eq!(memory_mib(root.path()), 2048);
    }
}
