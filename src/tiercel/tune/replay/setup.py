"""What is replayed with what: a model's geometry, a cache's settings, an engine's speed, and the pace."""

import enum
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

from tiercel import BlockGeometry, CacheConfig, ConfigError, ModelConfig
from tiercel.config.resources import SET_FOLDER_GLOB
from tiercel.hashing import fingerprint, root_key
from tiercel.tiers.disk_directory import DirectoryLock
from tiercel.tune.replay.leaving import undisturbed
from tiercel.tune.simulate import EngineModel
from tiercel.tune.traces import Trace

FOLDER = "tiercel-replay"
"""Folder in each cache directory in which replays keep their blocks, so that those of a real engine are left alone."""


class Pace(enum.Enum):
    """When requests are served."""

    REALTIME = "realtime"
    """As they arrive; prefill and decode take their time. What one request stores may still be on its way when the next one is
    looked up, as in production: this is the pace for times."""
    LOCKSTEP = "lockstep"
    """One after the other, each step when all transfers of the one before have ended; nobody waits for arrivals, prefill or
    decode, and settings that depend on the time are left out (`ReplaySetup.notes`). What happens in the index then does not
    depend on how long anything took: this is the pace for hits, block for block."""


@dataclass(frozen=True, kw_only=True)
class ReplaySetup:
    """Everything a replay depends on, beside its trace and the machine.

    Attributes:
        model: whose blocks' size and fingerprint are used.
        config: the cache's settings. Its directories are used through a folder of the replay's own in each, removed at the
            end; it serves no status where `status_socket` or `metrics_port` say, and records nothing.
        engine: prefill and decode take this long.
        speedup: arrivals of the trace come this many times faster.
    """

    model: ModelConfig
    config: CacheConfig
    engine: EngineModel
    pace: Pace = Pace.REALTIME
    speedup: float = 1.0

    def __post_init__(self) -> None:
        if not self.speedup > 0:
            raise ValueError(f"speedup = {self.speedup}: must be more than 0")

    @property
    def cache_model(self) -> ModelConfig:
        """The model under a name of its own: made-up blocks are never taken for a real engine's."""
        return replace(self.model, model_id=f"replay of {self.model.model_id}")

    @property
    def notes(self) -> tuple[str, ...]:
        """Which settings a replay in lockstep leaves out, since they depend on the time; a sentence each."""
        if self.pace is not Pace.LOCKSTEP:
            return ()
        told = {
            "load_policy = auto weighs how long loads take: in lockstep everything is loaded": (
                self.config.load_policy == "auto"
            ),
            "hit_reward_seconds depends on the time: in lockstep it is 0": self.config.hit_reward_seconds > 0,
            "ssd_write_budget_per_day depends on the time: in lockstep there is none": (
                self.config.ssd_write_budget_per_day is not None
            ),
        }
        return tuple(note for note, applies in told.items() if applies)

    @property
    def root_key(self) -> bytes:
        """Key before each prompt's first block."""
        geometry = BlockGeometry.from_model(self.cache_model, tokens_per_block=self.config.tokens_per_block)
        return root_key(fingerprint(geometry.fingerprint_parts()), "")

    @property
    def cache_config(self) -> CacheConfig:
        """The settings with which the cache is opened."""
        directories = [str(path / FOLDER) for path in self.config.ssd_cache_dirs] if self.config.enable_ssd else []
        config = self.config
        if self.pace is Pace.LOCKSTEP:
            policy = "always" if config.load_policy == "auto" else config.load_policy
            config = replace(config, load_policy=policy, hit_reward_seconds=0.0, ssd_write_budget_per_day=None)
        return replace(
            config,
            ssd_cache_dir=directories or self.config.ssd_cache_dir,
            cpu_arena_dir=None,
            status_socket=None,
            metrics_port=None,
            record_path=None,
        )


def first_requests(trace: Trace, count: int) -> Trace:
    """Return the first requests of a trace. Raises ValueError for less than one."""
    if count < 1:
        raise ValueError(f"requests = {count}: must be at least 1")
    names = ("leaves", "arrivals_s", "input_tokens", "output_tokens", "sessions", "after", "delays_s")
    return replace(trace, **{name: getattr(trace, name)[:count] for name in names})


@contextmanager
def own_folders(config: CacheConfig) -> Iterator[None]:
    """Hold the directories of a replay's cache for this process alone, empty at first, and remove them at the end.

    What a killed replay left goes, whatever its geometry was: its files would take the room of the new ones. Signals that end
    the process wait while folders are made or removed.

    Raises:
        DirectoryLockedError: another replay uses one of them; nothing of it is touched.
        ConfigError: one of them cannot be made or emptied.
        OSError: one of them cannot be removed.
    """
    with ExitStack() as held:
        with undisturbed():
            for folder in config.ssd_cache_dirs if config.enable_ssd else ():
                _hold(folder, held)
        try:
            yield
        finally:
            with undisturbed():
                held.close()


def _hold(folder: Path, held: ExitStack) -> None:
    """Make a folder or empty the one that is there; `held` removes it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(folder)
        held.callback(lock.release)
        held.callback(rmtree, folder)
        for left in folder.glob(SET_FOLDER_GLOB.format("*")):
            rmtree(left)
    except OSError as error:
        raise ConfigError(
            f"ssd_cache_dir = {str(folder.parent)!r}: replays keep their blocks in {folder}, and {error.strerror} "
            f"({error.filename}); give its user access, or name another directory"
        ) from error
