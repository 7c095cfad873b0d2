"""The prompt of each task, as data.

The published templates are those of Emu3.5; "vla" uses its general form, "simulate" is ours.
"""

from dataclasses import dataclass

ANSWER_CUE = " ASSISTANT: "
"""Stands between the request and the token that opens the answer, in every prompt."""
UNCONDITIONAL = "You are a helpful assistant. USER: "
"""Opens the prompt without task and question that classifier-free guidance pushes away from."""


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """How a task is asked for."""

    opening: str
    """Text before the question."""
    images_first: bool = False
    """Put the pictures before the question instead of after it."""


def _template(task: str, sentence: str = "", *, images_first: bool = False) -> PromptTemplate:
    opening = f"You are a helpful assistant for {task} task.{sentence} USER: "
    return PromptTemplate(opening=opening, images_first=images_first)


TEMPLATES = {
    "t2i": _template("t2i"),
    "x2i": _template("x2i", images_first=True),
    "howto": _template("howto", " Please generate a response with interleaved text and images."),
    "story": _template("story"),
    "explore": _template("explore"),
    "vla": _template("vla"),
    "simulate": _template("simulate"),
}
