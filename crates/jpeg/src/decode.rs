//! Decodes the coded data to pixels, one row of MCUs after another.

use std::ops::Range;

use simclr_isa::Isa;

use crate::bits::BitReader;
use crate::block::{self, Coefficients, Contents};
use crate::planes::Planes;
use crate::rect::{self, Rect};
use crate::rows::Shape;
use crate::scan::Scan;
use crate::scratch::Tables;
use crate::simd::{self, mean};
use crate::{Error, Header, Scratch};

/// The most blocks in an MCU.
const MAX_BLOCKS_PER_MCU: usize = 6;

const ENDS_EARLY: &str = "the coded data end early";

/// The component of a block of an MCU, and its position there.
#[derive(Clone, Copy, Default)]
struct Place {
    component: usize,
    /// In blocks, from the first block of its component in the MCU.
    x: usize,
    y: usize,
}

impl Header<'_> {
    /// Decodes the pixels of `region` into `pixels`: 3 x width x height bytes, rows from the top, red, green, blue.
    /// Pixels outside the region are unspecified; each pixel inside is independent of the rest of the region. Coded
    /// data below the last needed row are not examined, except for the end marker.
    ///
    /// # Errors
    /// [`Error::Declined`], [`Error::Damaged`], [`Error::EndsEarly`]; [`Error::Buffer`] for a wrong length of `pixels`.
    pub fn decode(&self, region: &[Rect], scratch: &mut Scratch, pixels: &mut [u8]) -> Result<(), Error> {
        let shape = Shape {
            width: self.width as usize,
            height: self.height as usize,
            grey: self.grey,
            luma: self.luma,
        };
        let expected = 3 * shape.width * shape.height;
        if pixels.len() != expected {
            return Err(Error::Buffer { expected, got: pixels.len() });
        }
        let Scratch { isa, scan, tables, planes, lines } = scratch;
        let (isa, (across, down)) = (*isa, shape.luma);
        scan.read(self.scan, self.restart > 0)?;
        tables.prepare(&self.components);
        let (mcu_width, mcu_height) = (8 * across, 8 * down);
        let mcus = shape.width.div_ceil(mcu_width);
        for (component, plane) in planes.iter_mut().enumerate() {
            let (across, down) = if component == 0 { (across, down) } else { (1, 1) };
            plane.prepare(8 * across * mcus, 16 * down);
        }
        lines.prepare(mcu_width * mcus);
        let mut mcu_rows = McuRows::new(self, scan, tables, mcus, isa);

        // If chroma is coarser than luma vertically, a row may need the row of MCUs above or below its own.
        let context = usize::from(down > 1);
        let needed = rect::rows(region);
        let needed = needed.start..needed.end.min(shape.height);
        let end = if needed.is_empty() { 0 } else { (needed.end + context).min(shape.height) };
        let last = shape.height.div_ceil(mcu_height) - 1;
        let mut done = 0;
        for number in 0..end.div_ceil(mcu_height) {
            let top = number * mcu_height;
            let columns = rect::columns(region, top.saturating_sub(context)..top + mcu_height + context);
            // Two more columns on either side, for the neighbours of chroma samples.
            let wanted = match columns.is_empty() {
                true => 0..0,
                false => {
                    columns.start.saturating_sub(2) / mcu_width
                        ..columns.end.saturating_add(2).div_ceil(mcu_width).min(mcus)
                }
            };
            mcu_rows.next(wanted, planes).map_err(|reason| match reason {
                ENDS_EARLY => Error::EndsEarly { rows: done as u32 },
                reason => Error::Damaged { reason, rows: done as u32 },
            })?;
            for plane in &mut planes[1..] {
                plane.extend(shape.chroma().0, 8 * number);
            }
            let ready = if number == last { shape.height } else { top + mcu_height - context };
            for y in done..ready {
                let columns = rect::columns(region, y..y + 1);
                let columns = columns.start..columns.end.min(shape.width);
                if !columns.is_empty() {
                    let out = &mut pixels[3 * (y * shape.width + columns.start)..];
                    lines.finish(isa, shape, planes, y, columns, out);
                }
            }
            done = ready;
        }
        Ok(())
    }
}

