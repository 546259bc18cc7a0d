"""Makes small image files of every format, and their pixels by Pillow or NumPy, for crates/data/tests.

    python tools/golden/formats.py

Needs Pillow and NumPy. Transparent pixels are blended with white, 16 bits are rounded to 8 (v / 257).
"""

import io
import json
import pathlib
import struct

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/data/tests/golden/formats"
WIDTH, HEIGHT = 6, 4
rng = np.random.default_rng(7)

color = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
grey = color[..., 0].copy()
deep = rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
deep_color = rng.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
alpha = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
palette = Image.fromarray(color).quantize(8)
# Lossy formats need a smooth picture.
ramp = np.stack(np.meshgrid(np.linspace(0, 255, 24), np.linspace(0, 255, 16)) + (np.full((16, 24), 128),), -1)
ramp = Image.fromarray(ramp.astype(np.uint8))


def eight(values):
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def three(values):
    return np.repeat(values[..., None], 3, -1)


def over_white(rgb, opacity):
    rgb, opacity = rgb.astype(np.uint32), opacity.astype(np.uint32)[..., None]
    return ((rgb * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def tiff_of_16_bits(pixels, order):
    """Uncompressed RGB of 16 bits, which Pillow does not write; order is '<' or '>'."""
    data = pixels.astype(order + "u2").tobytes()
    tags = [(256, 3, 1, WIDTH), (257, 3, 1, HEIGHT), (258, 3, 3, None), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, None), (277, 3, 1, 3), (278, 3, 1, HEIGHT), (279, 4, 1, len(data))]
    bits_at = 8 + 2 + 12 * len(tags) + 4
    out = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    for tag, kind, count, value in tags:
        value = {258: bits_at, 273: bits_at + 6}.get(tag, value)
        wide = kind == 4 or count > 1
        field = struct.pack(order + "I", value) if wide else struct.pack(order + "HH", value, 0)
        out += struct.pack(order + "HHI", tag, kind, count) + field
    return out + struct.pack(order + "I", 0) + struct.pack(order + "HHH", 16, 16, 16) + data


def pillow(image, kind, **options):
    bytes_ = io.BytesIO()
    image.save(bytes_, kind, **options)
    return bytes_.getvalue()


def netpbm(head, data):
    return head.encode() + data


files = {}


def add(name, contents, pixels, tolerance=0):
    (OUT / name).write_bytes(contents)
    height, width, _ = pixels.shape
    files[name] = {"width": width, "height": height, "tolerance": tolerance, "rgb": pixels.tobytes().hex()}


OUT.mkdir(parents=True, exist_ok=True)
rgba = np.dstack([color, alpha])
indexed = np.asarray(palette.convert("RGB"))
add("color.png", pillow(Image.fromarray(color), "PNG"), color)
add("grey.png", pillow(Image.fromarray(grey), "PNG"), three(grey))
add("grey16.png", pillow(Image.fromarray(deep), "PNG"), three(eight(deep)))
add("palette.png", pillow(palette, "PNG"), indexed)
clear = np.asarray(palette) == 3
add("palette-clear.png", pillow(palette, "PNG", transparency=3), np.where(clear[..., None], 255, indexed).astype(np.uint8))
add("bilevel.png", pillow(Image.fromarray(grey > 127), "PNG"), three(np.where(grey > 127, 255, 0).astype(np.uint8)))
add("alpha.png", pillow(Image.fromarray(rgba), "PNG"), over_white(color, alpha))
add("grey-alpha.png", pillow(Image.fromarray(np.dstack([grey, alpha])), "PNG"), over_white(three(grey), alpha))
add("interlaced.gif", pillow(palette, "GIF", interlace=1), indexed)
second = Image.fromarray(255 - color).quantize(8)
add("animated.gif", pillow(palette, "GIF", save_all=True, append_images=[second], duration=50), indexed)
add("clear.gif", pillow(palette, "GIF", transparency=3), np.where(clear[..., None], 255, indexed).astype(np.uint8))
add("color.bmp", pillow(Image.fromarray(color), "BMP"), color)
add("palette.bmp", pillow(palette, "BMP"), indexed)
add("lossless.webp", pillow(Image.fromarray(rgba), "WEBP", lossless=True, exact=True), over_white(color, alpha))
lossy = pillow(ramp, "WEBP", quality=90)
add("lossy.webp", lossy, np.asarray(Image.open(io.BytesIO(lossy)).convert("RGB")), 4)
for compression in ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]:
    name = compression.removeprefix("tiff_").removeprefix("adobe_")
    add(f"{name}.tif", pillow(Image.fromarray(color), "TIFF", compression=compression), color)
add("grey.tif", pillow(Image.fromarray(grey), "TIFF"), three(grey))
add("grey16.tif", pillow(Image.fromarray(deep), "TIFF", compression="tiff_lzw"), three(eight(deep)))
add("color16.tif", tiff_of_16_bits(deep_color, "<"), eight(deep_color))
add("color16-big-endian.tif", tiff_of_16_bits(deep_color, ">"), eight(deep_color))
add("turned.tif", pillow(Image.fromarray(color), "TIFF", tiffinfo={274: 6}), np.rot90(color, -1).copy())
size = f"{WIDTH} {HEIGHT}\n"
add("color.ppm", netpbm(f"P6\n# a comment\n{size}255\n", color.tobytes()), color)
add("grey16.pgm", netpbm(f"P5\n{size}65535\n", deep.astype(">u2").tobytes()), three(eight(deep)))
words = " ".join(str(v) for v in (grey // 17).ravel())
add("text.pgm", netpbm(f"P2\n{size}15\n", words.encode()), three(grey // 17 * 17))
rows = np.packbits(grey > 127, axis=1)
add("bilevel.pbm", netpbm(f"P4\n{size}", rows.tobytes()), three(np.where(grey > 127, 0, 255).astype(np.uint8)))
head = f"P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
add("alpha.pam", netpbm(head, rgba.tobytes()), over_white(color, alpha))
(OUT / "pixels.json").write_text(json.dumps(files, indent=0) + "\n")
