//! The crate is the oracle: every kernel gives its bytes, for every geometry and every loss.

use reed_solomon_erasure::galois_8::ReedSolomon;

use super::*;
use crate::base::Random;

/// Lengths around the vectors' (32, 64, 128) and the piece's (8192).
const LENGTHS: [usize; 14] = [0, 1, 31, 63, 64, 65, 127, 128, 129, 500, 4095, 4096, 8193, 17_001];

/// Data and parity shards of random bytes, the parity made by the crate.
fn oracle_shards(random: &mut Random, k: usize, m: usize, length: usize) -> Vec<Vec<u8>> {
    let mut shards = vec![vec![0u8; length]; k + m];
    for shard in &mut shards[..k] {
        random.fill(shard);
    }
    if length > 0 {
        let oracle = ReedSolomon::new(k, m).expect("within the crate's limits");
        oracle.encode(&mut shards).expect("shards of one length");
    }
    shards
}

fn encode(codec: Codec, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let length = data[0].len();
    let mut parity = vec![vec![0xaa; length]; codec.parity_shards()];
    let inputs: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    codec.encode(&inputs, &mut outputs);
    parity
}

/// Rebuilds `lost` from all others, in the order of `present`, and compares.
fn check_reconstruct(codec: Codec, shards: &[Vec<u8>], present: &[usize], lost: &[usize]) {
    let length = shards[0].len();
    let present: Vec<(ShardIndex, &[u8])> =
        present.iter().map(|&shard| (ShardIndex(shard as u8), shards[shard].as_slice())).collect();
    let mut rebuilt = vec![vec![0x55; length]; lost.len()];
    let mut wanted: Vec<(ShardIndex, &mut [u8])> = lost
        .iter()
        .zip(&mut rebuilt)
        .map(|(&shard, bytes)| (ShardIndex(shard as u8), bytes.as_mut_slice()))
        .collect();
    codec.reconstruct(&present, &mut wanted);
    for (&shard, bytes) in lost.iter().zip(&rebuilt) {
        assert_eq!(bytes, &shards[shard], "shard {shard} of {codec:?}, {lost:?} lost");
    }
}

