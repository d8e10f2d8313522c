"""STYLE.md as a test: what can be counted is counted here, for every file that is shipped.

A file that must break a limit is named with its reason in `EXCEPTIONS`; an exception that is no longer needed fails.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tiercel"
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
NATIVE_FILES = sorted(
    path for folder in ("core", "bindings", "tests") for path in (ROOT / "native" / folder).rglob("*.[ch]pp")
)

PYTHON_LINES_MAX = 300
TEST_LINES_MAX = 400
NATIVE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
PARAMETERS_MAX = 7
FORBIDDEN_WORDS: tuple[str, ...] = ()

EXCEPTIONS: dict[tuple[str, str], str] = {
    # (check, "path" or "path:function"): reason
    ("swallowed exception", "src/tiercel/transfer/mover.py:Mover.move"): (
        "a defect in a tier must not end the lane's thread, since whoever waits for it would hang: the blocks fail, "
        "the log has the trace"
    ),
    ("swallowed exception", "src/tiercel/cache/tickets.py:Ticket._call_back"): (
        "a caller's callback must not end the thread that resolves other tickets too; the log has the trace"
    ),
    ("swallowed exception", "src/tiercel/cache/upkeep.py:Upkeep._work"): (
        "a defect in one task must not end the thread that makes room for all stores; the log has the trace"
    ),
    ("swallowed exception", "src/tiercel/node/server/workers.py:Workers._run"): (
        "a defect in one client's call must not end the thread that other clients' calls run on; the log has the trace"
    ),
    ("swallowed exception", "src/tiercel/cache/bounded.py:Errand._run"): (
        "what the work raises is raised by `wait`, on the thread that asked for it"
    ),
    ("parameters", "src/tiercel/config/settings.py:setting"): (
        "what is known of a setting, in one place; six of the eight are keywords with a default"
    ),
    ("parameters", "src/tiercel/tune/traces/builder.py:TraceBuilder.add"): (
        "what a trace knows of a request, in one place; five of the eight are keywords with a default"
    ),
}

ENGINES = {"torch", "transformers", "vllm", "sglang", "tokenizers"}
ENGINE_FOLDERS = {"connectors", "demo"}
ENGINE_FOLDERS_OF = {"tokenizers": ENGINE_FOLDERS | {"tune"}}  # logs of prompts are read with a model's own tokenizer
NATIVE_USERS = {"costs", "hashing", "index", "layout", "telemetry", "tiers", "transfer", "tune", "node", "cli"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions_of(path: Path) -> Iterator[tuple[str, Function]]:
    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield prefix + child.name, child
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(tree_of(path), "")


def num_lines(function: Function) -> int:
    """Return the lines of a function's code, without its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def layer_of(path: Path) -> str:
    """Return the top-level name below `tiercel` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def report(check: str, found: dict[str, str]) -> None:
    """Fail with every finding that is not excepted, and with every exception that is not needed."""
    excepted = {name for kind, name in EXCEPTIONS if kind == check}
    unused = excepted - found.keys()
    lines = [f"{name}: {text}" for name, text in sorted(found.items()) if name not in excepted]
    lines += [f"{name}: excepted from '{check}', but needs no exception any more" for name in sorted(unused)]
    assert not lines, "\n" + "\n".join(lines)


def test_files_are_short() -> None:
    found: dict[str, str] = {}
    limits = ((PYTHON_FILES, PYTHON_LINES_MAX), (TEST_FILES, TEST_LINES_MAX), (NATIVE_FILES, NATIVE_LINES_MAX))
    for files, limit in limits:
        for path in files:
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > limit:
                found[name_of(path)] = f"{lines} lines, more than {limit}"
    report("file lines", found)


def test_functions_are_short() -> None:
    found = {
        f"{name_of(path)}:{name}": f"{num_lines(function)} lines of code, more than {FUNCTION_LINES_MAX}"
        for path in [*PYTHON_FILES, *TEST_FILES]
        for name, function in functions_of(path)
        if num_lines(function) > FUNCTION_LINES_MAX
    }
    report("function lines", found)


def test_functions_take_few_parameters() -> None:
    found: dict[str, str] = {}
    for path in PYTHON_FILES:
        for name, function in functions_of(path):
            arguments = function.args
            names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len([argument for argument in names if argument not in ("self", "cls")])
            if count > PARAMETERS_MAX:
                found[f"{name_of(path)}:{name}"] = f"{count} parameters, more than {PARAMETERS_MAX}"
    report("parameters", found)


def test_every_module_opens_with_what_it_does() -> None:
    found = {
        name_of(path): "no docstring"
        for path in PYTHON_FILES
        if (tree := tree_of(path)).body and not ast.get_docstring(tree)
    }
    for path in NATIVE_FILES:
        is_header = path.suffix == ".hpp"
        if is_header and not path.read_text(encoding="utf-8").startswith("//"):
            found[name_of(path)] = "does not open with a comment that says what it does"
    report("module docstring", found)


def public_items(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, Function) and not member.name.startswith("_"):
                        yield f"{node.name}.{member.name}", member


@functools.cache
def described_by_seams() -> frozenset[str]:
    """Return the methods that a Protocol of ours describes: an implementation need not say it again."""
    return frozenset(
        member.name
        for path in PYTHON_FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases)
        for member in node.body
        if isinstance(member, Function) and ast.get_docstring(member)
    )


def test_every_public_item_has_a_docstring() -> None:
    found: dict[str, str] = {}
    for path in PYTHON_FILES:
        if any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(PACKAGE).parts):
            continue
        for name, node in public_items(tree_of(path)):
            if name.count(".") and name.partition(".")[2] in described_by_seams():
                continue
            is_plain = isinstance(node, Function) and any(_is_plain(decorator) for decorator in node.decorator_list)
            if not is_plain and not ast.get_docstring(node):
                found[f"{name_of(path)}:{name}"] = "no docstring"
    report("public docstring", found)


def _is_plain(decorator: ast.expr) -> bool:
    """Say whether a decorator marks what is described elsewhere: a property of a name, an overload, a setter."""
    text = ast.unparse(decorator)
    return text in ("property", "overload", "override", "cached_property") or text.endswith(".setter")


def test_no_exception_is_swallowed_whole() -> None:
    found: dict[str, str] = {}
    for path in PYTHON_FILES:
        holders = {inner: name for name, function in functions_of(path) for inner in ast.walk(function)}
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = "everything" if node.type is None else ast.unparse(node.type)
                if caught in ("everything", "Exception", "BaseException") and not any(
                    isinstance(inner, ast.Raise) for inner in ast.walk(node)
                ):
                    found[f"{name_of(path)}:{holders.get(node, node.lineno)}"] = f"catches {caught} and raises nothing"
            elif isinstance(node, ast.Call) and ast.unparse(node).startswith(("suppress(Exception", "suppress(Base")):
                found[f"{name_of(path)}:{node.lineno}"] = "suppresses every exception"
    report("swallowed exception", found)


def test_every_condition_is_entered_by_its_lock() -> None:
    """`Condition.__enter__` is Python code: what a signal's handler raises there leaves the lock held for ever."""
    found = {
        f"{name_of(path)}:{node.lineno}": "a condition without a lock of its own to enter"
        for path in PYTHON_FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node) in ("threading.Condition()", "Condition()")
    }
    report("condition", found)


