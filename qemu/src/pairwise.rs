//! Few combinations in which each pair of values occurs: most faults need one value or two to show, hardly ever three.
//!
//! Greedy: of all combinations the one with most pairs that have not been seen is taken, the first of them if there are several,
//! until no pair is left. No dice, so the same axes give the same machines. There are some thousand combinations and some hundred
//! pairs: no cleverness is needed.

use std::collections::HashSet;

/// A value on one axis and one on a later one: `((axis, value), (axis, value))`, as indices.
pub(crate) type Pair = ((usize, usize), (usize, usize));

/// All combinations of one value per axis, as indices, in the order of counting. `sizes` is how many values each axis has.
pub(crate) fn combinations(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for &size in sizes {
        let longer = |short: &Vec<usize>| {
            let short = short.clone();
            (0..size).map(move |value| [short.as_slice(), &[value]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// The pairs of a combination.
pub(crate) fn pairs(combination: &[usize]) -> impl Iterator<Item = Pair> + '_ {
    (0..combination.len()).flat_map(move |first| {
        (first + 1..combination.len())
            .map(move |second| ((first, combination[first]), (second, combination[second])))
    })
}

/// Some of `possible` that together have every pair that any of them has.
pub(crate) fn covering(possible: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut missing: HashSet<Pair> = possible.iter().flat_map(|one| pairs(one)).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |one: &&Vec<usize>| pairs(one).filter(|pair| missing.contains(pair)).count();
        // `max_by_key` would take the last of equals.
        let best =
            possible.iter().rev().max_by_key(gain).expect("a pair that is missing is in one");
        for pair in pairs(best) {
            missing.remove(&pair);
        }
        chosen.push(best.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_count_like_an_odometer() {
        assert_eq!(combinations(&[2, 3]), [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
        assert_eq!(combinations(&[]), [Vec::<usize>::new()]);
        assert!(combinations(&[2, 0]).is_empty());
    }

    /// Over many sizes of axes and many rules about what is impossible: each pair that any possible combination has is there, and
    /// nothing impossible is.
    #[test]
    fn every_possible_pair_is_covered() {
        for seed in 0..200_usize {
            let sizes: Vec<usize> =
                (0..3 + seed % 4).map(|axis| 1 + (seed / 7 + axis * 5) % 4).collect();
            let forbidden = |one: &[usize]| {
                (one[0] + one[1] + seed).is_multiple_of(5)
                    || one[1] == one[2] && seed.is_multiple_of(3)
            };
            let possible: Vec<_> =
                combinations(&sizes).into_iter().filter(|one| !forbidden(one)).collect();
            let chosen = covering(&possible);
            let seen: HashSet<Pair> = chosen.iter().flat_map(|one| pairs(one)).collect();
            for one in &possible {
                for pair in pairs(one) {
                    assert!(seen.contains(&pair), "{pair:?} of {one:?} is in none of {chosen:?}");
                }
            }
            assert!(chosen.iter().all(|one| possible.contains(one)), "{chosen:?}");
            assert!(chosen.len() <= possible.len());
        }
    }

    #[test]
    fn few_are_enough() {
        let possible = combinations(&[4, 3, 3, 2, 2, 2, 2]);
        let chosen = covering(&possible);
        assert!(
            chosen.len() <= 16,
            "{} of {}; 12 is the least there can be",
            chosen.len(),
            possible.len()
        );
        assert_eq!(chosen, covering(&possible), "no dice");
    }
}
