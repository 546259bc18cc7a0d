//! The binary formats meet arbitrary bytes.

use proptest::prelude::*;
use simclr_data::{cifar, idx};

proptest! {
    #[test]
    fn idx_never_panics_and_stays_within_the_file(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(parsed) = idx::parse(&bytes) {
            prop_assert!(parsed.data.end == bytes.len());
            prop_assert_eq!(parsed.dims.iter().product::<usize>(), parsed.data.len());
        }
    }

    #[test]
    fn idx_headers_are_believed_only_if_the_file_bears_them_out(
        dims in proptest::collection::vec(any::<u32>(), 0..6),
        data in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
        bytes.extend(&data);
        let declared = dims.iter().fold(1u128, |product, &dim| product.saturating_mul(u128::from(dim)));
        prop_assert_eq!(idx::parse(&bytes).is_ok(), declared == data.len() as u128);
    }

    #[test]
    fn idx_round_trips(height in 1usize..5, width in 1usize..5, count in 1usize..5) {
        let mut bytes = vec![0, 0, 8, 3];
        bytes.extend([count, height, width].iter().flat_map(|&dim| (dim as u32).to_be_bytes()));
        bytes.extend(vec![7; count * height * width]);
        let parsed = idx::parse(&bytes).unwrap();
        prop_assert_eq!(parsed.dims, vec![count, height, width]);
        prop_assert_eq!(parsed.data, 16..bytes.len());
    }

    #[test]
    fn cifar_never_panics_and_is_all_or_an_error(
        records in 0usize..3,
        extra in 0usize..5,
        fill: u8,
        label: u8,
        hundred: bool,
    ) {
        let variant = if hundred { cifar::Variant::Cifar100 } else { cifar::Variant::Cifar10 };
        let mut bytes = vec![fill; records * variant.record_bytes() + extra];
        for record in bytes.chunks_exact_mut(variant.record_bytes()) {
            record[usize::from(hundred)] = label;
        }
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let result = cifar::append(&bytes, variant, &mut pixels, &mut labels);
        let right = extra == 0 && (records == 0 || usize::from(label) < variant.classes());
        prop_assert_eq!(result.is_ok(), right);
        if right {
            prop_assert_eq!(labels, vec![label; records]);
            prop_assert_eq!(pixels, vec![fill; records * 3072]);
        }
    }
}
