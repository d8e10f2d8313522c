"""SIGKILL, again and again: a process works on a cache until it is killed, and the next one checks what it left.

    TIERCEL_TEST_SEED=7 python -m tests.faults.kill_cycles DIRECTORY --cycles 5000 --tiers host+disk

The parent imports everything once and forks a child for each cycle, so a cycle costs tens of milliseconds. The child opens the
cache, reads everything and compares it with what its predecessor had reported, and then stores, loads, cancels and
resets; it dies at a random moment of any of this. It reports over a pipe, which outlives it:

    R keys     what the tiers that outlive a process hold, all tickets being settled; each key behind the number of its tier
    F number   so many blocks may leave each from here on until the next R: to make room for what is in flight
    V counts   opened, and everything read
    G          a reset returned

What must hold, always: a byte served is one that was stored under its key since the last reset; nothing is pinned or reserved
once tickets are settled, and free and held slots are all slots; what R reported is there after the kill and can be read,
less F; no step takes longer than `HANG_S`.
"""

import argparse
import json
import logging
import os
import random
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from tests.faults.simulation_model import BLOCKS_MAX, GEOMETRY_MODEL, NUM_PROMPTS, Engine, Flight, Model, sim_config
from tests.helpers.tier_samples import MEMORY_FOLDER
from tiercel import Cache, CacheConfig, TierName

HANG_S = 60.0
EVICT_BATCH = 5
"""What a full tier lets go of at once: `evict_ratio` of its blocks."""

KEY_BYTES = 8
NAME_BYTES = 1 + KEY_BYTES
"""A tier's number and a key."""


@dataclass
class Reported:
    """What the children told; a child starts from what the one before it had told."""

    ready: set[bytes] = field(default_factory=set)
    num_in_flight: int = 0
    verified: int = 0
    hits: int = 0
    hits_expected: int = 0
    killed_while_opening: int = 0


