"""What a user gets: the wheel's content, and an install of it into an empty environment."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_types_licences_and_the_native_core(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "tiercel/py.typed" in names
    assert "tiercel/_native.pyi" in names
    assert any(name.startswith("tiercel/_native.") and name.endswith(".so") for name in names)
    licences = [name.partition("/licenses/")[2] for name in names if "/licenses/" in name]
    assert sorted(licences) == ["LICENSE", "native/third_party/xxhash/LICENSE"]


def test_the_wheel_holds_every_module_and_kernel_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("tiercel-")}
    modules = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "tiercel").rglob("*")
        if path.suffix in (".py", ".pyi", ".typed", ".cu") and "__pycache__" not in path.parts
    }
    assert modules <= names | {"tiercel/py.typed"}, sorted(modules - names)
    strange = {name for name in names - modules if not name.endswith((".so", "/py.typed", "/"))}
    assert not strange


@pytest.mark.timeout(600)
def test_the_wheel_installs_into_an_empty_environment_and_its_tools_run(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "an empty environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python, command = environment / "bin" / "python", environment / "bin" / "tiercel"
    pip = [str(python), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check", "--prefer-binary"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True, cwd=tmp_path)

    def run(*words: str | Path) -> str:
        done = subprocess.run(words, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    assert "site-packages" in run(python, "-c", "import tiercel; print(tiercel.__file__)")
    assert "torch" not in run(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check")
    for word in ("stats", "ls", "config", "demo", "version"):
        assert word in run(command, "--help")
    assert "io_uring" in run(command, "version")
    assert "tokens_per_block" in run(command, "config", "explain", _settings(tmp_path))
    demo = subprocess.run([command, "demo"], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert demo.returncode == 2
    assert demo.stderr.startswith("error: ")
    assert "pip install 'tiercel[transformers]'" in demo.stderr


def _settings(folder: Path) -> Path:
    path = folder / "cache.yaml"
    path.write_text("cache_config:\n  num_cpu_blocks: 64\n", encoding="utf-8")
    return path
