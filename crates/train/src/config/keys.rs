//! Every configuration key: what it means and what it accepts. Checks, suggestions and help are read from this table.

use simclr_nn::ResNetSpec;

use super::kind::{Kind, Range};
use Kind::{Color, Flag, Interval, Number, NumberOrAuto, Operators, Whole, WholeOrAuto, Word};

/// A configuration key.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Key {
    /// The dotted path, `table.key`.
    pub path: &'static str,
    /// What is accepted.
    pub kind: Kind,
    /// One line on what it means, with its unit.
    pub doc: &'static str,
    /// Other programs' names for it, for suggestions.
    pub(super) also: &'static [&'static str],
    /// Whether it may differ when a run is resumed: it does not change what the run computes.
    pub changes_nothing: bool,
}

impl Key {
    /// The table's name and the key's name in it.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').unwrap_or((self.path, ""))
    }

    const fn also(mut self, names: &'static [&'static str]) -> Self {
        self.also = names;
        self
    }

    const fn changes_nothing(mut self) -> Self {
        self.changes_nothing = true;
        self
    }
}

const fn key(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, doc, also: &[], changes_nothing: false }
}

const MANY: u64 = i64::MAX as u64;
const PROBABILITY: Kind = Number(Range::between(0.0, 1.0));
const POSITIVE: Range = Range::above(0.0, f64::INFINITY);
const NOT_NEGATIVE: Range = Range::between(0.0, f64::INFINITY);

