//! What every decoder must withstand, and the images of its versions.
//!
//! * Round trip: what is encoded decodes to an equal value.
//! * Damage: framed structures detect every changed byte. Behind a good checksum, and in values that
//!   something else's checksum covers, a decoder either refuses or has read exactly what it encodes to:
//!   no two byte strings mean the same, and no accepted value makes an encoder panic.
//! * Truncated, extended and random bytes never panic.

mod framed;
mod golden;
mod samples;
mod values;

use std::fmt::Debug;

use super::FormatError;
use super::checksum::crc64;

/// A decoder as the tests see it: the value it read, or why not.
type Decoded<T> = Result<T, FormatError>;

/// Makes the checksum of a framed structure good again.
fn reseal(bytes: &mut [u8]) {
    let length = u32::from_le_bytes(bytes[20..24].try_into().expect("four bytes")) as usize;
    if let Some(covered) = bytes.get(16..length) {
        let crc = crc64(covered);
        bytes[8..16].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Whatever `decode` makes of `bytes`, it does not panic, and what it accepts encodes to these bytes.
fn check_canonical<T: Debug>(
    bytes: &[u8],
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Decoded<T>,
) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(encode(&value), bytes, "two encodings of {value:?}");
    }
}

/// Every change of one bit, and every replaced byte at a few values.
fn damaged(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let masks = (0..8).map(|bit| 1u8 << bit).chain([0xff]);
    (0..bytes.len()).flat_map(move |index| {
        masks.clone().map(move |mask| {
            let mut damaged = bytes.to_vec();
            damaged[index] ^= mask;
            (index, damaged)
        })
    })
}

/// The checks for something that stands on its own, with a frame of its own.
fn check_framed<T: PartialEq + Debug>(
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Decoded<T>,
) {
    let bytes = encode(value);
    let length = u32::from_le_bytes(bytes[20..24].try_into().expect("four bytes")) as usize;
    assert_eq!(decode(&bytes).as_ref(), Ok(value), "round trip");
    for end in 0..length {
        assert!(decode(&bytes[..end]).is_err(), "accepted when cut off at {end}");
    }
    for (index, mut changed) in damaged(&bytes) {
        if index < length {
            assert!(decode(&changed).is_err(), "byte {index} changed unnoticed");
            if (24..length).contains(&index) {
                reseal(&mut changed);
                check_canonical(&changed, &encode, &decode);
            }
        } else {
            assert_eq!(decode(&changed).as_ref(), Ok(value), "padding means something");
        }
    }
    let mut newer = bytes.clone();
    newer[16] += 1;
    reseal(&mut newer);
    let error = decode(&newer).expect_err("another version");
    assert!(matches!(error, FormatError::Version { .. }), "{error}");
    let mut featured = bytes.clone();
    featured[18] = 4;
    reseal(&mut featured);
    let error = decode(&featured).expect_err("an unknown feature");
    assert!(matches!(error, FormatError::Features { bits: 4, .. }), "{error}");
}

/// The checks for a value inside something else. `version_at`: which byte is its version.
fn check_value<T: PartialEq + Debug>(
    value: &T,
    version_at: Option<usize>,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Decoded<T>,
) {
    let bytes = encode(value);
    assert_eq!(decode(&bytes).as_ref(), Ok(value), "round trip");
    for end in 0..bytes.len() {
        check_canonical(&bytes[..end], &encode, &decode);
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    check_canonical(&longer, &encode, &decode);
    for (_, changed) in damaged(&bytes) {
        check_canonical(&changed, &encode, &decode);
    }
    if let Some(index) = version_at {
        let mut newer = bytes.clone();
        newer[index] += 1;
        let error = decode(&newer).expect_err("another version");
        assert!(matches!(error, FormatError::Version { found: 2, known: 1, .. }), "{error}");
    }
}
