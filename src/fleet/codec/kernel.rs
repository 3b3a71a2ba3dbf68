//! Chooses how to compute, and cuts the work so that each cache line of the inputs is fetched once.

use super::matrix::Coefficients;
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::base::sync::OnceLock;

/// Outputs made in one pass over a piece: as many sums as fit the registers twice.
pub(super) const ROWS_PER_PASS: usize = 4;
/// Bytes of each input in one piece, where a second pass is needed (more than four outputs): 31 of them
/// fit a second-level cache of 512 KiB and more, so that the second pass finds them there.
const PIECE_BYTES: usize = 8 << 10;

/// A way to compute; all give the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kernel {
    /// Anywhere.
    Scalar,
    /// Table shuffles, 32 bytes at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Bit-matrix products, 32 bytes at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2Gfni,
    /// Bit-matrix products, 64 bytes at a time.
    #[cfg(target_arch = "x86_64")]
    Avx512Gfni,
}

impl Kernel {
    /// All that this CPU can run, slowest first.
    pub(super) fn supported() -> Vec<Kernel> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut kernels = vec![Kernel::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                kernels.push(Kernel::Avx2);
                if is_x86_feature_detected!("gfni") {
                    kernels.push(Kernel::Avx2Gfni);
                }
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("gfni") {
                kernels.push(Kernel::Avx512Gfni);
            }
        }
        kernels
    }

    /// The fastest; found once.
    pub(super) fn best() -> Kernel {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| Kernel::supported().pop().unwrap_or(Kernel::Scalar))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kernel::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2Gfni => "avx2+gfni",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Gfni => "avx512+gfni",
        }
    }

    /// Every output becomes the sum of its row's coefficients times the inputs. Panics unless there
    /// are as many outputs as rows, as many inputs as columns, and all are of one length.
    pub(super) fn combine(
        self,
        coefficients: &Coefficients,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) {
        assert_eq!(inputs.len(), coefficients.columns(), "one input per column");
        assert_eq!(outputs.len(), coefficients.rows(), "one output per row");
        let Some(length) = outputs.first().map(|output| output.len()) else { return };
        assert!(inputs.iter().all(|input| input.len() == length), "all shards have one length");
        assert!(outputs.iter().all(|output| output.len() == length), "all shards have one length");
        let one_pass = coefficients.rows() <= ROWS_PER_PASS;
        let piece_bytes = if one_pass { length.max(1) } else { PIECE_BYTES };
        for start in (0..length).step_by(piece_bytes) {
            let range = start..length.min(start + piece_bytes);
            for first in (0..coefficients.rows()).step_by(ROWS_PER_PASS) {
                let rows = first..coefficients.rows().min(first + ROWS_PER_PASS);
                let done = match self {
                    Kernel::Scalar => range.start,
                    #[cfg(target_arch = "x86_64")]
                    vector => {
                        x86::combine(vector, coefficients, rows.clone(), inputs, outputs, &range)
                    }
                };
                scalar::combine(coefficients, rows, inputs, outputs, done..range.end);
            }
        }
    }
}
