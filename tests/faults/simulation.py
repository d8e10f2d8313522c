"""Runs the real cache on the simulated disk, operation by operation, and holds what it serves against a plain model.

    TIERCEL_SIM_SEED=7 python -m tests.faults.simulation DIRECTORY --operations 1000000 [--seconds 60] [--json FILE]

An operation is one call of the facade (lookup, load, store, prefetch, cancel, reset), a close and reopen, or a crash and
recovery: a kill, which loses what was not written, or a power cut, which also loses any part of what was not synced.
The seed fixes the operations and the faults that are drawn; which thread meets which fault is the machine's choice.

What must hold, always: a byte served is one that was stored under its key since the last reset; nothing is pinned or
reserved once all tickets have ended, and free and held slots are all slots; no call takes longer than `HANG_S`; what was ready
before a kill is there and readable after it; what a clean close left is there after a power cut.
"""

import argparse
import faulthandler
import json
import logging
import os
import random
import sys
import time
from pathlib import Path

from tests.faults.simulation_model import GEOMETRY_MODEL, NUM_PROMPTS, Engine, Flight, Model, sim_config
from tests.helpers.simulated_disk import NO_FAULTS, DiskFaults, SimulatedDisk
from tiercel import Cache, Lookup, TierName
from tiercel.errors import ConfigError, DirectoryLockedError, TierError, TierFailedError

HANG_S = 60
FLIGHTS_MAX = 5
LOOKUPS_MAX = 4

_MOODS = {
    "calm": NO_FAULTS,
    "errors": DiskFaults(read_error=20000, write_error=20000, interrupted=50000, sync_error=50000),
    "short": DiskFaults(short_read=30000, short_write=30000, interrupted=50000),
    "full": DiskFaults(no_space=60000, write_error=5000),
    "stalls": DiskFaults(stall=20000, interrupted=10000),
    "flips": DiskFaults(flip_on_read=10000, flip_on_write=10000),
    "storm": DiskFaults(
        read_error=60000, write_error=60000, no_space=30000, interrupted=100000, short_read=50000, short_write=50000,
        flip_on_read=5000, flip_on_write=5000, sync_error=200000, stall=5000,
    ),
}  # fmt: skip


