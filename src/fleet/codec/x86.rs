//! Kernels for x86-64: AVX-512 or AVX2 with GFNI, and AVX2 alone.
//!
//! Each makes up to four outputs in one pass over the inputs: the sums stay in registers, an input's
//! bytes are loaded once and multiplied by one constant per output. Two vectors side by side hide the
//! latency of the multiplication. What is shorter than two vectors at the end is left to the caller.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_xor_si256, _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};
use std::ops::Range;

use super::field::{AFFINE, NIBBLES};
use super::kernel::{Kernel, ROWS_PER_PASS};
use super::matrix::Coefficients;
use crate::base::limits::SHARDS_MAX;

/// One pass: where the inputs and outputs are, and the constants.
struct Pass<'a, const ROWS: usize> {
    inputs: &'a [*const u8],
    outputs: [*mut u8; ROWS],
    /// Constant of output `row` and input `column` at `[column][row]`.
    factors: &'a [[u8; ROWS]],
}

impl<const ROWS: usize> Pass<'_, ROWS> {
    /// The constants as bit matrices, loaded with a broadcast where they are used.
    fn matrices(&self) -> [[u64; ROWS]; SHARDS_MAX] {
        let mut matrices = [[0; ROWS]; SHARDS_MAX];
        for (matrix, factors) in matrices.iter_mut().zip(self.factors) {
            *matrix = factors.map(|factor| AFFINE[usize::from(factor)]);
        }
        matrices
    }
}

/// Computes the outputs `rows` over the bytes `range`, as far as whole vectors go; returns where the
/// caller must go on. `kernel` is one that `Kernel::supported` named.
pub(super) fn combine(
    kernel: Kernel,
    coefficients: &Coefficients,
    rows: Range<usize>,
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    range: &Range<usize>,
) -> usize {
    match rows.len() {
        1 => combine_rows::<1>(kernel, coefficients, rows, inputs, outputs, range),
        2 => combine_rows::<2>(kernel, coefficients, rows, inputs, outputs, range),
        3 => combine_rows::<3>(kernel, coefficients, rows, inputs, outputs, range),
        ROWS_PER_PASS => {
            combine_rows::<ROWS_PER_PASS>(kernel, coefficients, rows, inputs, outputs, range)
        }
        _ => unreachable!("a pass has 1 to {ROWS_PER_PASS} rows"),
    }
}

fn combine_rows<const ROWS: usize>(
    kernel: Kernel,
    coefficients: &Coefficients,
    rows: Range<usize>,
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    range: &Range<usize>,
) -> usize {
    let columns = inputs.len();
    assert!(columns <= SHARDS_MAX && columns == coefficients.columns() && rows.len() == ROWS);
    let mut factors = [[0u8; ROWS]; SHARDS_MAX];
    for row in 0..ROWS {
        for (factor, &value) in factors.iter_mut().zip(coefficients.row(rows.start + row)) {
            factor[row] = value;
        }
    }
    let step = match kernel {
        Kernel::Scalar => return range.start,
        Kernel::Avx2 | Kernel::Avx2Gfni => 64,
        Kernel::Avx512Gfni => 128,
    };
    let count = range.len() / step;
    let bytes = range.start..range.start + count * step;
    // Slicing checks the bounds that the kernels then rely on.
    let mut input_at = [std::ptr::null(); SHARDS_MAX];
    for (at, input) in input_at.iter_mut().zip(inputs) {
        *at = input[bytes.clone()].as_ptr();
    }
    let mut output_at = [std::ptr::null_mut(); ROWS];
    for (at, output) in output_at.iter_mut().zip(&mut outputs[rows]) {
        *at = output[bytes.clone()].as_mut_ptr();
    }
    let pass =
        Pass { inputs: &input_at[..columns], outputs: output_at, factors: &factors[..columns] };
    // SAFETY: each kernel needs its CPU features, which `Kernel::supported` has detected before it named
    // `kernel`; and pointers valid for `count * step` bytes, which slicing by `bytes` has checked. The
    // outputs come from distinct `&mut` slices, so they overlap neither each other nor an input.
    unsafe {
        match kernel {
            Kernel::Scalar => {}
            Kernel::Avx2 => avx2(&pass, count),
            Kernel::Avx2Gfni => avx2_gfni(&pass, count),
            Kernel::Avx512Gfni => avx512_gfni(&pass, count),
        }
    }
    bytes.end
}

