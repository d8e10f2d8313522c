"""Is what the simulator predicts what the real cache does? Mooncake's traces of FAST'25, simulated and replayed with real bytes.

    python benchmarks/replay.py --machine machine.json --directory DIR [--json FILE] [--requests N] [--speedup X]

machine.json is what `tiercel probe --directory DIR` measured on this machine. For each trace and way of admission, the first
requests of the trace are simulated and replayed twice: in lockstep, where hits must be equal block for block, and in real time,
where hit rate, bytes by tier and TTFT are held to 10 %. Blocks are of 512 tokens and 128 KiB, and every block that the cache
gives back is compared byte for byte.
"""

import sys
from pathlib import Path

from _harness import Row, make_parser, report
from _traces import DEFAULT_FOLDER, SKIPPED, TRACE_FILES

from tiercel import CacheConfig, ModelConfig
from tiercel.costs import PrefillCurve
from tiercel.tune.machine import Machine, read_machine
from tiercel.tune.replay import TOLERANCE, Proof, ReplaySetup, first_requests, prove
from tiercel.tune.replay.data import proof_data
from tiercel.tune.simulate import EngineFacts, PrefillSource, make_engine
from tiercel.tune.traces import Trace, read_trace

MODEL = ModelConfig(model_id="128 KiB a block", num_layers=4, num_kv_heads=2, head_size=8, dtype="bfloat16")
TOKENS_PER_BLOCK = 512
ENGINE = EngineFacts(
    prefill=PrefillSource(curve=PrefillCurve(0.01, 2e-6, 2e-11), told="prefill: 10 ms and 2 us a token, made up"),
    decode_token_s=0.01,
)
HOST, DISK = "1GiB", "2GiB"
CONFIGS: dict[str, dict[str, object]] = {
    "host": {"enable_ssd": False},
    "host and disk, through": {"enable_ssd": True, "ssd_admission": "through"},
    "host and disk, on_second_hit": {"enable_ssd": True, "ssd_admission": "on_second_hit"},
}


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--machine", type=Path, required=True, metavar="FILE", help="what tiercel probe wrote here")
    parser.add_argument("--directory", type=Path, required=True, metavar="DIR", help="the cache directory it measured")
    parser.add_argument("--traces", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="folder of the traces")
    parser.add_argument("--requests", type=int, default=1000, metavar="N")
    parser.add_argument("--speedup", type=float, default=5.0, metavar="X")
    arguments = parser.parse_args()
    machine = read_machine(arguments.machine)
    rows: list[Row] = []
    proofs: dict[str, dict[str, object]] = {}
    for name, file in TRACE_FILES.items():
        found = sorted(arguments.traces.rglob(file)) if arguments.traces.is_dir() else []
        if not found:
            print(SKIPPED.format(file=file, folder=arguments.traces))
            continue
        trace = first_requests(read_trace(found[0]), arguments.requests)
        for config, settings in CONFIGS.items():
            proof = prove_one(trace, settings, machine, arguments.directory, arguments.speedup)
            rows += rows_of(f"{name}, {config}", proof)
            proofs[f"{name}, {config}"] = proof_data(proof)
            print(f"{name}, {config}: {proof.failures or 'holds'}", flush=True)
    if not rows:
        return 0
    details = {"requests": arguments.requests, "speedup": arguments.speedup, "proofs": proofs}
    return report(rows, arguments.json, details=details)


def prove_one(trace: Trace, settings: dict[str, object], machine: Machine, directory: Path, speedup: float) -> Proof:
    config = CacheConfig(
        tokens_per_block=TOKENS_PER_BLOCK,
        num_cpu_blocks=HOST,
        num_ssd_blocks=DISK,
        ssd_cache_dir=str(directory),
        **settings,  # type: ignore[arg-type]
    )
    engine = make_engine(ENGINE, MODEL.token_size_in_bytes * TOKENS_PER_BLOCK)
    setup = ReplaySetup(model=MODEL, config=config, engine=engine, speedup=speedup)
    return prove(trace, setup, machine, ENGINE)


def rows_of(label: str, proof: Proof) -> list[Row]:
    """Requests whose hits differ, wrong blocks, and by how much each figure is off."""
    wrong = sum(each.wrong_blocks for each in proof.reports)
    rows = [
        Row(name=f"{label}: wrong blocks", value=wrong, unit="", bound=0),
        Row(name=f"{label}: requests that differ in lockstep", value=proof.lockstep.num_differing, unit="", bound=0),
        Row(name=f"{label}: requests that differ in real time", value=proof.realtime.num_differing, unit=""),
    ]
    for figure in proof.figures:
        bound = 100 * TOLERANCE if figure.held else None
        rows.append(Row(name=f"{label}: {figure.name}", value=100 * abs(figure.deviation), unit="%", bound=bound))
    return rows


if __name__ == "__main__":
    sys.exit(main())
