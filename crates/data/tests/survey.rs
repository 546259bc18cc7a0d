//! A survey counts the images and their properties.

mod common;

use std::fs;

use common::{picture, png};
use simclr_data::{Spread, Values, open, survey};
use tempfile::tempdir;

#[test]
fn everything_is_counted_for_any_number_of_threads() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (value, name) in ["a/1.png", "a/2.png", "b/3.png"].iter().enumerate() {
        picture(&at(name), value as u8);
    }
    // The same pixels in another format, and the same file again.
    picture(&at("b/same.bmp"), 1);
    fs::write(at("a/zz.png"), png(1)).unwrap();
    fs::write(at("a/broken.jpg"), "text").unwrap();
    image::RgbImage::from_fn(20, 9, |x, _| image::Rgb([x as u8, 0, 200])).save(at("b/wide.tif")).unwrap();
    image::ImageBuffer::<image::Luma<u16>, Vec<u16>>::new(5, 5).save(at("b/deep.png")).unwrap();
    image::ImageBuffer::from_pixel(6, 5, image::Rgb([0, 9 * 257, 3 * 257_u16]))
        .save(at("b/deep too.png"))
        .unwrap();
    image::RgbaImage::from_pixel(4, 4, image::Rgba([9, 80, 7, 128])).save(at("b/glass.png")).unwrap();
    let mut pages = tiff::encoder::TiffEncoder::new(fs::File::create(at("b/pages.tif")).unwrap()).unwrap();
    for value in 1..3 {
        pages.write_image::<tiff::encoder::colortype::RGB8>(4, 3, &[value, 0, 0].repeat(12)).unwrap();
    }
    drop(pages);
    let source = open(dir.path()).unwrap();
    let expected = survey(&*source.train, 1, false, &|_| ()).unwrap();
    assert_eq!((expected.readable, expected.grey, expected.tones.deep.images), (10, 6, 2));
    assert_eq!((expected.transparent, expected.with_pages), (1, 1));
    // Over all channels, grey or not.
    assert_eq!(expected.tones.deep, Values { images: 2, least: 0, most: 9 });
    assert_eq!(expected.tones.deep_stored, Some([0, 9 * 257]));
    assert_eq!((expected.broken.len(), expected.broken[0].name.as_str()), (1, "a/broken.jpg"));
    assert_eq!(expected.per_class, [3, 7, 0]);
    let formats: Vec<_> = expected.formats.iter().map(|(name, &count)| (name.as_str(), count)).collect();
    assert_eq!(formats, [("BMP", 1), ("PNG", 7), ("TIFF", 2)]);
    assert_eq!(expected.width, Spread { least: 4, median: 4, most: 20 });
    assert_eq!(expected.height, Spread { least: 3, median: 3, most: 9 });
    let names: Vec<String> = expected.duplicates[0].iter().map(|&i| source.train.name(i as usize)).collect();
    assert_eq!(names, ["a/2.png", "a/zz.png", "b/same.bmp"]);
    assert_eq!((expected.duplicates.len(), expected.superfluous()), (1, 2));
    assert_eq!(survey(&*source.train, 4, false, &|_| ()).unwrap(), expected);
    let error = survey(&*source.train, 3, true, &|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("a/broken.jpg: not an image"), "{error}");
}

#[test]
fn many_copies_are_compared_by_several_threads() {
    let dir = tempdir().unwrap();
    (0..90).for_each(|number| picture(&dir.path().join(format!("{number:02}.png")), number % 4 % 3));
    let images = open(dir.path()).unwrap().train;
    let of_value = |value: u32| (0..90).filter(|number| number % 4 % 3 == value).collect::<Vec<u32>>();
    for threads in [1, 2, 5] {
        let found = survey(&*images, threads, false, &|_| ()).unwrap();
        assert_eq!(found.duplicates, [0, 1, 2].map(of_value), "{threads} threads");
    }
}