/// # Safety
/// The CPU has AVX-512F and GFNI; all pointers of the pass are valid for `count * 128` bytes.
#[target_feature(enable = "avx512f,gfni")]
unsafe fn avx512_gfni<const ROWS: usize>(pass: &Pass<'_, ROWS>, count: usize) {
    let matrices = pass.matrices();
    for position in (0..count).map(|index| index * 128) {
        let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
        for (input, matrices) in pass.inputs.iter().zip(&matrices) {
            // SAFETY: `position + 128 <= count * 128`, for which the input is valid; unaligned loads.
            let data: [__m512i; 2] = unsafe {
                let at = input.add(position);
                [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(64).cast())]
            };
            for (sum, &matrix) in sums.iter_mut().zip(matrices) {
                let matrix = _mm512_set1_epi64(matrix as i64);
                for half in 0..2 {
                    let product = _mm512_gf2p8affine_epi64_epi8::<0>(data[half], matrix);
                    sum[half] = _mm512_xor_si512(sum[half], product);
                }
            }
        }
        for (output, sum) in pass.outputs.iter().zip(sums) {
            // SAFETY: as for the loads; the output is exclusively ours.
            unsafe {
                let at = output.add(position);
                _mm512_storeu_si512(at.cast(), sum[0]);
                _mm512_storeu_si512(at.add(64).cast(), sum[1]);
            }
        }
    }
}

/// # Safety
/// The CPU has AVX2 and GFNI; all pointers of the pass are valid for `count * 64` bytes.
#[target_feature(enable = "avx2,gfni")]
unsafe fn avx2_gfni<const ROWS: usize>(pass: &Pass<'_, ROWS>, count: usize) {
    let matrices = pass.matrices();
    for position in (0..count).map(|index| index * 64) {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (input, matrices) in pass.inputs.iter().zip(&matrices) {
            // SAFETY: `position + 64 <= count * 64`, for which the input is valid; unaligned loads.
            let data: [__m256i; 2] = unsafe { load_256(*input, position) };
            for (sum, &matrix) in sums.iter_mut().zip(matrices) {
                let matrix = _mm256_set1_epi64x(matrix as i64);
                for half in 0..2 {
                    let product = _mm256_gf2p8affine_epi64_epi8::<0>(data[half], matrix);
                    sum[half] = _mm256_xor_si256(sum[half], product);
                }
            }
        }
        for (output, sum) in pass.outputs.iter().zip(sums) {
            // SAFETY: as for the loads; the output is exclusively ours.
            unsafe { store_256(*output, position, sum) };
        }
    }
}

/// # Safety
/// The CPU has AVX2; all pointers of the pass are valid for `count * 64` bytes.
#[target_feature(enable = "avx2")]
unsafe fn avx2<const ROWS: usize>(pass: &Pass<'_, ROWS>, count: usize) {
    let low_half = _mm256_set1_epi8(0x0f);
    for position in (0..count).map(|index| index * 64) {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (input, factors) in pass.inputs.iter().zip(pass.factors) {
            // SAFETY: `position + 64 <= count * 64`, for which the input is valid; unaligned loads.
            let data: [__m256i; 2] = unsafe { load_256(*input, position) };
            let low = data.map(|data| _mm256_and_si256(data, low_half));
            let high = data.map(|data| _mm256_and_si256(_mm256_srli_epi64::<4>(data), low_half));
            for (sum, &factor) in sums.iter_mut().zip(factors) {
                let table = &NIBBLES[usize::from(factor)];
                // SAFETY: the table has 32 bytes: two unaligned loads of 16.
                let (low_table, high_table) = unsafe {
                    (
                        _mm_loadu_si128(table.as_ptr().cast()),
                        _mm_loadu_si128(table.as_ptr().add(16).cast()),
                    )
                };
                let low_table = _mm256_broadcastsi128_si256(low_table);
                let high_table = _mm256_broadcastsi128_si256(high_table);
                for half in 0..2 {
                    let product = _mm256_xor_si256(
                        _mm256_shuffle_epi8(low_table, low[half]),
                        _mm256_shuffle_epi8(high_table, high[half]),
                    );
                    sum[half] = _mm256_xor_si256(sum[half], product);
                }
            }
        }
        for (output, sum) in pass.outputs.iter().zip(sums) {
            // SAFETY: as for the loads; the output is exclusively ours.
            unsafe { store_256(*output, position, sum) };
        }
    }
}

/// # Safety
/// The CPU has AVX2; `from` is valid for reading 64 bytes from `position` on.
#[target_feature(enable = "avx2")]
unsafe fn load_256(from: *const u8, position: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise; loads need no alignment.
    unsafe {
        let at = from.add(position);
        [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())]
    }
}

/// # Safety
/// The CPU has AVX2; `to` is valid for writing 64 bytes from `position` on.
#[target_feature(enable = "avx2")]
unsafe fn store_256(to: *mut u8, position: usize, data: [__m256i; 2]) {
    // SAFETY: the caller's promise; stores need no alignment.
    unsafe {
        let at = to.add(position);
        _mm256_storeu_si256(at.cast(), data[0]);
        _mm256_storeu_si256(at.add(32).cast(), data[1]);
    }
}
