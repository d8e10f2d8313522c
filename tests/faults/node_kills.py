"""A node and its clients, killed and stopped at random moments, again and again, by a seed.

    TIERCEL_TEST_SEED=7 python -m tests.faults.node_kills DIRECTORY --kills 500

The parent imports everything once, and forks the node and its clients (`node_worker`), which check every byte that they load.
Each round something happens to a client, to some, or to the node: SIGKILL, SIGTERM, SIGSTOP with SIGCONT or SIGKILL behind it.
Then, and always:

- a killed client's tickets, copies, lookups and connections are gone from the node within `TAKEN_BACK_S`;
- when the node is gone every client goes on within `DEGRADED_S`; when it is back, it is warm and every client finds it;
- no call of a client takes longer than `CALL_S` while another client is stopped;
- once all clients have settled what they had: nothing is pinned, reserved or under way, free and ready slots are all slots, and
  the node has no more threads and files than its clients need;
- nobody ends by itself, and no step takes longer than `HANG_S`.
"""

import argparse
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.faults.node_process import Forked, fork_client, fork_node
from tests.faults.node_worker import HANG_S
from tests.faults.simulation_model import BLOCKS_MAX, GEOMETRY_MODEL, NUM_PROMPTS, TOKENS_PER_BLOCK, Model, sim_config
from tiercel.hashing import Sequence, fingerprint, root_key
from tiercel.layout import BlockGeometry
from tiercel.node.asking import ask_node
from tiercel.node.calls import AskStats, AskStatus, CountHits, Hits, Stats, Status
from tiercel.node.endpoint import LocalEndpoint
from tiercel.telemetry.snapshot import StatusSnapshot

TAKEN_BACK_S = 2.0
DEGRADED_S = 1.0
CALL_S = 1.0
NUM_CLIENTS = 3
THREADS_MORE, FILES_MORE = 24, 16
"""What a node may have more than when it began, beside six files for each client: its lanes grow."""


