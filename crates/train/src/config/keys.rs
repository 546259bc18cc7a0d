//! Every configuration key: what it means and what it accepts. Checks, suggestions and help use this table.

use simclr_augment::{AspectLaw, BlurPadding, Brightness, ViewPreset};
use simclr_nn::{Depth, Memory, PoolPadding, ResNetSpec, Stem, Variant};

use super::kind::{Kind, Range};
use super::tables::{
    Cache, HeadKind, LossName, Mining, Normalize, OptimizerName, Precision, Scaling, ScheduleKind, Shortcut,
    ViewsOn,
};
use Kind::{
    Color, Flag, Interval, IntervalOrAuto, Number, NumberOrAuto, Operators, Whole, WholeOrAuto, Word,
    WordOrAuto,
};

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
    /// Whether the key may differ when a run is resumed, because it does not change what the run computes.
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
pub(super) const ASPECT_LAW: Kind = Word(AspectLaw::WORDS);
pub(super) const BLUR_PADDING: Kind = Word(BlurPadding::WORDS);
pub(super) const BRIGHTNESS: Kind = Word(Brightness::WORDS);
const PROBABILITY: Kind = Number(Range::between(0.0, 1.0));
const POSITIVE: Range = Range::above(0.0, f64::INFINITY);
const NOT_NEGATIVE: Range = Range::between(0.0, f64::INFINITY);

