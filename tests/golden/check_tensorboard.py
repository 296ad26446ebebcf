#!/usr/bin/env python3
"""check_tensorboard.py - reads a run's event file with TensorBoard and compares it with metrics.jsonl.

usage: check_tensorboard.py RUN        (pip install tensorboard)

Every number of metrics.jsonl must be there under its name and step, rounded to f32, and nothing else; a null
(not finite) is not compared.
"""
import json
import math
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = sys.argv[1]
events = EventAccumulator(run, size_guidance={"scalars": 0})
events.Reload()
theirs = {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
ours = {(tag, line["step"]): value for line in map(json.loads, open(f"{run}/metrics.jsonl"))
        for tag, value in line.items() if tag != "step"}
wrong = sorted(theirs.keys() ^ ours.keys())
wrong += [key for key in ours if key in theirs and ours[key] is not None
          and struct.unpack("f", struct.pack("f", ours[key]))[0] != theirs[key]]
walls = [e.wall_time for e in events.Scalars(events.Tags()["scalars"][0])]
if walls != sorted(walls) or not all(math.isfinite(w) for w in walls):
    wrong.append("wall times")
print(f"{len(ours)} numbers in metrics.jsonl, {len(theirs)} in TensorBoard, {len(wrong)} differences", *wrong[:3])
sys.exit(bool(wrong) or not ours)
