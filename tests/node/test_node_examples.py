"""`examples/node` is valid, consistent, and asks for nothing that Tiercel does not have."""

import copy
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml

import tiercel
from tests.helpers import node_examples
from tests.helpers.node_examples import EXAMPLES, compose, kubernetes, pods, read_unit, schema_check
from tiercel.cli.app import app
from tiercel.config import SETTINGS, load_config, parse_size
from tiercel.connectors.vllm.versions import check_version

UNIT = (EXAMPLES / "tiercel-node.service").read_text()
SOCKET_DIRECTORY = "/run/tiercel"
ENDPOINT = f"ipc://{SOCKET_DIRECTORY}"
CONNECTOR_KEYS = {
    "config_file",
    "model_id",
    "weights_epoch",
    "load_timeout_s",
    "allow_untested_vllm",
    "server_recv_port",
}
ROOM = 8 << 30


def host_bytes(path: Path = EXAMPLES / "node.yaml") -> int:
    return parse_size("num_cpu_blocks", str(load_config(path).config.num_cpu_blocks))


# ── commands and settings ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("where", "words"), list(node_examples.commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_commands_and_options_exist(where: str, words: list[str]) -> None:
    name = Path(words[0]).name
    if name == "tiercel":
        command, _, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
        assert command.__module__.startswith("tiercel.cli.")
    else:
        assert name in ("vllm", "install"), where


def test_every_kind_of_command_is_looked_at() -> None:
    words = [tuple(words[1:3]) for _, words in node_examples.commands() if Path(words[0]).name == "tiercel"]
    assert {("node", "run"), ("node", "status"), ("node", "keygen")} <= set(words)
    assert len(words) > 8


def test_engines_are_given_settings_that_exist_and_the_nodes_address() -> None:
    engines = [words for _, words in node_examples.commands() if words[0] == "vllm"]
    assert len(engines) == 3
    for words in engines:
        transfer = json.loads(words[words.index("--kv-transfer-config") + 1])
        assert transfer["kv_connector_module_path"] == "tiercel.connectors.vllm"
        extra = transfer["kv_connector_extra_config"]
        assert extra.keys() <= SETTINGS.keys() | CONNECTOR_KEYS
        assert extra["server_recv_port"] == ENDPOINT


def test_the_nodes_settings_are_valid_and_the_same_everywhere(tmp_path: Path) -> None:
    loaded = load_config(EXAMPLES / "node.yaml")
    assert loaded.model is not None
    text = kubernetes()["ConfigMap"]["data"]["node.yaml"]
    (tmp_path / "node.yaml").write_text(text)
    mapped = load_config(tmp_path / "node.yaml")
    assert (mapped.config, mapped.model) == (loaded.config, loaded.model)
    for document in (yaml.safe_load(text), yaml.safe_load((EXAMPLES / "node.yaml").read_text())):
        assert document["server_recv_port"] == ENDPOINT
        assert document["cache_config"]["ssd_cache_dir"] == "/var/lib/tiercel"


