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
        self.parts().1
    }

    /// Name, the types of elements that it is compiled for, what it includes in this order, and its own text.
    fn parts(self) -> (&'static str, &'static [ElementType], &'static [Include], &'static str) {
        const PACKS: Include = ("packs.cuh", include_str!("kernels/packs.cuh"));
        const SUMS: Include = ("row_sums.cuh", include_str!("kernels/row_sums.cuh"));
        const PIECES: Include = ("pieces.cuh", include_str!("kernels/pieces.cuh"));
        const TENSOR_CORE: Include = ("tensor_core.cuh", include_str!("kernels/tensor_core.cuh"));
        const SIMILARITIES: Include = ("similarities.cuh", include_str!("kernels/similarities.cuh"));
        const EACH: &[ElementType] = &ElementType::ALL;
        const OF_16_BITS: &[ElementType] = &[ElementType::Bf16, ElementType::F16];
        macro_rules! parts {
            ($name:literal, $elements:expr, $includes:expr) => {
                ($name, $elements, &$includes, include_str!(concat!("kernels/", $name, ".cu")))
            };
        }
        match self {
            Module::ChannelSums => parts!("channel_sums", EACH, [SUMS]),
            Module::BatchNorm => parts!("batch_norm", EACH, [PACKS, SUMS]),
            Module::NormPair => parts!("norm_pair", EACH, [PACKS, SUMS]),
            Module::BatchNormCoefficients => parts!("batch_norm_coefficients", &[], [PIECES]),
            Module::Pooling => parts!("pooling", EACH, []),
            Module::Selective => parts!("selective", EACH, []),
            Module::Elementwise => parts!("elementwise", EACH, []),
            Module::Reductions => parts!("reductions", &[], [PIECES]),
            Module::Strided => parts!("strided", EACH, []),
            Module::Stem => parts!("stem", EACH, []),
            Module::FirstLayer => parts!("first_layer", OF_16_BITS, [TENSOR_CORE]),
            Module::L2Normalize => parts!("l2_normalize", &[], []),
            Module::CrossEntropy => parts!("cross_entropy", &[], []),
            Module::NtXent => parts!("nt_xent", &[], [TENSOR_CORE, SIMILARITIES]),
            Module::PairLoss => parts!("pair_loss", &[], [TENSOR_CORE, SIMILARITIES]),
            Module::Optimizer => parts!("optimizer", &[], []),
            Module::Views => parts!("views", &[], []),
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
        let (name, _, includes, own) = self.module.parts();
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
        let (.., own) = self.module.parts();
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
