//! Recognising what paths hold, with the help of an index of what was found before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive_kinds::{ArchiveKind, Archives};
use crate::cifar::{self, Variant};
use crate::concat::Concat;
use crate::dataset::Dataset;
use crate::decode::DecodeOptions;
use crate::error::{DataError, shown};
use crate::files::archive::Opened;
use crate::files::parts::{Parts, Unnamed};
use crate::files::{ImageFiles, disk, list, parquet, shards, with_others, zip};
use crate::idx;
use crate::index::Index;
use crate::listing::{LeftOut, LeftOutFile, looks_like_image};
use crate::names::{bytes_of, has_extension};
use crate::pattern::expand;
use crate::source::{Source, SourceKind};
use crate::stl10;

/// Sub-folders in which data sets are usually unpacked.
const USUAL_PLACES: [&str; 6] =
    ["", "cifar-10-batches-bin", "cifar-100-binary", "stl10_binary", "raw", "MNIST/raw"];

/// Opens data sets. What is found in folders and archives goes into its index, and is taken from there where
/// nothing has changed.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    /// How their images are decoded.
    pub decode: DecodeOptions,
    /// What was found so far.
    pub index: Index,
    /// Whether something that may hold images and cannot be read ([`LeftOut::broken`]) is an error.
    pub strict: bool,
    /// With how many threads archives are looked through; 0 means one per processor.
    pub threads: usize,
}

impl Opener {
    /// Opens what lies at `paths`, several as one: see [`open`](crate::open). A path may be a pattern of many, such
    /// as `shard-{000..146}.tar`.
    ///
    /// # Errors
    /// [`DataError`] naming the path or file, what is wrong, and what would be right; [`DataError::Image`] of the first
    /// folder, link or archive that cannot be read, where that is an error.
    pub fn open(&mut self, paths: &[PathBuf]) -> Result<Source, DataError> {
        let source = self.open_all(paths)?;
        match source.left_out.broken.first().filter(|_| self.strict) {
            Some(LeftOutFile { name, reason }) => {
                Err(DataError::Image { name: name.clone(), reason: reason.clone() })
            }
            None => Ok(source),
        }
    }

    fn open_all(&mut self, paths: &[PathBuf]) -> Result<Source, DataError> {
        let mut expanded = Vec::new();
        for path in paths {
            expanded
                .extend(expand(path).map_err(|reason| DataError::Pattern { path: path.clone(), reason })?);
        }
        // Shards are one data set, however many there are, and so are image files; zip archives are if some of them are
        // to test on.
        const ZIP: Kind = Kind::Archives(ArchiveKind::Zip);
        let expanded: Vec<(Kind, PathBuf)> =
            expanded.into_iter().map(|path| (Kind::of(&path), path)).collect();
        let of_zips = expanded.iter().filter(|(kind, _)| *kind == ZIP);
        let zips: Vec<PathBuf> = of_zips.map(|(_, path)| path.clone()).collect();
        let zips_have_test = Parts::of(&zips, Unnamed::Train, &mut LeftOut::default()).has_test();
        let mut groups: Vec<(Kind, Vec<PathBuf>)> = Vec::new();
        for (kind, path) in expanded {
            let joined = kind != Kind::Other && (kind != ZIP || zips_have_test);
            match groups.iter_mut().find(|(known, _)| joined && *known == kind) {
                Some((_, group)) => group.push(path),
                None => groups.push((kind, vec![path])),
            }
        }
        let archives = groups.iter().filter(|(kind, _)| matches!(kind, Kind::Archives(_)));
        let given = archives.flat_map(|(_, paths)| paths).filter_map(|path| std::fs::canonicalize(path).ok());
        let given: BTreeSet<PathBuf> = given.collect();
        let mut sources = Vec::with_capacity(groups.len());
        for (kind, group) in &groups {
            sources.push((shown(&group[0]), self.open_group(*kind, group, &given)?));
        }
        match sources.len() {
            0 => Err(DataError::NotFound(PathBuf::new())),
            1 => Ok(sources.swap_remove(0).1),
            _ => Ok(several(sources)),
        }
    }

