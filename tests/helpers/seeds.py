"""Seeds of random tests: printed, and taken back from TIERCEL_TEST_SEED."""

import os
import random
import sys


def chosen_seed() -> int:
    """The seed to use; pytest shows it when the test fails."""
    chosen = os.environ.get("TIERCEL_TEST_SEED")
    seed = int(chosen) if chosen else random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"TIERCEL_TEST_SEED={seed}\n")
    return seed
