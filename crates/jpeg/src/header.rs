//! The headers before a file's coded data: sizes, sampling, tables.

use crate::Error;
use crate::huffman::Spec;
use crate::segments::Segments;
use crate::zigzag::ZIGZAG;

/// The headers of a file that this decoder supports.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// Whether there is one component instead of three.
    pub grey: bool,
    /// The TIFF structure of the file's EXIF segment.
    pub exif: Option<&'a [u8]>,
    /// Luma samples per chroma sample, across and down: 1 or 2.
    pub(crate) luma: (usize, usize),
    pub(crate) components: [Component<'a>; 3],
    /// MCUs between restart markers; 0 if there are no markers.
    pub(crate) restart: usize,
    /// The bytes after the scan header.
    pub(crate) scan: &'a [u8],
}

/// How a component is coded. A grey image repeats its component three times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Component<'a> {
    /// Quantisation steps, by row and column.
    pub steps: [i16; 64],
    pub dc: Spec<'a>,
    pub ac: Spec<'a>,
}

/// The contents of the segments so far.
#[derive(Default)]
struct Seen<'a> {
    frame: Option<&'a [u8]>,
    steps: [Option<[i16; 64]>; 4],
    dc: [Option<Spec<'a>>; 4],
    ac: [Option<Spec<'a>>; 4],
    restart: usize,
    exif: Option<&'a [u8]>,
    jfif: bool,
    /// The colour transform that Adobe's segment gives.
    transform: Option<u8>,
}

impl<'a> Header<'a> {
    /// Reads the headers of `bytes`, a whole file.
    ///
    /// # Errors
    /// [`Error::Declined`] if the file is not of a supported kind or its headers are odd in any way.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut segments = Segments::of(bytes)?;
        let mut seen = Seen::default();
        loop {
            let segment = segments.next()?;
            let data = segment.data;
            match segment.marker {
                0xc0 | 0xc1 if seen.frame.is_some() => return Err(Error::Declined("two frames")),
                0xc0 | 0xc1 => seen.frame = Some(data),
                0xc4 => seen.huffman_tables(data)?,
                0xdb => seen.quantisation_tables(data)?,
                0xdd => match *data {
                    [high, low] => seen.restart = u16::from_be_bytes([high, low]).into(),
                    _ => return Err(Error::Declined("a restart interval of a wrong length")),
                },
                0xda => return seen.header(data, segments.rest()),
                0xe1 => {
                    if let Some(exif) = data.strip_prefix(b"Exif\0\0").filter(|exif| !exif.is_empty()) {
                        seen.exif = Some(exif);
                    }
                }
                0xe0 if data.starts_with(b"JFIF\0") => seen.jfif = true,
                0xee if data.starts_with(b"Adobe") => seen.transform = data.get(11).copied(),
                0xe0..=0xef | 0xfe => {}
                0xc2..=0xcf => return Err(Error::Declined("progressive or another kind, not baseline")),
                _ => return Err(Error::Declined("an unusual segment")),
            }
        }
    }
}

impl<'a> Seen<'a> {
    fn huffman_tables(&mut self, mut data: &'a [u8]) -> Result<(), Error> {
        while let Some((&place, rest)) = data.split_first() {
            let (spec, rest) = Spec::read(rest)?;
            let tables = match place >> 4 {
                0 if spec.has_sizes_only() => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(Error::Declined("a Huffman table of a wrong kind")),
            };
            *tables.get_mut(usize::from(place & 15)).ok_or(Error::Declined("a fifth Huffman table"))? =
                Some(spec);
            data = rest;
        }
        Ok(())
    }

