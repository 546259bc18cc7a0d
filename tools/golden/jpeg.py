"""Makes the small JPEG files that the decoding tests of simclr-data read.

Every file shows the same picture, 24 x 16, of four quadrants: red, green / blue, white; in `grey.jpg` 40, 100 / 160, 220.
`orientation-K.jpg` is stored so that it shows the same picture once its EXIF orientation K is applied.

Run: python tools/golden/jpeg.py   (needs Pillow; checks its own files)
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parents[2] / "crates/data/tests/golden"
UNDO = {  # how the upright picture is stored under orientation K
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


def quadrants(colours):
    picture = np.zeros((16, 24, len(colours[0])), np.uint8)
    for i, colour in enumerate(colours):
        picture[8 * (i // 2) : 8 * (i // 2) + 8, 12 * (i % 2) : 12 * (i % 2) + 12] = colour
    return picture


OUT.mkdir(parents=True, exist_ok=True)
rgb = Image.fromarray(quadrants([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]))
save = dict(quality=90, subsampling=0)
rgb.save(OUT / "colour.jpg", **save)
rgb.save(OUT / "progressive.jpg", progressive=True, **save)
rgb.save(OUT / "subsampled.jpg", quality=90, subsampling=2)
rgb.save(OUT / "restarts.jpg", quality=90, subsampling=1, restart_marker_blocks=1, optimize=True)
rgb.convert("CMYK").save(OUT / "cmyk.jpg", quality=95)
grey = quadrants([(40,), (100,), (160,), (220,)])[..., 0]
Image.fromarray(grey).save(OUT / "grey.jpg", quality=95)
for orientation in range(1, 9):
    stored = rgb
    for step in UNDO.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = OUT / f"orientation-{orientation}.jpg"
    stored.save(path, exif=exif, **save)
    seen = np.asarray(ImageOps.exif_transpose(Image.open(path)), int)
    assert np.abs(seen - np.asarray(rgb, int)).max() < 70, orientation
    assert np.abs(seen - np.asarray(rgb, int)).mean() < 6, orientation
