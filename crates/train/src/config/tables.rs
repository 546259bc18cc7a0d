//! The typed tables of a configuration. [`KEYS`](super::KEYS) has the meaning and range of each key.

use std::path::Path;

use serde::{Deserialize, Serialize};
use simclr_data::{DecodeOptions, Window};
use simclr_nn::{Depth, Memory, PoolPadding, Stem, Variant};
use simclr_words::words;

use super::auto::Auto;
use super::device_name::DeviceName;

words! {
    /// Where decoded images are kept.
    Cache {
        /// In memory, up to a quarter of the free memory, as far as the run leaves room.
        Auto = "auto",
        /// Nowhere.
        None = "none",
        /// In memory.
        Ram = "ram",
        /// In a file in the run folder, until the run is finished.
        Disk = "disk",
    }
}

words! {
    /// Where views are made.
    ViewsOn {
        /// On the device that computes the network if it can make them, else on the processor.
        Auto = "auto",
        /// On the processor.
        Cpu = "cpu",
        /// On the GPU that computes the network.
        Gpu = "gpu",
    }
}

words! {
    /// Which residual blocks have a projection as their shortcut.
    Shortcut {
        /// Those that change the shape, as in torchvision.
        Auto = "auto",
        /// The first block of every stage, as in the official code.
        Projection = "projection",
    }
}

words! {
    /// How images, with values from 0 to 1, are normalised before the first layer.
    Normalize {
        /// Not at all, as in SimCLR.
        None = "none",
        /// By subtracting ImageNet's mean and dividing by its standard deviation, as torchvision's pretrained
        /// networks expect.
        Imagenet = "imagenet",
    }
}

impl Normalize {
    /// The mean and the standard deviation of red, green and blue.
    pub const fn constants(self) -> Option<[[f32; 3]; 2]> {
        match self {
            Self::None => None,
            Self::Imagenet => Some([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]),
        }
    }
}

words! {
    /// The projection head.
    HeadKind {
        /// z = h.
        None = "none",
        /// One dense layer.
        Linear = "linear",
        /// Dense layers with ReLU between them.
        Nonlinear = "nonlinear",
    }
}

words! {
    /// The contrastive loss.
    LossName {
        /// The normalised, temperature-scaled cross-entropy.
        NtXent = "nt_xent",
        /// The normalised, temperature-scaled logistic loss.
        NtLogistic = "nt_logistic",
        /// The triplet loss with a margin.
        MarginTriplet = "margin_triplet",
    }
}

impl LossName {
    /// Whether the loss supports [`Mining`], where only some negatives count.
    pub const fn takes_mining(self) -> bool {
        match self {
            // It weighs all negatives by their similarity.
            Self::NtXent => false,
            Self::NtLogistic | Self::MarginTriplet => true,
        }
    }

    /// Whether the loss has a margin.
    pub const fn takes_margin(self) -> bool {
        match self {
            Self::NtXent | Self::NtLogistic => false,
            Self::MarginTriplet => true,
        }
    }

    /// The loss when all `candidates` are equally likely to be the positive; `None` for losses that do not choose among
    /// candidates.
    pub fn chance_loss(self, candidates: usize) -> Option<f64> {
        match self {
            Self::NtXent => Some((candidates as f64).ln()),
            Self::NtLogistic | Self::MarginTriplet => None,
        }
    }
}

words! {
    /// Which negatives of an anchor count.
    Mining {
        /// All negatives.
        None = "none",
        /// The most similar of the negatives that are less similar than the positive.
        SemiHard = "semi_hard",
    }
}

words! {
    /// The optimiser.
    OptimizerName {
        /// Layer-wise adaptive rate scaling.
        Lars = "lars",
        /// Stochastic gradient descent with momentum.
        Sgd = "sgd",
        /// Adam with decoupled weight decay.
        Adamw = "adamw",
    }
}

