"""Who shares the cache, and what each of them may have of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from tiercel.config.settings import Kind, setting
from tiercel.config.tenants import TenantConfig


@dataclass(frozen=True, kw_only=True)
class SharingSettings:
    """Who shares the cache, and what each of them may have of it."""

    tenants: Mapping[str, object] | tuple[TenantConfig, ...] = setting(
        (),
        "Tenants by name, each with its namespaces and what it has reserved, is limited to and weighs; docs/tenants.md "
        "describes the keys.",
        kind=Kind.TENANTS,
        default_text="{}",
        measure="Each tenant's hit rate and evicted blocks (tiercel stats) while another one floods the cache.",
    )
