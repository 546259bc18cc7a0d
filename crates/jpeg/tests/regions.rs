//! Parts of an image have the same bits as the whole, and damage is reported at the row where it occurs.

mod common;

use common::{golden, noise};
use simclr_jpeg::{Error, Header, Isa, Rect, Scratch};

fn decode(file: &[u8], region: &[Rect], isa: Isa) -> (Vec<u8>, Result<(), Error>) {
    let header = Header::read(file).unwrap();
    // Unwritten pixels stay grey.
    let mut pixels = vec![0xaa; 3 * (header.width * header.height) as usize];
    let decoded = header.decode(region, &mut Scratch::with_isa(isa), &mut pixels);
    (pixels, decoded)
}

fn assert_equal_inside(name: &str, region: &[Rect], width: u32, rows: u32, part: &[u8], whole: &[u8]) {
    for rect in region {
        for y in rect.top..(rect.top + rect.height).min(rows) {
            let start = 3 * (y * width + rect.left) as usize;
            let row = start..start + 3 * rect.width as usize;
            assert_eq!(part[row.clone()], whole[row], "{name}: row {y} of {region:?}");
        }
    }
}

#[test]
fn every_region_is_a_part_of_the_whole() {
    let mut below = noise(5);
    for file in golden() {
        let (whole, decoded) = decode(&file.file, &[Rect::whole(file.width, file.height)], Isa::PORTABLE);
        decoded.unwrap();
        for round in 0..60 {
            let mut rect = || {
                let (left, top) = (below(file.width), below(file.height));
                let (width, height) = (1 + below(file.width - left), 1 + below(file.height - top));
                Rect { left, top, width, height }
            };
            let region = [rect(), rect(), rect()];
            let region = &region[..1 + round % 3];
            for isa in Isa::all() {
                let (part, decoded) = decode(&file.file, region, isa);
                decoded.unwrap();
                assert_equal_inside(&file.name, region, file.width, file.height, &part, &whole);
            }
        }
    }
}

#[test]
fn an_empty_region_writes_nothing_and_a_large_one_is_cut() {
    for file in golden() {
        let (whole, _) = decode(&file.file, &[Rect::whole(file.width, file.height)], Isa::detect());
        let (pixels, decoded) =
            decode(&file.file, &[Rect { left: 3, top: 0, width: 0, height: 9 }], Isa::detect());
        assert_eq!(decoded, Ok(()));
        assert!(pixels.iter().all(|&value| value == 0xaa));
        let (pixels, decoded) = decode(&file.file, &[Rect::whole(u32::MAX, u32::MAX)], Isa::detect());
        assert_eq!((pixels, decoded), (whole, Ok(())));
        let outside = Rect { left: u32::MAX, top: u32::MAX, width: u32::MAX, height: u32::MAX };
        assert_eq!(decode(&file.file, &[outside], Isa::detect()).1, Ok(()));
    }
}

/// Whichever bytes are damaged, decoding does not panic, and the rows above the damage depend neither on the region nor
/// on the instruction set.
#[test]
fn damage_is_met_at_the_same_row_whatever_is_needed() {
    let mut below = noise(6);
    let mut met = 0;
    for file in golden() {
        for _ in 0..80 {
            let mut damaged = file.file.clone();
            for _ in 0..=below(3) {
                let at = below(damaged.len() as u32) as usize;
                damaged[at] = below(256) as u8;
            }
            if Header::read(&damaged).is_err() {
                continue;
            }
            let header = Header::read(&damaged).unwrap();
            let (width, height) = (header.width, header.height);
            if width * height > 1 << 20 {
                continue;
            }
            let (whole, decoded) = decode(&damaged, &[Rect::whole(width, height)], Isa::PORTABLE);
            let rows = match decoded {
                Ok(()) => height,
                Err(Error::Damaged { rows, .. } | Error::EndsEarly { rows }) => rows,
                Err(error) => {
                    assert!(matches!(error, Error::Declined(_)), "{error}");
                    continue;
                }
            };
            met += u32::from(rows < height);
            let (left, top) = (below(width), below(height));
            let region =
                [Rect { left, top, width: 1 + below(width - left), height: 1 + below(height - top) }];
            for isa in Isa::all() {
                let (part, decoded) = decode(&damaged, &region, isa);
                match decoded {
                    Ok(()) => assert!(region[0].top + region[0].height <= rows),
                    Err(error) => assert!(matches!(
                        error,
                        Error::Damaged { rows: r, .. } | Error::EndsEarly { rows: r } if r == rows
                    )),
                }
                assert_equal_inside(&file.name, &region, width, rows, &part, &whole);
            }
        }
    }
    assert!(met > 100, "{met}");
}

#[test]
fn data_that_end_early_are_told() {
    for file in golden() {
        let whole = [Rect::whole(file.width, file.height)];
        let scan = file.file.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        let begin = scan + 2 + usize::from(file.file[scan + 3]);
        let length = file.file.len() - 2 - begin;
        for cut in [begin, begin + length / 4, begin + length / 2] {
            let cut = if file.file[cut - 1] == 0xff { cut - 1 } else { cut };
            let short = [&file.file[..cut], &[0xff, 0xd9]].concat();
            let (_, decoded) = decode(&short, &whole, Isa::detect());
            let name = &file.name;
            assert!(matches!(decoded, Err(Error::EndsEarly { .. })), "{name}, cut at {cut}: {decoded:?}");
        }
        let (_, decoded) = decode(&file.file[..file.file.len() - 2], &whole, Isa::detect());
        assert!(decoded.unwrap_err().to_string().contains("before its end-of-image marker"));
    }
}

