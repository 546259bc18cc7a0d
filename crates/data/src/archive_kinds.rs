//! The kinds of archives, and which of the archives in a folder are read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{name_of, shown};
use crate::files::parquet;
use crate::listing::{LeftOut, Listing, is_archive_name};
use crate::names::{bytes_of, extension, os_name};
use simclr_words::text::counted;

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
pub(crate) struct Archives<'a> {
    folder: PathBuf,
    /// Each with its name in messages.
    all: Vec<(ArchiveKind, String, PathBuf)>,
    /// The real paths of those that are read whatever lies beside them.
    given: &'a BTreeSet<PathBuf>,
}

impl<'a> Archives<'a> {
    /// Those of the listing of `folder`; the archives with the real paths `given` are read in any case.
    pub fn of(folder: &Path, listing: &Listing, given: &'a BTreeSet<PathBuf>) -> Self {
        let names = (0..listing.archives.len()).map(|at| listing.archives.get(at));
        let all = names.filter_map(|name| {
            let path = folder.join(os_name(&name));
            ArchiveKind::of(&path).map(|kind| (kind, name_of(&name), path))
        });
        Self { folder: folder.to_owned(), all: all.collect(), given }
    }

    /// The kind that is read, with its archives; `None` if there are no archives. The others are noted in `left_out`.
    pub fn to_read(&self, left_out: &mut LeftOut) -> Option<(ArchiveKind, Vec<PathBuf>)> {
        let mut kinds: BTreeSet<ArchiveKind> = self.all.iter().map(|(kind, ..)| *kind).collect();
        let bare = kinds.len() > 1 && self.tables_are_bare();
        if bare {
            kinds.remove(&ArchiveKind::Parquet);
        }
        let read = *kinds.first()?;
        for (kind, name, _) in self.left_out().filter(|(kind, ..)| *kind != read) {
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

    /// The names of those that are read whatever lies beside them.
    pub fn given(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|(.., path)| self.is_given(path)).map(|(_, name, _)| name.as_str())
    }

    fn is_given(&self, path: &Path) -> bool {
        !self.given.is_empty() && fs::canonicalize(path).is_ok_and(|path| self.given.contains(&path))
    }

    /// Those that are read only as part of the folder.
    fn left_out(&self) -> impl Iterator<Item = &(ArchiveKind, String, PathBuf)> {
        self.all.iter().filter(|(.., path)| !self.is_given(path))
    }

    /// Whether there are tables, and no images in them: img2dataset writes a table of addresses and captions for each
    /// of its shards.
    fn tables_are_bare(&self) -> bool {
        let mut tables = self.all.iter().filter(|(kind, ..)| *kind == ArchiveKind::Parquet).peekable();
        tables.peek().is_some() && !parquet::hold_images(tables.map(|(.., path)| path.as_path()))
    }

    /// Notes on all archives but those of the kind `read`, beside which they lie; `bare` if tables have no images.
    fn notes(&self, beside: &str, read: Option<ArchiveKind>, bare: bool) -> Vec<String> {
        let others = self.left_out().filter(|(kind, ..)| Some(*kind) != read);
        let (tables, archives): (Vec<_>, Vec<_>) =
            others.partition(|(kind, ..)| bare && *kind == ArchiveKind::Parquet);
        let note = |of: &[&(ArchiveKind, String, PathBuf)], thing: &str, what: &str, more: &str| {
            let (_, first, _) = of.first()?;
            let (folder, count) = (shown(&self.folder), counted(of.len(), thing));
            let the_first = if of.len() > 1 { "the first: " } else { "" };
            Some(format!("{folder}: {count} {what} the {beside} ({the_first}{first}){more}"))
        };
        let tables = note(&tables, "Parquet file", "without images beside", "");
        // Images that lie beside an archive were often unpacked from it: they would be read twice.
        let (what, more) = match (archives.len(), read) {
            (1, Some(_)) => ("is not read beside", "; to read it, give its path as well"),
            (1, None) => ("is not read beside", "; if it holds other images, give its path as well"),
            (_, Some(_)) => ("are not read beside", "; to read them, give their paths as well"),
            (_, None) => ("are not read beside", "; if they hold other images, give their paths as well"),
        };
        let archives = note(&archives, "archive", what, more);
        tables.into_iter().chain(archives).collect()
    }
}