    /// Opens what lies at `paths`; the archives with the real paths `given` are opened in any case.
    fn open_group(
        &mut self,
        kind: Kind,
        paths: &[PathBuf],
        given: &BTreeSet<PathBuf>,
    ) -> Result<Source, DataError> {
        let path = &paths[0];
        let metadata = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
        match kind {
            _ if metadata.is_dir() => self.open_folder(path, given),
            _ if !metadata.is_file() => {
                let found = "is neither a folder nor a regular file".to_owned();
                Err(DataError::Unrecognised { path: path.clone(), found })
            }
            Kind::Archives(kind) => self.open_archives(kind, paths, Unnamed::Train),
            Kind::Images => {
                Ok(Source::of(SourceKind::Images, Arc::new(disk::open_each(paths, self.decode)?)))
            }
            Kind::Other => self.open_file(path),
        }
    }

    fn open_archives(
        &mut self,
        kind: ArchiveKind,
        paths: &[PathBuf],
        unnamed: Unnamed,
    ) -> Result<Source, DataError> {
        let (opened, kind) = match kind {
            ArchiveKind::Tar => {
                let threads = match self.threads {
                    0 => std::thread::available_parallelism().map_or(1, |processors| processors.get()),
                    threads => threads,
                };
                let opened = shards::open(paths, unnamed, self.decode, threads, &mut self.index)?;
                (opened, SourceKind::Shards)
            }
            ArchiveKind::Parquet => (parquet::open(paths, unnamed, self.decode)?, SourceKind::Parquet),
            ArchiveKind::Zip => return open_zips(paths, unnamed, self.decode),
        };
        Ok(source(opened, kind))
    }

    fn open_folder(&mut self, path: &Path, given: &BTreeSet<PathBuf>) -> Result<Source, DataError> {
        for place in USUAL_PLACES {
            let folder = if place.is_empty() { path.to_owned() } else { path.join(place) };
            if !folder.is_dir() {
                continue;
            }
            if let Some(files) = stl10::find(&folder) {
                return open_stl10(&files, self.decode);
            }
            if let Some(files) = cifar::find(&folder)? {
                let mut source = open_cifar(&folder, &files, self.decode)?;
                source.left_out.notes.extend(files.missing());
                return Ok(source);
            }
            if let Some((train, test)) = idx::find(&folder)? {
                return open_idx(&train, test.as_ref(), self.decode);
            }
        }
        self.open_images_or_archives(path, given)
    }

    /// A folder of images, or of archives of one kind.
    fn open_images_or_archives(
        &mut self,
        path: &Path,
        given: &BTreeSet<PathBuf>,
    ) -> Result<Source, DataError> {
        let listing = self.index.listing(path)?;
        if listing.images.len() > 0 {
            let archives = Archives::of(path, &listing, given);
            let mut opened = disk::open(path, listing, self.decode);
            archives.given().for_each(|name| opened.left_out.take_back(name));
            opened.left_out.notes.extend(archives.beside_images());
            let kind = match opened.train.classes().is_empty() {
                true => SourceKind::Folder,
                false => SourceKind::ClassFolders,
            };
            return Ok(source(opened, kind));
        }
        let mut left_out = LeftOut::default();
        let Some((kind, paths)) = Archives::of(path, &listing, given).to_read(&mut left_out) else {
            let left_out = Box::new(listing.left_out.clone());
            return Err(DataError::NoImages { path: path.to_owned(), left_out });
        };
        let mut source = self.open_archives(kind, &paths, Unnamed::LeftOut)?;
        source.left_out.extend(left_out);
        source.left_out.broken.extend_from_slice(&listing.left_out.broken);
        Ok(source)
    }

