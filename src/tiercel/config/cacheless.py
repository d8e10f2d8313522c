"""Models that keep no KV cache at all, told by their class: there is nothing of theirs to store.

A list, because no key of a config.json says so. A model that is none of these and turns out to have no attention layer
is refused by what `layers` finds.
"""

from collections.abc import Mapping

from tiercel.errors import ConfigError

_ENCODERS = """
albert bert big_bird camembert canine convbert data2vec-text deberta deberta-v2 distilbert electra ernie esm flaubert
fnet funnel ibert layoutlm layoutlmv2 layoutlmv3 longformer luke megatron-bert mobilebert modernbert mpnet nezha
nomic_bert nystromformer rembert roberta roberta-prelayernorm roc_bert squeezebert xlm xlm-roberta xlm-roberta-xl xmod
yoso
"""
_STATE_SPACES = ("mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7", "xlstm")
_ENCODER_CLASSES = ("ForMaskedLM", "EncoderModel", "ForPreTraining")


def require_kv_cache(facts: Mapping[str, object]) -> None:
    """Refuse a model that has no KV cache.

    Args:
        facts: its config.json, completed.

    Raises:
        ConfigError: an encoder, which computes its whole input at once, or a state-space model, which keeps one state
            of fixed size; the message names the class.
    """
    kind = str(facts.get("model_type"))
    listed = facts.get("architectures")
    classes = [str(name) for name in listed] if isinstance(listed, list) else []
    if kind in _STATE_SPACES:
        raise ConfigError(
            f"model_type = {kind!r}: a state-space model keeps one state of fixed size for each sequence and no KV of "
            "its tokens; serve it without Tiercel"
        )
    known = kind in _ENCODERS.split()
    is_encoder = known or (bool(classes) and all(name.endswith(_ENCODER_CLASSES) for name in classes))
    if is_encoder and not facts.get("is_decoder"):
        named = f"model_type = {kind!r}" if known else f"architectures = {classes!r}"
        raise ConfigError(
            f"{named}: an encoder computes its whole input at once and keeps no KV of its tokens; serve it without "
            "Tiercel, or set is_decoder if it was trained to generate"
        )
