//! Recognising an image format from the first bytes of a file.

use std::fmt;

/// An image format, recognised by its magic bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, lossy or lossless.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// GIF; the first frame is read.
    Gif,
    /// TIFF; the first page is read.
    Tiff,
    /// PBM, PGM, PPM and PAM.
    Pnm,
    /// HEIC and AVIF: recognised, not read.
    Heif,
}

/// How many bytes of a file [`Format::of`] looks at.
pub(crate) const MAGIC_BYTES: usize = 16;

/// The formats that are read, for messages.
pub(crate) const READ: &str = "JPEG, PNG, WebP, TIFF, BMP, GIF or PNM";

impl Format {
    /// The format of a file that begins with `bytes`.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            // The bytes after the file size are reserved and zero. Two letters alone would take many a text for a
            // bitmap.
            [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some(Self::Bmp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Self::Tiff),
            // A number or a comment must follow: "P5 is a label" is text.
            [
                b'P',
                b'1'..=b'6',
                b' ' | b'\t' | b'\r' | b'\n',
                b'0'..=b'9' | b'#' | b' ' | b'\r' | b'\n',
                ..,
            ]
            | [b'P', b'7', b'\n', b'A'..=b'Z' | b'#', ..] => Some(Self::Pnm),
            [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4) {
                Some(b"heic" | b"heix" | b"mif1" | b"msf1" | b"avif" | b"avis") => Some(Self::Heif),
                _ => None,
            },
            _ => None,
        }
    }

    /// True if images of this format are read.
    pub fn is_read(self) -> bool {
        self != Self::Heif
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
            Self::Heif => "HEIC/AVIF",
        })
    }
}
