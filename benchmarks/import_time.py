"""How long `import tiercel` takes, over the bare interpreter. Bound: 150 ms.

    python benchmarks/import_time.py [--repeats 15] [--json FILE]

Each sample is a new process; interpreter and import alternate, so that a busy machine disturbs both alike. The process
CPU time is given beside the wall time, because it is what stays still on a busy machine.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

BOUND_S = 0.150
STATEMENTS = {"interpreter": "pass", "numpy": "import numpy", "tiercel": "import tiercel", "help": ""}


def run_once(name: str) -> tuple[float, float]:
    """Return wall and CPU seconds of one new process."""
    command = [sys.executable, "-c", STATEMENTS[name]]
    if name == "help":
        command = [sys.executable, "-c", "import tiercel.cli; tiercel.cli.main(['--help'])"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, print a table and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in STATEMENTS}
    for _ in range(options.repeats):
        for name, taken in samples.items():
            taken.append(run_once(name))
    print(
        f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}"
    )
    print(f"{'':12} {'wall min':>10} {'median':>10} {'max':>10} {'CPU median':>11}   ms")
    results: dict[str, dict[str, float]] = {}
    for name, taken in samples.items():
        wall = sorted(sample[0] for sample in taken)
        cpu = statistics.median(sample[1] for sample in taken)
        results[name] = {"min_s": wall[0], "median_s": statistics.median(wall), "max_s": wall[-1], "cpu_median_s": cpu}
        row = (wall[0], statistics.median(wall), wall[-1])
        print(f"{name:12} " + " ".join(f"{value * 1e3:10.1f}" for value in row) + f" {cpu * 1e3:11.1f}")
    import_s = results["tiercel"]["median_s"] - results["interpreter"]["median_s"]
    verdict = "within" if import_s <= BOUND_S else "ABOVE"
    print(
        f"import tiercel: {import_s * 1e3:.1f} ms over the interpreter, {verdict} the bound of {BOUND_S * 1e3:.0f} ms"
    )
    if options.json:
        report = {"import_s": import_s, "bound_s": BOUND_S, "repeats": options.repeats, "samples": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
