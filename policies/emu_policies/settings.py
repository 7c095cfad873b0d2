"""Settings as frozen dataclasses that are kept as plain values in a checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

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
        """Undoes `to_dict`; what is left out keeps its default.

        Raises:
            ConfigError: If a name is not a setting; the message lists those that are.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"{cls.__name__} has no settings {unknown}; it has {sorted(known)}")
        return cls(**values)
