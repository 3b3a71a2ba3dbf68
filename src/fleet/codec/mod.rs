//! Reed-Solomon over GF(2^8)/0x11D: m parity shards from k data shards, any shard from any k others.
//!
//! The matrix is that of `reed-solomon-erasure` (systematic Vandermonde) and part of the disk format:
//! codec id 1 in every object record. That crate makes the matrix, is the portable path, and is the
//! oracle in tests; the kernels in `x86` must agree with it bit for bit.
//!
//! * Every output is a sum of coefficient times input. [`Codec::encode`] takes the coefficients from
//!   the matrix, [`Codec::reconstruct`] solves for them; both hand over to one kernel.
//! * Bytes at different offsets never mix, so shards may be processed in ranges of any equal length:
//!   a cell of each of k shards gives the same cell of any other [design 5.3].
//! * The kernel makes up to four outputs per pass over a piece of the inputs that fits the innermost
//!   caches, so that memory is read once however many parity shards there are.
//! * The kernel is chosen once, by what the CPU has.
//!
//! Not here: checksums (`format::checksum`); which shards to use (`object::read_plan`).

#[cfg(any(test, target_arch = "x86_64"))]
mod field;
mod kernel;
mod matrix;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::base::ShardIndex;
use crate::base::limits::{PARITY_MAX, SHARDS_MAX};

use kernel::Kernel;
use matrix::{Coefficients, Generator};

/// The codec of objects with k data and m parity shards. Cheap to make and to copy: matrices are
/// computed once in a process.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    generator: &'static Generator,
    kernel: Kernel,
}

impl Codec {
    /// The codec for `data_shards` (1..=31) and `parity_shards` (1..=8), together at most 32. Panics
    /// beyond: geometries are checked when they are made and when they are decoded.
    pub fn new(data_shards: usize, parity_shards: usize) -> Codec {
        Codec::with_kernel(data_shards, parity_shards, Kernel::best())
    }

    fn with_kernel(data_shards: usize, parity_shards: usize, kernel: Kernel) -> Codec {
        assert!(data_shards >= 1, "an object has data shards");
        assert!((1..=PARITY_MAX).contains(&parity_shards), "1 to {PARITY_MAX} parity shards");
        assert!(data_shards + parity_shards <= SHARDS_MAX, "at most {SHARDS_MAX} shards");
        Codec { generator: matrix::generator(data_shards, parity_shards), kernel }
    }

    /// k.
    pub fn data_shards(&self) -> usize {
        self.generator.data_shards()
    }

    /// m.
    pub fn parity_shards(&self) -> usize {
        self.generator.parity_shards()
    }

    /// How fast it is here, for status and logs: `avx512+gfni`, `avx2+gfni`, `avx2` or `scalar`.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name()
    }

    /// Fills all m parity shards, or the same range of each. Panics unless there are k `data` and m
    /// `parity` slices of one length.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert_eq!(data.len(), self.data_shards(), "encode needs all data shards");
        assert_eq!(parity.len(), self.parity_shards(), "encode makes all parity shards");
        self.kernel.combine(self.generator.parity_rows(), data, parity);
    }

    /// Fills every `wanted` shard, data or parity, or the same range of each, from `present` ones, of
    /// which k suffice (the first k are used, so put the best first). Panics if fewer are present, if
    /// a shard is named twice, or unless all slices have one length.
    pub fn reconstruct(
        &self,
        present: &[(ShardIndex, &[u8])],
        wanted: &mut [(ShardIndex, &mut [u8])],
    ) {
        let k = self.data_shards();
        assert!(present.len() >= k, "{} shards present, {k} are needed", present.len());
        let used = &present[..k];
        let sources: Vec<usize> = used.iter().map(|(shard, _)| shard.as_usize()).collect();
        let targets: Vec<usize> = wanted.iter().map(|(shard, _)| shard.as_usize()).collect();
        let rows: Coefficients = self.generator.solve(&sources, &targets);
        let inputs: Vec<&[u8]> = used.iter().map(|(_, bytes)| *bytes).collect();
        let mut outputs: Vec<&mut [u8]> =
            wanted.iter_mut().map(|(_, bytes)| &mut **bytes).collect();
        self.kernel.combine(&rows, &inputs, &mut outputs);
    }
}

#[cfg(test)]
mod tests;
