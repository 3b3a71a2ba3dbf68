//! GF(2^8) with the polynomial 0x11D, as tables for kernels. Multiplying by a constant is linear over
//! bits, so a constant is an 8 x 8 bit matrix (GFNI), or two tables of 16 for the halves of a byte
//! (shuffles).

/// Product of two elements.
pub(super) const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1D;
        }
        b >>= 1;
    }
    product
}

/// Per constant, the matrix that `gf2p8affineqb` multiplies by: bit i of the product is the parity of
/// (byte `7 - i` of the matrix) AND (the input).
pub(super) static AFFINE: [u64; 256] = affine_table();

const fn affine_table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut constant = 0;
    while constant < 256 {
        let mut input_bit = 0;
        while input_bit < 8 {
            let product = multiply(constant as u8, 1 << input_bit);
            let mut i = 0;
            while i < 8 {
                let bit = (product >> i & 1) as u64;
                table[constant] |= bit << (8 * (7 - i) + input_bit);
                i += 1;
            }
            input_bit += 1;
        }
        constant += 1;
    }
    table
}

/// Per constant, its products with 0..16, then with 0, 16, 32, .. 240.
pub(super) static NIBBLES: [[u8; 32]; 256] = nibble_table();

const fn nibble_table() -> [[u8; 32]; 256] {
    let mut table = [[0; 32]; 256];
    let mut constant = 0;
    while constant < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            table[constant][nibble] = multiply(constant as u8, nibble as u8);
            table[constant][16 + nibble] = multiply(constant as u8, (nibble << 4) as u8);
            nibble += 1;
        }
        constant += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use reed_solomon_erasure::galois_8;

    #[test]
    fn the_field_is_the_crates() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), galois_8::mul(a, b), "{a} * {b}");
            }
        }
    }

    #[test]
    fn the_tables_multiply() {
        for constant in 0..=255u8 {
            for x in 0..=255u8 {
                let product = multiply(constant, x);
                let halves = &NIBBLES[usize::from(constant)];
                let low = halves[usize::from(x & 15)];
                assert_eq!(product, low ^ halves[16 + usize::from(x >> 4)]);
                let matrix = AFFINE[usize::from(constant)].to_be_bytes();
                let affine = (0..8).map(|i| ((matrix[i] & x).count_ones() as u8 & 1) << i);
                assert_eq!(product, affine.sum::<u8>(), "{constant} * {x}");
            }
        }
    }
}
