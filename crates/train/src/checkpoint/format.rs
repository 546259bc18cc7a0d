//! Checkpoints as safetensors files.
//!
//! A file consists of the length of its header (8 bytes, little-endian), the header (JSON) and the values of the
//! tensors, as the safetensors format requires, so any safetensors reader can read it. In addition the header begins
//! with
//!
//! ```text
//! {"__metadata__":{"crc32c":"xxxxxxxx","format":"pt","simclr":"{\"format\":1,...}"}
//! ```
//!
//! where `crc32c` is the checksum of the whole file with those eight digits set to zeros: a change of any byte is
//! detected.

use std::io::{self, Read, Write};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Checkpoint, Meta, NamedTensor};
use crate::TrainError;

/// The format of [`Meta`] that is written, and the highest that can be read.
pub(super) const FORMAT: u64 = 1;

/// Longest header accepted, 40 times that of a ResNet-200 with its momentum.
const MAX_HEADER: u64 = 16 << 20;

const PREFIX: &str = r#"{"__metadata__":{"crc32c":""#;
const DIGITS: usize = 8;
const LENGTH: usize = 8;
const CHECKSUM_AT: usize = LENGTH + PREFIX.len();

/// Why a checkpoint cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    Damaged(String),
    Newer { found: u64, program: String },
    Io(io::Error),
}

#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    format: u64,
    program: String,
    meta: M,
}

/// An encoded checkpoint: the head of the file, followed by the values of the tensors in order.
pub(super) struct Encoded<'a> {
    head: Vec<u8>,
    tensors: &'a [NamedTensor],
}

impl<'a> Encoded<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint) -> Result<Self, TrainError> {
        let tensors = &checkpoint.tensors;
        let envelope = Envelope {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            meta: &checkpoint.meta,
        };
        let unwritable = |error: serde_json::Error| bad("(the record beside them)", &error.to_string());
        let meta = serde_json::to_string(&envelope).map_err(unwritable)?;
        let meta = Value::from(meta).to_string();
        let mut header = format!("{PREFIX}{}\",\"format\":\"pt\",\"simclr\":{meta}}}", "0".repeat(DIGITS));

        let mut names = std::collections::HashSet::new();
        let mut offset = 0;
        for NamedTensor { name, shape, data } in tensors {
            let values = shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
            if values != Some(data.len()) {
                return Err(bad(name, &format!("has {} values for the shape {shape:?}", data.len())));
            }
            if data.is_empty() {
                return Err(bad(name, "has no values"));
            }
            if name == "__metadata__" || !names.insert(name) {
                return Err(bad(name, "has a name that is taken"));
            }
            let end = offset + size_of_val(data.as_slice());
            let key = Value::from(name.as_str());
            header.push_str(&format!(
                r#",{key}:{{"dtype":"F32","shape":{},"data_offsets":[{offset},{end}]}}"#,
                Value::from(shape.clone())
            ));
            offset = end;
        }
        header.push('}');
        // Values that start at a multiple of eight bytes can be memory-mapped.
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        if header.len() as u64 > MAX_HEADER {
            return Err(bad("(all)", "have names too long for a header of 16 MiB"));
        }

        let mut head = (header.len() as u64).to_le_bytes().to_vec();
        head.extend_from_slice(header.as_bytes());
        let mut encoded = Self { head, tensors };
        let checksum = encoded.checksum();
        encoded.head[CHECKSUM_AT..CHECKSUM_AT + DIGITS].copy_from_slice(digits(checksum).as_bytes());
        Ok(encoded)
    }

    fn checksum(&self) -> u32 {
        let head = crc32c::crc32c(&self.head);
        self.tensors.iter().fold(head, |crc, tensor| crc32c::crc32c_append(crc, &little_endian(&tensor.data)))
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.head)?;
        self.tensors.iter().try_for_each(|tensor| out.write_all(&little_endian(&tensor.data)))
    }
}

