//! Reads the TensorBoard event files of runs, ignoring checksums.

use std::path::Path;

use prost::Message;

/// The scalars of a step, in the file's order.
#[derive(Message)]
pub struct Event {
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
}

#[derive(Message)]
pub struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

#[derive(Message)]
pub struct Value {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
}

/// The events of the only event file in a run folder, without the first, which holds the version.
pub fn read(folder: &Path) -> Vec<Event> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_of_events = |path: &std::path::PathBuf| path.to_string_lossy().contains("events.out.tfevents");
    let [file] = &files.filter(is_of_events).collect::<Vec<_>>()[..] else { panic!("not one file") };
    let bytes = std::fs::read(file).unwrap();
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while let Some((length, more)) = rest.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*length) as usize;
        events.push(Event::decode(&more[4..4 + length]).unwrap());
        rest = &more[4 + length + 4..];
    }
    assert!(rest.is_empty());
    events.split_off(1)
}
