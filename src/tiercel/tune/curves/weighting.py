"""What a hit rate counts: tools differ in which of these they quote, so each figure here says which one it is."""

from enum import StrEnum


class Weighting(StrEnum):
    """What is counted.

    BLOCKS: blocks hit over the blocks of all requests.
    TOKENS: tokens in blocks hit over the tokens of all prompts, those in no block included.
    REQUESTS: of each request with a block the share of its blocks that was hit; the mean.
    """

    BLOCKS = "blocks"
    TOKENS = "tokens"
    REQUESTS = "requests"