def test_the_model_is_named_as_an_engine_names_it() -> None:
    """By the last part of what is served, and a digest; the page says who knows the digest."""
    loaded = load_config(EXAMPLES / "node.yaml")
    assert loaded.model is not None
    served = {words[2] for _, words in node_examples.commands() if words[:2] == ["vllm", "serve"]}
    assert {re.sub("@[0-9a-f]{16}$", "", loaded.model.model_id)} == {Path(model).name for model in served}
    assert re.search("@[0-9a-f]{16}$", loaded.model.model_id)
    text = (EXAMPLES / "README.md").read_text()
    opening = Path(tiercel.__file__).parent / "connectors" / "vllm" / "opening.py"
    for words in ("waiting up to", "whose settings have to begin with"):
        assert words in text
        assert words in opening.read_text()


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_unit_has_known_keys_and_what_a_node_needs() -> None:
    service = read_unit(UNIT)["Service"]
    assert service["Type"] == "notify"
    assert service["LimitMEMLOCK"] == "infinity"
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("tiercel", "0700")
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("tiercel", "0700")
    assert int(service["MemoryMax"].removesuffix("G")) << 30 == host_bytes() + ROOM


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Type=notify", "Type=notified"),
        ("[Service]", "[Servce]"),
        ("LimitMEMLOCK=infinity", "LimitMemlock=infinity"),
        ("ProtectHome=yes", "ProtectHome=yes\nProtectHome=no"),
        ("RestartSec=1s", "RestartSec 1s"),
        ("UMask=0077", "UMask=77x"),
    ],
)
def test_a_unit_with_a_mistake_is_seen(old: str, new: str) -> None:
    assert old in UNIT
    with pytest.raises(ValueError, match="line"):
        read_unit(UNIT.replace(old, new, 1))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    def verify(text: str) -> str:
        unit = tmp_path / "tiercel-node.service"
        unit.write_text(text)
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr if done.returncode or str(unit.name) in done.stderr else ""

    here = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT, flags=re.MULTILINE)
    assert verify(here) == ""
    assert "Unknown key" in verify(here.replace("[Service]", "[Service]\nTyp=notify"))


# ── Compose ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_compose_file_fits_its_schema_and_itself() -> None:
    document = compose()
    schema_check("compose")(document)
    services, volumes = document["services"], document["volumes"]
    assert len({service["image"] for service in services.values()}) == 1, "both sides must be the same release"
    assert len({service["user"] for service in services.values()}) == 1, "a node serves its own user"
    uid, gid = services["tiercel"]["user"].split(":")
    assert {f"uid={uid}", f"gid={gid}", "mode=0700"} <= set(volumes["socket"]["driver_opts"]["o"].split(","))
    assert f"-o {uid} -g {gid}" in (EXAMPLES / "Dockerfile").read_text()
    for service in services.values():
        assert f"socket:{SOCKET_DIRECTORY}" in service["volumes"]
        assert service.get("depends_on", {}).keys() <= services.keys()
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert source in volumes or source.startswith("/") or (EXAMPLES / source).is_file()
    assert parse_size("mem_limit", services["tiercel"]["mem_limit"].replace("g", "GiB")) == host_bytes() + ROOM
    published = [service["ports"][0].split(":")[1] for service in services.values() if "ports" in service]
    devices = [
        service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"][0]
        for service in services.values()
        if "deploy" in service
    ]
    assert len(set(published)) == len(set(devices)) == 2


def set_at(document: Any, path: str, value: object) -> None:
    *parents, last = path.split("/")
    for part in parents:
        document = document[int(part) if isinstance(document, list) else part]
    document[int(last) if isinstance(document, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services/tiercel/healthchek", {}),
        ("services/tiercel/healthcheck/interval", "10"),
        ("services/vllm-0/depends_on/tiercel/condition", "service_ready"),
        ("services/vllm-1/shm_size", 16),
        ("services/vllm-1/volumes", ["socket"]),
        ("volumes/socket/driver_opts/o", 7),
    ],
)
def test_a_compose_file_with_a_mistake_is_seen(path: str, value: object) -> None:
    document = copy.deepcopy(compose())
    set_at(document, path, value)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        schema_check("compose")(document)


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_kubernetes_objects_fit_their_schema() -> None:
    check = schema_check("kubernetes")
    for document in kubernetes().values():
        check(document)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("DaemonSet", "spec/template/spec/hostPid", True),
        ("DaemonSet", "spec/template/spec/containers/0/livenessProbe/periodSecond", 3),
        ("DaemonSet", "spec/template/spec/containers/0/resources/limits/memory", "72 GB"),
        ("DaemonSet", "spec/template/spec/volumes/0/hostPath/type", "Dir"),
        ("DaemonSet", "apiVersion", "apps/v1beta1"),
        ("Deployment", "spec/template/spec/containers/0/command", "vllm serve"),
        ("Deployment", "spec/replicas", "2"),
        ("Service", "spec/ports/0/port", 0),
        ("ConfigMap", "data/node.yaml", {}),
    ],
)
def test_a_kubernetes_object_with_a_mistake_is_seen(kind: str, path: str, value: object) -> None:
    document = copy.deepcopy(kubernetes()[kind])
    set_at(document, path, value)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        schema_check("kubernetes")(document)


