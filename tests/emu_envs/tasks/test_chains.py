from collections import Counter

import pytest
from emu_envs.tasks.chains import (
    BIN,
    COLOURS,
    MOVES,
    Chain,
    Move,
    chain_name,
    heldout_chains,
    instructions,
    meant_to_hold,
    places,
    progress,
    training_chains,
    valid_chains,
)
from emu_envs.tasks.cubes import CHAINS, SETS, TASKS
from hypothesis import given
from hypothesis import strategies as st

ALL = training_chains() + heldout_chains()
MOVE_LISTS = st.lists(st.sampled_from(MOVES), max_size=5).map(tuple)
FLAGS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=len(MOVES), max_size=len(MOVES))


def facts(flags: list[tuple[bool, bool]]) -> tuple[dict[str, bool], dict[str, bool]]:
    """What holds, and what of it has settled."""
    holds = {move.name: flag for move, (flag, _) in zip(MOVES, flags, strict=True)}
    return holds, {move.name: a and b for move, (a, b) in zip(MOVES, flags, strict=True)}


def after(chain: Chain) -> dict[str, bool]:
    """What holds after a chain."""
    at = places(chain)
    assert at is not None
    return {move.name: at[move.cube] == move.target for move in MOVES}


@given(MOVE_LISTS)
def test_every_beginning_of_a_valid_chain_is_valid_and_its_last_move_holds(chain: Chain) -> None:
    if places(chain) is None:
        return
    for length in range(len(chain)):
        at = places(chain[: length + 1])
        assert at is not None
        assert at[chain[length].cube] == chain[length].target
        assert (
            sum(place == "table" for place in at.values()) + sum(place == BIN for place in at.values()) >= 1
        )


@given(MOVE_LISTS)
def test_a_chain_ends_where_a_move_would_be_impossible(chain: Chain) -> None:
    at = places(chain)
    if at is None:
        return
    for move in MOVES:
        buried = move.cube in at.values() or at[move.cube] == BIN
        no_ground = move.target in COLOURS and (move.target in at.values() or at[move.target] == BIN)
        assert (places((*chain, move)) is None) == (buried or no_ground)


@pytest.mark.parametrize("chain", ALL, ids=chain_name)
def test_what_is_meant_to_hold_holds_after_each_move(chain: Chain) -> None:
    done = 0
    for length in range(len(chain) + 1):
        now = after(chain[:length])
        assert all(now[chain[index].name] for index in meant_to_hold(chain, length))
        done = progress(chain, done, now, now)
        assert done == length


@given(st.sampled_from(ALL), FLAGS, st.data())
def test_progress_comes_to_rest_at_once_and_leaves_nothing_undone(
    chain: Chain, flags: list[tuple[bool, bool]], data: st.DataObject
) -> None:
    holds, settled = facts(flags)
    before = data.draw(st.integers(0, len(chain)))
    done = progress(chain, before, holds, settled)
    assert progress(chain, done, holds, settled) == done
    assert all(holds[chain[index].name] for index in meant_to_hold(chain, done))
    assert done == len(chain) or not settled[chain[done].name]


def test_a_tower_that_falls_is_built_again_but_not_one_that_is_taken_apart() -> None:
    red_on_blue, green_in_bin, red_on_green = Move("red", "blue"), Move("green", BIN), Move("red", "green")
    nothing = dict.fromkeys(after(()), False)
    first = nothing | {red_on_blue.name: True}
    assert progress((red_on_blue, green_in_bin), 0, first, first) == 1
    assert progress((red_on_blue, green_in_bin), 0, first, nothing) == 0
    assert progress((red_on_blue, green_in_bin), 1, nothing, nothing) == 0
    assert progress((red_on_blue, red_on_green), 1, nothing, nothing) == 1


def test_held_out_chains_are_not_trained_nor_beginnings_of_trained_ones_nor_trained_the_other_way_round() -> (
    None
):
    training, heldout = set(training_chains()), set(heldout_chains())
    assert len(training) == 30
    assert len(heldout) == 39
    beginnings = {chain[:length] for chain in training for length in (1, 2, 3)}
    assert not heldout & beginnings
    pairs = {chain for chain in heldout if len(chain) == 2}
    assert {chain[::-1] for chain in pairs}.isdisjoint(training)
    assert training | pairs == set(valid_chains(1) + valid_chains(2))


@pytest.mark.parametrize("chains", [training_chains(), heldout_chains()], ids=["training", "held out"])
def test_every_move_is_in_first_and_in_second_place_of_pairs(chains: tuple[Chain, ...]) -> None:
    pairs = [chain for chain in chains if len(chain) == 2]
    for place in (0, 1):
        assert Counter(pair[place] for pair in pairs).keys() == set(MOVES)


def test_rows() -> None:
    assert list(CHAINS) == [task.name for task in TASKS]
    assert CHAINS["red_on_blue-green_in_bin"] == (Move("red", "blue"), Move("green", BIN))
    assert set(SETS["cubes"]).isdisjoint(SETS["cubes_heldout"])
    assert len(SETS["cubes"]) + len(SETS["cubes_heldout"]) == len({task.id for task in TASKS}) == 69


def test_every_phrasing_is_of_one_task() -> None:
    first = instructions(CHAINS["red_on_blue-green_in_bin"])[0]
    assert first == "put the red cube on the blue cube, then put the green cube in the bin"
    phrasings = [text for task in TASKS for text in task.phrasings]
    assert len(set(phrasings)) == len(phrasings) == 4 * len(TASKS)