/// Decodes rows of MCUs one after another.
struct McuRows<'a> {
    header: &'a Header<'a>,
    scan: &'a Scan,
    tables: &'a Tables,
    isa: Isa,
    mcus: usize,
    /// The blocks of an MCU, of which the first `blocks` are used.
    places: [Place; MAX_BLOCKS_PER_MCU],
    blocks: usize,
    reader: BitReader<'a>,
    /// Intervals begun, and MCUs left in the current one.
    intervals: usize,
    left: usize,
    /// The previous mean (DC) of each component.
    means: [i32; 3],
    coefficients: [Coefficients; MAX_BLOCKS_PER_MCU],
    /// The number of the next row.
    number: usize,
}

impl<'a> McuRows<'a> {
    fn new(header: &'a Header<'a>, scan: &'a Scan, tables: &'a Tables, mcus: usize, isa: Isa) -> Self {
        let (across, down) = header.luma;
        let mut places = [Place::default(); MAX_BLOCKS_PER_MCU];
        let luma = across * down;
        for (at, place) in places[..luma].iter_mut().enumerate() {
            *place = Place { component: 0, x: at % across, y: at / across };
        }
        places[luma].component = 1;
        places[luma + 1].component = 2;
        Self {
            header,
            scan,
            tables,
            isa,
            mcus,
            places,
            blocks: if header.grey { 1 } else { luma + 2 },
            reader: BitReader::new((&[], 0, 0)),
            intervals: 0,
            left: 0,
            means: [0; 3],
            coefficients: [[0; 128]; MAX_BLOCKS_PER_MCU],
            number: 0,
        }
    }

    /// Decodes the codes of a row of MCUs, and reconstructs the `wanted` ones in `planes`.
    fn next(&mut self, wanted: Range<usize>, planes: &mut Planes) -> Result<(), &'static str> {
        let places = self.places;
        let mut unwanted: Coefficients = [0; 128];
        for mcu in 0..self.mcus {
            if self.left == 0 {
                self.begin_interval()?;
            }
            self.left -= 1;
            let wanted = wanted.contains(&mcu);
            let mut contents = [Contents::Mean; MAX_BLOCKS_PER_MCU];
            for (at, place) in places[..self.blocks].iter().enumerate() {
                let (dc, ac) = self.tables.of(place.component);
                let out = if wanted { &mut self.coefficients[at] } else { &mut unwanted };
                contents[at] = block::decode(&mut self.reader, dc, ac, &mut self.means[place.component], out)
                    .map_err(|reason| self.unless_ended(reason))?;
            }
            if self.reader.overrun() {
                return Err(self.unless_ended(ENDS_EARLY));
            }
            if wanted {
                self.reconstruct(mcu, &contents, planes);
            }
        }
        self.number += 1;
        Ok(())
    }

    /// The error to report: `reason`, unless the current interval has ended early, which explains it.
    fn unless_ended(&self, reason: &'static str) -> &'static str {
        match self.reader.overrun() {
            // Later intervals may be intact.
            true if self.scan.interval(self.intervals).is_some() => "an interval ends early",
            true => ENDS_EARLY,
            false => reason,
        }
    }

    fn begin_interval(&mut self) -> Result<(), &'static str> {
        self.reader = BitReader::new(self.scan.interval(self.intervals).ok_or(ENDS_EARLY)?);
        self.intervals += 1;
        self.left = if self.header.restart == 0 { usize::MAX } else { self.header.restart };
        self.means = [0; 3];
        Ok(())
    }

    /// Transforms the blocks of an MCU to samples, two at a time, and clears their coefficients.
    fn reconstruct(&mut self, mcu: usize, contents: &[Contents; MAX_BLOCKS_PER_MCU], planes: &mut Planes) {
        let mut samples = [[0u8; 64]; 2];
        for first in (0..self.blocks).step_by(2) {
            let pair = [first, (first + 1).min(self.blocks - 1)];
            let steps = pair.map(|at| &self.header.components[self.places[at].component].steps);
            if pair.iter().all(|&at| contents[at] == Contents::Mean) {
                for ((out, at), steps) in samples.iter_mut().zip(pair).zip(steps) {
                    out.fill(mean(self.coefficients[at][0], steps[0]));
                }
            } else {
                let blocks = pair.map(|at| &self.coefficients[at]);
                simd::inverse_dct(self.isa, blocks, steps, &mut samples);
            }
            for (samples, at) in samples.iter().zip(pair) {
                if contents[at] == Contents::Detail {
                    self.coefficients[at][..64].fill(0);
                }
                let Place { component, x, y } = self.places[at];
                let (across, down) = if component == 0 { self.header.luma } else { (1, 1) };
                planes[component].store(8 * (mcu * across + x), 8 * (self.number * down + y), samples);
            }
        }
    }
}
