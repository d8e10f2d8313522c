"""What a model's KV cache consists of, and what makes it this model's and no other's.

`huggingface.read_model` derives one from a model's config.json; `layout` turns one into the format of a block.
"""

from dataclasses import dataclass

from tiercel.config.dtypes import DTYPE_BYTES, dtype_name
from tiercel.config.huggingface import Source, read_model
from tiercel.config.layers import FULL_ATTENTION, LayerGroup
from tiercel.config.messages import StrictKeywords, problem
from tiercel.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelConfig(StrictKeywords):
    """The KV cache of one model.

    Attributes:
        model_id: which weights these are; KV is exchanged only between equal model_id and weights_epoch.
        weights_epoch: version of the weights under one model_id, changed when they are updated in place.
        num_layers: transformer layers.
        num_kv_heads: KV heads of one layer over all tensor-parallel ranks; 1 with MLA.
        head_size: elements of one head; with MLA those of the latent, kv_lora_rank + qk_rope_head_dim.
        dtype: element type of the KV cache, by torch's name; a torch.dtype is taken by its name.
        use_mla: one latent per layer and token instead of keys and values.
        tp_size: tensor-parallel ranks.
        dp_size: data-parallel ranks.
        layer_groups: kinds of layers; empty means that all are full attention.

    Raises:
        ConfigError: a value is missing, out of its range or contradicts another.
    """

    model_id: str
    num_layers: int
    num_kv_heads: int
    head_size: int
    dtype: str
    use_mla: bool = False
    tp_size: int = 1
    dp_size: int = 1
    weights_epoch: str = ""
    layer_groups: tuple[LayerGroup, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name("dtype", self.dtype))
        object.__setattr__(self, "layer_groups", tuple(self.layer_groups))
        self._check_types()
        if not self.model_id:
            raise problem("model_id", self.model_id, "must not be empty", "name the model and its revision: KV of two "
                          "models with one name would be taken for each other")  # fmt: skip
        if self.use_mla and self.num_kv_heads != 1:
            raise problem("num_kv_heads", self.num_kv_heads, "must be 1 with use_mla (one latent per layer)",
                          "set it to 1, and head_size to kv_lora_rank + qk_rope_head_dim")  # fmt: skip
        if self.num_kv_heads % self.tp_size and self.tp_size % self.num_kv_heads:
            rule = f"must divide num_kv_heads = {self.num_kv_heads}, or be a multiple of it"
            raise problem("tp_size", self.tp_size, rule, "use a tp_size that splits or replicates the heads evenly")
        listed = [layer for group in self.layer_groups for layer in group.layers]
        if listed and sorted(listed) != list(range(self.num_layers)):
            raise problem("layer_groups", listed, f"must name each of the {self.num_layers} layers once",
                          "list every layer in exactly one group")  # fmt: skip

    def _check_types(self) -> None:
        for key in ("num_layers", "num_kv_heads", "head_size", "tp_size", "dp_size"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise problem(key, value, "must be an integer, at least 1", "take it from the model's config.json")
        for key in ("model_id", "weights_epoch"):
            if not isinstance(getattr(self, key), str):
                raise problem(key, getattr(self, key), "must be text", "quote it")
        if not isinstance(self.use_mla, bool):
            raise problem("use_mla", self.use_mla, "must be true or false", "use one of them")

    @classmethod
    def from_model(
        cls,
        source: Source,
        *,
        dtype: object = None,
        tp_size: int = 1,
        dp_size: int = 1,
        model_id: str | None = None,
        weights_epoch: str = "",
    ) -> "ModelConfig":
        """Read a Hugging Face model's config.json, without network and without importing transformers.

        Args:
            source: the model's folder, its config.json, or that file's content.
            dtype: type of the KV cache when the engine keeps it in another one than the weights' (fp8, for example).
            tp_size: tensor-parallel ranks.
            dp_size: data-parallel ranks.
            model_id: name of the weights. By default made from the folder's name and a digest of config.json and of
                each weights file's name, size and time: it changes when the weights do, and differs between two
                copies, so name it yourself where several machines are to share.
            weights_epoch: version of the weights under that name.

        Raises:
            ConfigError: the file cannot be read, or lacks a fact; the message names the key and the remedy.
        """
        facts, default_id = read_model(source, dtype=dtype)
        chosen_id = model_id if model_id is not None else default_id
        if not chosen_id:
            raise ConfigError("model_id: the content of a config.json alone does not say which weights it belongs to; "
                              "pass model_id=")  # fmt: skip
        return cls(model_id=chosen_id, weights_epoch=weights_epoch, tp_size=tp_size, dp_size=dp_size, **facts)

    @property
    def token_size_in_bytes(self) -> int:
        """Bytes of KV of one token over all layers and tensor-parallel ranks, replicas not counted."""
        kv_dim = 1 if self.use_mla else 2
        return self.num_layers * self.num_kv_heads * self.head_size * kv_dim * DTYPE_BYTES[self.dtype]

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers keep something else than the whole KV of full attention."""
        return any(group.name != FULL_ATTENTION for group in self.layer_groups)

    def require_full_attention(self) -> None:
        """Refuse a model that this version cannot store whole.

        Raises:
            ConfigError: a hybrid model; the message names its groups.
        """
        if self.is_hybrid:
            kinds = ", ".join(f"{group.name} ({len(group.layers)} layers)" for group in self.layer_groups)
            raise ConfigError(f"model {self.model_id!r} has layers of several kinds: {kinds}; this version stores "
                              f"only models whose layers all use {FULL_ATTENTION}")  # fmt: skip
