"""How blocks move between a GPU and host memory."""

from dataclasses import dataclass

from tiercel.config.settings import Kind, setting


@dataclass(frozen=True, kw_only=True)
class GpuSettings:
    """How blocks move between a GPU and host memory."""

    use_ce_transfer_h2d: bool | None = setting(
        None,
        "Load to a GPU with its copy engine (true) or with a kernel (false); null takes what was measured best for the "
        "length of the engine's runs.",
        kind=Kind.FLAG,
        measure="Load bandwidth, and what a running load costs a decode step (benchmarks/gpu_interference.py).",
    )
    use_ce_transfer_d2h: bool | None = setting(
        None,
        "Store from a GPU with its copy engine (true) or with a kernel (false); null as for loads.",
        kind=Kind.FLAG,
        measure="As for loads; a store by kernel costs a decode step more than a load.",
    )
    transfer_sms_h2d: int | None = setting(
        None,
        "Multiprocessors that a kernel which loads runs on; null for 4.",
        kind=Kind.COUNT,
        unit="multiprocessors",
        bounds=(1, 1024),
        measure="Load bandwidth at 2, 4 and 8; more than 4 gained nothing on an H100.",
    )
    transfer_sms_d2h: int | None = setting(
        None,
        "Multiprocessors that a kernel which stores runs on; null for 2.",
        kind=Kind.COUNT,
        unit="multiprocessors",
        bounds=(1, 1024),
        measure="What a running store costs a decode step; more than 2 cost an H100 half of its speed.",
    )
    transfer_gpu_chunk_bytes: int | str = setting(
        "64MiB",
        "As transfer_chunk_bytes, between a GPU and host memory, if that is more.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(4096, 2**30),
        measure="Load bandwidth against the wait for a cancelled load: two chunks are under way.",
    )
    gpu_pool_reserve_bytes: int | str | None = setting(
        None,
        "GPU memory that is taken at the start for what copies need beside the blocks; null for address lists by "
        "Dynamo's formula and scratch memory of four transfers.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(0, 2**36),
        measure="tiercel_gpu_pool_bytes: held beyond the reserve means that copies waited for memory.",
    )
    gpu_pool_release_bytes: int | str = setting(
        "128MiB",
        "GPU memory of that kind that is kept while nothing uses it.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(1, 2**36),
        measure="tiercel_gpu_pool_bytes: at least its high-water mark, or copies wait for memory again.",
    )
