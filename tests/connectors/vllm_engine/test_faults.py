"""Whatever happens to the disk, to the process or to the settings costs a recompute, and never a wrong token."""

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.simulated_disk import DiskFaults
from tests.helpers.vllm_checks import Reference, check_hits, check_nothing_is_held, tier_of, with_cache
from tests.helpers.vllm_engine import (
    CLOSE_S,
    TOKENS_PER_BLOCK,
    Engine,
    EngineFailedError,
    EngineSpec,
    start_script,
    why_no_vllm,
)
from tests.helpers.vllm_model import write_model
from tests.helpers.vllm_requests import Request, mixed_requests

pytestmark = [
    pytest.mark.skipif(bool(why_no_vllm()), reason=f"{why_no_vllm()}: the vLLM connector is NOT tested"),
    pytest.mark.timeout(600),
]

ALWAYS = 1_000_000
"""Of a million calls."""
LOAD_TIMEOUT_S = 0.5


def long_requests(seed: int, count: int = 8) -> list[Request]:
    """Requests with several blocks each."""
    requests = [request for request in mixed_requests(seed, 10 * count) if len(request.tokens) > 100]
    return [replace(request, arrives_at=0, aborts_after=None) for request in requests[:count]]


def full_tokens(request: Request) -> int:
    """Tokens of a prompt that can be loaded when all of it is stored."""
    return (len(request.tokens) - 1) // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK


def fill(cached: EngineSpec, requests: list[Request], reference: Reference) -> None:
    """Let an engine store the requests' blocks on disk, and end."""
    with Engine(cached) as engine:
        reference.check(requests, engine.run_alone(requests))
        engine.close()


def data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("data-*") if path.is_file())


def flip_everywhere(path: Path, generator: random.Random) -> None:
    """Flip a bit in each KiB that was ever written."""
    content = bytearray(path.read_bytes())
    for start in range(0, len(content), 1024):
        if any(content[start : start + 1024]):
            content[start + generator.randrange(1024)] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def test_bits_flipped_in_every_stored_block_cost_a_recompute(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed), with_cache(spec, tmp_path / "cache")
    fill(cached, requests, reference)
    files = data_files(tmp_path / "cache")
    assert files
    for path in files:
        flip_everywhere(path, random.Random(seed))
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        reference.check(requests, answers)
        disk = tier_of(engine, "disk")
        assert disk.blocks_corrupt > 0
        assert disk.blocks_read == 0
        check_nothing_is_held(engine, cached)
        again = engine.run_alone(requests)
        reference.check(requests, again)
        assert all(answer.cached_tokens for answer in again.values()), "what was recomputed was not stored again"
        engine.close()


def test_one_flipped_bit_costs_its_block_and_what_lies_behind_it(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed), with_cache(spec, tmp_path / "cache")
    fill(cached, requests, reference)
    generator = random.Random(seed)
    (path,) = data_files(tmp_path / "cache")
    content = bytearray(path.read_bytes())
    written = [start for start in range(0, len(content), 512) if any(content[start : start + 512])]
    content[generator.choice(written) + generator.randrange(512)] ^= 1 << generator.randrange(8)
    path.write_bytes(content)
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        reference.check(requests, answers)
        assert tier_of(engine, "disk").blocks_corrupt == 1
        assert sum(answer.cached_tokens for answer in answers.values()) > 0
        check_nothing_is_held(engine, cached)
        engine.close()


def test_a_truncated_file_costs_a_recompute(spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int) -> None:
    requests, cached = long_requests(seed), with_cache(spec, tmp_path / "cache")
    fill(cached, requests, reference)
    (path,) = data_files(tmp_path / "cache")
    with path.open("r+b") as file:
        file.truncate(16384)
    with Engine(cached) as engine:
        reference.check(requests, engine.run(requests))
        check_nothing_is_held(engine, cached)
        engine.close()


def on_simulated_disk(spec: EngineSpec, folder: Path, **settings: object) -> EngineSpec:
    folder.mkdir(exist_ok=True)
    settings = {"ssd_io_engine": "threads", "load_timeout_s": LOAD_TIMEOUT_S, **settings}
    return replace(with_cache(spec, folder, **settings), simulated=folder)


def test_a_full_disk_costs_what_cannot_be_stored(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed), on_simulated_disk(spec, tmp_path / "cache")
    with Engine(cached) as engine:
        engine.set_faults(DiskFaults(no_space=ALWAYS))
        reference.check(requests, engine.run(requests))
        check_nothing_is_held(engine, cached)
        assert tier_of(engine, "disk").num_ready == 0
        assert tier_of(engine, "disk").io_errors > 0
        assert tier_of(engine, "host").num_ready > 0
        engine.set_faults()
        engine.close()


