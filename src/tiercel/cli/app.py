"""The command tree: which commands exist and where each is defined."""

from pathlib import Path
from typing import Literal

from cyclopts import App

import tiercel.cli.version as version

app = App(
    name="tiercel",
    help="Keep an LLM server's KV cache alive beyond GPU memory. Every command takes --debug: show tracebacks.",
    version=version.describe,
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
config = App(name="config", help="Explain settings, and print their schema.")
node = App(name="node", help="Run one cache for many processes, or look at the one that runs.")
record = App(name="record", help="Look at recordings of lookups and stores.")
trace = App(name="trace", help="Look at traces of requests, and convert them.")

# Named by path and with their help here, so that `tiercel --help` imports none of them.
app.command("tiercel.cli.stats:stats", help="Show how a running cache is doing, or what a cold cache directory holds.")
app.command("tiercel.cli.top:top", help="Show a running cache live: tiers, bandwidths, queues, other capacities.")
app.command(
    "tiercel.cli.ls:ls", help="List what lies in cache directories: models, blocks, bytes, age, and who uses it."
)
app.command("tiercel.cli.probe:probe", help="Measure what this machine is capable of, and write it to machine.json.")
app.command(
    "tiercel.cli.doctor:doctor", help="Say what is wrong or slow here, and what to do about it. Changes nothing."
)
app.command("tiercel.cli.demo:demo", help="Show what the cache is for, on a real engine and across a SIGKILL.")
app.command("tiercel.cli.replay:replay", help="Replay a trace through the real cache on this machine, byte for byte.")
app.command("tiercel.cli.replay:prove", help="Hold a simulation against the real cache: hits, bytes and times.")
app.command("tiercel.cli.advise:advise", help="Choose settings for a trace on a machine, say why, and what each costs.")
app.command(version.print_version, name="version")
app.command("tiercel.cli.curve:curve", help="Show what caches of every size would hit on a trace, by policy.")
app.command(
    "tiercel.cli.simulate:simulate",
    help="Replay a trace through a cache that is not there, and tell what it would bring.",
)
config.command("tiercel.cli.config:explain", help="Show every setting with its value, its source and its meaning.")
config.command("tiercel.cli.config:schema", help="Print the JSON Schema of settings files.")
app.command(config)
record.command("tiercel.cli.record:info", help="Show what a recording holds: events, span and hit rate.")
app.command(record)


@node.default
def run_node(*, config: Path, endpoint: str | None = None, log_format: Literal["human", "json"] = "human") -> int:
    """Run a node here, until it is told to end: as `tiercel node run`.

    Args:
        config: settings file, with model_config and cache_config.
        endpoint: where to listen, ipc:///DIRECTORY; by default server_recv_port, or a directory of this user's.
        log_format: for people or for programs.
    """
    from tiercel.cli.node import run

    return run(config=config, endpoint=endpoint, log_format=log_format)


node.command("tiercel.cli.node:run", help="Run a node here, until it is told to end.")
node.command("tiercel.cli.node:start", help="Start a node in the background and return when it serves.")
node.command("tiercel.cli.node:status", help="Show a node's clients, queues and tiers.")
node.command("tiercel.cli.node:keygen", help="Make a secret for a node's keys.")
app.command(node)
trace.command(
    "tiercel.cli.trace:info", help="Show what traces hold: requests, tokens, blocks, what they share, sessions."
)
trace.command("tiercel.cli.trace:convert", help="Write a trace in another format, and say what that loses.")
app.command(trace)
