"""Small Parquet files as Hugging Face's libraries write them, for crates/data/tests/parquet.rs.

    python tools/golden/parquet.py

Needs pyarrow and Pillow. Row i holds a picture of 4 x 3 pixels of the value i; the labels are i mod 3.
"""

import io
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/data/tests/golden/parquet"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["cat", "dog", "owl"]
HUGGING_FACE = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}}}


def png(value):
    out = io.BytesIO()
    Image.new("RGB", (4, 3), (value,) * 3).save(out, "PNG")
    return out.getvalue()


def write(name, columns, schema, **options):
    table = pa.table(columns, schema=pa.schema(schema, metadata={"huggingface": json.dumps(HUGGING_FACE)}))
    pq.write_table(table, OUT / name, **options)


def struct(rows):
    return [None if i is None else {"bytes": png(i), "path": f"{i}.png"} for i in rows]


OUT.mkdir(parents=True, exist_ok=True)
schema = [("image", IMAGE), ("label", pa.int64())]
rows = list(range(20))
for compression in ["snappy", "gzip", "lz4", "none", "zstd", "brotli"]:
    columns = {"image": struct(rows), "label": [i % 3 for i in rows]}
    write(f"{compression}.parquet", columns, schema, compression=compression, row_group_size=7)
write("nulls.parquet", {"image": struct([0, None, 2]), "label": [0, None, 2]}, schema)
write("zstd-2.parquet", {"image": struct([0, None, 2]), "label": [0, None, 2]}, schema,
      compression="zstd", data_page_version="2.0")
binary = {"id": ["a", "b"], "jpg": [png(0), png(1)], "category": ["owl", "ant"]}
write("binary.parquet", binary, [("id", pa.string()), ("jpg", pa.binary()), ("category", pa.string())],
      data_page_version="2.0", use_dictionary=["category"], column_encoding={"jpg": "DELTA_LENGTH_BYTE_ARRAY", "id": "PLAIN"})
write("texts.parquet", {"id": ["a"]}, [("id", pa.string())])
write("noise.parquet", {"image": [b"no image"]}, [("image", pa.binary())])
