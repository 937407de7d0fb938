//! Work done by several threads, given back in the order in which it was asked for: what comes out depends on nobody's speed.
//!
//! ```text
//! push ─► lane 0: queue ─► thread ─► done ┐
//!         lane 1: queue ─► thread ─► done ├─► results, taken from the lanes in turn
//!         …                               ┘
//! ```

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Result, anyhow};

/// Jobs that a lane holds: one that is worked on and one that waits.
const PER_LANE: usize = 2;

/// Threads at work.
pub(super) struct Pool<Job, Done> {
    lanes: Vec<(SyncSender<Job>, Receiver<Done>)>,
    pushed: usize,
    taken: usize,
}

impl<Job: Send, Done: Send> Pool<Job, Done> {
    /// Has `drive` push jobs and take results while `threads` workers, each made by `worker`, do them.
    pub(super) fn run<R, W: FnMut(Job) -> Done>(
        threads: usize,
        worker: impl Fn() -> W + Sync,
        drive: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<R> {
        thread::scope(|scope| {
            let worker = &worker;
            let lanes = (0..threads.max(1)).map(|_| {
                let (push, jobs) = sync_channel(PER_LANE);
                let (give, take) = sync_channel(PER_LANE);
                scope.spawn(move || {
                    let mut work = worker();
                    // Nobody takes results any more once driving has failed.
                    jobs.into_iter().map(&mut work).try_for_each(|done| give.send(done).ok());
                });
                (push, take)
            });
            let mut pool = Self { lanes: lanes.collect(), pushed: 0, taken: 0 };
            drive(&mut pool)
        })
    }

    /// Hands out a job; gives the oldest result if there are enough jobs under way.
    pub(super) fn push(&mut self, job: Job) -> Result<Option<Done>> {
        let full = self.pushed - self.taken == PER_LANE * self.lanes.len();
        let oldest = if full { self.take()? } else { None };
        let lane = self.pushed % self.lanes.len();
        self.lanes[lane].0.send(job).map_err(|_| worker_gone())?;
        self.pushed += 1;
        Ok(oldest)
    }

    /// The oldest result, waiting for it; `None` when all have been taken.
    pub(super) fn take(&mut self) -> Result<Option<Done>> {
        if self.taken == self.pushed {
            return Ok(None);
        }
        let lane = self.taken % self.lanes.len();
        let done = self.lanes[lane].1.recv().map_err(|_| worker_gone())?;
        self.taken += 1;
        Ok(Some(done))
    }
}

fn worker_gone() -> anyhow::Error {
    anyhow!("a thread that compresses is gone")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for threads in [1, 2, 5] {
            // The later, the faster.
            let work = |job: u64| {
                std::thread::sleep(Duration::from_millis(20_u64.saturating_sub(job)));
                job * job
            };
            let squares = Pool::run(
                threads,
                || work,
                |pool| {
                    let mut squares = Vec::new();
                    for job in 0..30 {
                        squares.extend(pool.push(job)?);
                    }
                    while let Some(done) = pool.take()? {
                        squares.push(done);
                    }
                    Ok(squares)
                },
            );
            assert_eq!(squares.unwrap(), (0..30).map(|job| job * job).collect::<Vec<_>>());
        }
    }

    #[test]
    fn giving_up_early_ends_the_threads() {
        let result: Result<()> = Pool::run(
            3,
            || |job: u64| job,
            |pool| {
                for job in 0..20 {
                    pool.push(job)?;
                }
                Err(anyhow!("enough"))
            },
        );
        assert_eq!(result.unwrap_err().to_string(), "enough");
    }
}
