"""`tiercel advise`: what to set for a trace on a machine, why, and what it costs."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.render import print_json, print_line, print_table
from tiercel.cli.trace import TraceOptions
from tiercel.tune.advise.options import AdviseOptions

if TYPE_CHECKING:
    from tiercel.tune.advise import Advice
    from tiercel.tune.advise.options import Asked

_TRIED_MAX = 8
_SOURCE = TraceOptions()


def advise(
    options: Annotated[AdviseOptions, Parameter(name="*", negative="")],
    *,
    source: TraceOptions = _SOURCE,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Search capacities, block size, policies and transfers for a trace on a machine, say why, and write a settings file.

    Args:
        json: print JSON.
    """
    from tiercel.tune.advise import advise as advise_on
    from tiercel.tune.advise.emit import vllm_flags
    from tiercel.tune.advise.options import Asked
    from tiercel.tune.advise.report import files_of
    from tiercel.tune.files import write_whole

    asked = Asked(options, source.read, seed=source.seed)
    question = asked.question()
    with _Told() as told:
        advice = advise_on(question, asked.oracle(), told)
    files = files_of(advice, question, str(options.trace), asked.directories)
    written = [str(options.output)]
    flags = vllm_flags(str(options.output), advice.choice.candidate.tokens_per_block)
    try:  # files first: who reads the output may stop reading; and a file that fails costs nobody the advice
        write_whole(options.output, files.settings)
        if files.flexkv is not None:
            write_whole(options.flexkv_output, files.flexkv)
            written.append(str(options.flexkv_output))
    finally:
        if json:
            print_json({"advice": advice, "vllm": flags, "files": written, "notes": asked.notes})
        else:
            _print_advice(advice, asked)
    if not json:
        print_line(f"\nwritten to {' and '.join(written)}; vLLM is started with\n  {flags}")


def _print_advice(advice: "Advice", asked: "Asked") -> None:
    from tiercel.tune.advise.report import (
        COLUMNS,
        RULE_COLUMNS,
        budget_text,
        candidate_row,
        margin_line,
        rule_row,
        verdict_lines,
    )

    question = asked.question()
    trace = asked.trace
    print_line(
        f"{trace.name}: {trace.num_requests} requests, {advice.sharing:.1%} of their tokens shared with an earlier one"
    )
    print_line(
        f"searched within {budget_text(question)}: {advice.evaluations} of {advice.space_size} configurations simulated"
    )
    for note in asked.notes:
        print_line(f"note: {note}")
    print_line("")
    for line in verdict_lines(advice, question.objective):
        print_line(line)
    rows = [candidate_row(weighed) for weighed in advice.tried[:_TRIED_MAX]]
    rows = [candidate_row(advice.choice, "the choice"), *rows, _without_row(advice)]
    print_table("\nwhat was tried, the best first", COLUMNS, rows)
    print_table("the choice", ("setting", "value", "why"), ([r.key, r.value, r.sentence] for r in advice.reasons))
    for key, why in advice.transfer.unjudged.items():
        print_line(f"{key}: unjudged, {why}")
    if advice.next_best:
        print_line(f"the next best: {advice.next_best}")
    for margin in advice.margins:
        print_line(margin_line(margin))
    print_table("\nrules of thumb, each followed alone", RULE_COLUMNS, map(rule_row, advice.rules))


def _without_row(advice: "Advice") -> list[str]:
    from tiercel.tune.advise.report import outcome_cells

    return ["no cache", *outcome_cells(advice.without)]


class _Told:
    """Says on the terminal how far the search is; nothing where nobody watches."""

    def __enter__(self) -> "_Told":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        console = Console(stderr=True)
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("reading", total=None)
        self._bar.start()
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
