"""What the user of the demo chooses, and the sizes that follow from it."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Choices of one demo.

    Attributes:
        model: a local model folder; None: a small Qwen3 with seeded random weights.
        docs: a folder of text files; None: the sources of this Python's standard library.
        dir: where a folder for the disk tier is made; None: /var/tmp or the system's temporary folder.
        report: the HTML page to write.
        seed: of the workload and of random weights.
        quick: a few small documents, to see that all works.
        keep: leave the cache folder behind.
        device: torch device of the engine.
    """

    model: Path | None = None
    docs: Path | None = None
    dir: Path | None = None
    report: Path = field(default_factory=lambda: Path("report.html"))
    seed: int = 0
    quick: bool = False
    keep: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("model", "docs", "dir"):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_dir():
                raise ValueError(f"--{name} {path}: there is no such folder")
        if not self.report.absolute().parent.is_dir():
            raise ValueError(f"--report {self.report}: the folder for it does not exist")

    @property
    def parent_directory(self) -> Path:
        """Where the demo's own folder is made: preferably on a real disk, which /tmp often is not."""
        if self.dir is not None:
            return self.dir
        var_tmp = Path("/var/tmp")
        return var_tmp if var_tmp.is_dir() else Path(tempfile.gettempdir())
