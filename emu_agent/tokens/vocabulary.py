"""Who owns which token id: the only place where the borders of the id ranges are written down."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from emu_agent.errors import VocabularyError

OFFICIAL_NUM_TEXT = 151_643
OFFICIAL_NUM_EXTRA = 205
OFFICIAL_NUM_CODES = 131_072
OFFICIAL_NUM_ACTION_BINS = 64
ROLES = (
    "pad", "bos", "eos", "eol", "eof", "tms", "img", "boi", "eoi",
    "bss", "ess", "bog", "eog", "boc", "eoc", "boa", "eoa", "noise",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Id ranges of text, pictures and actions, and the ids of the control tokens."""

    size: int
    """Number of ids, and rows of the embedding table."""
    num_text: int
    """Ids of text tokens are 0 .. num_text - 1."""
    visual: range
    """Ids of the picture codes, in order of the codes."""
    action: range
    """Ids of the action bins, in order of the bins."""
    pad: int
    """Padding."""
    bos: int
    """Start of a sequence."""
    eos: int
    """End of a sequence."""
    eol: int
    """End of a row of picture codes, after every row but the last."""
    eof: int
    """End of a video frame; reserved by the published format."""
    tms: int
    """Time stamp; reserved by the published format."""
    img: int
    """Stands between the size and the codes of a picture."""
    boi: int
    """Start of a picture block."""
    eoi: int
    """End of a picture block."""
    bss: int
    """Start of the answer, and of the part that is trained on."""
    ess: int
    """End of the answer."""
    bog: int
    """Start of a plan for the whole answer."""
    eog: int
    """End of a plan."""
    boc: int
    """Start of a step instruction."""
    eoc: int
    """End of a step instruction."""
    boa: int
    """Start of an action block; not part of the published format."""
    eoa: int
    """End of an action block; not part of the published format."""
    noise: int | None = None
    """Stands in for a picture code that is yet to be decoded; not part of the published format, and None in
    checkpoints from before it."""

    def __post_init__(self) -> None:
        controls = set(self.roles.values())
        blocks = [range(self.num_text), self.visual, self.action]
        inside = all(block.step == 1 and 0 <= block.start <= block.stop <= self.size for block in blocks)
        members = sum(map(len, blocks)) + len(self.roles)
        if (
            not inside
            or len(controls | set().union(*blocks)) != members
            or not controls < set(range(self.size))
        ):
            raise VocabularyError("text, control, picture and action ids must be disjoint and below the size")

    @classmethod
    def official(cls) -> "Vocabulary":
        """Return the published Emu3.5 vocabulary; actions and noise take control tokens it leaves unused."""
        first_extra = OFFICIAL_NUM_TEXT + 3
        image_token = first_extra + OFFICIAL_NUM_EXTRA
        extras = {
            "boa": 40, "eoa": 41, "noise": 42, "boc": 50, "eoc": 51, "bog": 60, "eog": 61, "bss": 100,
            "ess": 101, "eol": 200, "eof": 201, "tms": 202, "bos": 203, "eos": 204,
        }  # fmt: skip
        first_code, first_bin = image_token + 3, first_extra + 120
        return cls(
            size=first_code + OFFICIAL_NUM_CODES,
            num_text=OFFICIAL_NUM_TEXT,
            visual=range(first_code, first_code + OFFICIAL_NUM_CODES),
            action=range(first_bin, first_bin + OFFICIAL_NUM_ACTION_BINS),
            pad=OFFICIAL_NUM_TEXT,
            img=image_token,
            boi=image_token + 1,
            eoi=image_token + 2,
            **{role: first_extra + number for role, number in extras.items()},
        )

    @classmethod
    def compact(cls, num_text: int, num_codes: int, num_action_bins: int = 64) -> "Vocabulary":
        """Return a vocabulary without gaps: text, control tokens, picture codes, action bins."""
        first_code = num_text + len(ROLES)
        first_bin = first_code + num_codes
        return cls(
            size=first_bin + num_action_bins,
            num_text=num_text,
            visual=range(first_code, first_bin),
            action=range(first_bin, first_bin + num_action_bins),
            **{role: num_text + index for index, role in enumerate(ROLES)},
        )

    @property
    def roles(self) -> dict[str, int]:
        """Id of every control token by role."""
        return {role: token for role in ROLES if (token := getattr(self, role)) is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; a range is its start and its stop."""
        ranges = {
            name: [span.start, span.stop] for name, span in (("visual", self.visual), ("action", self.action))
        }
        return asdict(self) | ranges

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Vocabulary":
        """Read what `to_dict` returned."""
        ranges: dict[str, Any] = {name: range(*values[name]) for name in ("visual", "action")}
        return cls(**dict(values) | ranges)

    def visual_ids(self, codes: Int[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """Return the token ids of picture codes.

        Raises:
            VocabularyError: If a code is outside the codebook.
        """
        return _shift(codes, range(len(self.visual)), self.visual.start, "picture codes")

    def codes(self, ids: Int[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """Return the picture codes of token ids.

        Raises:
            VocabularyError: If an id does not belong to a picture code.
        """
        return _shift(ids, self.visual, -self.visual.start, "ids of picture codes")

    def action_ids(self, bins: Int[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """Return the token ids of action bins.

        Raises:
            VocabularyError: If there is no such bin.
        """
        return _shift(bins, range(len(self.action)), self.action.start, "action bins")

    def is_visual(self, ids: Int[Tensor, "*shape"]) -> Tensor:
        """Say for each id whether it stands for a picture code."""
        return (ids >= self.visual.start) & (ids < self.visual.stop)


def _shift(numbers: Tensor, allowed: range, offset: int, what: str) -> Tensor:
    if numbers.numel() and not allowed.start <= int(numbers.min()) <= int(numbers.max()) < allowed.stop:
        low, high = int(numbers.min()), int(numbers.max())
        raise VocabularyError(f"{what} are {allowed.start}..{allowed.stop - 1}, but there are {low}..{high}")
    return numbers.to(torch.int64) + offset