    fn open_file(&mut self, path: &Path) -> Result<Source, DataError> {
        if idx::is_images(path) {
            return open_idx(&idx::Pair::of(path.to_owned()), None, self.decode);
        }
        if stl10::is_images(path) {
            return Ok(Source::of(
                SourceKind::Stl10,
                Arc::new(stl10::open(path, "image", self.decode.shrink)?),
            ));
        }
        if has_extension(path, &["bin"]) {
            let variant = Variant::guess(path)?.ok_or_else(|| {
                DataError::malformed(
                    path,
                    "cut short or not a CIFAR file: its size is not a whole number of records (3073 or 3074 bytes)",
                )
            })?;
            let folder = path.parent().unwrap_or(Path::new(""));
            let files = cifar::Files { train: vec![path.to_owned()], test: vec![], variant };
            return open_cifar(folder, &files, self.decode);
        }
        if list::is_list(path) {
            return Ok(source(list::open(path, self.decode)?, SourceKind::List));
        }
        let looked = looks_like_image(name_bytes(path), || path.to_owned());
        let found = match looked.map_err(|e| DataError::io(path, e))? {
            Err(reason) => format!("is not a data set of a known kind: {reason}"),
            Ok(()) => "is not a data set of a known kind".to_owned(),
        };
        Err(DataError::Unrecognised { path: path.to_owned(), found })
    }
}

/// What a path is, as far as paths of one kind make one data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Archives(ArchiveKind),
    Images,
    /// A data set of its own.
    Other,
}

impl Kind {
    fn of(path: &Path) -> Self {
        // Binaries may begin like an image by chance.
        let is_set = || list::is_list(path) || has_extension(path, &["bin"]);
        let is_image = || looks_like_image(name_bytes(path), || path.to_owned());
        match ArchiveKind::of(path) {
            _ if !path.is_file() => Self::Other,
            Some(kind) => Self::Archives(kind),
            None if !is_set() && is_image().is_ok_and(|told| told.is_ok()) => Self::Images,
            None => Self::Other,
        }
    }
}

fn name_bytes(path: &Path) -> &[u8] {
    path.file_name().and_then(bytes_of).unwrap_or_default()
}

/// A data set of one folder or of archives of one kind.
fn source(opened: Opened, kind: SourceKind) -> Source {
    let Opened { train, test, unlabelled, left_out } = opened;
    let part = |part: Option<ImageFiles>| part.map(|part| Arc::new(part) as Arc<dyn Dataset>);
    Source { train: Arc::new(train), test: part(test), unlabelled: part(unlabelled), kind, left_out }
}

/// Opens zip archives: those to train on apart from those to test on, by their names.
fn open_zips(paths: &[PathBuf], unnamed: Unnamed, options: DecodeOptions) -> Result<Source, DataError> {
    let mut left_out = LeftOut::default();
    let parts = Parts::of(paths, unnamed, &mut left_out);
    let open = |paths: &[PathBuf]| -> Result<Source, DataError> {
        let open = |path: &PathBuf| Ok((shown(path), source(zip::open(path, options)?, SourceKind::Zip)));
        let mut sources = paths.iter().map(open).collect::<Result<Vec<_>, DataError>>()?;
        Ok(if sources.len() == 1 { sources.swap_remove(0).1 } else { several(sources) })
    };
    let mut whole = open(&parts.train)?;
    let is_labelled = |source: &Source| !source.train.classes().is_empty();
    if let Some(test) = parts.open_test(|| is_labelled(&whole), is_labelled, open, &mut left_out)? {
        let classes = match test.train.classes() {
            [] => Vec::new(),
            own => with_others(whole.train.classes(), own),
        };
        left_out.extend(test.left_out);
        whole.test = Some(Arc::new(Concat::new(vec![(String::new(), test.train)], classes)));
    }
    whole.left_out.extend(left_out);
    Ok(whole)
}

