"""Loads, prefetches and stores of clients, from what the native front found and keeps for them."""

from collections.abc import Callable, Sequence

import numpy as np

from tiercel._native import NodeFront
from tiercel.cache import ServedCache, Ticket
from tiercel.control import Lookup
from tiercel.errors import StaleTicketError, ThrottledError
from tiercel.index import Match
from tiercel.node.calls import Launch, Launched, Load, Prefetch, Store
from tiercel.node.server.memory import ClientBlocks
from tiercel.node.server.session import Session
from tiercel.telemetry.logs import bind_request_id

UNKNOWN_SEQUENCE = "unknown sequence"
"""What a store's failure begins with if the node does not have the blocks' keys: they are to be sent again."""

AfterAnswer = Callable[[], None]


class Launching:
    """Launches what clients ask for. Thread-safe."""

    def __init__(self, cache: ServedCache, front: NodeFront) -> None:
        self._cache = cache
        self._front = front

    def launch(self, session: Session, call: Launch | Prefetch | Store) -> tuple[Launched, AfterAnswer]:
        """Launch what a client asks for.

        Returns:
            The answer, and what to do when it was sent: outcomes are told from then on.

        Raises:
            TiercelError, ValueError: as the facade's methods; then nothing was launched.
        """
        numbers = [load.ticket for load in call.loads] if isinstance(call, Launch) else [call.ticket]
        session.reserve(numbers)
        try:
            with bind_request_id(call.request_id):
                tickets = self._launch(session, call)
        except BaseException:
            session.discard(numbers)
            raise

        def enter() -> None:
            for number, ticket in zip(numbers, tickets, strict=True):
                session.enter(number, ticket, is_store=isinstance(call, Store))

        return Launched([ticket.num_blocks for ticket in tickets]), enter

    def _launch(self, session: Session, call: Launch | Prefetch | Store) -> list[Ticket]:
        if isinstance(call, Store):
            return [self._store(session, call)]
        asked: Sequence[Load | Prefetch] = call.loads if isinstance(call, Launch) else [call]
        lookups: list[Lookup] = []
        try:
            for one in asked:
                lookups.append(self._adopt(session, one))
            if isinstance(call, Prefetch):
                return [self._cache.prefetch(lookups[0], timeout_s=call.timeout_s, client=session.number)]
            batch = [
                (lookup, ClientBlocks(session.copies, load.ticket, load.num_blocks, on_gpu=load.on_gpu))
                for lookup, load in zip(lookups, call.loads, strict=True)
            ]
            return self._cache.launch(batch, timeout_s=call.timeout_s)
        except ThrottledError:
            for lookup, one in zip(lookups, asked, strict=True):  # the client's again, for another try
                match = lookup.take_match()
                assert isinstance(match, Match), "the front's lookups hold pins of the index"
                self._front.return_match(session.number, one.lookup, match, lookup.sequence)
            raise
        except BaseException:
            for lookup in lookups:
                lookup.release()
            raise

    def _adopt(self, session: Session, asked: Load | Prefetch) -> Lookup:
        """Take a lookup from the front."""
        blocks = range(asked.first_block, asked.first_block + asked.num_blocks)
        found = self._front.take_match(session.number, asked.lookup)
        if found is None:
            raise StaleTicketError("this lookup was launched or released before; look the sequence up again")
        match, sequence = found
        try:
            return self._cache.adopt(sequence, match, blocks)
        except BaseException:
            match.release()
            raise

    def _store(self, session: Session, call: Store) -> Ticket:
        sequence = self._front.sequence(session.number, call.sequence)
        stop = call.first_block + call.num_blocks
        if sequence is None or sequence.num_blocks < stop:
            known = 0 if sequence is None else sequence.num_blocks
            raise LookupError(
                f"{UNKNOWN_SEQUENCE}: {known} of {stop} keys of sequence {call.sequence} are here; send them"
            )
        priority = call.priority if isinstance(call.priority, int) else np.frombuffer(call.priority, np.uint8)
        return self._cache.store(
            sequence,
            ClientBlocks(session.copies, call.ticket, call.num_blocks, on_gpu=call.on_gpu),
            first_block=call.first_block,
            priority=priority,
            timeout_s=call.timeout_s,
        )
