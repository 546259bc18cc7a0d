//! `simclr views`: look at the augmentations before spending a day on them.

mod matrix;

use std::path::PathBuf;

use anyhow::{Error, Result};
use clap::Args;
use simclr_augment::{ImageRef, Scratch, Stream, ViewFamily};
use simclr_data::{Dataset, DecodeScratch, permutation};
use simclr_train::pretrain::RunViews;

use crate::data::{self, Opening};
use crate::exit::Done;
use crate::settings::{Settings, Threads, from_to, no_effect};
use crate::sheet::canvas::written;
use crate::sheet::grid::{self, Cell, Row};
use crate::sheet::{self, check_out, picture};
use crate::{out, terminal};

const LEGEND: &str = "crop: part of the area   aspect: width / height   hue: turns   blur: sigma in pixels";
/// Names of the two views, where they are not drawn alike, as the configuration has them.
const BRANCHES: [&str; 2] = ["view a", "view b"];

/// Draw images and their views as a PNG, with what was done to each
#[derive(Args, Debug)]
pub struct Views {
    /// The images, as for pretrain
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// The .png file to write
    #[arg(long, value_name = "PNG")]
    out: PathBuf,

    /// Number of images to show
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = from_to(1_u8, 100))]
    images: u8,

    /// Number of views of each
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = from_to(1_u8, 32))]
    views: u8,

    /// Draw the paper's table of compositions (figure 5) instead: every pair of operators, on one image
    #[arg(long, conflicts_with_all = ["images", "views"])]
    matrix: bool,

    #[command(flatten)]
    settings: Settings,
}

impl Views {
    pub fn run(self) -> Result<Done> {
        check_out(&self.out, &self.data)?;
        let decoding = self.settings.data()?;
        let source = Opening::new(&decoding, 0).open(&self.data)?;
        out::check_no_image(&self.out, &source, &self.data)?;
        data::look_at(&*source.train, decoding.window)?;
        let config = self.settings.resolve(&source, Threads::default())?;
        let size = config.data.image_size;
        let dataset = source.train.as_ref();
        let RunViews { families, left_out } = RunViews::new(&config, dataset)?;
        if self.matrix {
            for key in self.settings.given()?.iter().filter(|key| key.starts_with("view.")) {
                terminal::warn(&no_effect(key, "--matrix, whose operators have their own strengths"));
            }
        } else {
            self.settings.warn_of_idle(&config)?;
            data::say_left_out(&left_out);
        }
        let seed = config.train.seed;
        let alike = config.view.a == config.view.b;

        let wanted = if self.matrix { 1 } else { usize::from(self.images) };
        let mut scratch = DecodeScratch::default();
        let (mut rows, mut table) = (Vec::new(), None);
        for index in permutation(dataset.len(), seed, 0) {
            if rows.len() + usize::from(table.is_some()) == wanted {
                break;
            }
            match dataset.read(index as usize, &mut scratch) {
                Ok(image) if self.matrix => table = Some(matrix::draw(image, index, size, seed)?),
                Ok(image) => rows.push(self.row(dataset, index, image, (&families, alike), seed)?),
                Err(error) if decoding.strict => {
                    let data = data::shown(&self.data);
                    return Err(Error::from(error)
                        .context(format!("an image of {data} cannot be read (data.strict)")));
                }
                Err(error) => terminal::warn(&format!("passed over {error}")),
            }
        }
        let what = match &table {
            Some(_) => format!("operators by operators, views of {size} x {size} pixels"),
            None => format!(
                "{}, {} of {size} x {size} pixels each",
                terminal::counted(rows.len(), "image"),
                terminal::counted(self.views.into(), "view")
            ),
        };
        sheet::save(&table.unwrap_or_else(|| grid::draw(&rows, size, LEGEND)), &self.out)?;
        terminal::say(&format!("{}: {what}", self.out.display()));
        Ok(Done::Finished)
    }

    fn row(
        &self,
        dataset: &dyn Dataset,
        index: u32,
        image: ImageRef<'_>,
        (families, alike): (&[ViewFamily; 2], bool),
        seed: u64,
    ) -> Result<Row> {
        let mut scratch = Scratch::default();
        let view = |number: u64| {
            // As in training: an epoch draws two views.
            let mut stream = Stream::new(seed, number / 2, index.into(), number % 2);
            let branch = (number % 2) as usize;
            let family = &families[branch];
            let recipe = family.draw(image.width, image.height, &mut stream);
            let mut pixels = vec![0; family.view_len()];
            family.apply(image, &recipe, &mut scratch, &mut pixels);
            let name = (!alike).then(|| BRANCHES[branch].to_owned());
            let lines = name.into_iter().chain(recipe.describe()).collect();
            Ok(Cell { picture: picture(family.size(), family.size(), pixels)?, lines })
        };
        let views = (0..u64::from(self.views)).map(view).collect::<Result<_>>()?;
        let size = format!("{} x {}", image.width, image.height);
        let original = picture(image.width, image.height, image.pixels.to_vec())?;
        Ok(Row {
            head: Some(Cell {
                picture: original,
                lines: vec![written(&dataset.name(index as usize), "image", index), size],
            }),
            cells: views,
        })
    }
}
