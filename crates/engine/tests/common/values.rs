//! Values made from a name, the same here and in `tools/golden/uniform.py`.

fn fnv1a64(name: &str) -> u64 {
    name.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `len` values in [-1, 1).
pub fn uniform(name: &str, len: usize) -> Vec<f32> {
    let seed = fnv1a64(name);
    (0..len as u64)
        .map(|i| (splitmix64(seed.wrapping_add(i)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0)
        .collect()
}