/// Reads a file of `length` bytes. The sizes in the header are checked against the length before anything is
/// allocated for them.
pub(super) fn decode(file: &mut dyn Read, length: u64) -> Result<Checkpoint, Fault> {
    let short = || damaged(format!("it is only {length} bytes long"));
    if length < (CHECKSUM_AT + DIGITS) as u64 {
        return Err(short());
    }
    let mut head = vec![0; LENGTH];
    read(file, &mut head)?;
    let header_length = u64::from_le_bytes(head.as_slice().try_into().map_err(|_| short())?);
    let rest = length - LENGTH as u64;
    if header_length > rest.min(MAX_HEADER) || header_length < (CHECKSUM_AT + DIGITS - LENGTH) as u64 {
        return Err(damaged(format!(
            "its header cannot be {header_length} bytes long in a file of {length}"
        )));
    }
    head.resize(LENGTH + header_length as usize, 0);
    read(file, &mut head[LENGTH..])?;

    if !head[LENGTH..].starts_with(PREFIX.as_bytes()) {
        return Err(damaged("it does not begin as checkpoints of this program do".to_owned()));
    }
    let stored = head[CHECKSUM_AT..CHECKSUM_AT + DIGITS].to_vec();
    let metadata: Metadata = serde_json::from_slice(&head[LENGTH..])
        .map_err(|error| damaged(format!("its header cannot be read: {error}")))?;
    if metadata.data_len() as u64 != rest - header_length {
        return Err(damaged(format!(
            "its header declares {} bytes of values, but there are {}",
            metadata.data_len(),
            rest - header_length
        )));
    }

    head[CHECKSUM_AT..CHECKSUM_AT + DIGITS].fill(b'0');
    let mut checksum = crc32c::crc32c(&head);
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        if info.dtype != Dtype::F32 {
            return Err(damaged(format!("tensor `{name}` is {:?}, expected F32", info.dtype)));
        }
        let mut data = vec![0.0_f32; (info.data_offsets.1 - info.data_offsets.0) / size_of::<f32>()];
        let bytes = bytemuck::cast_slice_mut(&mut data);
        read(file, bytes)?;
        checksum = crc32c::crc32c_append(checksum, bytes);
        if cfg!(target_endian = "big") {
            data.iter_mut().for_each(|x| *x = f32::from_bits(x.to_bits().swap_bytes()));
        }
        tensors.push(NamedTensor { name, shape: info.shape.clone(), data });
    }
    if digits(checksum).as_bytes() != stored {
        return Err(damaged("its checksum does not match its contents".to_owned()));
    }
    let text = metadata.metadata().as_ref().and_then(|map| map.get("simclr"));
    let text = text.ok_or_else(|| damaged("its header lacks the entry `simclr`".to_owned()))?;
    Ok(Checkpoint { tensors, meta: decode_meta(text)? })
}

fn decode_meta(text: &str) -> Result<Meta, Fault> {
    let unreadable = |error: serde_json::Error| damaged(format!("its record cannot be read: {error}"));
    // A later format may have any fields, so check its number before reading them.
    let envelope: Envelope<Value> = serde_json::from_str(text).map_err(unreadable)?;
    if envelope.format > FORMAT {
        return Err(Fault::Newer { found: envelope.format, program: envelope.program });
    }
    let envelope: Envelope<Meta> = serde_json::from_str(text).map_err(unreadable)?;
    Ok(envelope.meta)
}

fn read(file: &mut dyn Read, into: &mut [u8]) -> Result<(), Fault> {
    file.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early".to_owned()),
        _ => Fault::Io(error),
    })
}

fn damaged(reason: String) -> Fault {
    Fault::Damaged(reason)
}

fn bad(name: &str, problem: &str) -> TrainError {
    TrainError::BadTensor { name: name.to_owned(), problem: problem.to_owned() }
}

fn digits(checksum: u32) -> String {
    format!("{checksum:08x}")
}

#[cfg(target_endian = "little")]
fn little_endian(data: &[f32]) -> std::borrow::Cow<'_, [u8]> {
    bytemuck::cast_slice(data).into()
}

#[cfg(not(target_endian = "little"))]
fn little_endian(data: &[f32]) -> std::borrow::Cow<'_, [u8]> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>().into()
}
