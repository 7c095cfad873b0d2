"""Configs: where they are, how they are composed and checked, and how objects are built from them.

Everything a person can set is in the YAML files of `configs/`. A command has one file of its name there; its
groups (`env/`, `policy/`, ...) are the folders. Mistakes end in a ConfigError that lists what would have been
right.
"""

import copy
import difflib
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from emu_agent.errors import ConfigError, goes_back_to, is_for_users
from emu_agent.settings import RENAMED, Argument

OURS = ("emu_agent", "emu_envs", "emu_policies")
LARGEST_SEED = 2**62


def _either(first: Any, second: Any) -> Any:
    """The first if it is given, else the second; a list that is written out becomes one of the config."""
    if first is not None:
        return first
    return OmegaConf.create(second) if isinstance(second, list | dict) else second


OmegaConf.register_new_resolver("either", _either, replace=True)


def _folder_name(dataset: Any) -> str | None:
    """Name of a dataset's folder; of a mixture, the names joined."""
    rows = dataset if isinstance(dataset, ListConfig) else [dataset] if dataset else []
    paths = [row["path"] if isinstance(row, DictConfig) else row for row in rows]
    return "+".join(Path(str(path)).name for path in paths) or None


OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)


def config_dir() -> Path:
    """The configs of the installed wheel, or those of the repository when run from a checkout."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def load_config(name: str, overrides: Sequence[str] = (), *, allow_missing: bool = False) -> DictConfig:
    """Compose the config of one command.

    Args:
        name: A file of `configs/`, without its ending: the name of a command.
        overrides: Hydra overrides, for example `episodes=3` or `env.task=Stack`.
        allow_missing: Let values that the user still has to give stay `???`.

    Returns:
        The config with every interpolation resolved.

    Raises:
        ConfigError: A name, key, choice or value does not exist or does not fit; the message says what would.
    """
    names = sorted(path.stem for path in config_dir().glob("*.yaml"))
    if name not in names:
        raise ConfigError(f"no config {name!r}; there are {_listed(name, names)}")
    cfg, _ = _compose(name, overrides)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing and not allow_missing:
        raise ConfigError(f"give a value for {', '.join(f'{key}=...' for key in missing)}")
    return cfg


def choices_of(group: str) -> list[str]:
    """The choices of a config group, for example of `env`; empty when there is no such group."""
    folder = config_dir() / group.partition("@")[0]
    inside = folder.resolve().is_relative_to(config_dir().resolve()) and group != ""
    return sorted(path.stem for path in folder.glob("*.yaml")) if inside else []


def groups_of(name: str, overrides: Sequence[str] = ()) -> dict[str, str | None]:
    """The groups that a command's config draws on, each with the choice made."""
    return _compose(name, overrides)[1]


def switches_of(cfg: DictConfig) -> list[str]:
    """Keys of the settings that are true or false."""
    return [key for key in _leaves(cfg) if isinstance(OmegaConf.select(cfg, key), bool)]


def build(node: DictConfig, *args: Any, **kwargs: Any) -> Any:
    """Call what the node's `_target_` names, with the node's other keys as arguments.

    Only for configs that the user wrote or chose: `_target_` may name any function, so never call this with a
    config that came with a downloaded checkpoint.

    Raises:
        ConfigError: There is no `_target_`, what it names does not exist, or it takes other arguments.
        Exception: Whatever the target itself raises, unchanged.
    """
    if "_target_" not in node:
        raise ConfigError(
            f"cannot build from a config without _target_; its keys are {sorted(map(str, node))}"
        )
    try:
        return instantiate(node, *args, _convert_="all", **kwargs)
    except HydraException as error:
        own = _own_error(node, error)
    raise own  # not while Hydra's is handled: each would be the other's cause


def check_counts(cfg: DictConfig, *keys: str, optional: Sequence[str] = ()) -> None:
    """Refuse settings that are no whole numbers from 1 on.

    Args:
        cfg: a command's config.
        keys: its settings that count something.
        optional: others, that may be null.

    Raises:
        ConfigError: names the setting and its value.
    """
    for key in (*keys, *optional):
        value = cfg[key]
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not whole and not (value is None and key in optional):
            raise ConfigError(f"{key} must be a whole number of at least 1, got {value!r}")


