"""What does storing cost before a byte moves, in a cache that is full?

The control half's whole part in a store: keys, reservation with eviction, the plan, and after the move its completion and
the release of what it held. 4,096 new tokens each time, into a host tier of a million blocks that is full of conversations.
"""

import sys

import numpy as np
from _harness import Row, measure, parse_arguments, report, time_row
from _index_fill import NUM_BLOCKS, ROOT, TOKENS_PER_BLOCK, fill, random_tokens

from tiercel import Sequence, TierName
from tiercel.control import Control, ControlSettings
from tiercel.plan import Completion

NUM_TOKENS = 4096
BOUND_US = 100.0
BOUND_PER_S = 10_000.0


def main() -> int:
    arguments = parse_arguments(__doc__)
    count = arguments.repeats or 2000
    rng = np.random.default_rng(1)
    control = Control(
        ControlSettings(capacities={TierName.HOST: NUM_BLOCKS}, tokens_per_block=TOKENS_PER_BLOCK, block_bytes=2 << 20)
    )
    fill(control.index, rng)
    new = iter([random_tokens(rng, NUM_TOKENS) for _ in range(count + 1)])
    done = bytes(NUM_TOKENS // TOKENS_PER_BLOCK)

    def store() -> None:
        sequence = Sequence(ROOT, TOKENS_PER_BLOCK, next(new))
        operation = control.begin_store(
            1, sequence, blocks=range(sequence.num_blocks), deadline_s=1.0, targets=(TierName.HOST,)
        )
        control.complete(operation, Completion(ticket=1, move=0, statuses=done, num_bytes=1, busy_s=0.0, queued_s=0.0))
        control.finish(operation)

    timing = measure(store, count)
    stats = control.stats(TierName.HOST)
    assert stats.num_evicted >= count * NUM_TOKENS // TOKENS_PER_BLOCK - stats.num_free - 100_000
    rate = Row(
        name="stores of 4K tokens a second, one thread",
        value=1.0 / timing.median_s,
        unit="1/s",
        bound=BOUND_PER_S,
        higher_is_better=True,
        spread=(1.0 / timing.max_s, 1.0 / timing.min_s),
    )
    return report(
        [time_row("store of 4K new tokens into a full cache", timing, unit="us", bound=BOUND_US), rate], arguments.json
    )


if __name__ == "__main__":
    sys.exit(main())
