//! Enums whose variants are spelled as words in files, on the command line and in messages; and [numbers](text) as
//! messages have them.
//!
//! ```
//! simclr_words::words! {
//!     /// What computes.
//!     Device {
//!         /// The processor.
//!         Cpu = "cpu",
//!         /// A graphics card.
//!         Gpu = "gpu",
//!     }
//! }
//!
//! assert_eq!(Device::WORDS, ["cpu", "gpu"]);
//! assert_eq!(Device::ALL.map(Device::word), ["cpu", "gpu"]);
//! assert_eq!(Device::Gpu.to_string(), "gpu");
//! assert_eq!(serde_json::from_str::<Device>("\"gpu\"").unwrap(), Device::Gpu);
//! ```

#![forbid(unsafe_code)]

pub mod text;

#[doc(hidden)]
pub use serde;

/// Declares a fieldless enum with a word for each variant: `Variant = "word"`. serde and `Display` use the words, and
/// `ALL`, `WORDS` and `word` list the variants and their words.
#[macro_export]
macro_rules! words {
    ($(#[$attribute:meta])* $name:ident {
        $($(#[$variant_attribute:meta])* $variant:ident = $word:literal),+ $(,)?
    }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, $crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "simclr_words::serde")]
        pub enum $name {
            $($(#[$variant_attribute])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All variants, in the order of declaration.
            pub const ALL: [Self; Self::WORDS.len()] = [$(Self::$variant,)+];

            /// The words of the variants, in the same order.
            pub const WORDS: &[&'static str] = &[$($word,)+];

            /// Returns the word of this variant.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