def test_what_runs_beside_a_caller_does_not_call_np_unique() -> None:
    """`np.unique` imports numpy.ma when it is called first: what a signal's handler raises in an import of the main thread leaves
    that module's lock held, and the worker that calls it next waits for ever."""
    found = {
        f"{name_of(path)}:{node.lineno}": "np.unique: use tiers._bookkeeping.distinct"
        for path in PYTHON_FILES
        if layer_of(path) not in ("tune", "demo", "cli")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "np.unique"
    }
    report("import in a call", found)


def test_only_the_command_line_prints() -> None:
    found = {
        f"{name_of(path)}:{node.lineno}": "print() outside cli"
        for path in PYTHON_FILES
        if layer_of(path) != "cli"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    report("print", found)


def test_only_config_reads_the_environment() -> None:
    found = {
        f"{name_of(path)}:{node.lineno}": f"{ast.unparse(node)} outside config"
        for path in PYTHON_FILES
        if layer_of(path) != "config"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb")
    }
    report("environment", found)


def test_frameworks_are_imported_by_connectors_and_demo_alone_and_the_core_by_its_owners() -> None:
    found: dict[str, str] = {}
    for path in PYTHON_FILES:
        layer = layer_of(path)
        for line, module in imported_modules(tree_of(path)):
            name = module.split(".")[0]
            folders = ENGINE_FOLDERS_OF.get(name, ENGINE_FOLDERS)
            if name in ENGINES and layer not in folders:
                found[f"{name_of(path)}:{line}"] = f"imports {module} outside {sorted(folders)}"
            if module.startswith("tiercel._native") and layer not in NATIVE_USERS:
                found[f"{name_of(path)}:{line}"] = f"imports {module} outside {sorted(NATIVE_USERS)}"
    report("imports", found)


def test_the_native_core_knows_no_python() -> None:
    found = {
        name_of(path): "includes Python or nanobind"
        for path in NATIVE_FILES
        if path.is_relative_to(ROOT / "native" / "core")
        and re.search(r"#include\s*[<\"](Python\.h|nanobind)", path.read_text(encoding="utf-8"))
    }
    report("native core", found)


def test_a_forbidden_word_stands_nowhere() -> None:
    files = [path for path in (*PYTHON_FILES, *TEST_FILES, *NATIVE_FILES) if path != Path(__file__)]
    found = {
        name_of(path): f"says {word!r}"
        for word in FORBIDDEN_WORDS
        for path in files
        if re.search(rf"\b{re.escape(word)}\b", path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    report("forbidden word", found)


def test_the_checks_see_the_files_they_are_for() -> None:
    names = {name_of(path) for path in (*PYTHON_FILES, *TEST_FILES, *NATIVE_FILES)}
    assert {"src/tiercel/errors.py", "tests/style/test_style.py", "native/core/version.cpp"} <= names
