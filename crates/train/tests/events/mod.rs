//! Reads TensorBoard event files as runs have them, checksums left aside.

use std::path::Path;

/// The scalars of a step, by their tags, in the file's order.
pub struct Event {
    pub step: u64,
    pub scalars: Vec<(String, f32)>,
}

/// The events of the one file in a run folder, less the first, which holds the version.
pub fn read(folder: &Path) -> Vec<Event> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_of_events = |path: &std::path::PathBuf| path.to_string_lossy().contains("events.out.tfevents");
    let [file] = &files.filter(is_of_events).collect::<Vec<_>>()[..] else { panic!("not one file") };
    let bytes = std::fs::read(file).unwrap();
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while let Some((length, more)) = rest.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*length) as usize;
        events.push(event(&more[4..4 + length]));
        rest = &more[4 + length + 4..];
    }
    assert!(rest.is_empty());
    events.split_off(1)
}

fn event(bytes: &[u8]) -> Event {
    let mut event = Event { step: 0, scalars: Vec::new() };
    for field in fields(bytes) {
        match field {
            (2, Field::Number(step)) => event.step = step,
            (5, Field::Bytes(summary)) => event.scalars.extend(fields(summary).into_iter().map(scalar)),
            _ => {}
        }
    }
    event
}

fn scalar(value: (u64, Field)) -> (String, f32) {
    let (1, Field::Bytes(value)) = value else { panic!("no value") };
    match fields(value)[..] {
        [(1, Field::Bytes(tag)), (2, Field::Four(number))] => {
            (String::from_utf8(tag.to_vec()).unwrap(), f32::from_le_bytes(number))
        }
        _ => panic!("no scalar"),
    }
}

/// What a field of a protocol buffer holds.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Eight,
    Four([u8; 4]),
    Bytes(&'a [u8]),
}

fn fields(mut rest: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut rest)),
            1 => {
                take(&mut rest, 8);
                Field::Eight
            }
            2 => {
                let length = varint(&mut rest) as usize;
                Field::Bytes(take(&mut rest, length))
            }
            5 => Field::Four(take(&mut rest, 4).try_into().unwrap()),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn varint(rest: &mut &[u8]) -> u64 {
    let length = rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    take(rest, length).iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, more) = rest.split_at(count);
    *rest = more;
    taken
}
