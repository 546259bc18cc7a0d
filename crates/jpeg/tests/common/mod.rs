//! The files of `tools/golden/jpeg_pixels.py`.

#[derive(serde::Deserialize)]
pub struct Golden {
    pub name: String,
    bytes: usize,
    pub width: u32,
    pub height: u32,
    #[allow(dead_code, reason = "not every test looks at it")]
    pub crc32: u32,
    #[serde(skip)]
    pub file: Vec<u8>,
}

pub fn golden() -> Vec<Golden> {
    let mut rest = &include_bytes!("../golden/pillow.bin")[..];
    let mut all: Vec<Golden> = serde_json::from_str(include_str!("../golden/pillow.json")).unwrap();
    for golden in &mut all {
        let (file, after) = rest.split_at(golden.bytes);
        golden.file = file.to_vec();
        rest = after;
    }
    assert!(rest.is_empty() && all.len() > 50);
    all
}

/// A generator of pseudo-random numbers, each below its argument.
#[allow(dead_code, reason = "not every test needs it")]
pub fn noise(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % below
    }
}