#[test]
fn every_kernel_encodes_as_the_oracle() {
    let seed = 11;
    let mut random = Random::new(seed);
    let geometries =
        [(1, 1), (1, 8), (2, 1), (2, 2), (4, 2), (6, 2), (8, 3), (10, 4), (5, 5), (24, 8), (31, 1)];
    for (k, m) in geometries {
        for length in LENGTHS {
            let shards = oracle_shards(&mut random, k, m, length);
            for kernel in Kernel::supported() {
                let codec = Codec::with_kernel(k, m, kernel);
                let parity = encode(codec, &shards[..k]);
                assert_eq!(
                    parity,
                    &shards[k..],
                    "{k}+{m}, {length} bytes, {kernel:?}, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn every_geometry_encodes_as_the_oracle() {
    let mut random = Random::new(12);
    for m in 1..=PARITY_MAX {
        for k in 1..=SHARDS_MAX - m {
            let shards = oracle_shards(&mut random, k, m, 200);
            assert_eq!(encode(Codec::new(k, m), &shards[..k]), &shards[k..], "{k}+{m}");
        }
    }
}

/// The matrix is part of the disk format: these bytes never change, though the crate could. They were
/// derived apart from it: V * inverse(V_top) with V[r][c] = r^c, in another language.
#[test]
fn the_matrix_of_codec_1_is_frozen() {
    let rows = |k, m| {
        let parity = matrix::generator(k, m).parity_rows();
        (0..m).map(|row| parity.row(row).to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(rows(1, 2), [[1], [1]]);
    assert_eq!(rows(4, 2), [[27, 28, 18, 20], [28, 27, 20, 18]]);
    assert_eq!(rows(6, 2), [[7, 6, 5, 4, 3, 2], [6, 7, 4, 5, 2, 3]]);
    let [a, b, c] = [
        [26, 132, 186, 51, 231, 16, 198, 39],
        [132, 26, 51, 186, 16, 231, 39, 198],
        [186, 51, 26, 132, 198, 39, 231, 16],
    ];
    assert_eq!(rows(8, 3), [a, b, c]);
}

/// All subsets of `0..n` with `size` elements.
fn subsets(n: usize, size: usize) -> Vec<Vec<usize>> {
    (0u32..1 << n)
        .filter(|bits| bits.count_ones() as usize == size)
        .map(|bits| (0..n).filter(|&element| bits >> element & 1 == 1).collect())
        .collect()
}

#[test]
fn every_loss_of_common_geometries_is_rebuilt() {
    let mut random = Random::new(13);
    for (k, m) in [(1, 1), (2, 1), (2, 2), (3, 2), (4, 2), (6, 2), (5, 3), (8, 3), (10, 4)] {
        let shards = oracle_shards(&mut random, k, m, 133);
        for lost in subsets(k + m, m) {
            let present: Vec<usize> = (0..k + m).filter(|shard| !lost.contains(shard)).collect();
            check_reconstruct(Codec::new(k, m), &shards, &present, &lost);
        }
    }
}

#[test]
fn every_kernel_rebuilds_any_shard_from_any_k_in_any_order() {
    let seed = 14;
    let mut random = Random::new(seed);
    for round in 0..300 {
        let m = 1 + random.below(PARITY_MAX as u64) as usize;
        let k = 1 + random.below((SHARDS_MAX - m) as u64) as usize;
        let length = LENGTHS[random.below(LENGTHS.len() as u64) as usize];
        let shards = oracle_shards(&mut random, k, m, length);
        let mut order: Vec<usize> = (0..k + m).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, random.below(index as u64 + 1) as usize);
        }
        let (present, absent) = order.split_at(k);
        // Present shards may be asked for too, and some of the absent ones may not be.
        let mut wanted = absent[random.below(m as u64) as usize..].to_vec();
        wanted.push(present[0]);
        let kernels = Kernel::supported();
        let kernel = kernels[round % kernels.len()];
        check_reconstruct(Codec::with_kernel(k, m, kernel), &shards, present, &wanted);
    }
}

#[test]
fn a_cell_is_rebuilt_from_the_same_cell_of_others() {
    let mut random = Random::new(15);
    let shards = oracle_shards(&mut random, 6, 2, 3 * 4096);
    let cells: Vec<Vec<u8>> = shards.iter().map(|shard| shard[4096..8192].to_vec()).collect();
    check_reconstruct(Codec::new(6, 2), &cells, &[7, 0, 1, 3, 4, 5], &[2]);
}

#[test]
#[should_panic(expected = "given twice")]
fn one_shard_does_not_count_twice() {
    let shards = vec![vec![0u8; 8]; 3];
    check_reconstruct(Codec::new(2, 1), &shards, &[1, 1], &[0]);
}

#[test]
#[should_panic(expected = "2 are needed")]
fn too_few_shards_are_refused() {
    let shards = vec![vec![0u8; 8]; 3];
    check_reconstruct(Codec::new(2, 1), &shards, &[1], &[0]);
}

/// Prints GB/s per kernel: `cargo test --release codec -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
#[expect(clippy::disallowed_methods, reason = "a measurement looks at the machine's clock")]
fn speed_of_each_kernel() {
    for kernel in Kernel::supported() {
        for (k, m) in [(4, 2), (6, 2), (8, 3), (10, 4), (24, 8)] {
            let data = vec![vec![7u8; 64 << 10]; k];
            let codec = Codec::with_kernel(k, m, kernel);
            let inputs: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let mut parity = vec![vec![0u8; 64 << 10]; m];
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let mut outputs: Vec<&mut [u8]> =
                    parity.iter_mut().map(Vec::as_mut_slice).collect();
                let start = std::time::Instant::now();
                codec.encode(&inputs, &mut outputs);
                best = best.min(start.elapsed().as_secs_f64());
            }
            let rate = (k * (64 << 10)) as f64 / best / 1e9;
            println!("{:<12} {k:>2}+{m}: {rate:.1} GB/s of data", kernel.name());
        }
    }
}
