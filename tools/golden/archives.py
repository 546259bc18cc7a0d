"""Small archives and binary data sets for tools/fuzz.sh, in crates/data/tests/golden/archives.

    python tools/golden/archives.py

Needs Pillow and the program `zstd`.
"""

import gzip
import io
import pathlib
import struct
import subprocess
import tarfile
import zipfile

from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/data/tests/golden/archives"
OUT.mkdir(parents=True, exist_ok=True)


def png(value):
    out = io.BytesIO()
    Image.new("RGB", (4, 3), (value,) * 3).save(out, "PNG")
    return out.getvalue()


def add(archive, name, contents):
    entry = tarfile.TarInfo(name)
    entry.size = len(contents)
    archive.addfile(entry, io.BytesIO(contents))


for kind, layout in [("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
        for i in range(3):
            add(archive, f"sample{i}.png", png(i))
            add(archive, f"sample{i}.cls", str(i).encode())
        add(archive, "long" * 40 + ".png", png(9))
    (OUT / f"{kind}.tar").write_bytes(out.getvalue())
    if kind == "gnu":
        (OUT / "gnu.tar.gz").write_bytes(gzip.compress(out.getvalue(), mtime=0))
        packed = subprocess.run(["zstd", "-c"], input=out.getvalue(), capture_output=True, check=True).stdout
        (OUT / "gnu.tar.zst").write_bytes(packed)
for kind, method in [("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)]:
    with zipfile.ZipFile(OUT / f"{kind}.zip", "w", method) as archive:
        for i in range(4):
            archive.writestr(zipfile.ZipInfo(f"set/{'ab'[i % 2]}/{i}.png"), png(i), compress_type=method)
(OUT / "list.csv").write_text("path,label,split\nlist.csv,a,train\n\"x,y.png\",b,val\n")
(OUT / "list.txt").write_text("list.txt\nb c.png\n")
(OUT / "train-images.idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(range(24)))
(OUT / "data_batch_1.bin").write_bytes(b"".join(bytes([i]) + bytes(3072) for i in range(2)))