class Matrix:
    """A node, its clients, and what is done to them."""

    def __init__(self, directory: Path, seed: int, *, kept: bool) -> None:
        self.random = random.Random(seed)
        self.model = Model()
        for prompt in range(NUM_PROMPTS):
            self.model.content(prompt, BLOCKS_MAX)
        self.keys = [prompt_keys(self.model, prompt) for prompt in range(NUM_PROMPTS)]
        self.endpoint = LocalEndpoint(Path(tempfile.mkdtemp(prefix="tn-")))
        self.arena = Path(tempfile.mkdtemp(prefix="tn-", dir="/dev/shm")) if kept else None
        settings: dict[str, object] = {} if self.arena is None else {"cpu_arena_dir": str(self.arena)}
        self.config = sim_config([directory], **settings)
        self.counts: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.clients: list[Forked] = []
        self.node = self._start_node()
        self.threads, self.files = self.node.num_threads(), self.node.num_files()
        for _ in range(NUM_CLIENTS):
            self._add_client()

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────────

    def round(self) -> None:
        """Let something happen, and check what must hold."""
        acts: dict[Callable[[], None], int] = {
            self.kill_client: 10,
            self.kill_connecting_client: 3,
            self.kill_stopped_client: 3,
            self.kill_two_clients: 2,
            self.end_client: 2,
            self.stop_client: 3,
            self.kill_node: 4,
            self.kill_node_and_client: 2,
            self.kill_client_of_stopped_node: 2,
            self.stop_node: 2,
            self.end_node: 1,
        }
        act = self.random.choices(list(acts), list(acts.values()))[0]
        self._work(self.random.uniform(0, 0.08))
        self.counts[act.__name__] += 1
        try:
            act()
            self.check()
        except AssertionError as error:
            raise AssertionError(f"{act.__name__}: {error}") from error

    def kill_client(self) -> None:
        self._kill(self._draw())

    def kill_two_clients(self) -> None:
        self._kill(*self.random.sample(self.clients, 2))

    def kill_connecting_client(self) -> None:
        client = self._add_client()
        self._work(self.random.uniform(0, 0.03))
        self._kill(client, replace=False)

    def kill_stopped_client(self) -> None:
        client = self._draw()
        self._while_stopped(client, self.random.uniform(0, 0.5))
        self._kill(client)

    def stop_client(self) -> None:
        client = self._draw()
        self._while_stopped(client, self.random.uniform(0.1, 1.5))
        client.signal(signal.SIGCONT)

    def end_client(self) -> None:
        client = self._draw()
        client.signal(signal.SIGTERM)
        self._over(client, 0, -signal.SIGTERM)  # the latter before it has a handler
        self._await_gone({client.pid}, "ended")
        self._add_client()

    def kill_node(self) -> None:
        self.node.kill()
        self.counts["kills"] += 1
        self._degrade()
        self._restart()

    def kill_node_and_client(self) -> None:
        client = self._draw()
        for one in self.random.sample([self.node, client], 2):
            one.kill()
        self.counts["kills"] += 2
        self.clients.remove(client)
        self._restart()
        self._add_client()

    def kill_client_of_stopped_node(self) -> None:
        client = self._draw()
        self.node.signal(signal.SIGSTOP)
        self._work(self.random.uniform(0, 0.2))
        client.kill()
        self.node.signal(signal.SIGCONT)
        self.counts["kills"] += 1
        self.clients.remove(client)
        self._await_gone({client.pid}, "taken_back")
        self._add_client()

    def stop_node(self) -> None:
        self.node.signal(signal.SIGSTOP)
        self._work(self.random.choice((0.1, 0.5, 2.5)))
        self.node.signal(signal.SIGCONT)

    def end_node(self) -> None:
        self.node.signal(signal.SIGTERM)
        self._over(self.node, 0)
        self._degrade()
        self._restart()

    # ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Have all clients settle, and see that nothing is left of anybody."""
        self._living()
        for client in self.clients:
            client.board.set("pausing", 1)
        self._until(lambda: all(client.board.get("paused") for client in self.clients), HANG_S, self._who_hangs)
        self._until(lambda: not self._left_over(), TAKEN_BACK_S, self._left_over)
        for client in self.clients:
            client.board.set("pausing", 0)

    def _left_over(self) -> str:
        """What somebody still has, "" for nothing."""
        status = self._status()
        pids = sorted(client.pid for client in self.clients)
        found = sorted(one.process for one in status.clients if one.process != os.getpid())
        if found != pids:
            return f"clients {found} are there, not {pids}: {status.clients}"
        for one in status.clients:
            if one.tickets or one.lookups or one.copies or one.outbox_bytes:
                return f"left: {one}"
        for tier in self._stats().tiers:
            if tier.num_pinned or tier.num_writing or tier.num_free + tier.num_ready != tier.num_slots:
                return f"slots: {tier}"
        if self.node.num_threads() > self.threads + THREADS_MORE:
            return f"threads: {self.node.num_threads()}, {self.threads} without clients"
        if self.node.num_files() > self.files + FILES_MORE + 6 * len(pids):
            return f"files: {self.node.num_files()}, {self.files} without clients"
        return ""

    def finish(self) -> None:
        """Let all clients leave, and see that the node is as it was before they came."""
        for client in self.clients:
            client.board.set("leaving", 1)
            client.may_end = True
        for client in list(self.clients):
            self._over(client, 0)

        self._until(lambda: not self._left_over(), HANG_S, self._left_over)
        self.node.signal(signal.SIGTERM)
        self._over(self.node, 0)

    def close(self) -> None:
        """Kill whoever is left."""
        for one in (*self.clients, self.node):
            one.kill()
        shutil.rmtree(self.endpoint.directory)
        if self.arena is not None:
            shutil.rmtree(self.arena)

    def _degrade(self) -> None:
        """Without a node every client goes on within its bound."""
        turns = {client: client.board.get("turns") for client in self.clients}
        started = time.monotonic()

        def behind() -> list[Forked]:  # who only connects waits for a node
            known = [client for client in self.clients if client.board.get("connected")]
            return [client for client in known if client.board.get("turns") < turns[client] + 3]

        self._until(lambda: not behind(), DEGRADED_S, lambda: f"{behind()} do not go on without a node")
        self._note("degraded", time.monotonic() - started)

    def _restart(self) -> None:
        """Start a node again; it is warm, and found."""
        self._work(self.random.uniform(0, 0.3))
        is_warm = self.counts["stored"] + sum(client.board.get("stored") for client in self.clients) > 100
        self.node = self._start_node()
        started = time.monotonic()
        hits = sum(self._count_hits(prompt) for prompt in range(NUM_PROMPTS))
        recovered = {tier.name: tier.recovered for tier in self._stats().tiers}
        if is_warm:
            assert hits > 0, f"{recovered}: the disk is cold"
            assert recovered["disk"] > 0, f"{recovered}: the disk is cold"
        self.counts["warm_blocks_host"] += recovered["host"]
        self.counts["warm_blocks_disk"] += recovered["disk"]
        self.counts["warm_restarts"] += 1
        pids = {client.pid for client in self.clients}

        def there() -> set[int]:
            return {one.process for one in self._status().clients}

        self._until(lambda: pids <= there(), HANG_S, lambda: f"{pids - there()} do not come back")
        self._note("reconnected", time.monotonic() - started)

    def _while_stopped(self, client: Forked, seconds: float) -> None:
        """Stop a client; the others go on meanwhile, and no call of theirs takes long."""
        others = [other for other in self.clients if other is not client and other.board.get("connected")]
        client.signal(signal.SIGSTOP)
        for other in others:
            other.board.set("longest_call_s", 0)
        self._work(seconds)
        longest = max((other.board.get("longest_call_s") for other in others), default=0.0)
        assert longest < CALL_S, f"a call took {longest:.2f} s while another client was stopped"
        self._note("call_beside_stopped", longest)

    # ── how ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start_node(self) -> Forked:
        return fork_node(self.endpoint, self.config)

    def _add_client(self) -> Forked:
        client = fork_client(str(self.endpoint), self.model, self.random.randrange(2**32))
        self.clients.append(client)
        return client

    def _draw(self) -> Forked:
        return self.random.choice(self.clients)

    def _kill(self, *clients: Forked, replace: bool = True) -> None:
        for client in clients:
            client.kill()
            self.counts["kills"] += 1
            self.clients.remove(client)
        self._await_gone({client.pid for client in clients}, "taken_back")
        for client in clients:
            self._account(client)
            if replace:
                self._add_client()

    def _await_gone(self, pids: set[int], what: str) -> None:
        started = time.monotonic()

        def left() -> list[int]:
            return [one.process for one in self._status().clients if one.process in pids]

        self._until(lambda: not left(), TAKEN_BACK_S, lambda: f"not {what} in time: {left()}")
        self._note(what, time.monotonic() - started)

    def _account(self, client: Forked) -> None:
        for name in ("turns", "stored", "loaded", "calls"):
            self.counts[name] += int(client.board.get(name))

    def _over(self, process: Forked, *codes: int) -> None:
        """Wait until a process that was told to end has."""
        process.may_end = True
        self._until(lambda: process.ended() is not None, HANG_S, lambda: f"{process} does not end")
        assert process.ended() in codes, f"{process} ended with {process.ended()}"
        if process in self.clients:
            self._account(process)
            self.clients.remove(process)

    def _work(self, seconds: float) -> None:
        """Let everybody work."""
        time.sleep(seconds)
        self._living()

    def _living(self) -> None:
        for process in (self.node, *self.clients):
            assert process.ended() is None or process.may_end, f"{process} ended by itself with {process.ended()}"

    def _who_hangs(self) -> str:
        return f"these do not settle: {[client for client in self.clients if not client.board.get('paused')]}"

    def _until(self, holds: Callable[[], bool], timeout_s: float, why: Callable[[], str]) -> None:
        stop_at = time.monotonic() + timeout_s
        while not holds():
            self._living()
            assert time.monotonic() < stop_at, f"after {timeout_s:g} s: {why()}"
            time.sleep(0.005)

    def _note(self, what: str, seconds: float) -> None:
        self.longest[what] = max(seconds, self.longest.get(what, 0.0))

    def _status(self) -> Status:
        answer = ask_node(self.endpoint, AskStatus(), timeout_s=HANG_S)
        assert isinstance(answer, Status)
        return answer

    def _stats(self) -> StatusSnapshot:
        answer = ask_node(self.endpoint, AskStats(), timeout_s=HANG_S)
        assert isinstance(answer, Stats)
        return msgspec.json.decode(answer.snapshot, type=StatusSnapshot)

    def _count_hits(self, prompt: int) -> int:
        answer = ask_node(self.endpoint, CountHits("", self.keys[prompt]), timeout_s=HANG_S)
        assert isinstance(answer, Hits)
        return answer.num_blocks