impl OptimizerName {
    /// Whether the optimiser supports Nesterov momentum.
    pub const fn takes_nesterov(self) -> bool {
        match self {
            Self::Sgd => true,
            Self::Lars | Self::Adamw => false,
        }
    }

    /// Whether the optimiser has a trust coefficient.
    pub const fn takes_trust(self) -> bool {
        match self {
            Self::Lars => true,
            Self::Sgd | Self::Adamw => false,
        }
    }

    /// Whether the optimiser averages squared gradients, which takes a second beta and an epsilon.
    pub const fn takes_beta2(self) -> bool {
        match self {
            Self::Adamw => true,
            Self::Lars | Self::Sgd => false,
        }
    }
}

words! {
    /// How the peak learning rate depends on the batch.
    Scaling {
        /// rate.
        None = "none",
        /// rate x batch / 256.
        Linear = "linear",
        /// rate x sqrt(batch).
        Sqrt = "sqrt",
    }
}

words! {
    /// The learning rate after warm-up.
    ScheduleKind {
        /// Cosine decay from the peak to 0.
        Cosine = "cosine",
        /// Constant at the peak.
        Constant = "constant",
    }
}

words! {
    /// The arithmetic of the network.
    Precision {
        /// bf16 on a GPU and on a processor with bf16 instructions, else f32. Never in a resolved configuration.
        Auto = "auto",
        /// 32-bit floating point throughout.
        F32 = "f32",
        /// The encoder's activations and their gradients in bf16; parameters, momentum, sums, head and loss in f32.
        Bf16 = "bf16",
        /// The same in f16, which has more precision and less range, with dynamic loss scaling; on GPUs only. On a CPU,
        /// networks trained in f16 are evaluated in f32.
        Fp16 = "fp16",
        /// f32, with the factors of products rounded to 10 bits of precision; on GPUs only.
        Tf32 = "tf32",
    }
}

impl Precision {
    /// Whether only a GPU can train in this precision.
    pub fn needs_gpu(self) -> bool {
        match self {
            Precision::Fp16 | Precision::Tf32 => true,
            Precision::Auto | Precision::F32 | Precision::Bf16 => false,
        }
    }
}

/// `[data]`: the images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Side of a view in pixels.
    pub image_size: u32,
    /// Images kept out of training, before the cap of [`DataConfig::holdout_of`].
    pub holdout: usize,
    /// Threads that decode and augment.
    pub workers: Auto<usize>,
    /// Where decoded images are kept.
    pub cache: Cache,
    /// The most decoded images kept, in GiB.
    pub cache_limit: Auto<f64>,
    /// Where views are made.
    pub views_on: ViewsOn,
    /// Images whose shorter side is longer than this, in pixels, are shrunk to it; 0: none are.
    pub shrink: u32,
    /// The colour behind transparent pixels, 8-bit RGB.
    pub background: [u8; 3],
    /// The stored values that become black and white.
    pub window: Window,
    /// Whether the first image that cannot be read ends the run.
    pub strict: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            image_size: 224,
            holdout: 512,
            workers: Auto::Auto,
            cache: Cache::Auto,
            cache_limit: Auto::Auto,
            views_on: ViewsOn::Auto,
            shrink: 0,
            background: [255; 3],
            window: Window::Full,
            strict: false,
        }
    }
}

impl DataConfig {
    /// How many of `images` images are held out: never more than a tenth.
    pub fn holdout_of(&self, images: usize) -> usize {
        self.holdout.min(images / 10)
    }

    /// The most bytes of decoded images that are kept, if a limit was given.
    pub fn cache_bytes(&self) -> Option<u64> {
        self.cache_limit.value().map(|gib| (gib * (1u64 << 30) as f64) as u64)
    }

    /// How images are decoded.
    pub fn decode(&self) -> DecodeOptions {
        DecodeOptions {
            background: self.background,
            window: self.window,
            shrink: Some(self.shrink).filter(|&side| side > 0),
        }
    }
}