/// All keys, table by table, in the order in which they are written.
pub const KEYS: &[Key] = &[
    key("data.image_size", Whole(8, 1024), "side of a view in pixels").also(&[
        "size",
        "img_size",
        "resolution",
    ]),
    key(
        "data.holdout",
        Whole(0, MANY),
        "images kept out of training for the health figures, at most a tenth of all; 0: no figures",
    ),
    key("data.workers", WholeOrAuto(1, 1024), "threads that decode and augment; auto: one per processor")
        .also(&["num_workers"])
        .changes_nothing(),
    key(
        "data.cache",
        Word(&["auto", "none", "ram", "disk"]),
        "where decoded images are kept: in memory (ram), in a file of the run folder (disk); auto: in memory, where there is room",
    )
    .changes_nothing(),
    key(
        "data.cache_limit",
        NumberOrAuto(POSITIVE),
        "the most that is kept, in GiB; auto: all for ram, 20 for disk, a quarter of the free memory for auto",
    )
    .also(&["cache_size", "cache_gb"])
    .changes_nothing(),
    key(
        "data.views_on",
        Word(&["auto", "cpu", "gpu"]),
        "where views are made in pretraining; auto: where the network is computed, on a GPU if that has their operators",
    )
    .changes_nothing(),
    key(
        "data.shrink",
        Whole(0, 65_535),
        "shrink images whose shorter side has more pixels to so many, before all else; 0: none",
    ),
    key("data.background", Color, "colour that transparent pixels are laid over, 8-bit RGB"),
    key(
        "data.window",
        Kind::Window,
        "stored values of 16-bit and of grey images that become black and white: all that the depth can store (full), \
         the range of each image (image), or two values",
    ),
    key("data.strict", Flag, "stop at the first image that cannot be read, instead of passing over it")
        .changes_nothing(),
    key(
        "view.crop_area",
        Interval(Range::above(0.0, 1.0)),
        "area of the random crop, as a fraction of the image's",
    )
    .also(&["scale"]),
    key("view.crop_aspect", Interval(Range::between(0.01, 100.0)), "width / height of the random crop")
        .also(&["ratio"]),
    key(
        "view.crop_aspect_law",
        Word(&["uniform", "log_uniform"]),
        "how the aspect ratio is drawn: uniform as in the official code, log_uniform as in torchvision",
    ),
    key("view.flip", PROBABILITY, "probability of a horizontal flip").also(&["hflip"]),
    key("view.color_strength", Number(Range::between(0.0, 2.5)), "strength s of the colour jitter; 0: none")
        .also(&["jitter", "color_jitter_strength"]),
    key("view.color_prob", PROBABILITY, "probability of the colour jitter"),
    key("view.gray_prob", PROBABILITY, "probability of greyscale"),
    key(
        "view.blur_prob",
        NumberOrAuto(Range::between(0.0, 1.0)),
        "probability of Gaussian blur; auto: 0.5 above 64 pixels, else 0",
    ),
    key("view.blur_sigma", Interval(Range::above(0.0, 1000.0)), "standard deviation of the blur in pixels"),
    key(
        "view.blur_padding",
        Word(&["zero", "reflect"]),
        "what the blur sees beyond the border: black as in the official code, or the view mirrored as in torchvision",
    ),
    key(
        "view.brightness",
        Word(&["multiplicative", "additive"]),
        "how brightness acts: multiplicative as in the official code's v2, additive as in its v1",
    ),
    key(
        "view.preset",
        Word(&["none", "simclr", "simclr-v1", "crop-only", "supervised"]),
        "a list of operators by name, in place of the keys above; none: the keys above",
    ),
    key(
        "view.a",
        Operators,
        "the operators of the first branch, in place of the preset or of the keys above: tables [[view.a]]",
    ),
    key("view.b", Operators, "the operators of the second branch: tables [[view.b]]"),
    key(
        "encoder.name",
        Word(&["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"]),
        "the residual network",
    )
    .also(&["arch", "model", "backbone", "depth"]),
    key(
        "encoder.width",
        Number(Range::between(*ResNetSpec::WIDTHS.start(), *ResNetSpec::WIDTHS.end())),
        "multiplies every stage's channels; 1 is 64 in the first",
    ),
    key(
        "encoder.stem",
        Word(&["auto", "imagenet", "small"]),
        "imagenet: 7 x 7 stride 2 and max pool; small: 3 x 3 stride 1; auto: small up to 32 pixels",
    ),
    key(
        "encoder.variant",
        Word(&["auto", "standard", "d"]),
        "d: ResNet-D, three convolutions of 3 x 3 in the imagenet stem, shortcuts that average 2 x 2 pixels where they halve; auto: d with selective kernels, else standard",
    ),
    key(
        "encoder.selective_kernels",
        Number(Range::between(0.0, 1.0)),
        "0: none; above: SimCLR v2's, two streams of 3 x 3 in bottleneck blocks, mixed by a gate that squeezes channels to this share (at least 32); the paper: 0.0625",
    )
    .also(&["sk_ratio", "sk"]),
    key(
        "encoder.shortcut",
        Word(&["auto", "projection"]),
        "auto: projection where the shape changes; projection: in the first block of every stage",
    ),
    key(
        "encoder.pool_padding",
        Word(&["all", "same"]),
        "of the max pool behind the first convolutions. all: a pixel on every side, as in torchvision; same: TensorFlow's, images of even size get one at the right and below alone, as in the official code; of a ResNet-D's averages too, where all is timm's",
    ),
    key(
        "encoder.normalize",
        Word(&["none", "imagenet"]),
        "none: images go into the network as they are, from 0 to 1; imagenet: less ImageNet's mean, divided by its deviation, as torchvision's pretrained networks expect",
    )
    .also(&["mean", "std"]),
    key("head.kind", Word(&["none", "linear", "nonlinear"]), "the projection head"),
    key("head.layers", Whole(2, 8), "dense layers of a nonlinear head"),
    key(
        "head.hidden",
        WholeOrAuto(1, 65536),
        "width of a nonlinear head's hidden layers; auto: that of the encoder",
    )
    .also(&["hidden_dim"]),
    key("head.dim", Whole(1, 65536), "size of the head's output z").also(&["out", "proj_dim", "output_dim"]),
    key("head.batch_norm", Flag, "BatchNorm after every dense layer of the head; false: plain biases"),
    key(
        "loss.name",
        Word(&["nt_xent", "nt_logistic", "margin_triplet"]),
        "the contrastive loss; the other two are those that the paper compares with nt_xent (its tables 2 and 4); the loss of held-out images is that of nt_xent in each run",
    ),
    key(
        "loss.mining",
        Word(&["none", "semi_hard"]),
        "none: all negatives count; semi_hard: of each anchor's the most similar that is less so than the positive, nt_logistic and margin_triplet only",
    ),
    key(
        "loss.temperature",
        Number(POSITIVE),
        "tau, divides the similarities; of margin_triplet in the entropy and the held-out loss of the log alone",
    )
    .also(&["tau", "temp"]),
    key(
        "loss.margin",
        Number(Range::between(0.0, 1000.0)),
        "margin_triplet: by how much a positive is to be more similar than a negative; the paper tries 0, 0.4, 0.8 and 1.6",
    ),
    key("loss.normalize", Flag, "bring z to unit length before the similarities"),
    key("optim.name", Word(&["lars", "sgd", "adamw"]), "the optimiser").also(&["optimizer", "optimiser"]),
    key("optim.rate", Number(POSITIVE), "learning rate before scaling with the batch").also(&[
        "lr",
        "learning_rate",
        "base_lr",
    ]),
    key(
        "optim.scaling",
        Word(&["none", "linear", "sqrt"]),
        "peak rate: none = rate, linear = rate x batch / 256, sqrt = rate x sqrt(batch)",
    )
    .also(&["learning_rate_scaling"]),
    key(
        "optim.momentum",
        Number(Range::between(0.0, 0.9999)),
        "momentum of LARS and SGD, first beta of AdamW",
    ),
    key("optim.nesterov", Flag, "Nesterov momentum, SGD only"),
    key("optim.weight_decay", Number(NOT_NEGATIVE), "weight decay, not on biases and BatchNorm parameters")
        .also(&["wd", "decay", "l2"]),
    key("optim.trust_coefficient", Number(POSITIVE), "LARS: update length as a fraction of the weights'")
        .also(&["eta"]),
    key(
        "optim.beta2",
        Number(Range::between(0.0, 0.999999)),
        "AdamW: decay of the squared gradients' average",
    ),
    key("optim.epsilon", Number(POSITIVE), "AdamW: added to the square root in the denominator"),
    key("optim.warmup_epochs", Number(NOT_NEGATIVE), "epochs over which the rate rises from 0 to its peak")
        .also(&["warmup"]),
    key("optim.schedule", Word(&["cosine", "constant"]), "the rate after warm-up: cosine to 0, or constant"),
    key("train.batch", Whole(2, 1 << 20), "images per step; each gives two views")
        .also(&["batch_size", "bs"]),
    key("train.epochs", Whole(1, 1 << 30), "times that each image is seen"),
    key("train.precision", Word(&["auto", "f32", "bf16", "fp16", "tf32"]), "how the encoder keeps activations; fp16: on a GPU only, with dynamic loss scaling; tf32: on a GPU only, f32 with faster products; auto: bf16 on a GPU, and where the processor multiplies it (AVX512_BF16), else f32")
        .also(&["dtype", "amp"]),
    key("train.deterministic", Flag, "the same seed gives the same bits; false: a GPU may use sums and algorithms whose rounding differs from run to run, which is faster, in fp16 above all"),
    key(
        "train.memory",
        Word(&["auto", "full", "blocks"]),
        "full: keep every activation; blocks: keep one per residual block and compute the rest again; auto: full if it fits",
    )
    .also(&["checkpointing"])
    .changes_nothing(),
    key("train.from", Kind::Run, "the run, trained or imported, whose encoder is trained on, and its head where it is like this one: [encoder] and data.image_size are then as there; none: random weights")
        .also(&["init", "pretrained", "weights", "initial_checkpoint"]),
    key("train.seed", Whole(0, MANY), "seed of weights, order and views"),
    key("train.device", Kind::Device, "what computes the network: cpu, or an NVIDIA GPU; auto: the first GPU where one works")
        .changes_nothing(),
    key("train.threads", WholeOrAuto(1, 1024), "threads of the network; auto: one per processor")
        .changes_nothing(),
    key(
        "train.checkpoint_every",
        WholeOrAuto(1, MANY),
        "steps between checkpoints; auto: at the ends of epochs, but no oftener than once a minute, and every half hour in longer ones",
    )
    .also(&["save_every", "save_freq"])
    .changes_nothing(),
    key("train.keep_checkpoints", Whole(1, 1 << 20), "newest checkpoints kept, beside the best one")
        .changes_nothing(),
    key(
        "train.log_every",
        WholeOrAuto(1, MANY),
        "steps between lines of the metrics log; auto: 1, on a GPU 10, which waits for each line",
    )
    .changes_nothing(),
    key(
        "train.health_every",
        Whole(0, MANY),
        "epochs between health figures on the held-out images; 0: never",
    ),
    key("train.knn_every", Whole(0, MANY), "epochs between kNN accuracies, where there are labels; 0: never"),
];

