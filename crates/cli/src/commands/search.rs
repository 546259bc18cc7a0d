//! `simclr search`: the images most similar to a given one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use simclr_data::{Dataset, DecodeScratch, Decoded, not_a_file};
use simclr_eval::embedding::{Image, Images, Split, StoredFeatures};
use simclr_eval::protocols::TrainedEncoder;
use simclr_eval::search::{Neighbour, Queries, SearchResults, search, search_stored};

use crate::encoding::{Encoding, open_for, warn_of_broken};
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::{Done, usage};
use crate::settings::{at_least_one, part};
use crate::sheet::canvas::{LETTER, written};
use crate::sheet::grid::{self, Cell, Row, fitted, shortened};
use crate::sheet::{self, picture};
use crate::{data, out, terminal};

const EXAMPLES: &str = "\
Examples:
  simclr search runs/first photos/ --query cat.jpg
  simclr search runs/first photos/ --query cat.jpg \\
      --query dog.jpg --k 20 --out neighbours.png
  simclr search runs/first --features features.parquet --query cat.jpg

features.parquet comes from `simclr embed runs/first photos/ --out features.parquet`, once for many searches.";

/// Side of the pictures of a sheet in pixels.
const SIDE: u32 = 128;
/// The most queries that a sheet shows, and the most neighbours of each.
const ROWS: usize = 100;
const SHOWN: usize = 100;
/// The neighbours in a row; more go on in the next.
const COLUMNS: usize = 10;
/// What a sheet shows; `class` where the images found have one.
const LEGENDS: [&str; 2] = [
    "first the image searched for; below the others: cosine similarity, name",
    "first the image searched for; below the others: cosine similarity, class, name",
];

/// Find the images most similar to a given one, by the encoder's features
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", data::FORMS))]
pub struct Search {
    /// The run folder
    run: PathBuf,

    /// The images to search, unless --features is given; several are read as one; train/ and test/ are both searched
    data: Vec<PathBuf>,

    /// Search these features, a .parquet file that `simclr embed` wrote with this encoder, so that
    /// no image but the query goes through it again; only --out then needs DATA
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,

    /// The image to search for; may be repeated
    #[arg(long = "query", value_name = "IMAGE", required = true)]
    queries: Vec<PathBuf>,

    /// Number of images to find
    #[arg(long, value_name = "N", default_value = "10", value_parser = at_least_one::<usize>)]
    k: usize,

    /// Search only this part of the images: train, test or unlabelled
    #[arg(long, value_name = "PART", value_parser = part(), hide_possible_values = true)]
    split: Option<Split>,

    /// Draw the images found, at most the nearest 100, into this .png file
    #[arg(long, value_name = "PNG")]
    out: Option<PathBuf>,

    #[command(flatten)]
    encoding: Encoding,
}