/// Several data sets as one.
fn several(sources: Vec<(String, Source)>) -> Source {
    let prefix = |path: &str| format!("{}/", path.trim_end_matches('/'));
    let before = |path: &str, source: &Source| match source.kind {
        // They are called by their whole paths.
        SourceKind::Images => String::new(),
        _ => prefix(path),
    };
    let part = |of: fn(&Source) -> Option<Arc<dyn Dataset>>| -> Vec<(String, Arc<dyn Dataset>)> {
        sources.iter().filter_map(|(path, source)| Some((before(path, source), of(source)?))).collect()
    };
    let train = part(|source| Some(source.train.clone()));
    let (test, unlabelled) = (part(|source| source.test.clone()), part(|source| source.unlabelled.clone()));
    let classes_of =
        |sets: &[(String, Arc<dyn Dataset>)]| Concat::classes_of(sets.iter().map(|(_, set)| set.classes()));
    let classes = classes_of(&train);
    let of_test = with_others(&classes, &classes_of(&test));
    let mut left_out = LeftOut::default();
    for (path, source) in &sources {
        let mut own = source.left_out.clone();
        // Archives given directly go by the path of one of them; the names of those that are broken or doubtful are
        // relative to its folder.
        let place = Path::new(path);
        let beside =
            place.parent().filter(|_| !place.is_dir()).map(|parent| parent.join("").display().to_string());
        let before = beside.unwrap_or_else(|| prefix(path));
        own.broken.iter_mut().chain(&mut own.doubtful).for_each(|file| file.name.insert_str(0, &before));
        own.files.iter_mut().for_each(|file| file.name.insert_str(0, &prefix(path)));
        own.outside = own.outside.iter().map(|place| prefix(path) + place).collect();
        left_out.extend(own);
    }
    let joined = |sets: Vec<(String, Arc<dyn Dataset>)>, classes: &[String]| -> Option<Arc<dyn Dataset>> {
        (!sets.is_empty()).then(|| Arc::new(Concat::new(sets, classes.to_vec())) as Arc<dyn Dataset>)
    };
    let archives = sources.iter().any(|(_, source)| source.kind.is_of_archives());
    let kind = SourceKind::Several { sets: sources.len(), archives };
    let unlabelled = joined(unlabelled, &classes);
    let test = joined(test, &of_test);
    let train: Arc<dyn Dataset> = Arc::new(Concat::new(train, classes));
    Source { train, test, unlabelled, kind, left_out }
}

fn open_stl10(files: &stl10::Files, options: DecodeOptions) -> Result<Source, DataError> {
    let open = |images: &PathBuf, part| -> Result<Arc<dyn Dataset>, DataError> {
        Ok(Arc::new(stl10::open(images, part, options.shrink)?))
    };
    let train = files.train.as_ref().map(|path| open(path, "train")).transpose()?;
    let test = files.test.as_ref().map(|path| open(path, "test")).transpose()?;
    let unlabelled = files.unlabelled.as_ref().map(|path| open(path, "unlabelled")).transpose()?;
    // The first part that exists serves as the training part.
    let (train, test, unlabelled) = match (train, test, unlabelled) {
        (Some(train), test, unlabelled) => (train, test, unlabelled),
        (None, test, Some(unlabelled)) => (unlabelled, test, None),
        (None, Some(test), None) => (test, None, None),
        (None, None, None) => return Err(DataError::NoLabels),
    };
    Ok(Source { train, test, unlabelled, kind: SourceKind::Stl10, left_out: LeftOut::default() })
}

fn open_cifar(folder: &Path, files: &cifar::Files, options: DecodeOptions) -> Result<Source, DataError> {
    let variant = files.variant;
    let classes = variant.class_names(folder)?;
    let train = cifar::load(&files.train, variant, classes.clone(), "train", options.shrink)?;
    let test: Option<Arc<dyn Dataset>> = match &files.test[..] {
        [] => None,
        files => Some(Arc::new(cifar::load(files, variant, classes, "test", options.shrink)?)),
    };
    let kind = match variant {
        Variant::Cifar10 => SourceKind::Cifar10,
        Variant::Cifar100 => SourceKind::Cifar100,
    };
    Ok(Source { train: Arc::new(train), test, unlabelled: None, kind, left_out: LeftOut::default() })
}

fn open_idx(
    train: &idx::Pair,
    test: Option<&idx::Pair>,
    options: DecodeOptions,
) -> Result<Source, DataError> {
    let mut train = train.load("train", options)?;
    let mut test = test.map(|pair| pair.load("test", options)).transpose()?;
    if let Some(test) = &mut test {
        idx::share_classes(&mut train, test);
    }
    let test = test.map(|set| Arc::new(set) as Arc<dyn Dataset>);
    Ok(Source {
        train: Arc::new(train),
        test,
        unlabelled: None,
        kind: SourceKind::Idx,
        left_out: LeftOut::default(),
    })
}
