"""Tenants: who shares a cache, and what each of them may have of it.

The setting `tenants` maps a name to namespaces, to what is reserved for them and what they are limited to in each tier, and to
their share of the transfers. Everybody who is not named is one more tenant, with nothing reserved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tiercel.config.messages import nearest, problem
from tiercel.config.sizes import is_share, parse_rate, parse_share, parse_size
from tiercel.errors import ConfigError

TENANTS_MAX = 64
"""Named tenants, at most: an eviction compares them all."""

TENANT_TIERS = ("cpu", "ssd")
WEIGHT_MAX = 1000
_KEYS = ("namespaces", "reserve", "limit", "weight", "bandwidth")

Amount = int | str
"""Of a tier: blocks, a size such as "64GiB", or a share of its slots such as "20%"."""


@dataclass(frozen=True, kw_only=True)
class TenantConfig:
    """What the settings say of one tenant.

    Attributes:
        name: as shown in the status.
        namespaces: whose blocks are the tenant's.
        reserve: by tier, cpu or ssd: what others cannot evict it below. None reserves nothing.
        limit: by tier: what it holds at most. None is the whole tier.
        weight: share of a busy queue, beside the other tenants' weights.
        bandwidth: by tier: bytes a second of its loads, and of its stores, at most. None is no limit.
    """

    name: str
    namespaces: tuple[str, ...]
    reserve: Mapping[str, Amount] = field(hash=False)
    limit: Mapping[str, Amount] = field(hash=False)
    weight: float
    bandwidth: Mapping[str, int] = field(hash=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class TenantTier:
    """What a tenant has of one tier, in numbers; `bytes_per_s` None: no limit."""

    reserve_blocks: int
    limit_blocks: int
    bytes_per_s: int | None


@dataclass(frozen=True, kw_only=True)
class ResolvedTenant:
    """One tenant in numbers."""

    name: str
    weight: float
    cpu: TenantTier
    ssd: TenantTier


def read_tenants(key: str, value: object, origin: str = "") -> tuple[TenantConfig, ...]:
    """Return tenants from what a file or a caller gives: names and their descriptions, or what this returned before.

    Raises:
        ConfigError: a description is wrong, or two contradict each other; the message names the key in it.
    """
    if isinstance(value, tuple) and all(isinstance(tenant, TenantConfig) for tenant in value):
        return value
    if not isinstance(value, Mapping):
        remedy = "give names, and namespaces under each"
        raise problem(key, value, "must hold tenants by name", remedy, origin)
    if len(value) > TENANTS_MAX:
        raise problem(key, len(value), f"must name at most {TENANTS_MAX} tenants", "join some", origin)
    tenants = tuple(_read_tenant(f"{key}.{name}", name, given, origin) for name, given in value.items())
    _require_own_namespaces(key, tenants, origin)
    for tier in TENANT_TIERS:
        shares = [Fraction(0)]
        for tenant in tenants:
            reserve = tenant.reserve.get(tier, 0)
            if is_share(reserve):
                shares.append(parse_share(key, str(reserve)))
        if sum(shares) > 1:
            raise problem(
                f"{key}.*.reserve", f"{float(sum(shares)):.0%}", f"must be at most 100% of the {tier} tier in sum",
                "lower some, or name fewer", origin,
            )  # fmt: skip
    return tenants


def written_tenants(tenants: Sequence[TenantConfig]) -> dict[str, dict[str, object]]:
    """Return tenants as a file gives them: what `read_tenants` reads."""
    return {tenant.name: {key: getattr(tenant, key) for key in _KEYS} for tenant in tenants}


def resolve_tenants(
    tenants: Sequence[TenantConfig], capacities: Mapping[str, int], slot_bytes: int
) -> tuple[ResolvedTenant, ...]:
    """Return tenants in blocks. capacities: slots of the tiers cpu and ssd, 0 of one that is off.

    Raises:
        ConfigError: more is reserved than there is, or a reserve is above its limit.
    """
    resolved = tuple(
        ResolvedTenant(
            name=tenant.name,
            weight=tenant.weight,
            **{tier: _resolve(tenant, tier, capacities[tier], slot_bytes) for tier in TENANT_TIERS},
        )
        for tenant in tenants
    )
    for tier in TENANT_TIERS:
        num_reserved = sum(getattr(tenant, tier).reserve_blocks for tenant in resolved)
        if num_reserved > capacities[tier]:
            raise problem(
                "tenants.*.reserve", f"{num_reserved} blocks in sum", f"must fit the {tier} tier's {capacities[tier]} blocks",
                f"lower some, or raise num_{tier}_blocks",
            )  # fmt: skip
    return resolved


def _resolve(tenant: TenantConfig, tier: str, capacity: int, slot_bytes: int) -> TenantTier:
    limit = min(capacity, _blocks(tenant.limit.get(tier), capacity, capacity, slot_bytes))
    reserve = _blocks(tenant.reserve.get(tier), 0, capacity, slot_bytes) if capacity else 0
    if reserve > limit:
        raise problem(
            f"tenants.{tenant.name}.reserve.{tier}", tenant.reserve[tier], f"must be at most its limit of {limit} blocks",
            "lower it, or raise the limit or the tier's capacity",
        )  # fmt: skip
    return TenantTier(reserve_blocks=reserve, limit_blocks=limit, bytes_per_s=tenant.bandwidth.get(tier))


def _blocks(amount: Amount | None, otherwise: int, capacity: int, slot_bytes: int) -> int:
    if amount is None:
        return otherwise
    if isinstance(amount, int):
        return amount
    return (
        int(parse_share("tenants", amount) * capacity)
        if is_share(amount)
        else parse_size("tenants", amount) // slot_bytes
    )


def _read_tenant(key: str, name: object, given: object, origin: str) -> TenantConfig:
    if not isinstance(name, str) or not name or len(name) > 100 or not name.isprintable():
        raise problem("tenants", name, "must be a name of 1 to 100 printable characters", "name the tenant so", origin)
    if not isinstance(given, Mapping):
        raise problem(key, given, "must hold keys and values", f"give {', '.join(_KEYS)}", origin)
    for known in given:
        if known not in _KEYS:
            hint = nearest(known, _KEYS) or f"known are {', '.join(_KEYS)}"
            source = f" (from {origin})" if origin else ""
            raise ConfigError(f"{key}.{known}{source}: unknown key; {hint}")
    weight = given.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= WEIGHT_MAX:
        raise problem(f"{key}.weight", weight, f"must be a number above 0 and up to {WEIGHT_MAX}", "1 is usual", origin)
    return TenantConfig(
        name=name,
        namespaces=_namespaces(f"{key}.namespaces", given.get("namespaces"), origin),
        reserve=_by_tier(f"{key}.reserve", given.get("reserve"), origin),
        limit=_by_tier(f"{key}.limit", given.get("limit"), origin),
        weight=float(weight),
        bandwidth={
            tier: parse_rate(f"{key}.bandwidth.{tier}", rate, origin)
            for tier, rate in _tiers_of(f"{key}.bandwidth", given.get("bandwidth"), origin).items()
        },
    )


def _namespaces(key: str, given: object, origin: str) -> tuple[str, ...]:
    entries = given if isinstance(given, (list, tuple)) else [given]
    namespaces = tuple(entry for entry in entries if isinstance(entry, str))
    if not namespaces or len(namespaces) != len(entries):
        raise problem(
            key, given, "must be the namespaces of the tenant: a text, or a list", "name at least one", origin
        )
    return namespaces


def _require_own_namespaces(key: str, tenants: Sequence[TenantConfig], origin: str) -> None:
    owners: dict[str, str] = {}
    for tenant in tenants:
        for namespace in tenant.namespaces:
            if namespace in owners:
                rule = f"must be named once, and {owners[namespace]} has it"
                raise problem(f"{key}.{tenant.name}.namespaces", namespace, rule, "leave it to one of them", origin)
            owners[namespace] = tenant.name


def _tiers_of(key: str, given: object, origin: str) -> dict[str, object]:
    """What is given for each tier: the same for both, or by the tier's name."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return dict.fromkeys(TENANT_TIERS, given)
    for tier in given:
        if tier not in TENANT_TIERS:
            raise problem(key, given, "must be by tier: cpu, ssd", nearest(tier, TENANT_TIERS) or "use these", origin)
    return dict(given)


def _by_tier(key: str, given: object, origin: str) -> dict[str, Amount]:
    amounts: dict[str, Amount] = {}
    for tier, amount in _tiers_of(key, given, origin).items():
        if type(amount) is int and amount > 0:
            amounts[tier] = amount
        elif is_share(amount):
            parse_share(f"{key}.{tier}", str(amount), origin)
            amounts[tier] = str(amount)
        elif isinstance(amount, str):
            parse_size(f"{key}.{tier}", amount, origin)
            amounts[tier] = amount
        else:
            rule = "must be blocks, a size such as 64GiB, or a share of the tier such as 20%"
            raise problem(f"{key}.{tier}", amount, rule, "leave it out for none", origin)
    return amounts
