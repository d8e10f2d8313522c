"""Replays and proofs as plain data, for JSON and for committed tables."""

from dataclasses import asdict

import numpy as np

from tiercel.tune.replay.proof import HitsCompared, Proof
from tiercel.tune.replay.run import ReplayReport

_PERCENTILES = (50, 90, 99)


def report_data(report: ReplayReport) -> dict[str, object]:
    """Return a replay's figures; bytes and seconds."""
    result = report.result
    ttft_s = result.ttft_s
    return {
        "trace": result.trace,
        "requests": len(result.input_tokens),
        "tokens_per_block": result.tokens_per_block,
        "block_bytes": result.block_bytes,
        "hit_rates": {
            "block_weighted": result.block_hit_rate,
            "token_weighted": result.token_hit_rate,
            "per_request": result.request_hit_rate,
        },
        "tiers": {
            tier.name.lower(): {
                "hit_rate": result.tier_hit_rate(tier),
                "bytes_read": traffic.blocks_read * result.block_bytes,
                "bytes_written": traffic.blocks_written * result.block_bytes,
                "evicted_blocks": traffic.evicted,
                "busy_s": traffic.busy_s,
            }
            for tier, traffic in result.tiers.items()
        },
        "ttft_s": {f"p{p}": float(np.percentile(ttft_s, p)) for p in _PERCENTILES} if len(ttft_s) else {},
        "restored_blocks": report.restored_blocks,
        "wrong_blocks": report.wrong_blocks,
        "wrong": report.wrong,
        "failed_blocks": report.failed_blocks,
        "faults": dict(report.faults),
        "refused": dict(result.refused),
        "late_s": report.late_s,
        "notes": result.notes,
    }


def proof_data(proof: Proof) -> dict[str, object]:
    """Return a proof's figures, predicted and measured."""
    return {
        "trace": proof.trace,
        "lockstep": _hits(proof.lockstep),
        "realtime": _hits(proof.realtime),
        "figures": [
            {**asdict(figure), "deviation": figure.deviation, "holds": abs(figure.deviation) <= proof.tolerance}
            for figure in proof.figures
        ],
        "tolerance": proof.tolerance,
        "restored_blocks": sum(report.restored_blocks for report in proof.reports),
        "wrong_blocks": sum(report.wrong_blocks for report in proof.reports),
        "faults": [dict(report.faults) for report in proof.reports],
        "late_s": proof.reports[1].late_s,
        "failures": proof.failures,
        "notes": proof.notes,
    }


def _hits(hits: HitsCompared) -> dict[str, object]:
    return {**asdict(hits), "differing": hits.num_differing}