impl Search {
    pub fn run(self) -> Result<Done> {
        self.check()?;
        let encoder = self.encoding.load_beside(&self.run, &self.data)?;
        let base = self.base(&encoder)?;
        let decode = encoder.config.data.decode();
        let queries: Arc<dyn Dataset> = Arc::new(Queries { files: self.queries.clone(), decode });
        let reading = self.encoding.reading(&encoder);

        let start = Instant::now();
        let found = match &base {
            Base::Images(images) => {
                let count = images.dataset().len();
                let mut progress = EvaluationProgress::default();
                search(&encoder.model, &queries, images, self.k, reading, &mut |done| {
                    progress.embedding(done, count);
                })?
            }
            Base::Features { stored, .. } => {
                search_stored(&encoder.model, &queries, (stored, self.split), self.k, reading)?
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        warn_of_broken(&found.broken, "cannot be found");
        if self.encoding.json {
            terminal::print_json(&self.object(&base, &found, seconds))?;
        } else {
            self.tell(&base, &found)?;
        }
        if let Some(out) = &self.out {
            sheet::save(&drawn(queries.as_ref(), &base, &found)?, out)?;
            terminal::say(&format!("neighbours: {}", out.display()));
        }
        Ok(Done::Finished)
    }

    /// Opens the images or features to search.
    fn base(&self, encoder: &TrainedEncoder) -> Result<Base> {
        let opened = || -> Result<Images> {
            let source = open_for(encoder, &self.data, self.encoding.is_strict(encoder))?;
            if let Some(out) = &self.out {
                out::check_no_image(out, &source, &self.data)?;
            }
            Ok(Images::of(&source, self.split)?)
        };
        let Some(file) = &self.features else { return Ok(Base::Images(opened()?)) };
        let stored = Box::new(StoredFeatures::open(file, &encoder.model, encoder.step)?);
        let images = (!self.data.is_empty()).then(opened).transpose()?;
        Ok(Base::Features { stored, images })
    }

    /// Rejects arguments that cannot work together, before anything is loaded.
    fn check(&self) -> Result<()> {
        if let Some((query, found)) = self.queries.iter().find_map(|query| Some((query, not_a_file(query)?)))
        {
            return Err(usage(format!("--query {}: {found}; give an image", query.display())));
        }
        match (&self.features, &self.out) {
            (None, _) if self.data.is_empty() => {
                return Err(usage(format!(
                    "nothing to search: give DATA, the images, or --features FILE.parquet, their features, which are written \
                     by: simclr embed {} DATA --out FILE.parquet",
                    terminal::quoted_path(&self.run)
                )));
            }
            (Some(_), Some(_)) if self.data.is_empty() => {
                return Err(usage("--out draws the images that are found; give DATA too"));
            }
            (Some(file), None) if !self.data.is_empty() => {
                let file = file.display();
                return Err(usage(format!(
                    "DATA is not searched beside --features {file}, and only --out needs it; leave one out"
                )));
            }
            _ => {}
        }
        let Some(out) = &self.out else { return Ok(()) };
        if self.queries.len() > ROWS {
            let queries = self.queries.len();
            return Err(usage(format!(
                "--out shows at most {ROWS} images searched for, and {queries} are given"
            )));
        }
        sheet::check_out(out, &[&self.data[..], &self.queries].concat())
    }

    fn tell(&self, base: &Base, found: &SearchResults) -> Result<()> {
        for (query, neighbours) in self.queries.iter().zip(&found.neighbours) {
            if self.queries.len() > 1 {
                terminal::print(&terminal::inert(&format!("{}:", query.display())))?;
            }
            for (rank, Neighbour { image, similarity }) in (1..).zip(neighbours) {
                let image = base.image(*image);
                let class = image.class.map_or(String::new(), |class| format!("  ({class})"));
                let line = format!("{rank:>4}  {similarity:>7.4}  {}{class}", image.place());
                terminal::print(&terminal::inert(&line))?;
            }
        }
        Ok(())
    }

    fn object(&self, base: &Base, found: &SearchResults, seconds: f64) -> Value {
        let neighbour = |(rank, Neighbour { image, similarity }): (usize, &Neighbour)| {
            let Image { name, split, label, class } = base.image(*image);
            json!({
                "rank": rank, "similarity": similarity, "name": name, "split": split, "label": label, "class": class,
            })
        };
        let queries = self.queries.iter().zip(&found.neighbours).map(|(query, neighbours)| {
            let neighbours: Vec<Value> = (1..).zip(neighbours).map(neighbour).collect();
            json!({ "query": query.to_string_lossy(), "neighbours": neighbours })
        });
        json!({
            "queries": queries.collect::<Vec<_>>(),
            "images": found.images,
            "skipped": found.broken.len(),
            "broken": found.broken,
            "seconds": seconds,
            "out": self.out.as_ref().map(|out| out.to_string_lossy()),
        })
    }
}

/// What to search.
enum Base {
    Images(Images),
    /// With the images that the features were computed from, if they are to be drawn.
    Features {
        stored: Box<StoredFeatures>,
        images: Option<Images>,
    },
}

impl Base {
    /// Describes an image.
    fn image(&self, number: u32) -> Image<'_> {
        match self {
            Base::Images(images) => images.image(number),
            Base::Features { stored, .. } => stored.image(number),
        }
    }

    /// The data set to read the images found from, and the index in it of each of them.
    fn pictures(&self, found: &SearchResults) -> Result<(&dyn Dataset, HashMap<u32, usize>)> {
        let numbers = found.neighbours.iter().flatten().map(|neighbour| neighbour.image);
        match self {
            Base::Images(images) => {
                Ok((images.dataset().as_ref(), numbers.map(|number| (number, number as usize)).collect()))
            }
            Base::Features { stored, images } => {
                let images = images.as_ref().ok_or_else(|| usage("--out needs DATA"))?;
                // A list may name an image twice, and an archive may hold two images of the same name.
                let mut wanted: HashMap<String, Vec<u32>> = HashMap::new();
                for number in numbers {
                    wanted.entry(stored.image(number).place()).or_default().push(number);
                }
                let mut places = HashMap::new();
                for image in 0..images.dataset().len() {
                    let of_this = wanted.remove(&images.image(image as u32).place()).unwrap_or_default();
                    places.extend(of_this.into_iter().map(|number| (number, image)));
                }
                match wanted.keys().min() {
                    Some(place) => Err(usage(format!(
                        "{place} was found, and is not among the images of DATA; give those that the features are of"
                    ))),
                    None => Ok((images.dataset().as_ref(), places)),
                }
            }
        }
    }
}

/// Draws a sheet with a row, or several, for each query: the query, and beside it the images found.
fn drawn(queries: &dyn Dataset, base: &Base, found: &SearchResults) -> Result<image::RgbImage> {
    let (pictures, places) = base.pictures(found)?;
    let mut scratch = DecodeScratch::default();
    let mut rows = Vec::new();
    for (query, neighbours) in found.neighbours.iter().enumerate() {
        let name = queries.name(query);
        let name = Path::new(&name).file_name().unwrap_or_default();
        let head = cell(
            queries.read(query, &mut scratch)?,
            vec![written(&name.to_string_lossy(), "query", query as u32 + 1)],
        )?;
        let cells = neighbours.iter().take(SHOWN).map(|Neighbour { image, similarity }| {
            let shown = base.image(*image);
            let class = shown.class.zip(shown.label).map(|(class, label)| written(class, "class", label));
            let name = written(&shown.name, "image", *image);
            let words = [Some(format!("{similarity:.4}")), class, Some(name)];
            cell(pictures.read(places[image], &mut scratch)?, words.into_iter().flatten().collect())
        });
        let mut cells: Vec<Cell> = cells.collect::<Result<_>>()?;
        let rest = cells.split_off(cells.len().min(COLUMNS));
        rows.push(Row { head: Some(head), cells });
        let mut rest = rest.into_iter().peekable();
        while rest.peek().is_some() {
            rows.push(Row { head: None, cells: rest.by_ref().take(COLUMNS).collect() });
        }
    }
    let has_class = |neighbour: &Neighbour| base.image(neighbour.image).class.is_some();
    let any_class = found.neighbours.iter().flatten().any(has_class);
    Ok(grid::draw(&rows, SIDE, LEGENDS[usize::from(any_class)]))
}

fn cell(image: Decoded<'_>, words: Vec<String>) -> Result<Cell> {
    let whole = picture(image.width, image.height, image.pixels.to_vec())?;
    let lines = words.iter().map(|words| shortened(words, SIDE as usize / LETTER)).collect();
    Ok(Cell { picture: fitted(&whole, SIDE), lines })
}
