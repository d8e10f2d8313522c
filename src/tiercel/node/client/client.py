"""A cache that another process has, with the facade of one in process.

    with tiercel.connect("ipc:///run/tiercel") as cache:
        ticket = cache.load(cache.sequence(prompt), engine.blocks(ids))

The node finds, plans, keeps and evicts; this process copies its own blocks to and from memory that both map, and decides what is
worth loading. What is different from `Cache`: loads are not `by_layer`. While the node is gone lookups find nothing, loads end as
missing and stores as without room; `reset` and `hit_curve` raise DeadlineError.
"""

import atexit
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from tiercel.cache import CacheFacade, Ticket
from tiercel.cache.bounded import Errand
from tiercel.cache.checks import ArgumentChecks, Blocks, looked_up
from tiercel.cache.forks import forget, refuse_in_forked_children
from tiercel.control import HitCurve, Lookup, Priority, check_launchable, check_priority
from tiercel.costs import check_prefill
from tiercel.errors import CacheClosedError, DeadlineError, ThrottledError
from tiercel.hashing import Sequence as TokenSequence
from tiercel.hashing import root_key
from tiercel.layout import EngineBlocks
from tiercel.node.client.calls import NodeGoneError
from tiercel.node.client.choosing import BoardChoice
from tiercel.node.client.keeping import Keeper
from tiercel.node.client.launching import Launcher, Stored
from tiercel.node.client.link import Link
from tiercel.node.client.pins import Epochs, RemotePins
from tiercel.node.client.reporting import Reports
from tiercel.node.client.sequences import SequenceTable
from tiercel.node.codec import shortened
from tiercel.node.events import Declined, Observe
from tiercel.node.protocol import SEQUENCE_BLOCKS_MAX, TEXT_MAX, Kind
from tiercel.plan import LoadPolicy, Segment, cut_segments
from tiercel.telemetry.logs import bind_request_id
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tiers.base import TierName
from tiercel.transfer import Devices, EngineSide

_NAMESPACES_KEPT = 4096  # namespaces whose root key is not computed again for each sequence
_COUNT_MAX, _SECONDS_MAX = 2**32 - 1, 86400.0  # what a message can say at most
_TOO_MANY_LOOKUPS = 2  # state of a lookup for which the node has no room


