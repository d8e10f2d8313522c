"""Writes docs/configuration.md: `python -m tiercel.config.reference > docs/configuration.md`."""

import sys
from collections.abc import Iterable
from dataclasses import MISSING, fields
from itertools import groupby

from tiercel.config.cache import AREAS
from tiercel.config.dialects.reader import DIALECTS
from tiercel.config.dialects.table import Dialect, ForeignKey
from tiercel.config.later import LATER_KEYS
from tiercel.config.load import PREFIX, RESERVED_VARIABLES
from tiercel.config.model import ModelConfig
from tiercel.config.settings import Setting, settings_of

_INTRODUCTION = f"""\
# Configuration

<!-- Written by `python -m tiercel.config.reference`; change the settings in `src/tiercel/config`, not this page. -->

Settings come from keywords, from the environment, from a file and from defaults; the earlier named wins, key by key.
`tiercel config explain FILE` shows each effective value, where it came from, what it amounts to in bytes and tokens,
and what was ignored, contradictory, or means something else in the cache that it was written for.

Every source is read strictly: an unknown key, a key given twice, a wrong type or a value out of range is an
error that names the key, the value, the range and a remedy.

```python
from tiercel.config import CacheConfig, ModelConfig, check_resources, load_config

model = ModelConfig.from_model("/models/qwen3-8b")              # reads config.json; no network, no transformers
loaded = load_config("cache.yaml", num_cpu_blocks="64GiB")      # file, environment, keywords
resolved = check_resources(model, loaded.config)                # memory and disk space, before anything is allocated
```

## Files

YAML (`.yaml`, `.yml`), JSON (`.json`) or TOML (`.toml`). The settings stand under `cache_config`, beside an optional
`model_config`; a file with nothing but settings may leave that level out. `docs/configuration.schema.json`, which `tiercel config
schema` prints, is the JSON Schema of such a file. Numbers that versions of YAML read differently (`010`, `1:30`) are
errors.

```yaml
model_config:              # optional; ModelConfig's fields
  model_id: qwen-32b@2024-09
  num_layers: 64
  num_kv_heads: 8
  head_size: 256
  dtype: bfloat16
cache_config:
  enable_ssd: true
  num_cpu_blocks: 64GiB    # or a number of blocks
  num_ssd_blocks: 1TB
  ssd_cache_dir: /ssd0/tiercel;/ssd1/tiercel
```

## Environment

`{PREFIX}` and the key in upper case: `{PREFIX}NUM_CPU_BLOCKS=64GiB`, `{PREFIX}ENABLE_SSD=true`. Flags take true,
false, 1, 0, yes, no, on and off; `null` or nothing unsets a key that may be null. A variable that starts with
`{PREFIX}` and names no setting is an error. {", ".join(f"`{name}`" for name in RESERVED_VARIABLES)} belong to the
build and the tests and are left alone.

## Sizes

A number and a unit: B, KB, MB, GB, TB are powers of ten, KiB, MiB, GiB, TiB powers of two; blanks and case do not
matter. Capacities are rounded down to whole blocks; a bare number counts blocks. A block takes `tokens_per_block *
token_size_in_bytes`, rounded up to 4096 bytes.

The capacity of a tier can also be a share of what there is, such as `80%`, taken when the cache is opened: of the
memory that the machine and its control group still allow, or of the space that the disk tier's directories can have:
free space and what their own files hold already, the journal included. Directories are filled evenly, so the one with
the least room decides. `tiercel config explain` shows the bytes that a share comes to. A disk tier that finds less room
than at its last start drops the blocks that no longer fit; give a size where the disk is shared with others.
"""

_MODEL_INTRODUCTION = """\
## ModelConfig

`ModelConfig.from_model(SOURCE)` reads a Hugging Face folder, its `config.json`, or that file's content as a mapping.
What the file leaves out is never guessed: the error names the missing key. Element types go by torch's names.

`token_size_in_bytes` is `num_layers * num_kv_heads * head_size * kv_dim * bytes of dtype`, with `kv_dim` 2 for keys
and values and 1 for MLA; 64 layers of 8 heads of 256 elements in bfloat16 make 524,288 bytes. An MLA model is taken
to cache its latent: one head of `kv_lora_rank + qk_rope_head_dim` elements. An engine that caches expanded keys and
values instead needs them described by hand, with `use_mla=False`.

Hybrid models (sliding windows, chunked attention, linear attention, state spaces) are read, and their layers
recorded as groups; this version refuses to store them.

| key | default |
|---|---|
"""

_LATER_INTRODUCTION = """\
## Keys without effect in this version

They are accepted and reported; `enable_remote: true` with a warning. A layout other than those listed is an error,
because it would change what is stored.

| key | default | meaning | accepted | no effect because |
|---|---|---|---|---|
"""

_DIALECT_INTRODUCTION = """\
## Settings of other caches

A file or an environment written for FlexKV or Dynamo KVBM is read as it is. Each key below sets the setting of ours
that is named, or is ignored for the reason given; `tiercel config explain` says so for each that it meets. Settings
under our own names win over all of them, whatever the source; a value that is overruled is reported. Two keys of one
cache are ranked as that cache ranks them; where it would not, or where two caches' keys disagree, both are refused. An
unknown variable with one of their prefixes is reported and left alone, since other programs read them too. `*` stands
for any ending.
"""


def reference() -> str:
    """Return the whole page."""
    areas = "\n".join(_area(area) for area in AREAS)
    later = "".join(
        f"| `{key.key}` | `{key.default_text}` | {key.meaning} | {_accepted(key.accepted)} | {key.why} |\n"
        for key in LATER_KEYS.values()
    )
    model = "".join(f"| `{field.name}` | {_default(field.default)} |\n" for field in fields(ModelConfig))
    dialects = "\n".join(_dialect(dialect) for dialect in DIALECTS)
    return (
        f"{_INTRODUCTION}\n## CacheConfig\n\n{areas}\n{_MODEL_INTRODUCTION}{model}\n{_LATER_INTRODUCTION}{later}\n"
        f"{_DIALECT_INTRODUCTION}\n{dialects}"
    )


def _area(area: type) -> str:
    sections = "\n".join(_section(described) for described in settings_of(area).values())
    return f"### {area.__doc__}\n\n{sections}"


def _dialect(dialect: Dialect) -> str:
    grouped = [(here, list(keys)) for here, keys in groupby(dialect.keys, _here)]
    rows = "".join(
        f"| {_names(known.name + '.*' * known.subtree for known in keys)} "
        f"| {_names(variable for known in keys for variable in known.variables)} | {here} |\n"
        for here, keys in grouped
    )
    return (
        f"### {dialect.name}\n\n`{dialect.file_variable}` names a settings file, read when no other is named. {dialect.about}\n\n"
        f"| in files | variables | here |\n|---|---|---|\n{rows}"
    )


def _here(known: ForeignKey) -> str:
    return "; ".join(part for part in (_names(known.sets), known.outcome) if part)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names if name)


def _section(described: Setting) -> str:
    unit = f" {described.unit}" if described.unit else ""
    return (
        f"#### {described.key}\n\n"
        f"{described.meaning}\n\n"
        f"- default: `{described.default_text}`{unit}\n"
        f"- values: {described.range_text}\n"
        f"- before changing it, measure: {described.measure}\n"
    )


def _accepted(values: tuple[object, ...] | None) -> str:
    return (
        "any"
        if values is None
        else ", ".join(f"`{str(value).lower() if value is False else value}`" for value in values)
    )


def _default(value: object) -> str:
    return "required" if value is MISSING else f"`{value!r}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
