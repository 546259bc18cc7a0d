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

    /// The kind that is read, with its archives; `None` if there are no archives. The others are noted in `left_out`.
    pub fn to_read(&self, left_out: &mut LeftOut) -> Option<(ArchiveKind, Vec<PathBuf>)> {
        let mut kinds: BTreeSet<ArchiveKind> = self.all.iter().map(|(kind, ..)| *kind).collect();
        let bare = kinds.len() > 1 && self.tables_are_bare();
        if bare {
            kinds.remove(&ArchiveKind::Parquet);
        }
        let read = *kinds.first()?;
        for (kind, name, _) in self.all.iter().filter(|(kind, ..)| *kind != read) {
            let reason = match kind {
                ArchiveKind::Parquet if bare => "a table without images",
                _ => "an archive of another kind; to read it, give its path as well",
            };
            left_out.push(name.clone(), reason);
        }
        left_out.notes.extend(self.notes(read.plural(), Some(read), bare));
        let of_kind = self.all.iter().filter(|(kind, ..)| *kind == read);
        Some((read, of_kind.map(|(.., path)| path.clone()).collect()))
    }

    /// Notes on archives that are not read, as there are images beside them.
    pub fn beside_images(&self) -> Vec<String> {
        self.notes("images", None, self.tables_are_bare())
    }

    /// Whether there are tables, and no images in them: img2dataset writes a table of addresses and captions for each of
    /// its shards.
    fn tables_are_bare(&self) -> bool {
        let mut tables = self.all.iter().filter(|(kind, ..)| *kind == ArchiveKind::Parquet).peekable();
        tables.peek().is_some() && !parquet::hold_images(tables.map(|(.., path)| path.as_path()))
    }

    /// Notes on all archives but those of the kind `read`, beside which they lie; `bare` if tables have no images.
    fn notes(&self, beside: &str, read: Option<ArchiveKind>, bare: bool) -> Vec<String> {
        let others = self.all.iter().filter(|(kind, ..)| Some(*kind) != read);
        let (tables, archives): (Vec<_>, Vec<_>) =
            others.partition(|(kind, ..)| bare && *kind == ArchiveKind::Parquet);
        let note = |of: &[&(ArchiveKind, String, PathBuf)], thing: &str, what: &str, more: &str| {
            let (_, first, _) = of.first()?;
            let (folder, count) = (shown(&self.folder), counted(of.len(), thing));
            let the_first = if of.len() > 1 { "the first: " } else { "" };
            Some(format!("{folder}: {count} {what} the {beside} ({the_first}{first}){more}"))
        };
        let tables = note(&tables, "Parquet file", "without images beside", "");
        let archives = match archives.len() {
            1 => note(&archives, "archive", "is not read beside", "; to read it, give its path as well"),
            _ => {
                note(&archives, "archive", "are not read beside", "; to read them, give their paths as well")
            }
        };
        tables.into_iter().chain(archives).collect()
    }
}
