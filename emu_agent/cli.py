"""The command line: find the command, compose its config, call it. The work is elsewhere.

A command is a function `main(cfg)` that returns an exit code. Commands whose module is not installed are not
listed. What takes long to import is imported inside of functions, so that an early Ctrl-C ends quietly.
"""

import errno
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.util import find_spec

from emu_agent.errors import is_for_users, lookup

COMMANDS = {
    "run": "let the policy act, and film it beside what it imagines",
    "collect": "record a dataset with the scripted expert",
    "train": "train one stage: tokenizer, world model or action head",
    "imagine": "imagine what comes after one picture",
    "score": "score imagined trajectories against recorded ones",
    "score simulate": "let policies act inside the world model, and compare with the simulator",
    "benchmark": "measure success rates over many tasks",
    "benchmark compare": "compare benchmarks episode by episode: benchmark compare FOLDER FOLDER",
    "serve": "serve the policy to robots over the network",
    "doctor": "say what is installed, what works, and how to mend the rest",
}
"""One line of help of each command; `one two` has the module `commands.one_two` and the config `one_two`."""

POSITIONAL = {"benchmark compare": "results"}
"""Setting that takes the words after a command that are no settings."""

PATHS = (
    errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS,
)  # fmt: skip
"""What the system says of a path that cannot be written or read, which is in the message."""

HELP = {"-h", "--help", "help"}
WRONG_USE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run `emu-agent` with these arguments and return its exit code; 2 is a mistake of use."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(args)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        from emu_agent.doctor import brought_by

        package = (error.name or "").split(".")[0]
        if (brought := brought_by(package)) is None:
            raise
        return _complain(f"this needs the package {package!r}: install {brought}")
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("emu-agent: stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        from emu_agent.run_folder import is_full_disk

        if is_for_users(error):
            return _complain(str(error))
        if is_full_disk(error):
            return _complain(
                f"no space left ({error}); what was finished is kept: make room, then give the command again"
            )
        if isinstance(error, OSError) and error.errno in PATHS and error.filename is not None:
            return _complain(f"{error.filename}: {error.strerror}")
        raise


def available_commands() -> dict[str, str]:
    """The commands of this installation: one line of help by name."""
    return {name: about for name, about in COMMANDS.items() if find_spec(_module_of(name))}


def _dispatch(args: list[str]) -> int:
    if len(args) > 1 and args[0] in HELP:  # help run, --help run
        args = [*args[1:], "--help"]
    if not args or args[0] in HELP:
        print(_help())
        return 0 if args else WRONG_USE
    if args[0] == "--version":
        print(f"emu-agent {metadata.version('emu-agent')}")
        return 0
    commands = available_commands()
    words = 2 if " ".join(args[:2]) in commands else 1
    name, rest = " ".join(args[:words]), args[words:]
    lookup("command", name, commands)
    overrides = _overrides(name, [arg for arg in rest if arg not in HELP])
    if not HELP.isdisjoint(rest):
        print(_command_help(name, overrides))
        return 0
    from emu_agent.config import load_config
    from emu_agent.doctor import too_old

    if name != "doctor" and (problem := too_old("torch")):
        return _complain(f"{problem}: install emu-agent anew, or --upgrade torch")
    cfg = load_config(_config_of(name), overrides)
    return import_module(_module_of(name)).main(cfg)


def _overrides(name: str, args: list[str]) -> list[str]:
    """The arguments as `key=value`; words that are none become the value of the setting that takes them."""
    from emu_agent.config import load_config, switches_of
    from emu_agent.settings import from_options

    if any(arg.startswith("--") for arg in args):
        args = from_options(args, switches_of(load_config(_config_of(name), allow_missing=True)))
    if name not in POSITIONAL:
        return args
    settings = [arg for arg in args if "=" in arg and os.sep not in arg.partition("=")[0]]
    words = [json.dumps(arg, ensure_ascii=False) for arg in args if arg not in settings]
    return [*settings, *([f"{POSITIONAL[name]}=[{','.join(words)}]"] if words else [])]


def _help() -> str:
    rows = [f"  {name:<15} {about}" for name, about in available_commands().items()]
    return "\n".join(
        [
            "Usage: emu-agent <command> [key=value ...]",
            "",
            *rows,
            "",
            "emu-agent <command> --help shows the settings of a command; emu-agent --version the version.",
        ]
    )


def _command_help(name: str, overrides: Sequence[str]) -> str:
    from omegaconf import OmegaConf

    from emu_agent.config import choices_of, groups_of, load_config

    cfg = load_config(_config_of(name), overrides, allow_missing=True)
    settings = OmegaConf.to_yaml(cfg).rstrip().splitlines()
    made = groups_of(_config_of(name), overrides)
    rows = [f"  {group}={'|'.join(choices_of(group))}   (now {choice})" for group, choice in made.items()]
    return "\n".join(
        [
            f"Usage: emu-agent {name} [key=value ...]   {COMMANDS[name]}",
            *(["", "Choices:", *rows] if rows else []),
            "",
            "Settings, with the arguments given; key=value, --key=value and --key value mean the same:",
            *(f"  {line}" for line in settings),
        ]
    )


def _module_of(name: str) -> str:
    return f"emu_agent.commands.{_config_of(name)}"


def _config_of(name: str) -> str:
    """Name of the config of a command, which may have two words."""
    return name.replace(" ", "_")


def _complain(message: str) -> int:
    print(f"emu-agent: {message}", file=sys.stderr)
    return WRONG_USE
