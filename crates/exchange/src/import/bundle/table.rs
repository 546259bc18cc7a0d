//! The table format of a TensorBundle's index: that of LevelDB's `.ldb` files (`doc/table_format.md` there), without
//! compression.
//!
//! It holds blocks of sorted keys and values, each block with a checksum; an index block of the blocks' places; and at
//! the end a footer with the place of the index block.

use simclr_train::checksum::masked_crc32c;

/// Two places, padded to 40 bytes, and the magic number.
const FOOTER: usize = 48;
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// The trailer of a block: its compression and the checksum.
const TRAILER: usize = 5;
/// The most bytes of all keys. Keys share prefixes, so a small file could hold very long ones; no checkpoint has so
/// many.
const KEY_LIMIT: usize = 1024;
const ENTRIES_LIMIT: usize = 1 << 16;
/// The most bytes of a value. A tensor's entry takes some 30 bytes, and as many again for each of its slices.
const VALUE_LIMIT: usize = 64 << 10;

/// A key and its value.
pub(super) type Entry<'t> = (Vec<u8>, &'t [u8]);

type Result<T> = std::result::Result<T, String>;

/// Whether a file that ends with these bytes may be a table.
pub(super) fn ends_as_table(end: &[u8]) -> bool {
    end.last_chunk().is_some_and(|&magic| u64::from_le_bytes(magic) == MAGIC)
}

/// All keys and values of a table.
///
/// # Errors
/// A description of the damage.
pub(super) fn read(table: &[u8]) -> Result<Vec<Entry<'_>>> {
    if !ends_as_table(table) || table.len() < FOOTER {
        return Err("it does not end as the index of a checkpoint".to_owned());
    }
    let (blocks, footer) = table.split_at(table.len() - FOOTER);
    // The first place is that of an empty meta block.
    let mut places = Bytes(footer);
    let _metaindex = places.place()?;
    let mut entries = Vec::new();
    let mut held = 0usize;
    for (_, place) in block(contents(blocks, places.place()?)?, ENTRIES_LIMIT)? {
        let left = ENTRIES_LIMIT - entries.len();
        let contents = contents(blocks, Bytes(place).place()?)?;
        // Overlapping blocks could hold any multiple of the file's contents.
        held = held.saturating_add(contents.len());
        if held > blocks.len() {
            return Err("its blocks overlap".to_owned());
        }
        entries.extend(block(contents, left)?);
    }
    Ok(entries)
}

/// The contents of the block at a place.
fn contents(blocks: &[u8], (offset, size): (usize, usize)) -> Result<&[u8]> {
    let beyond = || format!("a block of {size} bytes at byte {offset} is not within it");
    let end = offset.checked_add(size).and_then(|end| end.checked_add(TRAILER)).ok_or_else(beyond)?;
    let block = blocks.get(offset..end).ok_or_else(beyond)?;
    let (checked, checksum) = block.split_last_chunk().ok_or_else(beyond)?;
    if masked_crc32c(checked) != u32::from_le_bytes(*checksum) {
        return Err(format!("the block at byte {offset} is damaged (checksum)"));
    }
    match checked.split_last() {
        Some((0, contents)) => Ok(contents),
        _ => Err(format!("the block at byte {offset} is compressed, which checkpoints are not")),
    }
}

/// The keys and values of a block, `limit` at most.
fn block(contents: &[u8], limit: usize) -> Result<Vec<Entry<'_>>> {
    // The block ends with the offsets of its keys that are written in full, and their count. Only searches need them.
    let damaged = || "a block is damaged".to_owned();
    let (rest, count) = contents.split_last_chunk().ok_or_else(damaged)?;
    let restarts = size_of::<u32>().checked_mul(u32::from_le_bytes(*count) as usize);
    let end = restarts.and_then(|bytes| rest.len().checked_sub(bytes)).ok_or_else(damaged)?;
    let mut bytes = Bytes(&rest[..end]);
    let mut entries: Vec<Entry> = Vec::new();
    while !bytes.0.is_empty() {
        let (shared, own, value) = (bytes.length()?, bytes.length()?, bytes.length()?);
        let before = entries.last().map_or(&[][..], |(key, _)| key);
        let start = before.get(..shared).ok_or_else(damaged)?;
        let key = [start, bytes.take(own)?].concat();
        if key.len() > KEY_LIMIT || value > VALUE_LIMIT || entries.len() == limit {
            return Err(format!(
                "it has a name of more than {KEY_LIMIT} bytes, says more than {VALUE_LIMIT} of one, or has more than {ENTRIES_LIMIT} names, which no checkpoint of a ResNet does"
            ));
        }
        entries.push((key, bytes.take(value)?));
    }
    Ok(entries)
}

/// A variable-length integer (seven bits a byte, lowest first), and the bytes after it.
///
/// # Errors
/// A description of an integer that does not end.
pub(super) fn number(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut number = 0u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Ok((number, &bytes[place + 1..]));
        }
    }
    Err("it holds a number that does not end".to_owned())
}

/// The bytes still to be read.
struct Bytes<'t>(&'t [u8]);

impl<'t> Bytes<'t> {
    fn take(&mut self, count: usize) -> Result<&'t [u8]> {
        let (taken, left) = self.0.split_at_checked(count).ok_or("it ends too early")?;
        self.0 = left;
        Ok(taken)
    }

    /// An integer that counts bytes.
    fn length(&mut self) -> Result<usize> {
        let (number, left) = number(self.0)?;
        self.0 = left;
        usize::try_from(number).map_err(|_| "it holds a length beyond all memory".to_owned())
    }

    /// The offset and length of a block.
    fn place(&mut self) -> Result<(usize, usize)> {
        Ok((self.length()?, self.length()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    /// The contents of a block whose keys share no prefixes, without offsets of keys.
    fn block_of(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
        let entry = |&(key, value): &(&[u8], &[u8])| {
            [&[0][..], &numbered(key.len()), &numbered(value.len()), key, value].concat()
        };
        [entries.iter().flat_map(entry).collect(), vec![0; 4]].concat()
    }

    /// A table with one data block, which the index lists `times` times.
    fn table_of(entries: &[(&[u8], &[u8])], times: usize) -> Vec<u8> {
        let mut table = Vec::new();
        let mut add = |contents: Vec<u8>| {
            let place = [numbered(table.len()), numbered(contents.len())].concat();
            let checked = [contents, vec![0]].concat();
            table.extend(&checked);
            table.extend(masked_crc32c(&checked).to_le_bytes());
            place
        };
        let data = add(block_of(entries));
        let places = add(block_of(&vec![(&b"k"[..], &data[..]); times]));
        let mut footer = [vec![0; 2], places].concat();
        footer.resize(FOOTER - size_of_val(&MAGIC), 0);
        [table, footer, MAGIC.to_le_bytes().to_vec()].concat()
    }

    #[test]
    fn a_small_file_holds_little() {
        let value = vec![1; 1000];
        let table = table_of(&[(b"name", &value)], 1);
        assert_eq!(read(&table).unwrap(), [(b"name".to_vec(), &value[..])]);
        assert!(read(&table_of(&[(b"name", &value)], 2)).unwrap_err().contains("overlap"));
        let long = vec![1; VALUE_LIMIT + 1];
        assert!(read(&table_of(&[(b"name", &long)], 1)).unwrap_err().contains("more than 65536 of one"));
    }
}
