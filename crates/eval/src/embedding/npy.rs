//! NumPy's format, version 1.0 (numpy.lib.format): a magic number, the length of the header, the header as a Python
//! dictionary padded so that the values begin at a multiple of 64 bytes, the values in C order.

use std::path::Path;

use super::format::{Description, Rows, Writer};
use super::matrix::Matrix;
use crate::EvalError;

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// Where the header begins: after the magic number and its two-byte length.
const START: usize = MAGIC.len() + 2;
const ALIGNMENT: usize = 64;

/// An .npy file being written.
pub(super) struct Npy {
    matrix: Matrix,
    dim: usize,
    /// Bytes before the values.
    room: usize,
}

impl Npy {
    pub fn create(path: &Path, what: &Description) -> Result<Npy, EvalError> {
        let room = (START + dictionary(what.most_rows, what.dim).len() + 1).next_multiple_of(ALIGNMENT);
        let matrix = Matrix::create(path, &header(what.most_rows, what.dim, room))?;
        Ok(Npy { matrix, dim: what.dim, room })
    }
}

impl Writer for Npy {
    fn write(&mut self, rows: &Rows<'_>) -> Result<(), EvalError> {
        self.matrix.write(rows)
    }

    fn finish(self: Box<Self>) -> Result<(), EvalError> {
        let header = header(self.matrix.rows, self.dim, self.room);
        self.matrix.finish(&header)
    }
}

fn dictionary(rows: usize, dim: usize) -> String {
    format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}")
}

/// Everything before the values, `room` bytes.
fn header(rows: usize, dim: usize, room: usize) -> Vec<u8> {
    let length = room - START;
    let text = format!("{:<width$}\n", dictionary(rows, dim), width = length - 1);
    [MAGIC, &(length as u16).to_le_bytes(), text.as_bytes()].concat()
}