/// All keys, table by table, in the order in which configurations are written.
pub const KEYS: &[Key] = &[
    key("data.image_size", Whole(8, 1024), "side of a view in pixels").also(&[
        "size",
        "img_size",
        "resolution",
    ]),
    key(
        "data.holdout",
        Whole(0, MANY),
        "images held out of training for the health figures, at most a tenth of all; none if that is fewer than 8; 0: no health figures",
    ),
    key("data.workers", WholeOrAuto(1, 1024), "threads that decode and augment; auto: as many as train.threads")
        .also(&["num_workers"])
        .changes_nothing(),
    key(
        "data.cache",
        Word(Cache::WORDS),
        "where decoded images are kept: in memory (ram), in a file in the run folder (disk), or nowhere (none); auto: in memory, as far as there is room",
    )
    .changes_nothing(),
    key(
        "data.cache_limit",
        NumberOrAuto(POSITIVE),
        "the most that is kept, in GiB; auto: no limit for ram, 20 for disk, a quarter of the free memory for auto",
    )
    .also(&["cache_size", "cache_gb"])
    .changes_nothing(),
    key(
        "data.views_on",
        Word(ViewsOn::WORDS),
        "where views are made in pretraining; auto: on the GPU that computes the network, if it has their operators and the images of two batches take no more than an eighth of its memory, those of five no more than a quarter of the system's, else on the CPU",
    )
    .changes_nothing(),
    key(
        "data.shrink",
        Whole(0, 65_535),
        "images whose shorter side is longer than this, in pixels, are first shrunk to it; 0: never",
    ),
    key("data.background", Color, "colour behind transparent pixels, 8-bit RGB"),
    key(
        "data.window",
        Kind::Window,
        "stored values of 16-bit and of grey images that become black and white: the full range of the bit depth (full), \
         the range of each image without the darkest and the brightest 0.1% of its values, rounded, unless all others \
         are the same (image), or two values (of PNM with a maximum above 1 as it stores them; of other grey \
         images of fewer than 8 bits as scaled to 8)",
    ),
    key("data.strict", Flag, "stop at the first image that cannot be read, instead of skipping it")
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
        ASPECT_LAW,
        "distribution of the aspect ratio: uniform as in the official code, log_uniform as in torchvision",
    ),
    key(
        "view.shared_crop",
        IntervalOrAuto(Range::above(0.0, 1.0)),
        "area of a random crop that both views share, before their own, for studies of one operator at a time; auto: none",
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
        BLUR_PADDING,
        "what the blur sees beyond the border: black (zero), as in the official code, or the mirrored view (reflect), as in torchvision",
    ),
    key(
        "view.brightness",
        BRIGHTNESS,
        "how brightness is changed: multiplicative as in v2 of the official code, additive as in its v1",
    ),
    key(
        "view.preset",
        Word(ViewPreset::WORDS),
        "a named list of operators that replaces the keys above; none: use the keys above",
    ),
    key(
        "view.a",
        Operators,
        "the operators of the first branch, which replace the preset and those above; where they leave a setting out, the keys above still count: tables [[view.a]]",
    ),
    key("view.b", Operators, "the operators of the second branch, likewise: tables [[view.b]]"),
    key(
        "encoder.name",
        Word(Depth::WORDS),
        "the ResNet",
    )
    .also(&["arch", "model", "backbone", "depth"]),
    key(
        "encoder.width",
        Number(Range::between(*ResNetSpec::WIDTHS.start(), *ResNetSpec::WIDTHS.end())),
        "multiplies the channels of every stage; at 1 the first has 64",
    ),
    key(
        "encoder.stem",
        WordOrAuto(Stem::WORDS),
        "first layers. imagenet: 7 x 7 convolution of stride 2 and max pool; small: 3 x 3 convolution of stride 1; auto: small for images up to 32 pixels",
    ),
    key(
        "encoder.variant",
        WordOrAuto(Variant::WORDS),
        "d: a ResNet-D, with three 3 x 3 convolutions in the imagenet stem, and shortcuts that average 2 x 2 pixels to downsample; auto: d with selective kernels, else standard",
    ),
    key(
        "encoder.selective_kernels",
        Number(Range::between(0.0, 1.0)),
        "0: none; above 0: SimCLR v2's, two 3 x 3 streams in bottleneck blocks, mixed by a gate that squeezes channels to this fraction (at least 32 channels); 0.0625 in the paper",
    )
    .also(&["sk_ratio", "sk"]),
    key(
        "encoder.shortcut",
        Word(Shortcut::WORDS),
        "which shortcuts are projections. auto: those where the shape changes; projection: those of the first block of every stage",
    ),
    key(
        "encoder.pool_padding",
        Word(PoolPadding::WORDS),
        "padding of the max pool after the first convolutions: all is one pixel on every side, as in torchvision; same is TensorFlow's, as in the official code, which pads images of even size only at the right and the bottom; of a ResNet-D's shortcuts too, where all is timm's",
    ),
    key(
        "encoder.normalize",
        Word(Normalize::WORDS),
        "none: the network takes images as they are, from 0 to 1; imagenet: it subtracts ImageNet's mean and divides by its standard deviation, as torchvision's pretrained networks expect",
    )
    .also(&["mean", "std"]),
    key("head.kind", Word(HeadKind::WORDS), "the projection head"),
    key("head.layers", Whole(2, 8), "dense layers of a nonlinear head"),
    key(
        "head.hidden",
        WholeOrAuto(1, 65536),
        "width of a nonlinear head's hidden layers; auto: the width of the encoder's output h",
    )
    .also(&["hidden_dim"]),
    key("head.dim", Whole(1, 65536), "size of the head's output z").also(&["out", "proj_dim", "output_dim"]),
    key("head.batch_norm", Flag, "BatchNorm after every dense layer of the head; false: biases instead, and first weights by variance scaling in place of a deviation of 0.01"),
    key(
        "loss.name",
        Word(LossName::WORDS),
        "the contrastive loss; the paper compares the other two with nt_xent (tables 2 and 4); the loss of held-out images is always nt_xent",
    ),
    key(
        "loss.mining",
        Word(Mining::WORDS),
        "none: all negatives count; semi_hard: for each anchor only the most similar negative that is less similar than the positive (nt_logistic and margin_triplet only)",
    ),
    key(
        "loss.temperature",
        Number(Range::between(1e-30, 1e30)),
        "tau, by which similarities are divided; margin_triplet uses it only for the logged entropy and held-out loss",
    )
    .also(&["tau", "temp"]),
    key(
        "loss.margin",
        Number(Range::between(0.0, 1000.0)),
        "margin_triplet: how much more similar the positive should be than a negative; the paper tries 0, 0.4, 0.8 and 1.6",
    ),
    key("loss.normalize", Flag, "scale z to unit length before the similarities"),
    key("optim.name", Word(OptimizerName::WORDS), "the optimiser").also(&["optimizer", "optimiser"]),
    key(
        "optim.rate",
        NumberOrAuto(POSITIVE),
        "learning rate, before it is scaled with the batch; auto: 0.3 for LARS and SGD, 0.001 for AdamW; with optim.scaling=sqrt 0.075, as in the paper, for LARS, 0.01875 for SGD, 0.0000625 for AdamW",
    )
    .also(&["lr", "learning_rate", "base_lr"]),
    key(
        "optim.scaling",
        Word(Scaling::WORDS),
        "peak learning rate: none = rate, linear = rate x batch / 256, sqrt = rate x sqrt(batch)",
    )
    .also(&["learning_rate_scaling"]),
    key(
        "optim.momentum",
        Number(Range::between(0.0, 0.9999)),
        "momentum of LARS and SGD, first beta of AdamW",
    ),
    key("optim.nesterov", Flag, "Nesterov momentum, SGD only"),
    key("optim.weight_decay", Number(NOT_NEGATIVE), "weight decay, not applied to biases and BatchNorm parameters")
        .also(&["wd", "decay", "l2"]),
    key("optim.trust_coefficient", Number(POSITIVE), "LARS: norm of the update, before the learning rate, as a fraction of the weights' norm")
        .also(&["eta"]),
    key(
        "optim.beta2",
        Number(Range::between(0.0, 0.999999)),
        "AdamW: decay of the running average of squared gradients",
    ),
    key("optim.epsilon", Number(Range::between(1e-30, 1.0)), "AdamW: added to the square root in the denominator"),
    key("optim.warmup_epochs", Number(NOT_NEGATIVE), "epochs over which the learning rate rises from 0 to its peak")
        .also(&["warmup"]),
    key("optim.schedule", Word(ScheduleKind::WORDS), "the learning rate after warm-up: cosine decay to 0, or constant"),
    key(
        "train.batch",
        WholeOrAuto(2, 1 << 20),
        "images per step; each gives two views; auto: the preset's number (256 without one), halved until an epoch has 8 steps and half of the memory holds it",
    )
        .also(&["batch_size", "bs"]),
    key("train.epochs", Whole(1, 1 << 30), "passes over the images"),
    key("train.precision", Word(Precision::WORDS), "type of the encoder's activations; fp16: on a GPU only, with dynamic loss scaling; tf32: on a GPU only, f32 with faster products; auto: bf16 on a GPU and on a CPU with AVX512_BF16, else f32")
        .also(&["dtype", "amp"]),
    key("train.deterministic", Flag, "the same seed gives the same bits, on a GPU for the same kind of card and the same remembered choice of kernels; false: a GPU may use sums and algorithms whose rounding differs from run to run, which may be faster in fp16 (by 2.5% for ResNet-18 on an H200; in bf16 not)"),
    key(
        "train.memory",
        WordOrAuto(Memory::WORDS),
        "what is kept for backward. full: every activation; blocks: one per residual block, the rest is computed again; auto: full if it fits",
    )
    .also(&["checkpointing"])
    .changes_nothing(),
    key("train.from", Kind::Run, "the run, trained or imported, whose encoder training starts from, and its head if it has the same shape; [encoder] and data.image_size are then taken from it; none: random weights")
        .also(&["init", "pretrained", "weights", "initial_checkpoint"]),
    key("train.seed", Whole(0, MANY), "seed for weights, order and views"),
    key("train.device", Kind::Device, "what computes the network: the CPU or an NVIDIA GPU; auto: the first GPU if it works, else the CPU")
        .changes_nothing(),
    key("train.threads", WholeOrAuto(1, 1024), "threads that compute the network; auto: one per CPU")
        .changes_nothing(),
    key(
        "train.checkpoint_every",
        WholeOrAuto(1, MANY),
        "steps between checkpoints; auto: at the ends of epochs, at most once a minute, and every half hour within longer epochs",
    )
    .also(&["save_every", "save_freq"])
    .changes_nothing(),
    key("train.keep_checkpoints", Whole(1, 1 << 20), "how many of the newest checkpoints are kept, besides the best one")
        .changes_nothing(),
    key(
        "train.log_every",
        WholeOrAuto(1, MANY),
        "steps between lines of the metrics log; auto: 1, on a GPU 10, since it waits for each line",
    )
    .changes_nothing(),
    key(
        "train.health_every",
        Whole(0, MANY),
        "epochs between health figures of the held-out images; 0: never",
    ),
    key("train.knn_every", Whole(0, MANY), "epochs between kNN accuracies, if there are labels; 0: never"),
];

/// Returns the key with this dotted path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Returns the first key with this name, in any table, or with this name in other programs.
pub fn key_called(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.also.contains(&name) || key.split().1 == name)
}

/// Whether a table of this name exists.
pub(super) fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.split().0 == name)
}

/// Returns the hint for a path that is not a key.
pub(super) fn hint(path: &str) -> String {
    let word = path.to_lowercase();
    let last = word.rsplit('.').next().unwrap_or_default();
    let alias = key_called(last);
    let near = alias.map(|key| key.path).or_else(|| {
        // A misspelt key of the right table is likelier than a similar key of another.
        let table = path.split_once('.').map(|(table, _)| table).filter(|table| is_table(table));
        let known = KEYS.iter().filter(|key| table.is_none_or(|table| key.split().0 == table));
        super::nearest::nearest(path, known.map(|key| key.path))
            .or_else(|| super::nearest::nearest(path, KEYS.iter().map(|key| key.path)))
    });
    match (near, path.split_once('.')) {
        // All paths of a table share their start, so similar whole paths alone prove nothing.
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