/// The key of a dotted path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether a table of this name exists.
pub(super) fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.split().0 == name)
}

/// What to say about a path that no key has.
pub(super) fn hint(path: &str) -> String {
    let word = path.to_lowercase();
    let last = word.rsplit('.').next().unwrap_or_default();
    let alias = KEYS.iter().find(|key| key.also.contains(&last) || key.split().1 == last);
    let near = alias.map(|key| key.path).or_else(|| {
        // A misspelt key of the right table is likelier than a like-sounding key of another one.
        let table = path.split_once('.').map(|(table, _)| table).filter(|table| is_table(table));
        let known = KEYS.iter().filter(|key| table.is_none_or(|table| key.split().0 == table));
        super::nearest::nearest(path, known.map(|key| key.path))
            .or_else(|| super::nearest::nearest(path, KEYS.iter().map(|key| key.path)))
    });
    match (near, path.split_once('.')) {
        // Every path of a table shares its start, so a bare likeness of whole paths proves nothing.
        (Some(near), _) if alias.is_some() || alike(path, near) => format!("did you mean `{near}`?"),
        (_, Some((table, _))) if is_table(table) => {
            let names: Vec<_> = KEYS.iter().map(Key::split).filter(|k| k.0 == table).map(|k| k.1).collect();
            format!("[{table}] has {}", names.join(", "))
        }
        _ => {
            let mut tables: Vec<_> = KEYS.iter().map(|key| key.split().0).collect();
            tables.dedup();
            let top = path.split('.').next().unwrap_or_default();
            match super::nearest::nearest(top, tables.iter().copied()) {
                Some(table) => format!("did you mean the table [{table}]?"),
                None => format!("the tables are {}", tables.join(", ")),
            }
        }
    }
}

fn alike(path: &str, near: &str) -> bool {
    let last = |p: &str| p.rsplit('.').next().unwrap_or_default().to_owned();
    super::nearest::nearest(&last(path), [last(near).as_str()]).is_some()
}
