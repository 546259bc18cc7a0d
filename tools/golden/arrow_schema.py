"""The Arrow schema of a table of features: a list of fixed length, which Parquet itself cannot express.

    python tools/golden/arrow_schema.py

Needs pyarrow (26.0 was used). Writes crates/eval/src/embedding/arrow_schema.bin, in which LENGTH is a placeholder for the
length of the features, and crates/eval/tests/golden/arrow_schema_512.txt, which pyarrow puts into a file of length 512.
"""
import base64
import pathlib
import struct

import pyarrow as pa

LENGTH = 0x0A0B0C0D
CRATE = pathlib.Path(__file__).resolve().parents[2] / "crates/eval"


def schema(length):
    element = pa.field("element", pa.float32(), nullable=False)
    fields = [
        pa.field("name", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("label", pa.int64()),
        pa.field("class", pa.string()),
        pa.field("features", pa.list_(element, length), nullable=False),
    ]
    return pa.schema(fields).serialize().to_pybytes()


template = schema(LENGTH)
assert template.count(struct.pack("<i", LENGTH)) == 1
(CRATE / "src/embedding/arrow_schema.bin").write_bytes(template)
(CRATE / "tests/golden/arrow_schema_512.txt").write_bytes(base64.b64encode(schema(512)))
