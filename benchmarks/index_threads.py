"""What do 1, 2, 4 and 8 threads get out of one index that each looks up, reserves and commits in?

A call of the table is one of match, reserve and commit on sequences of 512 tokens, keys known, in a full index of a
million blocks. Fairness is the slowest thread's calls over the fastest one's. There is no bound: with the GIL, the
threads share one processor at best, and the rows show whether sharing costs anything (a lock convoy would): calls a
second of CPU should not fall.
"""

import statistics
import sys
import threading
import time

import numpy as np
from _harness import Row, parse_arguments, report
from _index_fill import NUM_BLOCKS, random_tokens, sequence_of, store

from tiercel._native import Sequence
from tiercel.index import Index

SEQUENCE_TOKENS = 512
SEQUENCES_PER_THREAD = 2_000
SECONDS = 2.0


def full_index(rng: np.random.Generator) -> Index:
    index = Index([NUM_BLOCKS])
    while index.stats(0).num_free:
        store(index, sequence_of(random_tokens(rng, SEQUENCE_TOKENS)))
    return index


def work(index: Index, sequences: list[Sequence], start: threading.Barrier, seconds: list[float]) -> None:
    """Append the seconds of each call until the time is over."""
    start.wait()
    stop = time.perf_counter() + SECONDS
    while time.perf_counter() < stop:
        for sequence in sequences[:100]:
            before = time.perf_counter()
            match = index.match(sequence)
            matched = time.perf_counter()
            match.release()
            reserving = time.perf_counter()
            reservation = index.reserve(sequence, 0, owner=1)
            reserved = time.perf_counter()
            index.commit(reservation)
            seconds += [matched - before, reserved - reserving, time.perf_counter() - reserved]
            reservation.release()
        sequences.append(sequences.pop(0))


def measure_threads(index: Index, rng: np.random.Generator, num_threads: int) -> list[Row]:
    start = threading.Barrier(num_threads)
    results: list[list[float]] = [[] for _ in range(num_threads)]
    threads = []
    for seconds in results:
        sequences = [sequence_of(random_tokens(rng, SEQUENCE_TOKENS)) for _ in range(SEQUENCES_PER_THREAD)]
        for sequence in sequences:
            sequence.keys()
        threads.append(threading.Thread(target=work, args=(index, sequences, start, seconds)))
    cpu, wall = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    calls = np.concatenate([np.array(seconds) for seconds in results]) * 1e6
    shares = [len(seconds) for seconds in results]
    name = f"{num_threads} threads" if num_threads > 1 else "1 thread"
    return [
        Row(name=f"{name}: calls a second", value=sum(shares) / wall, unit="1/s", higher_is_better=True),
        Row(name=f"{name}: calls a second of CPU", value=sum(shares) / cpu, unit="1/s", higher_is_better=True),
        Row(name=f"{name}: median of a call", value=statistics.median(calls.tolist()), unit="us"),
        Row(name=f"{name}: 99th percentile", value=float(np.percentile(calls, 99)), unit="us"),
        Row(name=f"{name}: fairness", value=min(shares) / max(shares), unit="", higher_is_better=True),
    ]


def main() -> int:
    arguments = parse_arguments(__doc__)
    rng = np.random.default_rng(1)
    index = full_index(rng)
    rows = [row for num_threads in (1, 2, 4, 8) for row in measure_threads(index, rng, num_threads)]
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
