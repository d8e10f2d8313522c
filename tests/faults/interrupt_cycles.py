"""Ctrl-C and SIGTERM at any moment: opening, recovering, storing, loading, closing.

    TIERCEL_TEST_SEED=7 python -m tests.faults.interrupt_cycles DIRECTORY --cycles 40

Like `kill_cycles`, children are forked from a parent that has imported everything. Each uses the cache as users do: in a
script, in asyncio, or in a service that turns SIGTERM into an exit. What must hold after each signal: the process ends soon,
with the exit code of its signal and no complaint on stderr; the directory opens again, with every byte right; and once that
cache is closed, no lock, socket or temporary file is left.
"""

import argparse
import asyncio
import faulthandler
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.simulation_model import BLOCKS_MAX, GEOMETRY_MODEL, NUM_PROMPTS, Engine, Flight, Model, sim_config
from tiercel import Cache, CacheConfig

ENDS_WITHIN_S = 20.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
MODEL = Model()
COUNTS: Counter[str] = Counter()


def use(cache: Cache, engine: Engine, prompt: int, *, store: bool) -> Flight:
    """Launch a store or a load."""
    sequence = cache.sequence(MODEL.tokens(prompt, None))
    region = engine.take()
    if store:
        ticket = cache.store(sequence, engine.fill(region, MODEL.content(prompt, BLOCKS_MAX)))
    else:
        ticket = cache.load(sequence, engine.blocks(region, BLOCKS_MAX))
    return Flight(ticket=ticket, region=region, prompt=prompt, generation=0, store=store)


def finish(engine: Engine, flight: Flight) -> None:
    if not flight.store:
        engine.check(flight, flight.ticket.wait(ENDS_WITHIN_S).statuses, MODEL)
    engine.give_back(flight.region)


def script(config: CacheConfig, generator: random.Random) -> None:
    """Open, work for a while, close; again and again."""
    while True:
        with Cache.open(GEOMETRY_MODEL, config) as cache:
            engine = Engine(cache.geometry)
            for _ in range(generator.randrange(30)):
                flight = use(cache, engine, generator.randrange(NUM_PROMPTS), store=generator.random() < 0.6)
                flight.ticket.wait(ENDS_WITHIN_S)
                finish(engine, flight)


def service(config: CacheConfig, generator: random.Random) -> None:
    """A process that exits in order when it is told to."""

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    script(config, generator)


def in_asyncio(config: CacheConfig, generator: random.Random) -> None:
    """Several tasks that await tickets."""

    async def work(cache: Cache, engine: Engine) -> None:
        while True:
            flight = use(cache, engine, generator.randrange(NUM_PROMPTS), store=generator.random() < 0.6)
            await flight.ticket
            finish(engine, flight)

    async def serve() -> None:
        async with Cache.open(GEOMETRY_MODEL, config) as cache, asyncio.TaskGroup() as group:
            engine = Engine(cache.geometry)
            for _ in range(4):
                group.create_task(work(cache, engine))

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        # Python's own: a SIGINT that arrives before `Runner.run` sets its count to 0 cancels, and is forgotten.
        raise KeyboardInterrupt from None


USERS: dict[str, Callable[[CacheConfig, random.Random], None]] = {
    "script": script,
    "service": service,
    "asyncio": in_asyncio,
}


def check(config: CacheConfig) -> int:
    """Open what was left, read everything, and return the hits."""
    with Cache.open(GEOMETRY_MODEL, config) as cache:
        engine = Engine(cache.geometry)
        hits = 0
        for prompt in range(NUM_PROMPTS):
            flight = use(cache, engine, prompt, store=False)
            hits += flight.ticket.wait(ENDS_WITHIN_S).num_blocks_ok
            finish(engine, flight)
    return hits


def fork(work: Callable[[], object], errors: Path) -> int:
    """Run `work` in a child, with its own end of the interpreter; what it says on stderr goes to a file."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child can catch them
    child = os.fork()
    if child != 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return child
    faulthandler.enable()
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        work()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:  # noqa: BLE001 - told on stderr, which the parent reads
        traceback.print_exc()
        raise SystemExit(1) from None
    raise SystemExit(0)


def exit_code(child: int, what: str, errors: Path, again: int | None = None) -> int:
    """Wait for a child, for so long and no longer.

    Args:
        again: a signal to send once more where Python itself said that it dropped what the first one's handler had raised, in
            the callback of a weak reference; `threading` has one for every thread that ends.
    """
    deadline = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if again is not None and dropped(errors):
            COUNTS["dropped by Python"] += 1
            os.kill(child, again)
            again = None
        time.sleep(0.001)
    os.kill(child, signal.SIGABRT)  # faulthandler tells where it hangs
    os.waitpid(child, 0)
    raise AssertionError(f"{what}: did not end within {ENDS_WITHIN_S} s\n{errors.read_text()}")


def dropped(errors: Path) -> bool:
    """Whether Python told of a signal's exception that it dropped in a callback."""
    said = errors.read_text() if errors.exists() else ""
    return "Exception ignored in: <function Weak" in said and ("KeyboardInterrupt" in said or "SystemExit" in said)


def run_cycle(directory: Path, generator: random.Random) -> None:
    user = generator.choice(list(USERS))
    number = generator.choice(SIGNALS)
    delay_s, seed = generator.uniform(0.0, 0.1), generator.randrange(2**32)
    told = f"{user}, {number.name} after {delay_s:.4f} s"
    config = sim_config([directory / "cache"], ssd_io_engine="auto")
    errors = directory / "errors"
    errors.unlink(missing_ok=True)
    child = fork(lambda: USERS[user](config, random.Random(seed)), errors)
    time.sleep(delay_s)
    os.kill(child, number)
    code = exit_code(child, told, errors, again=number)
    expected = {130} if number is signal.SIGINT else {128 + signal.SIGTERM, -signal.SIGTERM}
    said = errors.read_text()
    assert code in expected, f"{told}: exit code {code}\n{said}"
    # Python's own: an event loop that was interrupted before it was whole cannot be closed, nor what it should run be run.
    begun = user == "asyncio" and ("BaseEventLoop.__del__" in said or "serve' was never awaited" in said)
    assert said == "" or begun or dropped(errors), f"{told}: {said}"
    code = exit_code(fork(lambda: check(config), errors), f"the next start after {told}", errors)
    assert code == 0, f"the next start after {told}: {errors.read_text()}"
    left = [path.name for path in directory.glob("cache/*/*")]
    odd = [name for name in left if not name.startswith(("data-", "journal-", "checkpoint-", "manifest.json", "lock"))]
    assert not odd, f"{told}: left {odd}"
    assert not [name for name in left if name.endswith(".tmp")], f"{told}: left {left}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cycles", type=int, default=40)
    given = parser.parse_args()
    seed = int(os.environ.get("TIERCEL_TEST_SEED", str(random.randrange(2**32))))
    sys.stderr.write(f"TIERCEL_TEST_SEED={seed}\n")
    logging.disable(logging.CRITICAL - 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell runs this in the background
    generator = random.Random(seed)
    for prompt in range(NUM_PROMPTS):
        MODEL.content(prompt, BLOCKS_MAX)
    for _ in range(given.cycles):
        run_cycle(given.directory, generator)
    sys.stdout.write(json.dumps({"seed": seed, "cycles": given.cycles, **COUNTS}) + "\n")


if __name__ == "__main__":
    main()
