//! What an effective root names of manifest and space map: two chains of objects, each a whole and
//! increments over it, so that a checkpoint of a large pool writes what changed and not all there is [R9].
//!
//! A checkpoint that fails leaves the chains as they were: the next one extends what the effective root
//! says, never what an attempt said. Objects that only attempts named stay until the next root is
//! effective, because a recovery may find an attempted root and choose it.

use crate::base::ObjectId;
use crate::base::units::KIB;
use crate::format::ChainLink;

/// When a chain begins anew with a whole.
#[derive(Clone, Copy, Debug)]
pub struct ChainLimits {
    /// A whole of up to so many bytes is written again each time: it costs a disk no more than an
    /// increment does.
    pub whole_bytes: u64,
    /// Objects of a chain; each is a seek for a mount.
    pub links: usize,
    /// Increments may come to so many times the bytes of their whole.
    pub growth: u64,
}

impl Default for ChainLimits {
    fn default() -> ChainLimits {
        ChainLimits { whole_bytes: 64 * KIB, links: 8, growth: 1 }
    }
}

/// One chain, as the effective root names it.
#[derive(Clone, Default)]
pub(super) struct Chain(Vec<ChainLink>);

impl Chain {
    /// Whether the next link must be a whole.
    pub(super) fn is_spent(&self, limits: &ChainLimits) -> bool {
        let bytes = |link: &ChainLink| u64::from(link.record.length);
        let Some((whole, increments)) = self.0.split_first() else { return true };
        let grown: u64 = increments.iter().map(bytes).sum();
        let whole = bytes(whole);
        whole <= limits.whole_bytes
            || self.0.len() >= limits.links
            || grown >= whole.saturating_mul(limits.growth)
    }

    /// This chain with one more link.
    pub(super) fn with(&self, link: ChainLink, whole: bool) -> Chain {
        let before = if whole { &[][..] } else { &self.0[..] };
        Chain(before.iter().cloned().chain([link]).collect())
    }

    pub(super) fn links(&self) -> &[ChainLink] {
        &self.0
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ObjectId> {
        self.0.iter().map(|link| link.record.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Lsn;
    use crate::format::{CODEC_VANDERMONDE, ObjectKind, ObjectRecord, Redundancy};

    fn link(id: u64, length: u32) -> ChainLink {
        let record = ObjectRecord {
            id: ObjectId(id),
            kind: ObjectKind::Manifest,
            redundancy: Redundancy::Replica { copies: 1 },
            codec: CODEC_VANDERMONDE,
            cell_bytes: 32768,
            length,
            shard_bytes: length.next_multiple_of(4096),
            pieces_offset: length,
            version: 1,
            provisional: false,
            lsn: Lsn(0),
            places: vec![None],
        };
        ChainLink { record, crc: 0 }
    }

    #[test]
    fn r9_a_chain_begins_anew_when_it_is_long_or_its_increments_are_large() {
        let limits = ChainLimits { whole_bytes: 1000, links: 4, growth: 1 };
        let none = Chain::default();
        assert!(none.is_spent(&limits));
        assert!(none.with(link(1, 1000), true).is_spent(&limits), "it is small");
        let whole = none.with(link(1, 5000), true);
        assert!(!whole.is_spent(&limits));
        assert!(!whole.with(link(2, 4999), false).is_spent(&limits));
        assert!(whole.with(link(2, 5000), false).is_spent(&limits));
        let long = (2..4).fold(whole, |chain, id| chain.with(link(id, 1), false));
        assert!(!long.is_spent(&limits));
        let long = long.with(link(4, 1), false);
        assert!(long.is_spent(&limits));
        assert!(long.ids().eq((1..5).map(ObjectId)));
        assert!(long.with(link(5, 9000), true).ids().eq([ObjectId(5)]));
    }
}