def check_seed(seed: Any) -> None:
    """Refuse what is no seed of an episode.

    Raises:
        ConfigError: it is no whole number, negative, or too large for a generator.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < LARGEST_SEED:
        raise ConfigError(f"seed must be a whole number from 0 to {LARGEST_SEED - 1}, got {seed!r}")


def output_folder(cfg: DictConfig, default: Path = Path()) -> Path:
    """The folder that `output` names, or the default.

    Raises:
        ConfigError: it cannot be a folder, because a file stands there or above, or there is none.
    """
    folder = default if cfg.output is None else Path(str(cfg.output))
    if folder == Path():
        raise ConfigError("output must name a folder")
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir():
        raise ConfigError(f"output={folder} cannot be a folder: {above} is a file")
    return folder


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain dictionaries and lists, with every interpolation resolved."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _compose(name: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str | None]]:
    """The config with all choices and values that were given, and the choice made in each of its groups."""
    given = {text: Argument.read(text) for text in overrides}
    chosen = [text for text, argument in given.items() if _is_choice(name, argument)]
    for text in chosen:
        _check_choice(given[text])
    cfg, made = _composed(str(config_dir()), name, tuple(chosen))
    cfg = copy.deepcopy(cfg)
    with _in_words(name, overrides):
        for text in overrides:
            if text not in chosen:
                _set(name, cfg, given[text])
        OmegaConf.resolve(cfg)
    return cfg, dict(made)


@cache
def _composed(folder: str, name: str, choices: tuple[str, ...]) -> tuple[DictConfig, dict[str, str | None]]:
    """A command's config of one `folder`, with its references; composing takes long, so it is done once."""
    with _in_words(name, choices):
        with initialize_config_dir(str(Path(folder).resolve()), job_name=name, version_base="1.3"):
            cfg = compose(name, list(choices), return_hydra_config=True)
        made = {str(group): choice for group, choice in cfg.hydra.runtime.choices.items()}
        with open_dict(cfg):
            del cfg["hydra"]
    return cfg, {group: choice for group, choice in sorted(made.items()) if not group.startswith("hydra/")}


@contextmanager
def _in_words(name: str, overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into a ConfigError."""
    given = f" with {' '.join(overrides)}" if overrides else ""
    try:
        yield
    except YAMLError as error:
        raise ConfigError(f"cannot compose {name!r}: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot compose {name!r}{given}: {_first_line(error)}") from error


def _is_choice(name: str, argument: Argument) -> bool:
    """Whether an argument chooses a file of a group, rather than setting one value."""
    key = argument.key
    if not choices_of(key):
        return False
    return argument.sign == "+" or "/" in key or key in _composed(str(config_dir()), name, ())[1]


def _check_choice(argument: Argument) -> None:
    group, choices = argument.key, choices_of(argument.key)
    for choice in argument.choices():
        if choice is not None and choice not in choices:
            raise ConfigError(f"no {group} {choice!r}; there are {_listed(choice, choices)}")


def _set(name: str, cfg: DictConfig, argument: Argument) -> None:
    """Set one value; refused if there is no such key, or it takes another kind of value."""
    new = bool(argument.sign) and "." in argument.key  # such as a setting that a target takes besides
    node: Any = None if new else cfg
    passed: list[str] = []
    for part in () if new else argument.key.split("."):
        keys = _keys(node)
        if part not in keys:
            where = ".".join([name, *passed])
            deeper = [] if passed else [key for key in _leaves(cfg) if key.endswith(f".{part}")]
            hint = f" (did you mean {deeper[0]!r}?)" if deeper else ""
            raise ConfigError(f"no setting {part!r} in {where}; it has {_listed(part, keys)}{hint}")
        node = _child(node, part)
        passed.append(part)
    OmegaConf.update(cfg, argument.key, argument.fitted(node), merge=True, force_add=new)


def _leaves(node: Any, above: str = "") -> list[str]:
    """Keys of all settings that a config holds, with dots."""
    if not isinstance(node, DictConfig):
        return [above]
    return [leaf for key in _keys(node) for leaf in _leaves(_child(node, key), f"{above}.{key}".lstrip("."))]


def _child(node: Any, part: str) -> Any:
    """One level down, without tripping over values that are still missing."""
    key: Any = int(part) if isinstance(node, ListConfig) else part
    return None if OmegaConf.is_missing(node, key) else node[key]


def _keys(node: Any) -> list[str]:
    if isinstance(node, ListConfig):
        return [str(i) for i in range(len(node))]
    return sorted(map(str, node)) if isinstance(node, DictConfig) else []


def _listed(wrong: str, right: Sequence[str]) -> str:
    if RENAMED.get(wrong) in right:
        return f"{', '.join(right)} ({wrong!r} is now called {RENAMED[wrong]!r})"
    near = difflib.get_close_matches(wrong, right, n=1)
    return (", ".join(right) or "nothing") + (f" (did you mean {near[0]!r}?)" if near else "")


def _own_error(node: DictConfig, error: HydraException) -> BaseException:
    """What the target itself raised, if it was called; otherwise why it could not be."""
    cause = error.__cause__
    if cause and "Error in call to target" in str(error) and not isinstance(cause, TypeError):
        return cause
    for one in goes_back_to(error):
        if is_for_users(one):  # such as that of a module that cannot be imported without OpenGL
            return one
        if isinstance(one, ModuleNotFoundError) and (one.name or "").split(".")[0] not in OURS:
            return one
    *_, first = goes_back_to(error, causes_only=True)
    told = ConfigError(f"cannot build {node._target_}: {_first_line(first)}{_place(first)}")
    told.__cause__ = error
    return told


def _place(error: BaseException) -> str:
    """File and line of a TypeError that is not about the arguments of a call, but from inside of it."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = isinstance(error, TypeError) and "argument" not in str(error) and frames
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if inside else ""


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
