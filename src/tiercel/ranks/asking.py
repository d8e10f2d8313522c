"""Asking other processes for a copy and seeing it to its end: what a group of ranks and a node's clients have in common.

A copy is asked of some peers, and ends when all have answered. When one fails, none wants it any more, or the time is over, the
others are told to cancel it; a peer that does not answer that either counts as silent (`copies`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from tiercel.errors import DeviceError
from tiercel.ranks.copies import Claim, CopyTable, PendingCopy
from tiercel.tiers.base import UnsettledError
from tiercel.transfer.guard import RevokedError

Send = Callable[[bytes], None]
"""Sends an encoded message to one peer, in a bounded time. Raises OSError if it cannot be delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """What is asked of every peer.

    Attributes:
        ask: encodes the request, of the copy's number.
        cancel: encodes that it is not wanted any more.
        loading: whether bytes go to the peers; a late reader then does no harm.
    """

    ask: Callable[[int], bytes]
    cancel: Callable[[int], bytes]
    loading: bool


@final
class Asker:
    """Runs the copies of one `CopyTable`. Thread-safe."""

    def __init__(self, copies: CopyTable, label: Callable[[list[int]], str], *, copy_s: float, cancel_s: float) -> None:
        """Nothing is asked yet.

        Args:
            label: names peers in messages.
            copy_s: longest wait for the answers. cancel_s: for those to a cancelled copy.
        """
        self._copies = copies
        self._label = label
        self._copy_s = copy_s
        self._cancel_s = cancel_s

    def run(
        self, claim: Claim, peers: Mapping[int, Send], request: CopyRequest, patience_s: float | None = None
    ) -> None:
        """Have a copy made. Blocks; releases the GIL.

        Args:
            peers: who is to make it, by number.
            patience_s: longest wait for the answers, if less than usual.

        Raises:
            DeviceError: a peer failed, died, or does not answer.
            RevokedError: the claim was given up.
            UnsettledError: as the two before, but a peer may still write to the targets.
        """
        silent = self._copies.silent(peers)
        if silent:
            raise DeviceError(f"{self._label(silent)} has not answered an earlier copy yet")
        copy = self._copies.open(peers, claim)
        data = request.ask(copy.number)
        for number, send in peers.items():
            try:
                send(data)
            except OSError as error:
                self._copies.fail(copy, number, f"it cannot be asked: {error}")
        wait_s = self._copy_s if patience_s is None else min(patience_s, self._copy_s)
        if not self._copies.wait(copy, wait_s):
            self._end(copy, peers, request, wait_s)

    def _end(self, copy: PendingCopy, peers: Mapping[int, Send], request: CopyRequest, wait_s: float) -> None:
        """Cancel what is left of a copy that went wrong, and say how it stands. Raises as `run`; returns if all is well."""
        late = self._copies.waiting(copy)
        for number in late:
            try:
                peers[number](request.cancel(copy.number))
            except OSError:
                continue  # it is dying, or does not read; either is noticed below
        patience_s = 0.0 if self._copies.silent(late) else self._cancel_s
        if not self._copies.wait_ended(copy, patience_s):
            late = self._copies.waiting(copy)
            settled = self._copies.abandon(copy)
            if settled is not None and not request.loading:  # a load's late reader does no harm
                raise UnsettledError(
                    f"{self._label(late)} does not answer; what may still be written to stays reserved", settled
                )
        if copy.claim.given_up:
            raise RevokedError
        failures = "; ".join(copy.failures)
        if failures or late:
            raise DeviceError(failures or f"{self._label(late)} did not answer in {wait_s:g} s")
