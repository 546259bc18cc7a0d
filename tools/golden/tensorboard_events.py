"""Golden bytes of TensorBoard event files, and a check of a file written by the program.

python tools/golden/tensorboard_events.py            writes crates/train/tests/golden/events.tfevents
python tools/golden/tensorboard_events.py --check F  prints what TensorBoard reads from the folder or file F
"""
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

if sys.argv[1:2] == ["--check"]:
    accumulator = EventAccumulator(sys.argv[2])
    accumulator.Reload()
    for tag in accumulator.Tags()["scalars"]:
        print(tag, [(event.step, event.value) for event in accumulator.Scalars(tag)])
    sys.exit()


def scalars(wall_time, step, values):
    entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values]
    return Event(wall_time=wall_time, step=step, summary=Summary(value=entries))


events = [
    Event(wall_time=1_700_000_000.25, file_version="brain.Event:2"),
    scalars(1_700_000_001.5, 0, [("train/loss", 5.5)]),
    scalars(1_700_000_002.75, 300, [("train/loss", 0.1), ("größe", -1e30)]),
    scalars(1_700_000_003.0, 2**32, [("train/rate", 0.0)]),
]
path = pathlib.Path(__file__).parents[2] / "crates/train/tests/golden/events.tfevents"
path.parent.mkdir(parents=True, exist_ok=True)
with open(path, "wb") as file:
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
