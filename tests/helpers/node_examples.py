"""Reads and checks `examples/node`: nothing here runs them, so whatever can be checked on paper is."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import fastjsonschema
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "node"
SCHEMAS = ROOT / "tests" / "node" / "schemas"

_FLAG: Final = r"yes|no"
_TIME: Final = r"(\d+(s|min|h)?\s*)+"
_PATHS: Final = r"/\S*( /\S*)*"
_WORD: Final = r"[\w.-]+"
_SWITCHES: Final = (
    *(
        "NoNewPrivileges",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateNetwork",
        "ProtectKernelTunables",
        "ProtectKernelModules",
    ),
    *(
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RestrictNamespaces",
        "RestrictRealtime",
    ),
    *("RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "RemoveIPC"),
)
UNIT_KEYS: Final[dict[str, dict[str, str]]] = {
    "Unit": {
        "Description": r".+",
        "After": r"[\w@. -]+",
        "RequiresMountsFor": _PATHS,
        "StartLimitIntervalSec": _TIME,
        "StartLimitBurst": r"\d+",
    },
    "Service": {
        "Type": r"simple|exec|forking|oneshot|notify",
        "NotifyAccess": r"none|main|exec|all",
        "ExecStart": r"/.+",
        "User": _WORD,
        "Group": _WORD,
        "UMask": r"[0-7]{4}",
        "RuntimeDirectory": _WORD,
        "RuntimeDirectoryMode": r"[0-7]{4}",
        "StateDirectory": _WORD,
        "StateDirectoryMode": r"[0-7]{4}",
        "TimeoutStartSec": _TIME,
        "TimeoutStopSec": _TIME,
        "Restart": r"no|always|on-success|on-failure|on-abnormal|on-abort|on-watchdog",
        "RestartSec": _TIME,
        "KillMode": r"control-group|mixed|process|none",
        "LimitMEMLOCK": r"infinity|\d+[KMGT]?",
        "LimitNOFILE": r"\d+",
        "MemoryMax": r"infinity|\d+[KMGT]",
        "OOMScoreAdjust": r"-?\d{1,4}",
        "CapabilityBoundingSet": r"(CAP_\w+( CAP_\w+)*)?",
        "ProtectSystem": r"no|yes|full|strict",
        "ProtectHome": r"no|yes|read-only|tmpfs",
        "RestrictAddressFamilies": r"AF_\w+( AF_\w+)*",
        "SystemCallArchitectures": r"native",
        "SystemCallFilter": r"~?@?[\w-]+( @?[\w-]+)*",
        "SystemCallErrorNumber": r"E[A-Z]+",
        **dict.fromkeys(_SWITCHES, _FLAG),
    },
    "Install": {"WantedBy": r"[\w-]+\.target"},
}
"""The sections and keys of systemd 252 that the unit may have, and what each may say."""

Unit = dict[str, dict[str, str]]


def read_unit(text: str) -> Unit:
    """Read a unit. Raises ValueError for anything that is not in `UNIT_KEYS`, or that stands twice."""
    unit: Unit = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        header = re.fullmatch(r"\[(\w+)\]", line)
        if header is not None:
            section = header[1]
            if section not in UNIT_KEYS or section in unit:
                raise ValueError(f"line {number}: section {section}")
            unit[section] = {}
            continue
        key, separator, value = line.partition("=")
        rule = UNIT_KEYS.get(section, {}).get(key)
        if not separator or rule is None or key in unit[section]:
            raise ValueError(f"line {number}: {line!r} in section {section!r}")
        if re.fullmatch(rule, value) is None:
            raise ValueError(f"line {number}: {key} = {value!r}")
        unit[section][key] = value
    return unit


def schema_check(name: str) -> Any:
    """Return what checks a document against one of `SCHEMAS`; it raises fastjsonschema.JsonSchemaException."""
    return fastjsonschema.compile(yaml.safe_load((SCHEMAS / f"{name}.yaml").read_text()))


def compose() -> dict[str, Any]:
    """The Compose file, merges done."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / "docker-compose.yml").read_text())
    return document


def kubernetes() -> dict[str, dict[str, Any]]:
    """The Kubernetes objects, by kind; each kind stands once."""
    documents = list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text()))
    found = {document["kind"]: document for document in documents}
    assert len(found) == len(documents)
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The two pods, by the kind that makes them."""
    objects = kubernetes()
    return {kind: objects[kind]["spec"]["template"]["spec"] for kind in ("DaemonSet", "Deployment")}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line in every example: (where, its words)."""
    unit = read_unit((EXAMPLES / "tiercel-node.service").read_text())
    yield "systemd ExecStart", shlex.split(unit["Service"]["ExecStart"])
    for name, service in compose()["services"].items():
        yield f"compose {name}", service["command"]
        if "healthcheck" in service:
            yield f"compose {name} healthcheck", service["healthcheck"]["test"][1:]
    for kind, pod in pods().items():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{kind} {container['name']}", container["command"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "exec" in container.get(probe, {}):
                    yield f"{kind} {container['name']} {probe}", container[probe]["exec"]["command"]
    for block in re.findall(r"^```\n(.*?)^```", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            starts = [
                at for at, word in enumerate(words[:-1]) if Path(word).name == "tiercel" and words[at + 1] == "node"
            ]
            yield from ((f"README: {line}", words[at:]) for at in starts)