/// `[encoder]`: the network whose output h is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderConfig {
    /// The depth of the ResNet.
    pub name: Depth,
    /// Multiplies the channels of every stage.
    pub width: f64,
    /// The first layers.
    pub stem: Auto<Stem>,
    /// How the network downsamples.
    pub variant: Auto<Variant>,
    /// The fraction of channels that the gates of selective kernels squeeze to; 0: no selective kernels.
    pub selective_kernels: f64,
    /// Which shortcuts are projections.
    pub shortcut: Shortcut,
    /// How the max pool of the first layers, if any, and the pools of a ResNet-D's shortcuts are padded.
    pub pool_padding: PoolPadding,
    /// How images are normalised before the first layer.
    pub normalize: Normalize,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            name: Depth::D18,
            width: 1.0,
            stem: Auto::Auto,
            variant: Auto::Auto,
            selective_kernels: 0.0,
            shortcut: Shortcut::Auto,
            pool_padding: PoolPadding::All,
            normalize: Normalize::None,
        }
    }
}

impl EncoderConfig {
    /// The first layers for images of `size` pixels; "auto" is [`Stem::Small`] up to 32 pixels.
    pub fn stem_at(&self, size: u32) -> Stem {
        self.stem.unwrap_or_else(|| if size > 32 { Stem::ImageNet } else { Stem::Small })
    }

    /// The variant; "auto" is [`Variant::D`] with selective kernels and [`Variant::Standard`] without.
    pub fn settled_variant(&self) -> Variant {
        let selective = self.selective_kernels > 0.0;
        self.variant.unwrap_or_else(|| if selective { Variant::D } else { Variant::Standard })
    }
}

/// `[head]`: the projection from h to z, used in pretraining only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadConfig {
    /// The kind of head.
    pub kind: HeadKind,
    /// Dense layers of a nonlinear head.
    pub layers: usize,
    /// Width of its hidden layers; auto: the size of h.
    pub hidden: Auto<usize>,
    /// Size of z.
    pub dim: usize,
    /// Whether BatchNorm follows every dense layer, in place of biases.
    pub batch_norm: bool,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self { kind: HeadKind::Nonlinear, layers: 2, hidden: Auto::Auto, dim: 128, batch_norm: true }
    }
}

/// `[loss]`: the contrastive loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// The loss.
    pub name: LossName,
    /// Which negatives count.
    pub mining: Mining,
    /// tau, above 0.
    pub temperature: f64,
    /// m, 0 or more (margin triplet).
    pub margin: f64,
    /// Whether z is first scaled to unit length.
    pub normalize: bool,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { name: LossName::NtXent, mining: Mining::None, temperature: 0.1, margin: 0.8, normalize: true }
    }
}

/// The name in reports: "NT-Xent, temperature 0.1".
impl std::fmt::Display for LossConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name {
            LossName::NtXent => write!(f, "NT-Xent, temperature {}", self.temperature)?,
            LossName::NtLogistic => write!(f, "NT-Logistic, temperature {}", self.temperature)?,
            LossName::MarginTriplet => write!(f, "margin triplet, margin {}", self.margin)?,
        }
        match self.mining {
            Mining::None => Ok(()),
            Mining::SemiHard => f.write_str(", semi-hard negatives"),
        }
    }
}

/// `[optim]`: the optimiser and its learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// The optimiser.
    pub name: OptimizerName,
    /// The learning rate before scaling; auto: what suits the optimiser and the scaling.
    pub rate: Auto<f64>,
    /// How the peak learning rate depends on the batch.
    pub scaling: Scaling,
    /// Momentum; the first beta of AdamW.
    pub momentum: f64,
    /// Nesterov momentum (SGD).
    pub nesterov: bool,
    /// Weight decay.
    pub weight_decay: f64,
    /// The trust coefficient of LARS.
    pub trust_coefficient: f64,
    /// The second beta of AdamW.
    pub beta2: f64,
    /// The epsilon of AdamW.
    pub epsilon: f64,
    /// Epochs of linear warm-up.
    pub warmup_epochs: f64,
    /// The learning rate after warm-up.
    pub schedule: ScheduleKind,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            name: OptimizerName::Lars,
            rate: Auto::Auto,
            scaling: Scaling::Linear,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-6,
            trust_coefficient: 0.001,
            beta2: 0.999,
            epsilon: 1e-8,
            warmup_epochs: 10.0,
            schedule: ScheduleKind::Cosine,
        }
    }
}