def test_the_kubernetes_objects_fit_each_other() -> None:
    objects = kubernetes()
    assert {each["metadata"].get("namespace", "tiercel") for each in objects.values()} == {"tiercel"}
    for kind in ("DaemonSet", "Deployment"):
        spec = objects[kind]["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert objects["Service"]["spec"]["selector"] == objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    both = pods()
    assert both["DaemonSet"]["nodeSelector"] == both["Deployment"]["nodeSelector"], "a node on every host of an engine"
    ports = {port["name"] for port in both["Deployment"]["containers"][0]["ports"]}
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] in ports
    for kind, pod in both.items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["socket"]["hostPath"]["path"] == SOCKET_DIRECTORY
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts.keys() <= volumes.keys(), kind
            assert mounts["socket"] == SOCKET_DIRECTORY
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port", "http")
                assert port in ports
    assert (
        next(v for v in both["DaemonSet"]["volumes"] if v["name"] == "settings")["configMap"]["name"] == "tiercel-node"
    )


def test_pods_have_one_release_one_user_and_the_memory_that_the_settings_ask_for() -> None:
    containers = [container for pod in pods().values() for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    contexts = [container["securityContext"] for container in containers]
    assert len({(context["runAsUser"], context["runAsGroup"]) for context in contexts}) == 1
    for context in contexts:
        assert context["runAsNonRoot"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context["allowPrivilegeEscalation"]
    node = pods()["DaemonSet"]["containers"][0]
    assert parse_size("memory", node["resources"]["limits"]["memory"] + "B") == host_bytes() + ROOM
    (init,) = pods()["DaemonSet"]["initContainers"]
    assert init["command"][-2:] == [SOCKET_DIRECTORY, "/var/lib/tiercel"]
    assert init["command"][4:8] == ["-o", str(contexts[0]["runAsUser"]), "-g", str(contexts[0]["runAsGroup"])]


# ── the image ────────────────────────────────────────────────────────────────────────────────────────────────────────


def instructions() -> dict[str, list[str]]:
    """What the Dockerfile has of each instruction, lines that go on joined."""
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n", " ", (EXAMPLES / "Dockerfile").read_text()).splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found.setdefault(name, []).append(rest)
    return found


def test_the_image_needs_no_file_and_has_what_both_sides_ask_for() -> None:
    assert instructions().keys() == {"FROM", "RUN", "USER", "ENV", "ENTRYPOINT"}, (
        "what takes a file is not looked at here"
    )
    (base,), (run,), (user,), (environment,) = (instructions()[name] for name in ("FROM", "RUN", "USER", "ENV"))
    version = re.fullmatch(r"vllm/vllm-openai:v([0-9.]+)", base)
    assert version is not None
    check_version(version[1])
    extras = re.search(r"'tiercel\[([\w,]+)\]'", run)
    assert extras is not None
    project = tomllib.loads((node_examples.ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()
    assert instructions()["ENTRYPOINT"] == ["[]"], "commands name the program themselves"
    assert {service["user"] for service in compose()["services"].values()} == {user}
    mounted = {mount.split(":")[1] for service in compose()["services"].values() for mount in service["volumes"]}
    made = set(re.findall(r" (/\S+)", run.partition("install -d")[2]))
    assert {path for path in mounted if not path.endswith(".yaml")} == made
    assert dict(part.split("=") for part in environment.split())["HF_HOME"] in made


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_names_every_file() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in text
