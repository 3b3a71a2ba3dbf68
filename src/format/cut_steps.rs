//! What a long cut of a file is to do [R19]: the values of its intent, which recovery carries out if power
//! was lost in between. Under `Key::meta` names of 23 bytes: `cut`, then big-endian u64 inode · u64 number
//! of the cut · u32 part. They count if the inode's orphan entry names that cut.
//!
//! ```text
//!  0  u8 version = 1   1..4 reserved   4  u32 steps
//!  8  per step, 32 bytes: u64 offset · u64 length · u64 object, 0: a hole · u32 offset in object · u32 0
//! ```

use super::FormatError;
use super::bytes::{Reader, Writer};
use crate::base::ObjectId;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 8;
const STEP_BYTES: usize = 32;

/// Most steps of one value.
pub const CUT_STEPS_MAX: usize = 4096;

/// A range of a file that becomes a hole, or a range of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CutStep {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes; a cut-off tail reaches to the end of all numbers.
    pub length: u64,
    /// The object, and where in it; None: a hole.
    pub place: Option<(ObjectId, u32)>,
}

/// As the value of one part.
pub fn encode_cut_steps(steps: &[CutStep]) -> Vec<u8> {
    assert!(steps.len() <= CUT_STEPS_MAX, "a part has at most {CUT_STEPS_MAX} steps");
    let mut out = Writer::with_capacity(HEAD_BYTES + STEP_BYTES * steps.len());
    out.u8(VERSION).zeros(3).u32(steps.len() as u32);
    for step in steps {
        let (object, object_offset) = step.place.unwrap_or_default();
        out.u64(step.offset).u64(step.length).u64(object.0).u32(object_offset).u32(0);
    }
    out.0
}

/// The reverse.
pub fn decode_cut_steps(bytes: &[u8]) -> Result<Vec<CutStep>, FormatError> {
    let mut reader = Reader::new("steps of a cut", bytes, 0);
    reader.small_version(VERSION)?;
    reader.zeros(3)?;
    let count = u64::from(reader.u32()?);
    let count = reader.count(count, STEP_BYTES, "number of steps")?;
    let mut steps = Vec::with_capacity(count);
    for _ in 0..count {
        let (offset, length) = (reader.u64()?, reader.u64()?);
        let (object, object_offset) = (ObjectId(reader.u64()?), reader.u32()?);
        reader.zeros(4)?;
        if length == 0 || offset.checked_add(length).is_none() {
            return Err(reader.wrong("range"));
        }
        let place = (object != ObjectId(0)).then_some((object, object_offset));
        if place.is_none() && object_offset != 0 {
            return Err(reader.wrong("hole"));
        }
        steps.push(CutStep { offset, length, place });
    }
    reader.finish()?;
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_back_and_nonsense_does_not() {
        let steps = [
            CutStep { offset: 5, length: 7, place: Some((ObjectId(9), 11)) },
            CutStep { offset: 100, length: u64::MAX - 100, place: None },
        ];
        let bytes = encode_cut_steps(&steps);
        assert_eq!(bytes.len(), 8 + 2 * 32);
        assert_eq!(decode_cut_steps(&bytes), Ok(steps.to_vec()));
        assert_eq!(decode_cut_steps(&encode_cut_steps(&[])), Ok(Vec::new()));
        for (at, byte) in [(0, 2), (1, 1), (4, 3), (36, 1), (40, 101), (64, 1)] {
            let mut bad = bytes.clone();
            bad[at] = byte;
            assert!(decode_cut_steps(&bad).is_err(), "byte {at}");
        }
        assert!(decode_cut_steps(&bytes[..71]).is_err());
    }
}
