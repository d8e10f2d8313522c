"""Where a prefill curve comes from: measured points, a cache that runs beside an engine, or arithmetic.

Each comes with a sentence that says which, for whoever reads the results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tiercel.config import ModelConfig, read_prefill_work
from tiercel.config.huggingface import Source
from tiercel.costs import PrefillCostModel, PrefillCurve
from tiercel.errors import ConfigError
from tiercel.telemetry.status import read_status

EFFICIENCY = 0.5
"""Share of a GPU's rate that prefill is taken to reach where nobody measured it."""

_ROUNDS = 8
"""How often the points are shown to the fit, which forgets: so that the first ones count as much as the last."""

_SECONDS_MIN, _SECONDS_MAX = 1e-20, 1e6
_FLOPS_MIN, _FLOPS_MAX = 1e6, 1e21
"""What no engine exceeds. Numbers beyond are mistakes, and times made of them overflow."""

Point = tuple[int, int, float]
"""Cached tokens, computed tokens, seconds."""


@dataclass(frozen=True, kw_only=True)
class PrefillSource:
    """A curve, and where it comes from."""

    curve: PrefillCurve
    told: str


class _CurveFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file with a curve's coefficients, or with points that one is fitted to."""

    fixed_s: float | None = None
    token_s: float | None = None
    token_pair_s: float | None = None
    points: tuple[Point, ...] = ()


def prefill_of_points(points: Sequence[Point]) -> PrefillSource:
    """Fit a curve to measured prefills. Raises ConfigError for points that are none."""
    if not points:
        raise ConfigError("prefill: has no points; give [[cached tokens, computed tokens, seconds], ...]")
    model = PrefillCostModel()
    for number, (cached, computed, seconds) in enumerate(list(points) * _ROUNDS):
        try:
            model.observe(cached, computed, seconds)
        except ValueError as error:
            raise ConfigError(f"prefill: point {number + 1} is none: {error}; correct it") from error
    curve = model.curve
    errors = [abs(curve.seconds(cached, computed) / seconds - 1) for cached, computed, seconds in points]
    told = f"prefill fitted to {len(points)} measured points, off by {max(errors):.0%} at most"
    return PrefillSource(curve=curve, told=told)


def prefill_of_file(path: Path) -> PrefillSource:
    """Read a JSON file: {"fixed_s", "token_s", "token_pair_s"}, or {"points": [[cached, computed, seconds], ...]}.

    Raises:
        ConfigError: it holds neither.
        OSError: it cannot be read.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_CurveFile)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f'prefill = {str(path)!r}: {error}; give {{"points": [[cached tokens, computed tokens, seconds], ...]}} or '
            f'{{"fixed_s": ..., "token_s": ..., "token_pair_s": ...}}'
        ) from error
    if found.points:
        return prefill_of_points(found.points)
    given = {"fixed_s": found.fixed_s, "token_s": found.token_s, "token_pair_s": found.token_pair_s}
    for key, value in given.items():
        if value is not None and not (value == 0 or _SECONDS_MIN <= value <= _SECONDS_MAX):
            raise ConfigError(f"prefill: {key} = {value}: must be 0, or {_SECONDS_MIN:g} to {_SECONDS_MAX:g} seconds")
    if not found.token_s:
        raise ConfigError(f"prefill = {str(path)!r}: has neither points nor token_s above 0; give one of them")
    curve = PrefillCurve(found.fixed_s or 0.0, found.token_s, found.token_pair_s or 0.0)
    return PrefillSource(curve=curve, told=f"prefill as {path} says")


def prefill_of_cache(target: Path | str | int) -> PrefillSource:
    """Ask a running cache what it has learnt of its engine. target: as of `read_status`.

    Raises:
        StatusError: no cache answers there.
        ConfigError: it has learnt nothing yet.
    """
    learnt = read_status(target).prefill
    if learnt is None:
        raise ConfigError(
            f"prefill-from = {target}: this cache's engine has reported no prefill yet; send it some requests, or give "
            f"points measured by yourself"
        )
    curve = PrefillCurve(learnt.fixed_s, learnt.token_s, learnt.token_pair_s)
    return PrefillSource(
        curve=curve, told=f"prefill as a running cache learnt it from {learnt.num_observations} timings"
    )


def prefill_of_model(
    source: Source, model: ModelConfig, *, gpu_flops: float, efficiency: float = EFFICIENCY
) -> PrefillSource:
    """Work a curve out: the model's operations over the rate of its GPUs.

    Args:
        source: the model's config.json or its folder.
        gpu_flops: operations a second that one GPU is sold for, in the weights' type.
        efficiency: share of that which prefill reaches.

    Raises:
        ConfigError: a value is out of range, or the config.json lacks a fact.
    """
    if not _FLOPS_MIN <= gpu_flops <= _FLOPS_MAX:
        raise ConfigError(
            f"gpu-rate = {gpu_flops}: must be {_FLOPS_MIN:g} to {_FLOPS_MAX:g} operations a second, 989e12 for example"
        )
    if not 0 < efficiency <= 1:
        raise ConfigError(
            f"efficiency = {efficiency}: must be above 0 and at most 1; {EFFICIENCY} if nobody measured it"
        )
    work = read_prefill_work(source)
    rate = gpu_flops * efficiency * model.tp_size
    gpus = f"{model.tp_size} GPUs" if model.tp_size > 1 else "one GPU"
    told = (
        f"prefill by arithmetic, not measured: {work.flops_per_token / 1e9:.3g} GFLOP a token and "
        f"{work.flops_per_pair / 1e6:.3g} MFLOP a pair of tokens, over {gpus} of {gpu_flops / 1e12:g} TFLOP/s at an "
        f"assumed efficiency of {efficiency:.0%}"
    )
    return PrefillSource(curve=PrefillCurve(0.0, work.flops_per_token / rate, work.flops_per_pair / rate), told=told)
