"""Hold what Tiercel gave back against what an engine without it computed, byte for byte and token for token.

The run without Tiercel is the oracle: its KV never left the engine. The engine computes a token's KV as a function of
the tokens up to it alone (see `docs/demo.md`), so every block and every answer must be equal in all runs. What is
compared is SHA-256 of tokens and of the bytes in the engine's memory, made outside Tiercel's own hashing and layout.
"""

from dataclasses import dataclass, field

from tiercel.demo.messages import Answer

_MISMATCHES_KEPT_MAX = 20


@dataclass
class Verification:
    """Counts of what was compared, and what was not equal.

    Attributes:
        restored_blocks: blocks that Tiercel brought into the engine's memory.
        computed_blocks: blocks that the engine computed again with Tiercel beside it: a check of the oracle itself.
        tokens: generated tokens.
        mismatches: the first of them, in words.
    """

    restored_blocks: int = 0
    computed_blocks: int = 0
    tokens: int = 0
    num_mismatches: int = 0
    mismatches: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all was equal, and there was something to compare."""
        return self.num_mismatches == 0 and self.tokens > 0 and self.restored_blocks > 0

    def miss(self, description: str) -> None:
        """Count a mismatch and keep the first ones."""
        self.num_mismatches += 1
        if len(self.mismatches) < _MISMATCHES_KEPT_MAX:
            self.mismatches.append(description)


class Oracle:
    """What the engine without Tiercel computed."""

    def __init__(self) -> None:
        self._contents: dict[bytes, bytes] = {}
        self._tokens: dict[int, tuple[int, ...]] = {}
        self.verification = Verification()

    def learn(self, answer: Answer) -> None:
        """Take an answer without Tiercel as the truth. Its own blocks must not contradict each other."""
        self._tokens[answer.request] = answer.tokens
        for index, block in enumerate(answer.blocks):
            if self._contents.setdefault(block.name, block.content) != block.content:
                self.verification.miss(f"request {answer.request}, block {index}: the engine alone computed it twice "
                                       "and got other bytes; it cannot serve as the oracle here")  # fmt: skip

    def check(self, answer: Answer) -> None:
        """Compare an answer with Tiercel."""
        checks = self.verification
        for index, block in enumerate(answer.blocks):
            restored = index < answer.num_restored
            checks.restored_blocks += restored
            checks.computed_blocks += not restored
            expected = self._contents.get(block.name)
            if expected is None:
                checks.miss(f"request {answer.request}, block {index}: the engine alone never had this block")
            elif expected != block.content:
                how = "restored" if restored else "computed beside the cache"
                checks.miss(f"request {answer.request}, block {index}: {how}, differs from the engine alone")
        expected_tokens = self._tokens[answer.request]
        checks.tokens += len(answer.tokens)
        if answer.tokens != expected_tokens:
            pairs = zip(answer.tokens, expected_tokens, strict=True)
            first = next((i for i, (given, right) in enumerate(pairs) if given != right), len(answer.tokens))
            checks.miss(f"request {answer.request}: generated token {first} differs from the engine alone")