class Child:
    """One process's work, until it is killed."""

    def __init__(self, config: CacheConfig, model: Model, reported: Reported, pipe: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.model = model
        self.pipe = pipe
        self.reported = reported
        self.cache = Cache.open(GEOMETRY_MODEL, config)
        self.engine = Engine(self.cache.geometry)
        self.flights: list[Flight] = []
        self.kept = {
            tier for tier in self.cache._assembly.control.tiers if tier is TierName.DISK or config.cpu_arena_dir
        }

    def tell(self, kind: bytes, content: bytes = b"") -> None:
        os.write(self.pipe, struct.pack("<cH", kind, len(content)) + content)  # less than PIPE_BUF: whole or not at all

    def verify(self) -> None:
        """Read everything, and hold it against what was reported before the kill."""
        now = self.ready()
        for tier in self.kept:
            before = {name for name in self.reported.ready if name[0] == tier}
            assert len(before - now) <= self.reported.num_in_flight, (
                f"{len(before - now)} of {len(before)} blocks are gone from {tier.name}, "
                f"{self.reported.num_in_flight} were in flight"
            )
        # What is read moves up, and what it drives out of host memory may be nowhere else: the slowest tier's stay.
        held = {name[1:] for name in self.reported.ready & now if name[0] == max(self.kept)}
        hits = hits_expected = lost = 0
        for prompt in range(NUM_PROMPTS):
            keys = [key.tobytes()[:KEY_BYTES] for key in self.cache.sequence(self.model.tokens(prompt, None)).keys(0)]
            expected = next((i for i, key in enumerate(keys) if key not in held), len(keys))
            self.launch(prompt, BLOCKS_MAX, store=False)
            found = self.flights[0].ticket.wait(HANG_S).num_blocks_ok
            self.settle()
            hits, hits_expected, lost = hits + found, hits_expected + expected, lost + max(0, expected - found)
        assert lost == 0, f"{lost} of {hits_expected} blocks are there and cannot be read"
        self.report_ready()
        self.tell(b"V", struct.pack("<II", hits, hits_expected))

    def work(self) -> NoReturn:
        while True:
            act = self.random.random()
            if act < 0.01:
                self.tell(b"F", struct.pack("<I", 1_000_000))
                self.cache.reset()
                self.tell(b"G")
                self.model.reset()
            else:
                calls = [self.model.draw_sequence(self.random) for _ in range(self.random.choice((1, 1, 2)))]
                stores = self.random.random() < 0.6
                if stores or len(self.kept) > 1:
                    self.tell(b"F", struct.pack("<I", sum(max(length, EVICT_BATCH) for _, length in calls)))
                for prompt, length in calls:
                    self.launch(prompt, length, store=stores)
                if act < 0.1:
                    self.flights[-1].ticket.cancel()
                self.settle()
            self.report_ready()

    def launch(self, prompt: int, length: int, *, store: bool) -> None:
        sequence = self.cache.sequence(self.model.tokens(prompt, length))
        region = self.engine.take()
        if store:
            ticket = self.cache.store(sequence, self.engine.fill(region, self.model.content(prompt, length)))
        else:
            ticket = self.cache.load(sequence, self.engine.blocks(region, length))
        generation = self.model.generation
        self.flights.append(Flight(ticket=ticket, region=region, prompt=prompt, generation=generation, store=store))

    def settle(self) -> None:
        """Wait for all tickets, check the bytes that came, and look for leaks."""
        for flight in self.flights:
            result = flight.ticket.wait(HANG_S)
            if not flight.store:
                self.engine.check(flight, result.statuses, self.model)
            self.engine.give_back(flight.region)
        self.flights.clear()
        while self.cache.stats().tickets["running"]:
            time.sleep(0.0001)
        self.cache._assembly.control.index.check()
        for tier in self.cache.stats().tiers:
            assert (tier.num_pinned, tier.num_writing) == (0, 0), f"{tier.name}: pins or reservations were leaked"
            assert tier.num_free + tier.num_ready == tier.num_slots, f"{tier.name}: slots were leaked"

    def ready(self) -> set[bytes]:
        control = self.cache._assembly.control
        exported = {tier: control.export_blocks(tier)[1] for tier in self.kept}
        return {bytes([tier]) + key.tobytes()[:KEY_BYTES] for tier, keys in exported.items() for key in keys}

    def report_ready(self) -> None:
        self.tell(b"R", b"".join(self.ready()))


def run_child(config: CacheConfig, model: Model, reported: Reported, pipe: int, seed: int) -> NoReturn:
    """The life of a forked child; it never returns to the parent's code."""
    try:
        child = Child(config, model, reported, pipe, seed)
        child.verify()
        child.work()
    except BaseException:  # noqa: BLE001 - whatever it was, this process ends here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def take_in(data: bytes, reported: Reported, model: Model) -> None:
    """Read what a dead child told."""
    offset = 0
    while offset < len(data):
        kind, length = struct.unpack_from("<cH", data, offset)
        content = data[offset + 3 : offset + 3 + length]
        offset += 3 + length
        if kind == b"R":
            reported.ready = {content[i : i + NAME_BYTES] for i in range(0, length, NAME_BYTES)}
            reported.num_in_flight = 0
        elif kind == b"F":
            (reported.num_in_flight,) = struct.unpack("<I", content)
        elif kind == b"V":
            hits, hits_expected = struct.unpack("<II", content)
            reported.verified += 1
            reported.hits += hits
            reported.hits_expected += hits_expected
        else:
            model.reset()


def run_cycle(config: CacheConfig, model: Model, reported: Reported, generator: random.Random) -> None:
    """Fork, let it work, kill it."""
    seed, while_opening = generator.randrange(2**32), generator.random() < 0.3
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        run_child(config, model, reported, theirs, seed)
    os.close(theirs)
    data = b""
    started = time.monotonic()
    deadline = started + HANG_S
    moment = generator.random()
    while not while_opening and b"V\x08\x00" not in data:
        readable, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(ours, 1 << 16) if readable else b""
        if not part:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            raise AssertionError("the child hangs" if not readable else f"the child failed by itself, status {status}")
        data += part
    # As long as it took to read everything, so that there is time for some work on a busy machine, too.
    verified_s = time.monotonic() - started
    end = time.monotonic() + moment * (0.03 if while_opening else max(0.06, verified_s))
    while (left_s := end - time.monotonic()) > 0:  # the pipe must not run full
        if select.select([ours], [], [], left_s)[0]:
            part = os.read(ours, 1 << 16)
            data += part
            if not part:
                break
    os.kill(child, signal.SIGKILL)
    while part := os.read(ours, 1 << 16):
        data += part
    os.close(ours)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the child failed by itself"
    reported.killed_while_opening += not data
    take_in(data, reported, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument(
        "--tiers", choices=("disk", "host", "host+disk"), default="disk", help="which outlive the process"
    )
    given = parser.parse_args()
    seed = int(os.environ.get("TIERCEL_TEST_SEED", str(random.randrange(2**32))))
    sys.stderr.write(f"TIERCEL_TEST_SEED={seed}\n")
    logging.disable(logging.CRITICAL - 1)
    generator = random.Random(seed)
    engine = generator.choice(("auto", "threads"))
    config = sim_config([given.directory], ssd_io_engine=engine, ssd_direct_io=True, enable_ssd=given.tiers != "host")
    folder = tempfile.TemporaryDirectory(dir=MEMORY_FOLDER, prefix="tiercel-kills-")
    if given.tiers != "disk":
        config = replace(config, cpu_arena_dir=str(Path(folder.name) / "arena"))
    model, reported = Model(), Reported()
    for prompt in range(NUM_PROMPTS):
        model.content(prompt, BLOCKS_MAX)
    started = time.monotonic()
    for cycle in range(given.cycles):
        try:
            run_cycle(config, model, reported, generator)
        except AssertionError as error:
            raise AssertionError(f"cycle {cycle}: {error}") from error
    folder.cleanup()
    result = {
        "seed": seed,
        "engines": {engine: 1},
        "cycles": given.cycles,
        "seconds": round(time.monotonic() - started, 1),
        "restarts_verified": reported.verified,
        "killed_while_opening": reported.killed_while_opening,
        "hits_promised_at_restarts": reported.hits_expected,
        "hits_read_at_restarts": reported.hits,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
