"""Makes small JPEG files of every kind that simclr-jpeg reads, and checksums of their pixels by Pillow (libjpeg-turbo).

    python tools/golden/jpeg_pixels.py

Needs Pillow and NumPy. The files are concatenated in pillow.bin; pillow.json has the length of each, the size of its image and the
CRC-32 of its pixels (RGB).
"""

import io
import json
import pathlib
import zlib

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/jpeg/tests/golden"
rng = np.random.default_rng(11)
files, contents = [], b""


def picture(width, height, noise=20):
    """Ramps, edges and some noise, strongly coloured."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 128 + 100 * np.sin(x * y / 40)], -1)
    rgb[(x // 6 + y // 5) % 3 == 0] = [250, 20, 60]
    rgb = rgb + rng.normal(0, noise, rgb.shape)
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def add(name, image=None, data=None, **options):
    global contents
    if data is None:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        data = buffer.getvalue()
    seen = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = np.asarray(seen).tobytes()
    files.append({"name": name, "bytes": len(data), "width": seen.width, "height": seen.height, "crc32": zlib.crc32(pixels)})
    contents += data
    return data


def turned(data, width, height):
    """Relabels a file of 4:2:2 as 4:4:0, with MCUs of 8 x 16 pixels instead of 16 x 8. A scrambled picture, but a valid file."""
    at = data.index(b"\xff\xc0")
    data = bytearray(data)
    assert data[at + 11] == 0x21
    data[at + 11] = 0x12
    data[at + 5 : at + 9] = (2 * height).to_bytes(2, "big") + ((width + 1) // 2).to_bytes(2, "big")
    return bytes(data)


for width, height in [(1, 1), (3, 2), (5, 4), (16, 16), (17, 15), (33, 31), (50, 37)]:
    image = picture(width, height)
    for sampling in ["4:4:4", "4:2:2", "4:2:0"]:
        data = add(f"{width} x {height}, {sampling}", image, subsampling=sampling, quality=88)
        if sampling == "4:2:2" and -(-width // 16) == -(-((width + 1) // 2) // 8) and -(-height // 8) == -(-2 * height // 16):
            add(f"{(width + 1) // 2} x {2 * height}, 4:4:0", data=turned(data, width, height))
    add(f"{width} x {height}, grey", image.convert("L"), quality=88)
for quality in [1, 2, 5, 10, 20, 30, 50, 70, 80, 90, 95, 98, 99, 100]:
    add(f"quality {quality}", picture(24, 20), quality=quality, subsampling="4:2:0")
for noise in [60, 200]:
    for sampling in ["4:4:4", "4:2:0"]:
        add(f"noise {noise}, {sampling}", picture(24, 20, noise), quality=100, subsampling=sampling)
for sampling in ["4:4:4", "4:2:0"]:
    for blocks in [1, 3]:
        add(f"restart every {blocks}, {sampling}", picture(50, 37), restart_marker_blocks=blocks, subsampling=sampling)
    add(f"restart every row, {sampling}", picture(50, 37), restart_marker_rows=1, subsampling=sampling)
    add(f"own tables, {sampling}", picture(50, 37), optimize=True, subsampling=sampling)
add("grey, restarts and own tables", picture(50, 37).convert("L"), restart_marker_blocks=2, optimize=True)
add("even", Image.new("RGB", (40, 30), (200, 30, 90)), subsampling="4:2:0")

OUT.mkdir(parents=True, exist_ok=True)
(OUT / "pillow.bin").write_bytes(contents)
(OUT / "pillow.json").write_text("[\n" + ",\n".join(json.dumps(file) for file in files) + "\n]\n")
print(len(files), "files,", len(contents), "bytes")
