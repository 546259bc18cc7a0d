//! Choices that files, commands and messages call by a word.

/// An enum without fields, each variant with its word: `Variant = "word"`. serde and `Display` write the words, and
/// `ALL`, `WORDS` and `word` tell them. The crate that uses it needs serde.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; Self::WORDS.len()] = [$(Self::$variant,)+];

            /// The words that stand for them, in the same order.
            pub const WORDS: &[&'static str] = &[$($word,)+];

            /// The word that stands for it.
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
