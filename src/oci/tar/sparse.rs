//! Maps of sparse files: which runs of a file an archive stores; the rest are holes.
//!
//! ```text
//! old GNU   type S, four runs in the header, 21 in each extension block after it
//! PAX 0.0   GNU.sparse.offset, GNU.sparse.numbytes, again and again
//! PAX 0.1   GNU.sparse.map=offset,size,offset,size,…
//! PAX 1.0   in front of the data: count\n offset\n size\n …, padded to 512 bytes
//! ```

/// More than any real file has; a map is held in memory.
pub(super) const MAXIMUM_RUNS: usize = 1 << 20;

/// Bytes of a file that the archive stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oci) struct Run {
    pub(in crate::oci) offset: u64,
    pub(in crate::oci) size: u64,
}

/// The shape of a sparse file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oci) struct Sparse {
    /// Bytes of the file, holes and all.
    pub(in crate::oci) size: u64,
    /// Ascending, not overlapping, none empty, all inside the file; together they are the stored data.
    pub(in crate::oci) runs: Vec<Run>,
}

impl Sparse {
    /// Checks a map against itself and against the `stored` bytes; the error is the reason why it is corrupt.
    pub(super) fn new(size: u64, mut runs: Vec<Run>, stored: u64) -> Result<Self, String> {
        let mut end = 0;
        let mut sum = 0_u64;
        for run in &runs {
            // GNU tar ends a map with an empty run at the end of the file.
            if run.offset < end {
                return Err("the runs of a sparse file are out of order".to_owned());
            }
            end = run
                .offset
                .checked_add(run.size)
                .filter(|&end| end <= size)
                .ok_or("a run of a sparse file ends after the file".to_owned())?;
            // No overflow: the runs do not overlap, and end before `size`.
            sum += run.size;
        }
        if sum != stored {
            return Err(format!("a sparse file has runs of {sum} bytes and data of {stored}"));
        }
        runs.retain(|run| run.size > 0);
        Ok(Self { size, runs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(offset: u64, size: u64) -> Run {
        Run { offset, size }
    }

    #[test]
    fn only_an_ascending_map_of_the_stored_size_is_one() {
        let good = Sparse::new(100, vec![run(10, 5), run(15, 5), run(100, 0)], 10).unwrap();
        assert_eq!(good.runs, [run(10, 5), run(15, 5)]);
        assert!(Sparse::new(u64::MAX, vec![run(u64::MAX - 1, 1)], 1).is_ok());
        for (runs, stored) in [
            (vec![run(15, 5), run(10, 5)], 10),
            (vec![run(10, 6), run(15, 5)], 11),
            (vec![run(99, 2)], 2),
            (vec![run(u64::MAX, 2)], 2),
            (vec![run(0, u64::MAX), run(1, 1)], 0),
            (vec![run(10, 5)], 6),
        ] {
            assert!(Sparse::new(100, runs.clone(), stored).is_err(), "{runs:?}");
        }
    }
}
