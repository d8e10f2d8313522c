"""Serve the same prompts three times with real vLLM on the CPU: without Tiercel, with an empty cache, and after a restart.

A script, run by `test_vllm_small.py` in a process of its own. argv: a folder. Prints one line of JSON, the last one.
"""

# vLLM is installed where it is tested; types are checked with and without it.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from vllm import LLM, SamplingParams

from tests.connectors.vllm_connector.tiny_llama import BLOCK_TOKENS, MODEL

PROMPT_TOKENS = (200, 333, 97)


def _life(folder: Path, connected: bool) -> dict[str, Any]:
    """Start an engine, answer the prompts one after the other, end it."""
    transfer = {
        "kv_connector": "TiercelConnector",
        "kv_connector_module_path": "tiercel.connectors.vllm",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {
            "num_cpu_blocks": 64,
            "enable_ssd": True,
            "num_ssd_blocks": 128,
            "ssd_cache_dir": str(folder / "cache"),
        },
    }
    connector: dict[str, Any] = {"kv_transfer_config": transfer} if connected else {}
    engine = LLM(
        model=str(folder / "model"),
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        dtype="bfloat16",
        max_model_len=1024,
        block_size=BLOCK_TOKENS,
        num_gpu_blocks_override=40,
        **connector,
    )
    rng = np.random.default_rng(7)
    prompts: list[Any] = [{"prompt_token_ids": rng.integers(3, 1000, count).tolist()} for count in PROMPT_TOKENS]
    sampling = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    answers = [engine.generate([prompt], sampling, use_tqdm=False)[0] for prompt in prompts]
    engine.llm_engine.engine_core.shutdown()
    return {
        "tokens": [list(answer.outputs[0].token_ids) for answer in answers],
        "cached": [answer.num_cached_tokens for answer in answers],
    }


def main() -> None:
    """Run the three lives."""
    folder = Path(sys.argv[1])
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    lives = [_life(folder, connected) for connected in (False, True, True)]
    sys.stdout.write("\n" + json.dumps(lives) + "\n")


if __name__ == "__main__":
    main()
