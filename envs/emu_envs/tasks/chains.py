"""Chains of moves, the tasks of the suite `cubes`: validity, split, words, progress.

A chain is one to three moves, to be made in this order. Nothing here needs a simulator.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

COLOURS: tuple[str, ...] = ("red", "green", "blue")
"""Names of the cubes."""
BIN = "bin"
"""The target that is not a cube."""


@dataclass(frozen=True)
class Move:
    """A subtask: one cube goes onto another one, or into the bin."""

    cube: str
    """Colour of the cube that is moved."""
    target: str
    """Colour of the cube that it goes onto, or `BIN`."""

    @property
    def name(self) -> str:
        """Name of the move and of its predicate, such as `red_on_blue`."""
        return f"{self.cube}_{'in' if self.target == BIN else 'on'}_{self.target}"


Chain = tuple[Move, ...]

MOVES = tuple(Move(cube, target) for cube in COLOURS for target in (*COLOURS, BIN) if cube != target)
"""All moves."""

# Of a cube onto a cube, of a cube into the bin, and between moves. The last row is only for test; the first
# row also gives the subtask instructions.
_PHRASINGS = (
    ("put the {cube} cube on the {target} cube", "put the {cube} cube in the bin", ", then "),
    ("stack the {cube} cube on top of the {target} cube", "drop the {cube} cube into the bin", " and then "),
    (
        "set the {cube} cube onto the {target} one",
        "place the {cube} cube inside the bin",
        ", and after that ",
    ),
    ("pile the {cube} block upon the {target} block", "move the {cube} block to the bin", ", afterwards "),
)


def instructions(chain: Chain) -> tuple[str, ...]:
    """All phrasings of a chain; the last is only for test."""
    return tuple(
        joint.join((binned if move.target == BIN else stacked).format(**vars(move)) for move in chain)
        for stacked, binned, joint in _PHRASINGS
    )


def chain_name(chain: Chain) -> str:
    """Name of the task, such as `red_on_blue-green_in_bin`."""
    return "-".join(move.name for move in chain)


def places(chain: Chain) -> dict[str, str] | None:
    """Return what each cube is on after a chain (a colour, `BIN` or `table`); None if the chain is not valid.

    All cubes start on the table. In a valid chain each moved cube is clear and not in the bin, and so is the
    cube that it goes onto.
    """
    at = dict.fromkeys(COLOURS, "table")
    for move in chain:
        fixed = {cube for cube, place in at.items() if place == BIN or cube in at.values()}
        if move.cube in fixed or move.target in fixed:
            return None
        at[move.cube] = move.target
    return at


@cache
def valid_chains(length: int) -> tuple[Chain, ...]:
    """All valid chains of this length, in the order of `MOVES`."""
    if length == 0:
        return ((),)
    longer = ((*chain, move) for chain in valid_chains(length - 1) for move in MOVES)
    return tuple(chain for chain in longer if places(chain) is not None)


def training_chains() -> tuple[Chain, ...]:
    """The chains of `cubes`: all 9 single moves, and 21 of the 36 pairs."""
    return valid_chains(1) + tuple(pair for pair in valid_chains(2) if not _held_out(pair))


def heldout_chains() -> tuple[Chain, ...]:
    """The chains of `cubes_heldout`: the other 15 pairs, and 24 triples, every third of the 72 valid ones.

    Training has no triples, so no held-out chain is the beginning of a trained one. A trained pair may well
    be the beginning of a held-out triple: going on from it is what is tested.
    """
    return tuple(pair for pair in valid_chains(2) if _held_out(pair)) + valid_chains(3)[::3]


def _held_out(pair: Chain) -> bool:
    """By the sum of the indices of its moves in `MOVES`.

    The sum is the same in either order, so two moves are never trained one way round and held out the other
    way round. With these remainders every move is in first and in second place on both sides, and three or
    four of the six pairs of each kind (a tower, a cube moved on, two cubes in the bin, ...) are trained.
    """
    return sum(MOVES.index(move) for move in pair) % 8 in (1, 2, 3)


def meant_to_hold(chain: Chain, done: int) -> Iterator[int]:
    """Indices of the moves that have to hold once `done` moves are done.

    Not those whose cube a later move has moved on, or is moving now.
    """
    for index in range(done):
        if all(later.cube != chain[index].cube for later in chain[index + 1 : done + 1]):
            yield index


def progress(chain: Chain, done: int, holds: Mapping[str, bool], settled: Mapping[str, bool]) -> int:
    """Return how many moves are done in a new state; a move that has come undone is next again.

    Args:
        chain: The task.
        done: How many were done before.
        holds: By the names of moves, whether the cube is where the move puts it.
        settled: The same, and whether it has been let go and is at rest.
    """
    undone = next((index for index in meant_to_hold(chain, done) if not holds[chain[index].name]), None)
    if undone is not None:
        return progress(
            chain, undone, holds, settled
        )  # others may have to hold again, now that fewer are done
    while done < len(chain) and settled[chain[done].name]:
        done += 1
    return done