def prompt_keys(model: Model, prompt: int) -> bytes:
    """The keys of a prompt's blocks."""
    geometry = BlockGeometry.from_model(GEOMETRY_MODEL, tokens_per_block=TOKENS_PER_BLOCK)
    root = root_key(fingerprint(geometry.fingerprint_parts()), "")
    return Sequence(root, TOKENS_PER_BLOCK, model.tokens(prompt, None)).keys().tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    seed = int(os.environ.get("TIERCEL_TEST_SEED", str(random.randrange(2**32))))
    sys.stderr.write(f"TIERCEL_TEST_SEED={seed}\n")
    logging.disable(logging.CRITICAL - 1)
    started, rounds = time.monotonic(), 0
    matrix = Matrix(given.directory, seed, kept=seed % 2 == 0)
    try:
        while matrix.counts["kills"] < given.kills:
            try:
                matrix.round()
            except AssertionError as error:
                raise AssertionError(f"TIERCEL_TEST_SEED={seed}, round {rounds}: {error}") from error
            rounds += 1
        matrix.finish()
    finally:
        matrix.close()
    result = {
        "seed": seed,
        "kept_arena": seed % 2 == 0,
        "rounds": rounds,
        "seconds": round(time.monotonic() - started, 1),
        **dict(sorted(matrix.counts.items())),
        "longest_s": {name: round(seconds, 3) for name, seconds in sorted(matrix.longest.items())},
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
