//! Which coefficients make which shard from which others.

use reed_solomon_erasure::galois_8::{self, ReedSolomon};

use crate::base::limits::{PARITY_MAX, SHARDS_MAX};
use crate::base::sync::OnceLock;

/// Rows of coefficients: output `row` is the sum over all inputs of coefficient times input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Coefficients {
    rows: usize,
    columns: usize,
    values: Vec<u8>,
}

impl Coefficients {
    fn zeros(rows: usize, columns: usize) -> Coefficients {
        Coefficients { rows, columns, values: vec![0; rows * columns] }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The coefficients of one output, one per input.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.values[row * self.columns..][..self.columns]
    }

    fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.values[row * self.columns..][..self.columns]
    }
}

/// The code of one geometry: the data shards themselves, and what makes the parity shards of them.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    parity: Coefficients,
}

/// The generator for k data and m parity shards, within the limits of `Codec::new`.
pub(super) fn generator(k: usize, m: usize) -> &'static Generator {
    static GENERATORS: [[OnceLock<Generator>; PARITY_MAX + 1]; SHARDS_MAX + 1] =
        [const { [const { OnceLock::new() }; PARITY_MAX + 1] }; SHARDS_MAX + 1];
    GENERATORS[k][m].get_or_init(|| Generator::new(k, m))
}

impl Generator {
    /// Asks the crate, which does not show its matrix: the parity of unit vectors are its columns.
    fn new(k: usize, m: usize) -> Generator {
        let oracle = ReedSolomon::new(k, m).expect("the limits are within what the crate takes");
        let mut units = vec![vec![0u8; k]; k];
        for (index, unit) in units.iter_mut().enumerate() {
            unit[index] = 1;
        }
        let mut parity = vec![vec![0u8; k]; m];
        oracle.encode_sep(&units, &mut parity).expect("k + m shards of one length");
        Generator { parity: Coefficients { rows: m, columns: k, values: parity.concat() } }
    }

    pub(super) fn data_shards(&self) -> usize {
        self.parity.columns
    }

    pub(super) fn parity_shards(&self) -> usize {
        self.parity.rows
    }

    /// What makes the parity shards of the data shards.
    pub(super) fn parity_rows(&self) -> &Coefficients {
        &self.parity
    }

    /// What makes the shards `targets` of the k shards `sources`. Panics unless the sources are k
    /// different shards and the targets exist.
    ///
    /// With e data shards absent among the sources there are e parity shards, and each of these says
    /// `parity = known part + A * absent`; A is e x e with e <= 8, and always invertible.
    pub(super) fn solve(&self, sources: &[usize], targets: &[usize]) -> Coefficients {
        let (k, shards) = (self.data_shards(), self.data_shards() + self.parity_shards());
        let mut column_of = vec![None; shards];
        for (column, &source) in sources.iter().enumerate() {
            assert!(column_of[source].is_none(), "shard {source} was given twice");
            column_of[source] = Some(column);
        }
        assert_eq!(sources.len(), k, "k sources determine all shards");
        let absent: Vec<usize> = (0..k).filter(|&shard| column_of[shard].is_none()).collect();
        let parities: Vec<usize> =
            (k..shards).filter(|&shard| column_of[shard].is_some()).collect();
        let inverse = self.inverse(&parities, &absent);
        // Rows that make each data shard: known ones are copied, absent ones solved for.
        let mut data = Coefficients::zeros(k, k);
        for (shard, column) in column_of[..k].iter().enumerate() {
            if let Some(column) = *column {
                data.row_mut(shard)[column] = 1;
            }
        }
        for (&shard, solution) in absent.iter().zip(&inverse) {
            for (&parity, &factor) in parities.iter().zip(solution) {
                let equation = self.parity.row(parity - k);
                let row = data.row_mut(shard);
                row[column_of[parity].expect("it is a source")] ^= factor;
                for (column, &coefficient) in column_of[..k].iter().zip(equation) {
                    if let Some(column) = *column {
                        row[column] ^= galois_8::mul(factor, coefficient);
                    }
                }
            }
        }
        let mut rows = Coefficients::zeros(targets.len(), k);
        for (row, &target) in targets.iter().enumerate() {
            assert!(target < shards, "shard {target} of {shards}");
            match (column_of[target], target < k) {
                (Some(column), _) => rows.row_mut(row)[column] = 1,
                (None, true) => rows.row_mut(row).copy_from_slice(data.row(target)),
                (None, false) => {
                    for (shard, &factor) in self.parity.row(target - k).iter().enumerate() {
                        add_scaled(rows.row_mut(row), data.row(shard), factor);
                    }
                }
            }
        }
        rows
    }

    /// The inverse of the coefficients of the `absent` data shards in the `parities`, by Gauss-Jordan.
    fn inverse(&self, parities: &[usize], absent: &[usize]) -> Vec<Vec<u8>> {
        let (k, size) = (self.data_shards(), absent.len());
        assert_eq!(parities.len(), size, "k sources in all");
        let mut work: Vec<Vec<u8>> = parities
            .iter()
            .enumerate()
            .map(|(index, parity)| {
                let equation = self.parity.row(parity - k);
                let left = absent.iter().map(|&shard| equation[shard]);
                left.chain((0..size).map(|column| u8::from(column == index))).collect()
            })
            .collect();
        for step in 0..size {
            let pivot = (step..size)
                .find(|&row| work[row][step] != 0)
                .expect("every square part of the code's matrix is invertible (MDS)");
            work.swap(step, pivot);
            let scale = galois_8::div(1, work[step][step]);
            work[step].iter_mut().for_each(|value| *value = galois_8::mul(*value, scale));
            let reduced = work[step].clone();
            for (row, values) in work.iter_mut().enumerate() {
                if row != step {
                    let factor = values[step];
                    add_scaled(values, &reduced, factor);
                }
            }
        }
        work.into_iter().map(|row| row[size..].to_vec()).collect()
    }
}

fn add_scaled(row: &mut [u8], other: &[u8], factor: u8) {
    for (value, &other) in row.iter_mut().zip(other) {
        *value ^= galois_8::mul(factor, other);
    }
}