    fn quantisation_tables(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while let Some((&place, rest)) = data.split_first() {
            // The upper half is the precision: 0 for 8 bits, 1 for 16.
            let wide = match place >> 4 {
                0 => false,
                1 => true,
                _ => return Err(Error::Declined("a quantisation table of a wrong kind")),
            };
            let steps = self.steps.get_mut(usize::from(place & 15));
            let steps = steps.ok_or(Error::Declined("a fifth quantisation table"))?;
            let (values, rest) = rest
                .split_at_checked(if wide { 128 } else { 64 })
                .ok_or(Error::Declined("a short quantisation table"))?;
            let mut natural = [0; 64];
            for (&at, value) in ZIGZAG.iter().zip(values.chunks_exact(values.len() / 64)) {
                natural[usize::from(at)] = match *value {
                    [value] | [0, value] => i16::from(value),
                    _ => return Err(Error::Declined("steps beyond 8 bits")),
                };
            }
            *steps = Some(natural);
            data = rest;
        }
        Ok(())
    }

    /// Whether three components with these ids are red, green and blue, by libjpeg's rules: JFIF always implies YCbCr.
    fn is_rgb(&self, ids: [u8; 3]) -> bool {
        match (self.jfif, self.transform) {
            (true, _) => false,
            (false, Some(transform)) => transform == 0,
            (false, None) => ids == *b"RGB",
        }
    }

    /// Completes the headers at the scan header `scan`, which `rest` follows.
    fn header(self, scan: &[u8], rest: &'a [u8]) -> Result<Header<'a>, Error> {
        let Some(&[8, h1, h0, w1, w0, count, ref parts @ ..]) = self.frame else {
            return Err(Error::Declined("no frame of 8 bits per sample"));
        };
        let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
        if width == 0 || height == 0 {
            return Err(Error::Declined("no width or no height"));
        }
        let (parts, left) = parts.as_chunks::<3>();
        let count = usize::from(count);
        if parts.len() != count || !left.is_empty() {
            return Err(Error::Declined("a frame header of a wrong length"));
        }
        // The components, each with its tables; then the range and precision of a sequential scan.
        let (Some((&scanned, choices)), true) = (scan.split_first(), scan.ends_with(&[0, 63, 0])) else {
            return Err(Error::Declined("a scan that is not sequential"));
        };
        if usize::from(scanned) != count || choices.len() != 2 * count + 3 {
            return Err(Error::Declined("several scans"));
        }
        let mut components = parts.iter().zip(choices.as_chunks::<2>().0).map(|(part, choice)| {
            let [id, _, steps] = *part;
            if choice[0] != id {
                return Err(Error::Declined("a scan in another order than the frame"));
            }
            let table =
                |tables: &[Option<Spec<'a>>; 4], at: u8| tables.get(usize::from(at)).copied().flatten();
            let missing = Error::Declined("a missing table");
            Ok(Component {
                steps: self.steps.get(usize::from(steps)).copied().flatten().ok_or(missing)?,
                dc: table(&self.dc, choice[1] >> 4).ok_or(missing)?,
                ac: table(&self.ac, choice[1] & 15).ok_or(missing)?,
            })
        });
        let mut component = || components.next().unwrap_or(Err(Error::Declined("too few components")));
        let (components, luma) = match *parts {
            // A single component is not interleaved, so its sampling has no effect.
            [[_, h @ 0x10..=0x4f, _]] if (1..=4).contains(&(h & 15)) => ([component()?; 3], (1, 1)),
            [[r, ..], [g, ..], [b, ..]] if self.is_rgb([r, g, b]) => {
                return Err(Error::Declined("colours that are not YCbCr"));
            }
            [[a, luma @ (0x11 | 0x12 | 0x21 | 0x22), _], [b, 0x11, _], [c, 0x11, _]]
                if a != b && b != c && a != c =>
            {
                let all = [component()?, component()?, component()?];
                (all, (usize::from(luma >> 4), usize::from(luma & 15)))
            }
            _ => return Err(Error::Declined("an unusual sampling or number of components")),
        };
        Ok(Header {
            width: width.into(),
            height: height.into(),
            grey: count == 1,
            exif: self.exif,
            luma,
            components,
            restart: self.restart,
            scan: rest,
        })
    }
}
