//! The kernels' sources.

use crate::ElementType;

/// A source of kernels, one a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// Sums over rows.
    ChannelSums,
    /// BatchNorm's passes.
    BatchNorm,
    /// Two BatchNorms whose sum passes a ReLU.
    NormPair,
    /// What BatchNorm's passes multiply by.
    BatchNormCoefficients,
    /// Pooling.
    Pooling,
    /// Selective kernels.
    Selective,
    /// Passes over values one by one.
    Elementwise,
    /// The last stage of sums.
    Reductions,
    /// Pixels that a stride meets.
    Strided,
    /// Convolutions of few channels, packed.
    Stem,
    /// A network's first layer on tensor cores; for types of 16 bits.
    FirstLayer,
    /// L2 normalisation.
    L2Normalize,
    /// Softmax cross-entropy.
    CrossEntropy,
    /// NT-Xent.
    NtXent,
    /// NT-Logistic and the margin triplet.
    PairLoss,
    /// LARS, momentum, AdamW.
    Optimizer,
    /// Views of images.
    Views,
}

impl Module {
    /// All of them.
    pub const ALL: [Module; 17] = [
        Module::ChannelSums,
        Module::BatchNorm,
        Module::NormPair,
        Module::BatchNormCoefficients,
        Module::Pooling,
        Module::Selective,
        Module::Elementwise,
        Module::Reductions,
        Module::Strided,
        Module::Stem,
        Module::FirstLayer,
        Module::L2Normalize,
        Module::CrossEntropy,
        Module::NtXent,
        Module::PairLoss,
        Module::Optimizer,
        Module::Views,
    ];

    /// Its name, which is that of its file.
    pub fn name(self) -> &'static str {
        self.parts().0
    }

    /// The types of elements for each of which it is compiled; none where it is the same for all.
    pub fn elements(self) -> &'static [ElementType] {
        use Module::{
            BatchNorm, ChannelSums, Elementwise, FirstLayer, NormPair, Pooling, Selective, Stem, Strided,
        };
        match self {
            ChannelSums | BatchNorm | NormPair | Pooling | Selective | Elementwise | Strided | Stem => {
                &ElementType::ALL
            }
            FirstLayer => &[ElementType::Bf16, ElementType::F16],
            _ => &[],
        }
    }

    /// Name, what it includes in this order, and its own text.
    fn parts(self) -> (&'static str, &'static [Include], &'static str) {
        const PACKS: Include = ("packs.cuh", include_str!("kernels/packs.cuh"));
        const SUMS: Include = ("row_sums.cuh", include_str!("kernels/row_sums.cuh"));
        const PIECES: Include = ("pieces.cuh", include_str!("kernels/pieces.cuh"));
        const TENSOR_CORE: Include = ("tensor_core.cuh", include_str!("kernels/tensor_core.cuh"));
        const SIMILARITIES: Include = ("similarities.cuh", include_str!("kernels/similarities.cuh"));
        match self {
            Module::ChannelSums => ("channel_sums", &[SUMS], include_str!("kernels/channel_sums.cu")),
            Module::BatchNorm => ("batch_norm", &[PACKS, SUMS], include_str!("kernels/batch_norm.cu")),
            Module::NormPair => ("norm_pair", &[PACKS, SUMS], include_str!("kernels/norm_pair.cu")),
            Module::BatchNormCoefficients => {
                ("batch_norm_coefficients", &[PIECES], include_str!("kernels/batch_norm_coefficients.cu"))
            }
            Module::Pooling => ("pooling", &[], include_str!("kernels/pooling.cu")),
            Module::Selective => ("selective", &[], include_str!("kernels/selective.cu")),
            Module::Elementwise => ("elementwise", &[], include_str!("kernels/elementwise.cu")),
            Module::Reductions => ("reductions", &[PIECES], include_str!("kernels/reductions.cu")),
            Module::Strided => ("strided", &[], include_str!("kernels/strided.cu")),
            Module::Stem => ("stem", &[], include_str!("kernels/stem.cu")),
            Module::FirstLayer => ("first_layer", &[TENSOR_CORE], include_str!("kernels/first_layer.cu")),
            Module::L2Normalize => ("l2_normalize", &[], include_str!("kernels/l2_normalize.cu")),
            Module::CrossEntropy => ("cross_entropy", &[], include_str!("kernels/cross_entropy.cu")),
            Module::NtXent => ("nt_xent", &[TENSOR_CORE, SIMILARITIES], include_str!("kernels/nt_xent.cu")),
            Module::PairLoss => {
                ("pair_loss", &[TENSOR_CORE, SIMILARITIES], include_str!("kernels/pair_loss.cu"))
            }
            Module::Optimizer => ("optimizer", &[], include_str!("kernels/optimizer.cu")),
            Module::Views => ("views", &[], include_str!("kernels/views.cu")),
        }
    }
}

/// A name and a text.
type Include = (&'static str, &'static str);

/// What is compiled as a whole: a module, for a type of element where it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Program {
    module: Module,
    element: Option<ElementType>,
}

impl Program {
    /// A module that is the same for all types.
    pub const fn of(module: Module) -> Program {
        Program { module, element: None }
    }

    /// A module for a type of element.
    pub const fn typed(module: Module, element: ElementType) -> Program {
        Program { module, element: Some(element) }
    }

    /// Every program.
    pub fn all() -> Vec<Program> {
        let of = |module: Module| match module.elements() {
            [] => vec![Program::of(module)],
            elements => elements.iter().map(|&element| Program::typed(module, element)).collect(),
        };
        Module::ALL.into_iter().flat_map(of).collect()
    }

    /// Its name, such as "batch_norm bf16".
    pub fn name(self) -> String {
        let element = self.element.map(|element| format!(" {}", element.name()));
        self.module.name().to_owned() + &element.unwrap_or_default()
    }

    /// The text that is compiled. It includes nothing.
    pub fn source(self) -> String {
        let (name, includes, own) = self.module.parts();
        let element =
            self.element.map(|element| format!("#define ELEMENT {}\n", element.name())).unwrap_or_default();
        let common = include_str!("kernels/common.cuh");
        // Types of elements are declared in the common part, where the macro is used.
        let includes: String =
            includes.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n")).collect();
        format!("{element}#line 1 \"common.cuh\"\n{common}\n{includes}#line 1 \"{name}.cu\"\n{own}")
    }

    /// Whether products and sums may be contracted to one rounding. Views are made as on the CPU, bit by bit.
    pub fn contracts(self) -> bool {
        self.module != Module::Views
    }

    /// The names of its kernels.
    pub fn kernels(self) -> Vec<&'static str> {
        let (_, _, own) = self.module.parts();
        let heads = own.split("KERNEL(").skip(1);
        heads.filter_map(|head| head.split_once(')')?.0.split_once(", ").map(|(_, name)| name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_in_their_sources() {
        assert_eq!(
            Program::of(Module::L2Normalize).kernels(),
            ["l2_normalize_forward", "l2_normalize_backward"]
        );
        for program in Program::all() {
            let source = program.source();
            assert!(!program.kernels().is_empty() && !source.contains("#include"), "{}", program.name());
            for kernel in program.kernels() {
                assert!(source.contains(&format!(", {kernel})")));
            }
        }
    }
}
