"""What `tiercel probe` measures of a real GPU: every call answers with a rate that such a link can have."""

from tiercel.transfer.cuda.speed import CopyDirection, CopySpeed, count_gpus

RATES = (0.1e9, 1e12)
"""Bytes a second: wide, for this is no benchmark."""


def test_every_measurement_answers_with_a_rate() -> None:
    assert count_gpus() >= 1
    speed = CopySpeed(0)
    try:
        assert speed.name
        assert speed.memory_bytes > 1 << 30
        assert speed.kernel_problem == ""
        rates = [speed.contiguous(direction) for direction in CopyDirection]
        rates.append(speed.both())
        rates += [
            speed.scattered(direction, 32 << 10, num_ctas) for direction in CopyDirection for num_ctas in (0, 4, 32)
        ]
        assert all(RATES[0] < rate < RATES[1] for rate in rates), rates
    finally:
        speed.close()