@pytest.mark.parametrize("staged", [True, False])
def test_reads_that_take_a_second_each_cost_a_request_its_deadline_at_most(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int, staged: bool
) -> None:
    requests, cached = long_requests(seed, 4), on_simulated_disk(spec, tmp_path / "cache", enable_cpu=staged)
    fill(cached, requests, reference)
    with Engine(cached) as engine:
        engine.set_faults(DiskFaults(stall=ALWAYS), stall_us=1_000_000)
        answers = engine.run(requests)
        reference.check(requests, answers)
        engine.set_faults()
        check_nothing_is_held(engine, cached)
        engine.close()


def test_reads_that_fail_cost_a_recompute_and_the_disk_is_used_again_when_it_recovers(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed), on_simulated_disk(spec, tmp_path / "cache", enable_cpu=False)
    fill(cached, requests, reference)
    with Engine(cached) as engine:
        for faults in (
            DiskFaults(read_error=ALWAYS),
            DiskFaults(read_error=300_000, short_read=300_000, interrupted=9000),
        ):
            engine.set_faults(faults)
            reference.check(requests, engine.run(requests))
        engine.set_faults()
        reference.check(requests, engine.run_alone(requests))
        check_nothing_is_held(engine, cached)
        assert tier_of(engine, "disk").io_errors > 0
        engine.close()


def test_bits_that_flip_on_their_way_to_and_from_the_disk_reach_no_answer(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed), on_simulated_disk(spec, tmp_path / "cache", enable_cpu=False)
    with Engine(cached) as engine:
        engine.set_faults(DiskFaults(flip_on_read=300_000, flip_on_write=300_000))
        for _ in range(3):
            reference.check(requests, engine.run_alone(requests))
        engine.set_faults()
        check_nothing_is_held(engine, cached)
        assert tier_of(engine, "disk").blocks_corrupt > 0
        engine.close()


def test_an_engine_killed_while_it_stores_leaves_a_directory_that_the_next_one_can_trust(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = mixed_requests(seed, 60), with_cache(spec, tmp_path / "cache", num_cpu_blocks=40)
    for delay_s in (0.3, 1.0):
        with Engine(cached) as engine:
            engine.begin("run", requests)
            assert not engine.wait_for_end(delay_s)
            engine.kill()
    with Engine(cached) as engine:
        reference.check(requests, engine.run(requests))
        check_nothing_is_held(engine, cached)
        engine.close()


def test_a_directory_that_another_engine_uses_is_refused_by_name(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed, 2), with_cache(spec, tmp_path / "cache")
    with Engine(cached) as engine:
        with pytest.raises(EngineFailedError, match=r"DirectoryLockedError.*cache"):
            Engine(cached)
        reference.check(requests, engine.run(requests))
        engine.close()


def test_another_models_directory_is_left_alone(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed, 4), with_cache(spec, tmp_path / "cache")
    other = replace(cached, model=write_model(tmp_path / "small-llama", seed=2))
    fill(cached, requests, reference)
    with Engine(other) as engine:
        assert tier_of(engine, "disk").num_ready == 0
        assert engine.run_alone(requests[:1])[requests[0].name].cached_tokens == 0
        check_nothing_is_held(engine, other)
        engine.close()
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        reference.check(requests, answers)
        assert all(answer.cached_tokens for answer in answers.values())
        engine.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_end_while_it_serves_does_so_in_time_and_leaves_its_directory_warm(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int, number: signal.Signals
) -> None:
    requests, cached = long_requests(seed, 3), with_cache(spec, tmp_path / "cache")
    process = start_script(cached, requests, tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        assert process.wait(CLOSE_S) in (-number, 128 + number, 1)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        reference.check(requests, answers)
        check_hits(requests, answers, {request.name: full_tokens(request) for request in requests})
        check_nothing_is_held(engine, cached)
        engine.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_cpu_blokcs": 3}, "num_cpu_blocks"),
        ({"num_cpu_blocks": "lots"}, "num_cpu_blocks"),
        ({"load_timeout_s": -1}, "load_timeout_s"),
        ({"tokens_per_block": 16}, "tokens_per_block"),
    ],
)
def test_a_setting_that_is_wrong_ends_the_start_and_is_named(
    spec: EngineSpec, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(EngineFailedError, match=rf"ConfigError: .*{message}"):
        Engine(with_cache(spec, None, **settings))


def test_hits_after_a_restart_of_a_killed_engine_are_what_it_had_settled(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests, cached = long_requests(seed, 4), with_cache(spec, tmp_path / "cache")
    with Engine(cached) as engine:
        engine.run_alone(requests)
        engine.kill()
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        reference.check(requests, answers)
        check_hits(requests, answers, {request.name: full_tokens(request) for request in requests})
        engine.close()