@final
class NodeClient(CacheFacade):
    """The cache of a node. Use as a context manager, sync or async, or call `close`. Thread-safe; see the module's docstring.

    When the node was gone and is back, `shared_memory` and `devices` are others: a `RankGroup` that stands on them is made anew
    (`on_new_memory`). `config` has the node's settings, as far as they concern a client.
    """

    def __init__(self, keeper: Keeper, reports: Reports) -> None:
        """Use `connect`."""
        facts = keeper.facts
        self.geometry = facts.geometry
        self._keeper = keeper
        self._reports = reports
        self._fingerprint = facts.fingerprint
        self._checks = ArgumentChecks(facts.geometry, facts.fingerprint, facts.config.transfer_timeout_s)
        self._epochs = Epochs()
        self._sequences = SequenceTable(root_key(facts.fingerprint, ""), self._forget)
        self._launcher = Launcher(keeper.tickets, reports.missed, reports.throttled)
        self._root_key = lru_cache(maxsize=_NAMESPACES_KEPT)(root_key)
        self._refusal: str | None = None
        self._renewals: list[Callable[[], None]] = []
        self._process = os.getpid()
        self._closing = Errand(self._release, name="tiercel-close")
        self._use(keeper.link, keeper.devices)
        atexit.register(self.close)
        refuse_in_forked_children(self)
        try:
            keeper.start(self._use)
            with suppress(DeadlineError):  # a node that ended since is one that ends later
                reports.stats(keeper.link)
        except BaseException:
            self.close()
            raise

    def _use(self, link: Link, devices: Devices) -> None:
        """Serve with a connection. What was looked up before is void."""
        self._epochs.end()
        self.config = config = link.facts.config
        self._choice = BoardChoice(
            LoadPolicy(config.load_policy),
            tokens_per_block=self.geometry.tokens_per_block,
            block_bytes=self.geometry.block_bytes,
            facts=link.costs,
            decline=lambda tiers: link.tell(Declined([int(tier) for tier in tiers])),
        )
        present = ((TierName.HOST, config.enable_cpu), (TierName.DISK, config.enable_ssd))
        self._tiers = tuple(tier for tier, enabled in present if enabled)  # as the node's index numbers them
        self.shared_memory, self.devices = link.regions, devices
        for renew in self._renewals:
            renew()

    @property
    def connected(self) -> bool:
        """Whether the node is there, as far as anybody has noticed."""
        return self._keeper.link.alive

    def on_new_memory(self, renew: Callable[[], None]) -> None:
        """Have this called before other `shared_memory` is copied to or from; it must neither raise nor wait for tickets."""
        self._renewals.append(renew)

    def refuse(self, reason: str) -> None:
        """Refuse every call from now on, and leave the connections to the process that they are of. Takes no lock."""
        self._refusal = reason
        self._keeper.link.alive = False

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise CacheClosedError(self._refusal)

    def sequence(
        self, tokens: NDArray[np.int32] | NDArray[np.int64] | list[int] | None = None, *, namespace: str = ""
    ) -> TokenSequence:
        """Start a sequence, as `Cache.sequence`. The first one of a namespace asks the node for its root key; while the node is
        gone the key is that of a cache in process, so that a sequence of a node with a secret then finds nothing later either.

        Raises:
            ConfigError: this client may not use the namespace.
            ValueError: the namespace has more than 2000 characters.
        """
        root = self._root_key(self._fingerprint, namespace)
        if len(namespace) > TEXT_MAX:
            raise ValueError(f"namespace of {len(namespace)} characters: must have at most {TEXT_MAX}")
        if self._refusal is None:
            try:
                root = self._keeper.link.root(namespace)
            except NodeGoneError as error:
                self._reports.missed(str(error))
        sequence = TokenSequence(root, self.geometry.tokens_per_block, tokens, origin=self._checks.origin)
        self._sequences.enter(sequence, namespace)
        return sequence

    def lookup(
        self,
        sequence: TokenSequence,
        *,
        limit_tokens: int | None = None,
        engine_tokens: int = 0,
        request_id: str | None = None,
    ) -> Lookup:
        """Find the leading blocks that are stored and decide how many of them are worth loading, as `Cache.lookup`."""
        self._check_open()
        limit = self._checks.lookup(sequence, limit_tokens, engine_tokens, request_id)
        known, link, size = self._sequences.find(sequence), self._keeper.link, self.geometry.tokens_per_block
        epochs, generation = self._epochs, self._epochs.generation
        start, limit_blocks = engine_tokens // size, sequence.num_blocks if limit is None else max(0, limit) // size
        try:
            found = known.look_up(link, sequence, min(limit_blocks, SEQUENCE_BLOCKS_MAX), start)
        except (NodeGoneError, ThrottledError) as error:
            self._reports.missed(str(error))
            return Lookup(epochs, sequence, RemotePins(0, 0, generation, link), 0, range(0), ())
        if found.state == _TOO_MANY_LOOKUPS:
            self._reports.throttled("lookups")
        pins = RemotePins(found.lookup, found.num_pending, generation, link, found.packed_slots)
        matched = found.matched_blocks
        segments = tuple([Segment(self._tiers[number], first, count) for number, first, count in found.segments])
        if not segments:
            return Lookup(epochs, sequence, pins, 0, range(0), ())
        start = min(start, matched)
        if start:
            segments = cut_segments(segments, matched, first_block=start)
        stop = start
        if segments:
            stop = self._choice.stop_block(segments, sequence.num_tokens, self._choice.queued_bytes)
            segments = cut_segments(segments, stop) if stop < matched else segments
        if stop == start:
            pins.release()
        return Lookup(epochs, sequence, pins, matched, range(start, stop), segments)

    def launch(
        self, batch: Iterable[tuple[Lookup, Blocks]], *, by_layer: bool = False, timeout_s: float | None = None
    ) -> list[Ticket]:
        """Launch several loads, all or none, as `Cache.launch`. Raises ValueError for `by_layer`, too."""
        self._check_open()
        loads = self._checks.loads(batch)
        if by_layer:
            raise ValueError("by_layer: blocks of a node's cache are not loaded layer by layer; leave it out")
        timeout_s = self._checks.timeout(timeout_s)
        check_launchable([lookup for lookup, _ in loads], self._epochs)
        link = self._keeper.link  # first: what is reached below is no newer memory's
        return self._launcher.load(link, [(lookup, self._reach(target)) for lookup, target in loads], timeout_s)

    def prefetch(
        self,
        what: Lookup | TokenSequence,
        *,
        limit_tokens: int | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Bring stored blocks from slower tiers into the fastest one, as `Cache.prefetch`."""
        self._check_open()
        with bind_request_id(request_id), looked_up(self.lookup, what, limit_tokens) as lookup:
            timeout_s = self._checks.timeout(timeout_s)
            check_launchable([lookup], self._epochs)
            return self._launcher.prefetch(self._keeper.link, lookup, timeout_s)

    def store(
        self,
        sequence: TokenSequence,
        source: Blocks,
        *,
        first_block: int = 0,
        priority: Priority = 0,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Store the sequence's full blocks that are not stored yet, as `Cache.store`."""
        self._check_open()
        self._checks.sequence(sequence)
        self._checks.source(source, first_block)
        check_priority(priority, source.num_blocks)
        timeout_s = self._checks.timeout(timeout_s)
        stop = max(first_block, min(sequence.num_blocks, first_block + source.num_blocks))
        stored = Stored(sequence, self._sequences.find(sequence), range(first_block, stop), priority)
        with bind_request_id(request_id):
            return self._launcher.store(self._keeper.link, stored, self._reach(source), timeout_s)

    def _reach(self, blocks: Blocks) -> EngineSide | None:
        """Return blocks as copies take them; None for those on a GPU while the node's memory, which it pinned, is gone."""
        if isinstance(blocks, EngineBlocks) and blocks.memory.device != "cpu":
            self._keeper.prepare(blocks.memory)
        with suppress(CacheClosedError):
            return self.devices.reach(blocks)
        return None

    def observe_prefill(self, *, cached_tokens: int, computed_tokens: int, seconds: float) -> None:
        """Tell how long the engine took to compute tokens behind a prefix, as `Cache.observe_prefill`."""
        check_prefill(cached_tokens, computed_tokens, seconds)
        cached, computed = (min(int(tokens), _COUNT_MAX) for tokens in (cached_tokens, computed_tokens))
        self._keeper.link.tell(Observe(cached, computed, min(float(seconds), _SECONDS_MAX)))

    def observe_recompute(self, reason: str) -> None:
        """Tell that an error of ours became recompute, and which; the node's status and metrics count it."""
        self._reports.recompute(self._keeper.link, shortened(reason))

    def note(self, text: str, *, kind: str) -> None:
        """Tell of something that is slower or less than it could be, as `Cache.note`; the node logs it and shows it."""
        self._reports.note(self._keeper.link, text, kind)

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is under way in the node, whoever began it, nor here. False while the node is gone, too."""
        stop_at = time.monotonic() + timeout_s
        settled = self._reports.settle(self._keeper.link, timeout_s)
        while settled and len(self._keeper.tickets) and time.monotonic() < stop_at:
            time.sleep(0.0002)  # what the node has ended is about to be told
        return settled and not len(self._keeper.tickets)

    def reset(self) -> None:
        """Forget every block in every tier, of every client, durably, because the weights changed.

        Raises:
            DeadlineError: a device did not finish in time, or the node is gone: nothing was forgotten, call again.
            TierFailedError: the disk tier could not be emptied durably; call again before storing anything.
        """
        self._check_open()
        self._epochs.end()
        self._reports.reset(self._keeper.link)

    def stats(self) -> StatusSnapshot:
        """What the cache holds and did, for all its clients; what it told last while the node is gone. Raises DeadlineError if it
        never told."""
        return self._reports.stats(self._keeper.link)

    def hit_curve(self, capacities_blocks: Iterable[int] | None = None) -> HitCurve:
        """The hit rate that an LRU cache of each capacity would have had of late, as `Cache.hit_curve`. Raises DeadlineError if
        the node is gone."""
        return self._reports.hit_curve(self._keeper.link, capacities_blocks)

    def _forget(self, epoch: int, number: int) -> None:
        link = self._keeper.link
        if link.epoch == epoch:
            link.discard(Kind.FORGET, number)

    def close(self) -> None:
        """Cancel open tickets and leave the node. Idempotent; bounded. In a forked child this does nothing, as `Cache.close`."""
        if os.getpid() != self._process:
            return
        self._closing.wait()
        atexit.unregister(self.close)

    def _release(self) -> None:
        self._refusal = self._refusal or "the cache is closed"
        self._keeper.close()
        forget(self)