impl OptimConfig {
    /// The learning rate before scaling; "auto" is [`OptimConfig::usual_rate`].
    pub fn settled_rate(&self) -> f64 {
        self.rate.unwrap_or_else(|| self.usual_rate())
    }

    /// The learning rate before scaling that suits the optimiser and the scaling: the paper's for LARS; for the others,
    /// one whose peak at a batch of 256 is the same with each scaling.
    pub fn usual_rate(&self) -> f64 {
        match (self.name, self.scaling) {
            (OptimizerName::Lars, Scaling::None | Scaling::Linear) => 0.3,
            (OptimizerName::Lars, Scaling::Sqrt) => 0.075,
            (OptimizerName::Sgd, Scaling::None | Scaling::Linear) => 0.3,
            (OptimizerName::Sgd, Scaling::Sqrt) => 0.3 / 16.0,
            (OptimizerName::Adamw, Scaling::None | Scaling::Linear) => 0.001,
            (OptimizerName::Adamw, Scaling::Sqrt) => 0.001 / 16.0,
        }
    }

    /// The peak learning rate for a batch of `batch` images.
    pub fn peak_rate(&self, batch: usize) -> f64 {
        let rate = self.settled_rate();
        match self.scaling {
            Scaling::None => rate,
            Scaling::Linear => rate * batch as f64 / 256.0,
            Scaling::Sqrt => rate * (batch as f64).sqrt(),
        }
    }
}

/// `[train]`: the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Images per step; each gives two views.
    pub batch: usize,
    /// Passes over the images.
    pub epochs: u64,
    /// The arithmetic of the network.
    pub precision: Precision,
    /// Whether a GPU may use only deterministic algorithms, which give the same bits each time.
    pub deterministic: bool,
    /// What is kept for the backward pass; auto: everything if it fits, else the inputs of blocks. As results do not
    /// depend on it, auto is decided anew whenever the run is started or resumed.
    pub memory: Auto<Memory>,
    /// The run whose encoder training starts from, or "none".
    pub from: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The device that computes the network.
    pub device: DeviceName,
    /// Threads that compute the network.
    pub threads: Auto<usize>,
    /// Steps between checkpoints; auto: at the ends of epochs, at most once a minute, and every half hour within
    /// longer epochs.
    pub checkpoint_every: Auto<u64>,
    /// How many of the newest checkpoints are kept, besides the best.
    pub keep_checkpoints: usize,
    /// Steps between lines of the metrics log; auto: 1, on a GPU 10.
    pub log_every: Auto<u64>,
    /// Epochs between health figures; 0: never.
    pub health_every: u64,
    /// Epochs between kNN accuracies; 0: never.
    pub knn_every: u64,
}

/// The value of `train.from` that names no run.
const NONE: &str = "none";

impl TrainConfig {
    /// The run whose encoder training starts from, if any.
    pub fn begins_with(&self) -> Option<&Path> {
        TrainConfig::named(&self.from)
    }

    /// The run that `name` names; `None` for [`NONE`].
    pub(super) fn named(name: &str) -> Option<&Path> {
        (name != NONE).then(|| Path::new(name))
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch: 256,
            epochs: 100,
            precision: Precision::Auto,
            deterministic: true,
            memory: Auto::Auto,
            from: NONE.to_owned(),
            seed: 0,
            device: DeviceName::Auto,
            threads: Auto::Auto,
            checkpoint_every: Auto::Auto,
            keep_checkpoints: 3,
            log_every: Auto::Auto,
            health_every: 1,
            knn_every: 1,
        }
    }
}
