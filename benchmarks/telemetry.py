"""What does accounting cost a lookup and a launch?

Each row is the time of one call, over batches of 50, short enough that most are not interrupted: the metrics alone, the
facade's observer with nothing but metrics, with a recording, and with no-op spans (the application has set up no SDK). The
recorder's own thread works meanwhile; its time and its bytes for each turn of a growing 128K-token sequence come last.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _harness import Row, measure, parse_arguments, report, time_row

from tiercel import Cache, CacheConfig, ModelConfig
from tiercel.telemetry.metrics import CacheMetrics
from tiercel.telemetry.recorder import QUEUE_EVENTS_MAX, Recorder
from tiercel.telemetry.recording import RecordingAbout

MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=64, dtype="float16", model_id="telemetry-benchmark")
BATCH = 50
LOOKUP_BOUND_US = 2.0


def measure_metrics(repeats: int) -> list[Row]:
    metrics = CacheMetrics()
    hits = [("host", 300), ("disk", 212)]
    queues: dict[str, int] = {"host-load": 0, "host-store": 0, "disk-load": 0, "disk-store": 0}

    def lookups() -> None:
        for _ in range(BATCH):
            metrics.observe_lookup(seconds=2e-5, num_tokens=8192, tokens_per_block=16, hits=hits)

    def submissions() -> None:
        for _ in range(BATCH):
            metrics.observe_submission(queues)

    return [
        time_row("metrics of a lookup, two tiers", measure(lookups, repeats), unit="us", per=BATCH, bound=LOOKUP_BOUND_US),
        time_row("queue depths of a launch, four queues", measure(submissions, repeats), unit="us", per=BATCH, bound=None),
    ]  # fmt: skip


def measure_observer(name: str, settings: dict[str, object], repeats: int, bound: float | None) -> Row:
    with Cache.open(MODEL, CacheConfig(num_cpu_blocks=4096, **settings)) as cache:  # type: ignore[arg-type]
        sequence = cache.sequence(np.arange(8192, dtype=np.int32))
        index = cache._assembly.control.index
        index.commit(index.reserve(sequence, 0, owner=1))
        lookup = cache.lookup(sequence)
        assert lookup.num_blocks == 512
        observer = cache._observer

        def observe() -> None:
            for _ in range(BATCH):
                observer.observe_lookup(lookup, 2e-5, None)

        row = time_row(
            name, measure(observe, repeats, setup=lambda: time.sleep(0.001)), unit="us", per=BATCH, bound=bound
        )
        lookup.release()
    return row


def measure_recorder(folder: Path) -> list[Row]:
    about = RecordingAbout(fingerprint="", model="", tokens_per_block=16, block_bytes=1)
    path = folder / "growing"
    recorder = Recorder(path, about, bytes_max=1 << 30, count=lambda outcome, num: None, note=print)
    with Cache.open(MODEL, CacheConfig(num_cpu_blocks=16)) as cache:
        sequence = cache.sequence(np.arange(131_072, dtype=np.int32))
        sequence.keys()
        turns = QUEUE_EVENTS_MAX // 8
        started = time.perf_counter()
        recorder.lookup(sequence, 0, [])
        for _ in range(turns):
            sequence.extend(np.arange(512, dtype=np.int32))
            recorder.lookup(sequence, sequence.num_blocks, [("host", 1)])
        recorder.close()
        seconds = time.perf_counter() - started
    first = 131_072 // 16 * 8
    return [
        Row(name="writer's thread, 128K to 650K tokens, a turn", value=seconds / turns * 1e6, unit="us"),
        Row(name="bytes of a turn of 512 tokens", value=(path.stat().st_size - first) / turns, unit="B", bound=512.0),
    ]


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 800
    rows = measure_metrics(repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording: dict[str, object] = {"record_path": str(folder / "trace")}
        rows.append(measure_observer("observer of a lookup", {}, repeats, LOOKUP_BOUND_US * 2))
        rows.append(measure_observer("observer and recording", recording, repeats, None))
        try:
            rows.append(measure_observer("observer and no-op spans", {"trace_spans": True}, repeats, None))
        except ValueError as error:
            print(f"# no row for spans: {error}")
        rows += measure_recorder(folder)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