#[test]
fn other_kinds_are_declined() {
    let file = &golden()[20].file;
    let frame = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let changed = |at: usize, value: u8| {
        let mut bytes = file.clone();
        bytes[frame + at] = value;
        Header::read(&bytes).unwrap_err().to_string()
    };
    for (at, value, reason) in [
        (1, 0xc2, "progressive"),
        (1, 0xc9, "progressive or another kind"),
        (4, 12, "8 bits"),
        (11, 0x41, "unusual sampling"),
        (14, 0x12, "unusual sampling"),
    ] {
        let text = changed(at, value);
        assert!(text.contains(reason) && text.contains("left to another decoder"), "{text}");
    }
}

#[test]
fn odd_tables_and_frames_are_declined_and_fill_bytes_passed_over() {
    let file = &golden()[20].file;
    let place = |marker: u8| file.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
    let with = |at: usize, more: &[u8]| [&file[..at], more, &file[at..]].concat();
    let reason = |bytes: &[u8]| Header::read(bytes).unwrap_err().to_string();
    let segment_at = |at: usize| {
        let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        &file[at..at + 2 + length]
    };
    let (frame, steps, codes) = (place(0xc0), place(0xdb), place(0xc4));
    let twice = with(frame, segment_at(frame));
    assert!(reason(&twice).contains("two frames"), "{}", reason(&twice));
    // The byte after a segment's length gives the kind of the table, and its number out of four.
    for (table, value, told) in [
        (steps, 4, "fifth quantisation table"),
        (steps, 0x20, "quantisation table of a wrong kind"),
        (codes, file[codes + 4] & 0x10 | 4, "fifth Huffman table"),
        (codes, 0x20, "Huffman table of a wrong kind"),
    ] {
        let mut bytes = file.clone();
        bytes[table + 4] = value;
        assert!(reason(&bytes).contains(told), "{}", reason(&bytes));
    }
    // Any marker may have fill bytes before it.
    let whole = |bytes: &[u8]| {
        let Header { width, height, .. } = Header::read(bytes).unwrap();
        decode(bytes, &[Rect { left: 0, top: 0, width, height }], Isa::PORTABLE).0
    };
    for at in [frame, steps, codes, place(0xda)] {
        assert!(whole(&with(at, &[0xff; 3])) == whole(file));
    }
}

#[test]
fn colours_are_told_apart_as_libjpeg_does() {
    let file = &golden()[20].file;
    let (jfif, bare) = file[2..].split_at(18);
    assert_eq!(&jfif[4..9], b"JFIF\0");
    let is_read = |parts: &[&[u8]]| {
        let read = Header::read(&[&[0xff, 0xd8], parts.concat().as_slice()].concat()).map(|_| ());
        assert!(read.is_ok() || read.as_ref().unwrap_err().to_string().contains("not YCbCr"), "{read:?}");
        read.is_ok()
    };
    let adobe = |transform| [&[0xff, 0xee, 0, 14], &b"Adobe\0d\0\0\0\0"[..], &[transform]].concat();
    let with_ids = |ids: &[u8; 3]| {
        let mut bytes = bare.to_vec();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        for (i, id) in ids.iter().enumerate() {
            (bytes[frame + 10 + 3 * i], bytes[scan + 5 + 2 * i]) = (*id, *id);
        }
        bytes
    };
    let rgb = &with_ids(b"RGB");
    assert!(is_read(&[jfif, bare]) && is_read(&[bare]) && is_read(&[&adobe(1), bare]));
    assert!(!is_read(&[&adobe(0), bare]) && !is_read(&[rgb]) && !is_read(&[&adobe(0), rgb]));
    // JFIF takes precedence over Adobe's segment, and Adobe's segment over component ids.
    assert!(is_read(&[jfif, &adobe(0), bare]) && is_read(&[jfif, rgb]) && is_read(&[&adobe(1), rgb]));
}

#[test]
fn steps_in_16_bits_are_those_in_8() {
    let file = &golden()[20].file;
    let (mut wide, mut at) = (file[..2].to_vec(), 2);
    while file[at + 1] != 0xda {
        let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        let segment = &file[at..at + 2 + length];
        match segment[1] {
            0xdb => {
                for table in segment[4..].chunks(65) {
                    wide.extend([0xff, 0xdb, 0, 131, 0x10 | table[0]]);
                    wide.extend(table[1..].iter().flat_map(|step| [0, *step]));
                }
            }
            _ => wide.extend(segment),
        }
        at += 2 + length;
    }
    wide.extend(&file[at..]);
    let header = Header::read(file).unwrap();
    let whole = [Rect { left: 0, top: 0, width: header.width, height: header.height }];
    assert!(decode(&wide, &whole, Isa::PORTABLE).0 == decode(file, &whole, Isa::PORTABLE).0);
    let first = wide.windows(2).position(|pair| pair == [0xff, 0xdb]).unwrap();
    wide[first + 5] = 1;
    assert!(Header::read(&wide).unwrap_err().to_string().contains("steps beyond 8 bits"));
}
