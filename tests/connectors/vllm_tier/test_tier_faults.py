"""Damage, full disks, slow disks, kills and neighbours: each costs at most a miss, and no byte served is wrong."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.connectors.vllm_tier.conftest import OpenDriver
from tests.connectors.vllm_tier.driver import CHUNK_BYTES, count_right, keys_of
from tests.helpers.seeds import chosen_seed
from tiercel import BlockStatus, ConfigError, DirectoryLockedError


def data_files(folder: Path) -> list[Path]:
    """The files that hold blocks."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= 64 * CHUNK_BYTES]
    assert found, f"no data file in {folder}"
    return found


def test_a_flipped_bit_is_a_miss_and_the_other_chunks_are_served(open_driver: OpenDriver, tmp_path: Path) -> None:
    chooser = random.Random(chosen_seed())
    driver = open_driver()
    keys = keys_of("a", 12)
    driver.store(keys)
    driver.forget_primary()
    (path,) = data_files(tmp_path / "ssd")
    data = path.read_bytes()
    block = next(b for b in range(len(data) // CHUNK_BYTES) if any(data[b * CHUNK_BYTES : (b + 1) * CHUNK_BYTES]))
    at = block * CHUNK_BYTES + chooser.randrange(CHUNK_BYTES)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([data[at] ^ 1 << chooser.randrange(8)]))
        file.flush()
        os.fsync(file.fileno())
    assert count_right(keys, driver.load(keys)) == 11
    assert driver.tier._cache.stats().tiers[0].blocks_corrupt == 1


@pytest.mark.parametrize("keep", [0, 5 * CHUNK_BYTES + 100])
def test_a_truncated_file_costs_misses_only(open_driver: OpenDriver, tmp_path: Path, keep: int) -> None:
    first = open_driver()
    keys = keys_of("a", 12)
    first.store(keys)
    first.shutdown()
    (path,) = data_files(tmp_path / "ssd")
    os.truncate(path, keep)
    assert count_right(keys, open_driver().load(keys)) <= 6


def test_garbage_in_every_file_is_never_served(open_driver: OpenDriver, tmp_path: Path) -> None:
    chooser = random.Random(chosen_seed())
    first = open_driver()
    keys = keys_of("a", 12)
    first.store(keys)
    first.shutdown()
    (path,) = data_files(tmp_path / "ssd")
    size = path.stat().st_size
    path.write_bytes(chooser.randbytes(size))
    assert count_right(keys, open_driver().load(keys)) == 0


def test_chunks_of_another_layout_are_never_served(open_driver: OpenDriver) -> None:
    keys = keys_of("a", 8)
    first = open_driver()
    first.store(keys)
    first.shutdown()
    for other in (
        {"dtype": "float16"},
        {"model": "other/model"},
        {"tp_size": 2},
        {"tier": {"model_revision": "2"}},
    ):
        driver = open_driver(**other)
        assert count_right(keys, driver.load(keys)) == 0, other
        driver.shutdown()
    assert count_right(keys, open_driver().load(keys)) == 8


def test_a_failed_load_is_not_tried_again_for_the_same_request(open_driver: OpenDriver) -> None:
    driver = open_driver()
    keys = keys_of("a", 4)
    driver.store(keys)
    driver.forget_primary()
    disk: Any = driver.tier._cache._assembly.disk
    read, calls = disk.read, []

    def give_up(slots: Any, target: Any) -> Any:
        calls.append(len(slots))
        return np.full(len(slots), BlockStatus.CANCELLED, np.uint8)

    disk.read = give_up
    assert count_right(keys, driver.load(keys)) == 0
    assert calls == [4]
    disk.read = read
    assert count_right(keys, driver.load(keys, "other request")) == 4


def test_a_slow_disk_holds_a_request_no_longer_than_its_answer(open_driver: OpenDriver) -> None:
    driver = open_driver(tier={"transfer_timeout_s": 0.1, "transfer_chunk_bytes": "1MiB"}, chunks=160)
    keys = [*keys_of("a", 64), *keys_of("b", 64)]
    driver.store(keys[:64])
    driver.forget_primary()
    disk: Any = driver.tier._cache._assembly.disk
    read = disk.read

    def slow(slots: Any, target: Any) -> Any:
        time.sleep(0.5)
        return read(slots, target)

    disk.read = slow
    started = time.monotonic()
    count_right(keys, driver.load(keys))
    assert time.monotonic() - started < 10
    assert driver.tier._cache.stats().tiers[0].num_pinned == 0


def test_a_device_that_fails_writes_makes_nothing_visible(open_driver: OpenDriver) -> None:
    driver = open_driver()
    disk: Any = driver.tier._cache._assembly.disk
    files, keys = disk._files, keys_of("a", 8)

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(files, name)

        def write(self, slots: Any, addresses: Any, seeds: Any) -> Any:
            errors, checksums = files.write(slots, addresses, seeds)
            errors[:] = 28  # ENOSPC
            return errors, checksums

    disk._files = Failing()
    driver.store(keys)
    disk._files = files
    driver.forget_primary()
    assert count_right(keys, driver.load(keys)) == 0
    stats = driver.tier._cache.stats().tiers[0]
    assert stats.num_ready == stats.num_writing == 0


def test_a_full_queue_costs_a_recompute(open_driver: OpenDriver) -> None:
    driver = open_driver()
    keys = keys_of("a", 4)
    driver.store(keys)
    driver.forget_primary()
    transfer: Any = driver.tier._cache._dispatcher.transfer
    has_room = transfer.has_room
    transfer.has_room = lambda *_: False
    assert count_right(keys, driver.load(keys)) == 0
    transfer.has_room = has_room
    assert count_right(keys, driver.load(keys, "later")) == 4


def test_a_directory_in_use_is_refused_and_frees_vllms_memory(open_driver: OpenDriver) -> None:
    open_driver()
    with pytest.raises(DirectoryLockedError):
        open_driver()


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        ({"ssd_cache_dri": "/x"}, ("ssd_cache_dri", "did you mean 'ssd_cache_dir'")),
        ({"num_ssd_blocks": "many"}, ("num_ssd_blocks", "'many'")),
        ({"enable_cpu": True}, ("enable_cpu", "cpu_bytes_to_use")),
        ({"model_revision": 7}, ("model_revision", "7")),
    ],
)
def test_a_wrong_setting_is_refused_with_key_value_and_remedy(
    open_driver: OpenDriver, tier: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_driver(tier=tier)
    assert all(word in str(caught.value) for word in words), caught.value


_WRITER = """
import sys, warnings
warnings.simplefilter("ignore")
from tests.connectors.vllm_tier.driver import Driver, keys_of, make_config
driver = Driver(make_config(sys.argv[1], {"ssd_cache_dir": sys.argv[2], "num_ssd_blocks": 64}))
for turn in range(10_000):
    driver.store(keys_of(f"turn{turn}", 8), f"r{turn}")
    print(turn, flush=True)
"""


@pytest.mark.timeout(600)  # a process that imports vLLM
def test_a_killed_process_loses_no_finished_chunk_and_serves_no_wrong_byte(
    open_driver: OpenDriver, tmp_path: Path
) -> None:
    chooser = random.Random(chosen_seed())
    name = f"tier-killed-{os.getpid()}"
    command = [sys.executable, "-c", _WRITER, name, str(tmp_path / "ssd")]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert writer.stdout is not None
    turns = chooser.randint(2, 12)
    for line in writer.stdout:
        if int(line) == turns:
            break
    time.sleep(chooser.random() * 0.02)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    last = max([turns, *(int(line) for line in writer.stdout if line.strip().isdigit())])
    writer.stdout.close()
    Path(f"/dev/shm/vllm_offload_{name}.mmap").unlink(missing_ok=True)
    driver = open_driver()
    for turn in range(max(0, last - 5), last + 1):
        keys = keys_of(f"turn{turn}", 8)
        assert count_right(keys, driver.load(keys, f"l{turn}")) == 8
