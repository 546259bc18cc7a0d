//! The kinds of archives, and which of the archives in a folder are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{name_of, shown};
use crate::files::parquet;
use crate::listing::{LeftOut, Listing, is_archive_name};
use crate::names::{bytes_of, extension, os_name};
use crate::text::counted;

/// The kinds of archives. Of a folder that has several, the first of them is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ArchiveKind {
    Parquet,
    Tar,
    Zip,
}

impl ArchiveKind {
    /// The kind that the name of a file tells; `None` if it is no archive.
    pub fn of(path: &Path) -> Option<Self> {
        let name = bytes_of(path.file_name()?)?;
        let is = |end: &str| extension(name).eq_ignore_ascii_case(end.as_bytes());
        match is_archive_name(name) {
            true if is("zip") => Some(Self::Zip),
            true if is("parquet") => Some(Self::Parquet),
            true => Some(Self::Tar),
            false => None,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet files",
            Self::Tar => "tar shards",
            Self::Zip => "zip archives",
        }
    }
}

/// The archives in a folder.
pub(crate) struct Archives {
    folder: PathBuf,
    /// Each with its name in messages.
    all: Vec<(ArchiveKind, String, PathBuf)>,
}

impl Archives {
    /// Those of the listing of `folder`.
    pub fn of(folder: &Path, listing: &Listing) -> Self {
        let names = (0..listing.archives.len()).map(|at| listing.archives.get(at));
        let all = names.filter_map(|name| {
            let path = folder.join(os_name(&name));
            ArchiveKind::of(&path).map(|kind| (kind, name_of(&name), path))
        });
        Self { folder: folder.to_owned(), all: all.collect() }
    }

    /// The kind that is read, with its archives; `None` if there are no archives. Tables that hold no images, beside other
    /// archives, are noted in `left_out`: img2dataset writes a table of addresses and captions for each of its shards.
    pub fn to_read(&self, left_out: &mut LeftOut) -> Option<(ArchiveKind, Vec<PathBuf>)> {
        let mut kinds: BTreeSet<ArchiveKind> = self.all.iter().map(|(kind, ..)| *kind).collect();
        let tables = self.of_kind(ArchiveKind::Parquet).map(|(_, path)| path);
        let describe =
            kinds.contains(&ArchiveKind::Parquet) && kinds.len() > 1 && !parquet::hold_images(tables);
        if describe {
            kinds.remove(&ArchiveKind::Parquet);
        }
        let kind = *kinds.first()?;
        if describe {
            let names: Vec<&str> = self.of_kind(ArchiveKind::Parquet).map(|(name, _)| name).collect();
            names.iter().for_each(|&name| left_out.push(name.to_owned(), "a table without images"));
            left_out.notes.push(format!(
                "{}: {} without images beside the {} (the first: {})",
                shown(&self.folder),
                counted(names.len(), "Parquet file"),
                kind.plural(),
                names[0]
            ));
        }
        Some((kind, self.of_kind(kind).map(|(_, path)| path.to_owned()).collect()))
    }

    /// The archives of a kind, each with its name in messages.
    fn of_kind(&self, kind: ArchiveKind) -> impl Iterator<Item = (&str, &Path)> {
        let of_kind = self.all.iter().filter(move |(of, ..)| *of == kind);
        of_kind.map(|(_, name, path)| (name.as_str(), path.as_path()))
    }
}
