"""docs/doctor.md, written from the table of checks: `python -m tiercel.tune.doctor.reference > docs/doctor.md`."""

import sys

from tiercel.tune.doctor.findings import SEVERITY_MEANINGS, Group
from tiercel.tune.doctor.table import CHECKS

_HEAD = """\
# tiercel doctor

Generated from the code: `python -m tiercel.tune.doctor.reference > docs/doctor.md`.

`tiercel doctor` looks at a settings file, running caches and cache directories, and at the machine below them. It says what is
wrong or slow, with the number that it saw, why that matters and what to do. It changes nothing.

```
tiercel doctor                                   # this machine, and every running cache of this user
tiercel doctor --config tiercel.yaml --model DIR # settings, what they amount to for a model, their directories
tiercel doctor --pid 4242 --config tiercel.yaml  # a running cache, held against its settings
tiercel doctor --directory /nvme0/cache          # a cache directory, in use or not
```

| option | for |
|---|---|
| `--config FILE` | a settings file; variables of the environment count as they would for a cache |
| `--model DIR` | a model's `config.json` or folder: sizes in bytes, and whether they fit |
| `--pid PID`, `--all` | running caches: one process, more of them, or all of this user |
| `--directory DIR` | cache directories; those of the settings and of running caches are looked at anyway |
| `--machine FILE` | what `tiercel probe` measured: loads slower than that are told |
| `--gpu-memory SIZE` | KV memory of the engine's GPUs, as its log gives it, such as `48GiB` |
| `--drive-writes-per-day N` | endurance of the disks, in their own size a day; 1 unless given |
| `--timeout-s N` | longest wait for each look, 8 s unless given |
| `--verbose` | also what is as it should be |
| `--json` | the whole report; its form is described below |
| `--strict` | exit with 1 if there are warnings |

| exit code | |
|---|---|
| 0 | no error, and with `--strict` no warning |
| 1 | warnings, with `--strict`; or doctor itself could not work (one line on standard error, no report) |
| 2 | errors; or the command was called wrongly (one line on standard error, no report) |

Every look is made by a process of its own. One that hangs, because a mount does not answer or a cache is stopped, is left behind
after the timeout and told as a finding; the rest of the report stands. There are two rounds of looks, and with
`--machine` a third before them, so doctor ends within two or three times the timeout, for up to eight places.

The JSON has `version` (of this form: fields are only added), `tiercel`, `counts` by severity, and `findings`, each with
`severity`, `group`, `check`, `subject`, `seen`, `why` and `remedy`.

Run it as the user of the cache, in the same container and with the same limits: that is what it reports on.

"""


def doctor_reference() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD + "| severity | means |", "|---|---|"]
    lines += [f"| {severity.value} | {meaning} |" for severity, meaning in SEVERITY_MEANINGS.items()]
    for group in dict.fromkeys(check.group for check in CHECKS):
        lines += ["", f"## {Group(group).value.capitalize()}"]
        for check in CHECKS:
            if check.group is group:
                lines += [
                    "",
                    f"### {check.name}",
                    "",
                    check.meaning,
                    "",
                    f"**Why:** {check.why}",
                    "",
                    f"**Remedy:** {check.remedy}",
                ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(doctor_reference())
