"""Configs: where they are, how they are composed and checked, and how objects are built from them.

Everything a person can set is in the YAML files of `configs/`. A command has one file of its name there; its
groups (`env/`, `policy/`, ...) are the folders. Mistakes end in a ConfigError that lists what would have been
right.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from emu_agent.errors import ConfigError

LARGEST_SEED = 2**62
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    list: ((list,), "a list, for example [1,2]"),
    dict: ((dict,), "a mapping, for example {a:1}"),
}


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
    parsed = [_parse(text) for text in overrides]
    chosen = [override for override in parsed if _is_choice(name, override)]
    for override in chosen:
        _check_choice(override)
    base, _ = _compose(name, [str(override.input_line) for override in chosen])
    cfg, _ = _compose(name, [str(o.input_line) if o in chosen else _fitted(name, base, o) for o in parsed])
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
        called = "Error in call to target" in str(error)
        if called and error.__cause__ and not isinstance(error.__cause__, TypeError):
            raise error.__cause__ from None
        if missing := _missing_package(error):
            raise missing from None
        raise ConfigError(f"cannot build {node._target_}: {_reason(error)}") from error


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
    try:
        with initialize_config_dir(str(config_dir().resolve()), job_name=name, version_base="1.3"):
            cfg = compose(name, list(overrides), return_hydra_config=True)
        made = {str(group): choice for group, choice in cfg.hydra.runtime.choices.items()}
        with open_dict(cfg):
            del cfg["hydra"]
        OmegaConf.resolve(cfg)
    except YAMLError as error:
        raise ConfigError(f"cannot compose {name!r}: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        given = f" with {' '.join(overrides)}" if overrides else ""
        raise ConfigError(f"cannot compose {name!r}{given}: {_first_line(error)}") from error
    return cfg, {group: choice for group, choice in sorted(made.items()) if not group.startswith("hydra/")}


def _parse(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_overrides([text])[0]
    except HydraException as error:
        raise ConfigError(f"cannot read {text!r}; overrides look like key=value or group=choice") from error
    if override.is_sweep_override():
        raise ConfigError(f"{text!r} is a sweep; give one value (a list is written key=[a,b])")
    if override.is_delete():
        raise ConfigError(f"{text!r} removes a setting; give it a value, null for none")
    return override


def _is_choice(name: str, override: Override) -> bool:
    """Whether an override chooses a file of a group, rather than setting one value."""
    key = override.get_key_element().lstrip("+~")
    return bool(choices_of(key)) and (override.is_add() or "/" in key or key in groups_of(name))


def _check_choice(override: Override) -> None:
    group, choices = override.key_or_group, choices_of(override.key_or_group)
    wanted = override.value()
    for choice in wanted if isinstance(wanted, list) else [wanted]:
        if choice is not None and str(choice) not in choices:
            raise ConfigError(f"no {group} {str(choice)!r}; there are {_listed(str(choice), choices)}")


def _fitted(name: str, base: DictConfig, override: Override) -> str:
    """The override in Hydra's words; refused if there is no such key, or the value is of another kind."""
    if override.is_add() and "." in override.key_or_group:  # such as a setting that a target takes besides
        return str(override.input_line)
    node: Any = base
    passed: list[str] = []
    for part in override.key_or_group.split("."):
        keys = _keys(node)
        if part not in keys:
            where = ".".join([name, *passed])
            raise ConfigError(f"no setting {part!r} in {where}; it has {_listed(part, keys)}")
        node = _child(node, part)
        passed.append(part)
    value: Any = override.value()
    _check_kind(override.key_or_group, node, value)
    whole_for_real = isinstance(node, float) and isinstance(value, int)
    return f"{override.key_or_group}={float(value)}" if whole_for_real else str(override.input_line)


def _check_kind(key: str, default: Any, value: Any) -> None:
    kind = {DictConfig: dict, ListConfig: list}.get(type(default), type(default))
    open_ended = value is None or (isinstance(value, str) and "${" in value)
    if kind not in _KINDS or open_ended:
        return
    accepted, words = _KINDS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{key} must be {words}, got {value!r}")


def _child(node: Any, part: str) -> Any:
    """One level down, without tripping over values that are still missing."""
    key: Any = int(part) if isinstance(node, ListConfig) else part
    return None if OmegaConf.is_missing(node, key) else node[key]


def _keys(node: Any) -> list[str]:
    if isinstance(node, ListConfig):
        return [str(i) for i in range(len(node))]
    return sorted(map(str, node)) if isinstance(node, DictConfig) else []


def _listed(wrong: str, right: Sequence[str]) -> str:
    near = difflib.get_close_matches(wrong, right, n=1)
    return (", ".join(right) or "nothing") + (f" (did you mean {near[0]!r}?)" if near else "")


def _missing_package(error: BaseException | None) -> ModuleNotFoundError | None:
    """The error of a package that is not installed, if that is what an error goes back to."""
    ours = ("emu_agent", "emu_envs", "emu_policies")
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in ours:
            return error
        error = error.__cause__ or error.__context__
    return None


def _reason(error: BaseException) -> str:
    """What an error goes back to, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
