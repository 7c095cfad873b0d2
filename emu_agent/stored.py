"""Settings as frozen dataclasses that are kept as plain values in a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar, get_origin

from emu_agent.errors import ConfigError

_Kind = TypeVar("_Kind", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of settings that are stored with weights."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint's `config.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls: type[_Kind], values: Mapping[str, Any]) -> _Kind:
        """Undoes `to_dict`, also after a trip through JSON; what is left out keeps its default.

        Raises:
            ConfigError: If a name is not a setting; the message lists those that are.
        """
        kinds = {field.name: field.type for field in fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise ConfigError(f"{cls.__name__} has no settings {unknown}; it has {list(kinds)}")
        return cls(
            **{
                name: tuple(value) if get_origin(kinds[name]) is tuple else value
                for name, value in values.items()
            }
        )

    def require(self, holds: Callable[[Any], bool], words: str, *names: str) -> None:
        """Check several settings alike; `words` complete the message that they "must".

        Raises:
            ConfigError: The first for which `holds` is false.
        """
        for name in names:
            if not holds(value := getattr(self, name)):
                raise ConfigError(f"{name}={value!r} must {words}")
