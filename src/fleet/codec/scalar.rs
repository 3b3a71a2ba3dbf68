//! The portable kernel: the crate's own loops. Also does the ends that are shorter than a vector.

use std::ops::Range;

use reed_solomon_erasure::galois_8::{mul_slice, mul_slice_xor};

use super::matrix::Coefficients;

/// Outputs of `rows` over the bytes `range` of all slices.
pub(super) fn combine(
    coefficients: &Coefficients,
    rows: Range<usize>,
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    range: Range<usize>,
) {
    if range.is_empty() {
        return;
    }
    for row in rows {
        let output = &mut outputs[row][range.clone()];
        let mut terms = coefficients.row(row).iter().zip(inputs);
        if let Some((&factor, input)) = terms.next() {
            mul_slice(factor, &input[range.clone()], output);
        }
        for (&factor, input) in terms {
            mul_slice_xor(factor, &input[range.clone()], output);
        }
    }
}
