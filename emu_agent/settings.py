"""Settings as they are written on the command line: `key=value`, read by what the key takes.

What stands behind the first = of a text is that text, in any language and with any signs in it. Numbers,
lists and mappings are read by Hydra's grammar.
"""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig

from emu_agent.errors import ConfigError

WRITTEN = "settings are written key=value, without spaces around the ="
_ARGUMENT = re.compile(r"(?P<sign>\+{0,2})(?P<key>[^\W\d][\w.@/-]*)=(?P<value>.*)", re.DOTALL)
_QUOTED = re.compile(r"""(?P<quote>['"])(?P<text>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)""", re.DOTALL)
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    list: ((list,), "a list, for example [1,2]"),
    dict: ((dict,), "a mapping, for example {a:1}"),
}
UNSET: dict[str, type] = {
    **dict.fromkeys(("steps", "passes", "max_new_tokens", "workers", "episodes", "max_steps", "seed"), int),
    **dict.fromkeys(("guidance_scale", "control_hz", "threshold"), float),
    **dict.fromkeys(("components", "cameras", "image_size"), list),
    **dict.fromkeys(("lora",), dict),
    **dict.fromkeys(("image", "camera", "instruction", "checkpoint", "weights", "image_tokenizer"), str),
    **dict.fromkeys(("size", "aspect", "dtype", "device", "device_map", "quantize", "decoder"), str),
    **dict.fromkeys(("output", "dataset", "branches", "results", "start", "perturbed", "ray_address"), str),
    **dict.fromkeys(("token_file", "certificate", "key", "authority", "embodiment"), str),
}
"""What settings take that are null or missing in a config, by the last part of their key."""
NONE_TOO = ("perturbed", "output", "cameras", "image_size", "start")
"""What may be null although a config gives them a value."""

RENAMED = {
    "trust": "confidence",
    "trust_threshold": "confidence_threshold",
    "play": "perturbed",
    "pursuit": "subgoals",
    "observer": "estimator",
}
"""What settings and choices were called before; who gives one is told its new name."""


class Argument(NamedTuple):
    """One argument of the command line."""

    sign: str
    """+ or ++ before a key that the config does not have; Hydra's."""
    key: str
    """Parts are separated by dots."""
    value: str
    """As it was written."""

    @classmethod
    def read(cls, text: str) -> "Argument":
        """Split `key=value`.

        Raises:
            ConfigError: It is something else.
        """
        if text.startswith("~"):
            raise ConfigError(f"{text!r} removes a setting; give it a value, null for none")
        if not (found := _ARGUMENT.fullmatch(text)):
            raise ConfigError(f"cannot read {text!r}; {WRITTEN}")
        return cls(**found.groupdict())

    def choices(self) -> list[str | None]:
        """What it chooses, if the key is that of a group."""
        value = _parsed(self.value, self.value)
        return [None if one is None else str(one) for one in (value if isinstance(value, list) else [value])]

    def fitted(self, default: Any) -> Any:
        """The value, for a setting with this value in the config.

        Raises:
            ConfigError: The setting takes something else.
        """
        if "${" in self.value:
            if (reference := _parsed(self.value, None)) is None:
                raise ConfigError(f"{self.key} has '${{', which refers to a setting as in ${{seed}}; omit it")
            return reference
        unset = default is None
        kind = UNSET.get(self._last) if unset else type(default)
        kind = {DictConfig: dict, ListConfig: list}.get(kind, kind) if kind else None
        if self.value.lower() == "null" and (unset or kind is dict or self._last in NONE_TOO):
            return None
        texts = isinstance(default, ListConfig) and all(isinstance(one, str) for one in default)
        if (kind is str or texts) and self.value.startswith("[") and self.value.endswith("]"):
            found = _parsed(self.value, None)
            parts = (part.strip().strip("'\"") for part in self.value[1:-1].split(","))
            rows = found if isinstance(found, list) else parts
            return [row if isinstance(row, dict) else str(row) for row in rows]
        if kind is str:
            return self._text(unset)
        value = _parsed(self.value, self.value)
        if kind is None:  # any kind: a setting of which nothing is known
            return self.value if isinstance(value, str) else value
        self._check(kind, default, value)
        return kind(value) if kind is float else value

    @property
    def _last(self) -> str:
        return self.key.rpartition(".")[2]

    def _text(self, unset: bool) -> str:
        """The text that is meant; one pair of quotes around all of it is taken off."""
        quoted = _QUOTED.fullmatch(self.value)
        text = re.sub(rf"\\({quoted['quote']})", r"\1", quoted["text"]) if quoted else self.value
        if not text.strip():
            none = ", or null for none" if unset else ""
            raise ConfigError(f"{self.key} is empty; give it a text{none}")
        if not quoted and (text.lower() == "null" or (unset and text.lower() == "none")):
            right = f"{self.key}=null for none" if unset else "a text"
            raise ConfigError(f"{self.key} must be {right}, got {text}; in quotes if the word is meant")
        if re.match(r"~(/|$)", text):
            with suppress(RuntimeError):  # there is no home
                return str(Path.home()) + text[1:]
        return text

    def _check(self, kind: type, default: Any, value: Any) -> None:
        accepted, words = _KINDS.get(kind, ((object,), "anything"))
        fits = isinstance(value, accepted) and not (isinstance(value, bool) and kind in (int, float))
        numbers = isinstance(default, ListConfig) and len(default) and not isinstance(default[0], str)
        if numbers and isinstance(value, list):
            fits, words = all(isinstance(one, int | float) for one in value), "a list of numbers"
        flat = value if isinstance(value, list) else [value]
        if not fits or any(isinstance(one, float) and not math.isfinite(one) for one in flat):
            got = "null" if value is None else repr(value)
            raise ConfigError(f"{self.key} must be {words}, got {got}")


def from_options(args: Sequence[str], switches: Sequence[str]) -> list[str]:
    """Return arguments with `--key=value` and `--key value` written as `key=value`.

    Args:
        args: Of the command line.
        switches: Keys of settings that are true or false: `--key` alone means true.
    """
    found, waiting = list[str](), list(args)
    while waiting:
        name, equals, value = waiting.pop(0).partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or not key:
            found.append(f"{name}{equals}{value}")
        elif equals:
            found.append(f"{key}={value}")
        elif (
            waiting
            and not waiting[0].startswith("--")
            and (key not in switches or waiting[0].lower() in ("true", "false"))
        ):
            found.append(f"{key}={waiting.pop(0)}")
        elif key in switches:
            found.append(f"{key}=true")
        else:
            raise ConfigError(f"{name} needs a value: {name}=VALUE")
    return found


def _parsed(value: str, otherwise: Any) -> Any:
    """The value by Hydra's grammar, or `otherwise` if it cannot be read or is a sweep."""
    try:
        override = OverridesParser.create().parse_overrides([f"x={value}"])[0]
    except HydraException:
        return otherwise
    return otherwise if override.is_sweep_override() else override.value()
