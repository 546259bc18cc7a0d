//! The kernels' sources.

use crate::ElementType;

/// A name and a text.
type Include = (&'static str, &'static str);

const PACKS: Include = ("packs.cuh", include_str!("kernels/packs.cuh"));
const SUMS: Include = ("row_sums.cuh", include_str!("kernels/row_sums.cuh"));
const PIECES: Include = ("pieces.cuh", include_str!("kernels/pieces.cuh"));
const TENSOR_CORE: Include = ("tensor_core.cuh", include_str!("kernels/tensor_core.cuh"));
const SIMILARITIES: Include = ("similarities.cuh", include_str!("kernels/similarities.cuh"));

const EACH: &[ElementType] = &ElementType::ALL;
const OF_16_BITS: &[ElementType] = &[ElementType::Bf16, ElementType::F16];
const NO_TYPE: &[ElementType] = &[];

/// [`Module`]: of each its name, which is that of its file, the types of elements that it is compiled for, and what it
/// includes, in this order.
macro_rules! modules {
    ($(#[$doc:meta] $module:ident = $name:literal, $elements:ident, [$($include:ident),*];)+) => {
        /// A source of kernels, one a subject.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Module {
            $(#[$doc] $module,)+
        }

        impl Module {
            /// All of them.
            pub const ALL: &[Module] = &[$(Module::$module),+];

            /// Name, the types of elements that it is compiled for, what it includes in this order, and its own text.
            fn parts(self) -> (&'static str, &'static [ElementType], &'static [Include], &'static str) {
                match self {
                    $(Module::$module => {
                        ($name, $elements, &[$($include),*], include_str!(concat!("kernels/", $name, ".cu")))
                    })+
                }
            }
        }
    };
}

modules! {
    /// Sums over rows.
    ChannelSums = "channel_sums", EACH, [SUMS];
    /// BatchNorm's passes.
    BatchNorm = "batch_norm", EACH, [PACKS, SUMS];
    /// Two BatchNorms whose sum passes a ReLU.
    NormPair = "norm_pair", EACH, [PACKS, SUMS];
    /// What BatchNorm's passes multiply by.
    BatchNormCoefficients = "batch_norm_coefficients", NO_TYPE, [PIECES];
    /// Pooling.
    Pooling = "pooling", EACH, [];
    /// Selective kernels.
    Selective = "selective", EACH, [];
    /// Passes over values one by one.
    Elementwise = "elementwise", EACH, [];
    /// The last stage of sums.
    Reductions = "reductions", NO_TYPE, [PIECES];
    /// Pixels that a stride meets.
    Strided = "strided", EACH, [];
    /// Convolutions of few channels, packed.
    Stem = "stem", EACH, [];
    /// A network's first layer on tensor cores; for types of 16 bits.
    FirstLayer = "first_layer", OF_16_BITS, [TENSOR_CORE];
    /// L2 normalisation.
    L2Normalize = "l2_normalize", NO_TYPE, [];
    /// Softmax cross-entropy.
    CrossEntropy = "cross_entropy", NO_TYPE, [];
    /// NT-Xent.
    NtXent = "nt_xent", NO_TYPE, [TENSOR_CORE, SIMILARITIES];
    /// NT-Logistic and the margin triplet.
    PairLoss = "pair_loss", NO_TYPE, [TENSOR_CORE, SIMILARITIES];
    /// LARS, momentum, AdamW.
    Optimizer = "optimizer", NO_TYPE, [];
    /// Views of images.
    Views = "views", NO_TYPE, [];
}

impl Module {
    /// Its name, which is that of its file.
    pub fn name(self) -> &'static str {
        self.parts().0
    }

    /// The types of elements for each of which it is compiled; none where it is the same for all.
    pub fn elements(self) -> &'static [ElementType] {
        self.parts().1
    }
}

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
        Module::ALL.iter().copied().flat_map(of).collect()
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
    fn every_source_is_a_module() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernels")).unwrap();
        let files = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = files.filter_map(|file| Some(file.strip_suffix(".cu")?.to_owned())).collect();
        let mut modules: Vec<_> = Module::ALL.iter().map(|module| module.name().to_owned()).collect();
        files.sort();
        modules.sort();
        assert_eq!(files, modules);
    }

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