class Simulation:
    """One cache, its model, and the disk below it."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.directories = [directory / "disk" / str(i) for i in range(self.random.choice((1, 1, 2)))]
        stash = directory / "stash"
        for path in (*self.directories, stash):
            path.mkdir(parents=True)
        self.disk = SimulatedDisk(directory / "disk", stash, seed)
        self.model = Model()
        self.mood = "calm"
        self.doubtful = False  # bits were flipped, or unsynced bytes lost: blocks may be missing or unreadable
        self.syncs_failed = False  # so a power cut may take what a later sync did not save
        self.suspects: set[bytes] = (
            set()
        )  # blocks that were there while that was so, and could not be read for want of a parent
        self.lookups: list[Lookup] = []
        self.flights: list[Flight] = []
        self.counts: dict[str, int] = {}
        self.hits_expected = self.hits_found = self.ready_at_crashes = self.power_cuts_kept = 0
        self.cache = self.open()
        self.engine = Engine(self.cache.geometry)

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def step(self) -> None:
        """One operation."""
        names, weights = zip(*_OPERATIONS.items(), strict=True)
        (name,) = self.random.choices(names, weights)
        self.count(name)
        getattr(self, f"do_{name}")()
        if self.disk.is_dead:
            self.recover()

    # Calls of the facade

    def do_store(self) -> None:
        self.launch(self.model.draw_sequence(self.random), store=True)
        if self.random.random() < 0.7:
            self.settle_all()

    def do_load(self) -> None:
        self.launch(self.model.draw_sequence(self.random), store=False)
        if self.random.random() < 0.7:
            self.settle_all()

    def do_prefetch(self) -> None:
        prompt, length = self.model.draw_sequence(self.random)
        self.cache.prefetch(self.cache.sequence(self.model.tokens(prompt, length))).wait(HANG_S)

    def do_lookup(self) -> None:
        prompt, length = self.model.draw_sequence(self.random)
        self.lookups.append(self.cache.lookup(self.cache.sequence(self.model.tokens(prompt, length))))
        while len(self.lookups) > self.random.randrange(LOOKUPS_MAX):
            self.lookups.pop(self.random.randrange(len(self.lookups))).release()

    def do_cancel(self) -> None:
        self.launch(self.model.draw_sequence(self.random), store=self.random.random() < 0.5)
        self.random.choice(self.flights).ticket.cancel()

    def do_deadline(self) -> None:
        self.launch(
            self.model.draw_sequence(self.random), store=False, timeout_s=self.random.choice((1e-6, 1e-4, 1e-3))
        )

    def do_settle(self) -> None:
        self.settle_all()

    def do_check(self) -> None:
        self.quiesce()

    def do_mood(self) -> None:
        self.mood = self.random.choice(list(_MOODS))
        self.apply_mood()

    def do_sync(self) -> None:
        disk = self.cache._assembly.disk
        assert disk is not None
        disk._sync._synced_at = float("-inf")
        disk._sync.sync_if_due()

    def do_reset(self) -> None:
        """The weights change: what was stored before must never be served again, whatever happens from here on."""
        for lookup in self.lookups:
            lookup.release()
        self.lookups.clear()
        for attempt in range(4):
            try:
                self.cache.reset()
            except TierFailedError:
                if self.disk.is_dead:
                    break
                if attempt == 2:
                    self.disk.set_faults(NO_FAULTS)  # mended, as the message asks
                continue
            self.model.reset()
            break
        else:
            raise AssertionError("a reset on a sound disk failed")
        self.apply_mood()
        self.settle_all()

    def launch(self, what: tuple[int, int], *, store: bool, timeout_s: float | None = None) -> None:
        if len(self.flights) == FLIGHTS_MAX:
            self.settle(self.flights.pop(0))
        prompt, length = what
        sequence = self.cache.sequence(self.model.tokens(prompt, length))
        region = self.engine.take()
        blocks = (
            self.engine.fill(region, self.model.content(prompt, length))
            if store
            else self.engine.blocks(region, length)
        )
        call = self.cache.store if store else self.cache.load
        ticket = call(sequence, blocks, timeout_s=timeout_s)
        self.flights.append(
            Flight(ticket=ticket, region=region, prompt=prompt, generation=self.model.generation, store=store)
        )

    def settle(self, flight: Flight) -> None:
        """Wait for a ticket and check every byte that it brought."""
        result = flight.ticket.wait(HANG_S)
        if not flight.store:
            self.engine.check(flight, result.statuses, self.model)
        self.engine.give_back(flight.region)

    def settle_all(self) -> None:
        for flight in self.flights:
            self.settle(flight)
        self.flights.clear()

    def quiesce(self) -> None:
        """End everything and look for leaks."""
        self.settle_all()
        for lookup in self.lookups:
            lookup.release()
        self.lookups.clear()
        deadline = time.monotonic() + HANG_S
        while self.cache.stats().tickets["running"]:
            assert time.monotonic() < deadline, "an operation does not end"
            time.sleep(0.0002)
        assembly = self.cache._assembly
        assembly.control.index.check()
        for tier in self.cache.stats().tiers:
            assert (tier.num_pinned, tier.num_writing) == (0, 0), f"{tier.name}: pins or reservations were leaked"
            assert tier.num_free + tier.num_ready == tier.num_slots, f"{tier.name}: slots were leaked"
        assert assembly.disk is not None
        _, _, slots = assembly.control.export_blocks(TierName.DISK)
        assert assembly.disk._states.are_written(slots).all(), "the index holds a block that the tier has not"
        assert assembly.disk._states.num_written == len(slots), "the tier holds a block that the index has not"

    # Closing, crashing, opening

    def apply_mood(self) -> None:
        self.disk.set_faults(_MOODS[self.mood], stall_us=self.random.choice((100, 1000, 5000)))
        self.doubtful = self.doubtful or _MOODS[self.mood].flips
        self.syncs_failed = self.syncs_failed or _MOODS[self.mood].sync_error > 0

    def open(self) -> Cache:
        """Open the cache; a device that fails while it is opened may be tried again, and in the end it must open."""
        for attempt in range(4):
            if attempt == 3 or self.disk.is_dead:
                cut_power = self.disk.is_dead and self.random.random() < 0.5
                self.end_outage(cut_power=cut_power)
                self.disk.set_faults(NO_FAULTS)
            try:
                return Cache.open(GEOMETRY_MODEL, sim_config(self.directories))
            except DirectoryLockedError:
                raise
            except (OSError, ConfigError, TierError) as error:
                self.count(f"open_refused_{type(error).__name__}")
                if attempt == 3:
                    raise AssertionError("a cache on a sound disk does not open") from error
        raise AssertionError("not reached")

    def do_close(self) -> None:
        """Close and open again; sometimes the power fails in between. A crash that is under way may come in the closing."""
        self.quiesce()
        if self.disk.is_dead:
            return
        ready = self.ready()
        self.cache.close()
        cut_power = self.random.random() < 0.5
        closed_well = not self.disk.is_dead and self.mood == "calm" and not self.syncs_failed
        self.end_outage(cut_power=cut_power, harmless=closed_well)
        self.disk.set_faults(NO_FAULTS)
        self.cache = self.open()
        self.expect_kept(ready, "a clean close" if closed_well else "closing")
        self.power_cuts_kept += len(ready) if cut_power and closed_well and not self.doubtful else 0
        self.read_everything(ready)

    def end_outage(self, *, cut_power: bool, harmless: bool = False) -> None:
        """Let the disk work again, on what a kill or a power cut left."""
        self.disk.revive(cut_power=cut_power)
        self.doubtful = self.doubtful or (cut_power and not harmless)
        self.syncs_failed = self.syncs_failed and not cut_power

    def expect_kept(self, ready: set[bytes], event: str) -> None:
        now = self.ready()
        gone = len(ready - now)
        assert gone == 0 or self.doubtful, f"{gone} of {len(ready)} blocks are gone after {event}; {len(now)} are there"

    def do_crash(self) -> None:
        self.disk.crash_in(self.random.choice((1, 2, 3, 5, 8, 13, 40)))

    def recover(self) -> None:
        """The process was killed, or the power failed, at some call of the last operation."""
        self.quiesce()
        ready = self.ready()
        self.cache.close()
        cut_power = self.random.random() < 0.4
        self.count("power_cut" if cut_power else "kill")
        self.end_outage(cut_power=cut_power)
        if self.random.random() < 0.7:
            self.disk.set_faults(NO_FAULTS)
        if self.random.random() < 0.1:
            self.disk.crash_in(self.random.randrange(1, 20))  # while it recovers
        self.cache = self.open()
        self.disk.crash_in(0)
        self.expect_kept(ready, "a kill")
        self.ready_at_crashes += 0 if self.doubtful else len(ready)
        if not self.disk.is_dead:
            self.read_everything(ready)

    def ready(self) -> set[bytes]:
        """The keys that the disk tier holds now."""
        _, keys, _ = self.cache._assembly.control.export_blocks(TierName.DISK)
        return {key.tobytes() for key in keys}

    def read_everything(self, ready: set[bytes]) -> None:
        """Load every prompt on a sound disk: what was ready must be readable, unless bits were flipped or bytes lost.

        More may be promised than is readable: a block that left to make room for one whose write a kill cut short.
        """
        self.disk.set_faults(NO_FAULTS)
        good: set[bytes] = set()
        for prompt in range(NUM_PROMPTS):
            keys = [key.tobytes() for key in self.cache.sequence(self.model.tokens(prompt, None)).keys()]
            expected = next((i for i, key in enumerate(keys) if key not in ready or key in self.suspects), len(keys))
            self.launch((prompt, len(keys)), store=False)
            flight = self.flights.pop()
            result = flight.ticket.wait(HANG_S)
            self.settle(flight)
            self.hits_expected += expected
            self.hits_found += result.num_blocks_ok
            good.update(keys[: result.num_blocks_ok])
            assert result.num_blocks_ok >= expected or self.doubtful, f"{expected} blocks were ready: {result.statuses}"
        self.quiesce()
        self.suspects = (self.suspects | self.ready() if self.doubtful else self.suspects) - good
        self.doubtful = False
        self.apply_mood()

    def close(self) -> None:
        self.quiesce()
        self.cache.close()


_OPERATIONS = {
    "lookup": 300,
    "load": 300,
    "store": 300,
    "settle": 30,
    "prefetch": 20,
    "cancel": 20,
    "deadline": 15,
    "check": 10,
    "mood": 4,
    "crash": 5,
    "sync": 3,
    "close": 2,
    "reset": 1,
}


def run(directory: Path, seed: int, operations: int, seconds: float) -> dict[str, object]:
    """Run until the operations or the seconds are used up. Returns what was done."""
    started = time.monotonic()
    simulation = Simulation(directory, seed)
    done = 0
    while done < operations and time.monotonic() - started < seconds:
        if done % 256 == 0:
            faulthandler.dump_traceback_later(2 * HANG_S, exit=True)
        simulation.step()
        done += 1
    simulation.close()
    faulthandler.cancel_dump_traceback_later()
    return {
        "seed": seed,
        "operations": done,
        "seconds": round(time.monotonic() - started, 1),
        "directories": len(simulation.directories),
        "blocks_ready_before_kills_all_found": simulation.ready_at_crashes,
        "blocks_kept_over_power_cuts_after_close": simulation.power_cuts_kept,
        "hits_promised_at_restarts": simulation.hits_expected,
        "hits_read_at_restarts": simulation.hits_found,
        "calls": dict(sorted(simulation.counts.items())),
        "faults": dict(simulation.disk.counts()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--operations", type=int, default=int(os.environ.get("TIERCEL_SIM_OPERATIONS", "10000")))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    arguments = parser.parse_args()
    seed = int(os.environ.get("TIERCEL_SIM_SEED", str(random.randrange(2**32))))
    sys.stderr.write(f"TIERCEL_SIM_SEED={seed}\n")
    logging.disable(logging.CRITICAL - 1)
    result = run(arguments.directory, seed, arguments.operations, arguments.seconds)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
