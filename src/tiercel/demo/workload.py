"""The demo's work: people who ask several questions about documents, all at once, and come back soon, later, or late.

Deterministic: the same documents, seed and size give the same requests in the same order.
"""

import random
import re
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tiercel.demo.messages import Part

SYSTEM_PROMPT = (
    "You answer questions about one document. Quote names exactly as they are spelled there. If the document does not "
    "say, answer that it does not say; never guess. Keep answers to one sentence unless you are asked for more. Refer "
    "to a part of the document by the name of the function, class or heading that it stands under. Do not repeat the "
    "question. Do not mention these rules."
)
QUESTIONS = (
    "What is {name} for?",
    "Who calls {name}, and with what?",
    "Which errors can {name} raise?",
    "Explain {name} to someone who has never seen it.",
    "What would break if {name} were removed?",
    "How does {name} end when its input is empty?",
)
_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"})
_SUFFIXES = frozenset({".py", ".txt", ".md", ".rst", ".c", ".h", ".cpp", ".rs", ".go", ".java", ".html", ".tex"})
_DOCUMENT_BYTES_MIN = 2048
_NAME = re.compile(r"^\s*(?:def|class|#+|func|fn)\s+(\w+)", re.MULTILINE)
_SOON, _LATER = 0.3, 0.35
"""Shares of requests from who asked among the last two, and from who asked among the four before; the rest is late."""


@dataclass(frozen=True)
class Document:
    """One text that is asked about. name: path below the folder it was found in."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One request: turn `turn` of the conversation about document `document`."""

    request: int
    document: int
    turn: int
    question: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """All requests of one demo, in order.

    Attributes:
        kill_request: the request during which the process is killed.
        num_new_tokens: tokens to generate for each.
    """

    documents: tuple[Document, ...]
    turns: tuple[Turn, ...]
    kill_request: int
    num_new_tokens: int

    def prompt(self, turn: Turn, answers: Mapping[tuple[int, int], tuple[int, ...]]) -> tuple[Part, ...]:
        """Parts of a request's prompt; answers: the tokens given to earlier turns, by (document, turn)."""
        parts = [Part(mark="<|system|>", text=SYSTEM_PROMPT)]
        parts.append(Part(mark="<|document|>", text=self.documents[turn.document].text))
        asked = [other for other in self.turns if other.document == turn.document and other.turn <= turn.turn]
        for other in sorted(asked, key=lambda one: one.turn):
            parts.append(Part(mark="<|user|>", text=other.question))
            parts.append(Part(mark="<|assistant|>"))
            if other.turn < turn.turn:
                parts.append(Part(tokens=answers[other.document, other.turn]))
                parts.append(Part(mark="<|end|>"))
        return tuple(parts)

    def final_lengths(self) -> list[int]:
        """Upper bounds of each conversation's length in byte tokens at its last turn."""
        lengths = [len(SYSTEM_PROMPT.encode()) + len(document.text.encode()) + 4 for document in self.documents]
        for turn in self.turns:
            lengths[turn.document] += len(turn.question.encode()) + self.num_new_tokens + 4
        return lengths


def make_workload(folder: Path | None, *, seed: int, quick: bool) -> Workload:
    """Choose documents and write down who asks what and when.

    Args:
        folder: text files; None: this Python's standard library.

    Raises:
        ValueError: the folder has too few text files of at least 2 KiB.
    """
    chance = random.Random(seed)
    # Sizes in bytes with the number of questions asked about each: many short documents, few long ones.
    plan = [(2500, 3), (4000, 3), (6500, 2)] if quick else [
        (2048, 6), (2500, 5), (3000, 5), (3500, 5), (4000, 4), (5000, 4), (6000, 3), (8000, 3), (10000, 2), (16384, 2)
    ]  # fmt: skip
    documents = _choose_documents(folder or Path(sysconfig.get_paths()["stdlib"]), [size for size, _ in plan], chance)
    order, kill_request = _interleave([turns for _, turns in plan], chance)
    questions = [chance.sample(QUESTIONS, len(QUESTIONS)) for _ in documents]
    asked = [0] * len(documents)
    turns: list[Turn] = []
    for request, document in enumerate(order):
        names = _NAME.findall(documents[document].text) or ["this document"]
        template = questions[document][asked[document] % len(QUESTIONS)]
        question = template.format(name=chance.choice(names))
        turns.append(Turn(request=request, document=document, turn=asked[document], question=question))
        asked[document] += 1
    return Workload(
        documents=tuple(documents), turns=tuple(turns), kill_request=kill_request, num_new_tokens=16 if quick else 24
    )


def _choose_documents(folder: Path, sizes: list[int], chance: random.Random) -> list[Document]:
    """Take one file for each size, at least that long, and cut it there at the end of a line."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES
        and not _SKIPPED_FOLDERS.intersection(path.relative_to(folder).parts)
        and path.is_file()
        and path.stat().st_size >= _DOCUMENT_BYTES_MIN
    )
    if len(found) < len(sizes):
        raise ValueError(f"{folder} has {len(found)} text files of 2 KiB or more; the demo needs {len(sizes)}")
    documents: list[Document] = []
    for size in sorted(sizes, reverse=True):
        long_enough = [path for path in found if path.stat().st_size >= size] or found
        path = chance.choice(long_enough)
        found.remove(path)
        text = path.read_bytes()[:size].decode("utf-8", errors="ignore")
        documents.append(Document(str(path.relative_to(folder)), text[: text.rfind("\n") + 1] or text))
    return documents[::-1]


def _interleave(turns: list[int], chance: random.Random) -> tuple[list[int], int]:
    """Put the turns of all conversations in one order.

    Conversations begin one by one over the first half. The last but one in length begins a little later: the process is
    killed while its document is read, so the others all have something to come back to.

    Returns:
        The conversation of each request, and the number of the request to kill in.
    """
    total = sum(turns)
    kill_request = total * 3 // 5
    killed = len(turns) - 2 if len(turns) > 3 else len(turns) - 1
    beginners = [conversation for conversation in range(len(turns)) if conversation != killed]
    chance.shuffle(beginners)
    begins = {round(i * total / 2 / len(beginners)): conversation for i, conversation in enumerate(beginners)}
    begins[kill_request] = killed
    left = list(turns)
    recent: list[int] = []  # who asked last stands first
    order: list[int] = []
    for request in range(total):
        if request in begins:
            conversation = begins[request]
        else:
            conversation = _who_comes_back(recent, left, chance)
        recent = [conversation, *(other for other in recent if other != conversation)]
        left[conversation] -= 1
        order.append(conversation)
    return order, kill_request


def _who_comes_back(recent: list[int], left: list[int], chance: random.Random) -> int:
    draw = chance.random()
    if draw < _SOON:
        group = recent[:2]
    elif draw < _SOON + _LATER:
        group = recent[2:6]
    else:
        group = recent[6:]
    waiting = [conversation for conversation in group or recent if left[conversation]]
    if not waiting:
        waiting = [conversation for conversation in recent if left[conversation]]
    return max(waiting, key=lambda conversation: (left[conversation], chance.random()))
