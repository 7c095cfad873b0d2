"""Makes the shared text vocabulary: byte-level merges learned from every task's words and a small word list.

    python benchmarks/text_vocabulary.py

Checkpoints keep a copy of the file that they were trained with, so making it again breaks none of them; a
world model that starts from an older one carries over the ids whose bytes are the same.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from emu_envs.tasks import TASKS

from emu_agent.tokens.prompts import ANSWER_CUE, TEMPLATES, UNCONDITIONAL
from emu_agent.tokens.text import SHARED_FILE, BytePairTokenizer

WORDS = """
a an the this that these those it its one two three four five six seven eight nine ten first second third last
all both each every another other same next previous and or then after before while until when if not no
above across along around at away back behind below beneath beside between beyond by down forward from front
in inside into left near next of off on onto open out outside over past right side through to toward towards
under up upper lower upon with within without top bottom middle center edge corner end half whole
add align approach arrange bring carry catch clean clear close collect connect cover cut detach dip drag drop
empty fetch fill find fit flip fold gather get give go grab grasp grip hand hang hit hold insert install keep
knock lay leave let lift lock look lower make mix move pass peel pick place plug point pour press pull push
put raise reach release remove return reverse roll rotate scoop screw separate set shake shut slide sort spin
spread squeeze stack stand start stay stir stop store straighten stretch sweep swing switch take tap throw tie
tighten tilt touch toss turn twist unfold unlock unplug unscrew untie use wait wash wipe wrap write
amber aqua beige black blue bright brown clear cyan dark gold golden gray green grey light lime magenta maroon
navy olive orange pink plain purple red silver striped teal transparent violet white yellow
big empty flat full heavy high large little long low narrow new old round short slow small soft square tall
thick thin tiny wide wooden metal plastic glass rubber paper
apple bag ball banana bar basket bean bed bin block board book bottle bowl box bread brick bread brush bucket
burger butter button cabinet cable cake can candle cap car card carrot case cereal chair chart chicken chip
cloth coaster coat coffee coin container cookie cord counter cover cube cup cupboard curtain cutter cutting
desk dial dish dishwasher disc door drawer drink dryer egg eraser faucet file finger fish flap floor flower
folder food fork fridge fruit funnel glass glove glue goal grape gripper hammer handle hat hinge hole hook
hoop jar juice kettle key keyboard kitchen knife knob ladle lamp lego lemon lettuce lever lid lock machine
marker mat meat microwave milk mouse mug mushroom nail napkin net notebook nut onion oven pan paper peach pear
peg pen pencil pepper phone pillow pin pipe pizza plate plug pot potato puck rack refrigerator remote ring
robot rod roof rope rug sandwich sauce saucepan scissors screw screwdriver shelf shirt shoe sink slot soap
socket sock soda spatula spice sponge spoon stapler stick stove strawberry string sugar switch table tape
target tea teapot tomato tool toothbrush towel toy track train trash tray tube valve wall washer water wheel
window wire wood wrench zipper arm elbow wrist shoulder joint base pose position place compartment home
gently slowly carefully quickly firmly upright straight sideways upside clockwise counterclockwise again
"""
"""Of robots and households: what instructions for other tasks will be made of."""


def strings_in(value: Any) -> Iterator[str]:
    """All strings inside nested settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for inner in value.values() for text in strings_in(inner))
    elif isinstance(value, list | tuple):
        yield from (text for inner in value for text in strings_in(inner))


def corpus() -> list[str]:
    """Every text that a model reads or writes; digits stay single, as sizes of images are written in them."""
    texts = [text for task in TASKS.values() for text in (*task.instructions, *task.test_instructions)]
    texts += [text for task in TASKS.values() for text in strings_in(dict(task.settings))]
    for task in TASKS.values():
        texts += [subtask.instruction for subtask in task.subtasks]
        if task.suite == "metaworld":  # as the vocabulary in the package was made
            texts += [subtask.begins for subtask in task.subtasks]
    opening = [UNCONDITIONAL, ANSWER_CUE, *(template.opening for template in TEMPLATES.values())]
    words = [f" {word}" for word in sorted(set(WORDS.split()))]
    every = [*opening, *sorted(set(texts)), *words, *words]
    return [text for text in every if not any(map(str.isdigit, text))]


def main() -> None:
    """Train, write and tell how long instructions become."""
    parser = argparse.ArgumentParser(description="Makes the shared text vocabulary")
    parser.add_argument("--size", type=int, default=1280, help="ids, the 256 bytes among them")
    args = parser.parse_args()
    tokenizer = BytePairTokenizer.train(corpus(), args.size)
    SHARED_FILE.write_text(
        json.dumps(json.loads(tokenizer.to_json()), ensure_ascii=False) + "\n", encoding="utf-8"
    )
    lengths = [len(tokenizer.encode(text)) for task in TASKS.values() for text in task.instructions]
    mean = sum(lengths) / len(lengths)
    print(f"{tokenizer.num_text} ids; {mean:.1f} ids an instruction, at most {max(lengths)}")


if __name__ == "__main__":
    main()
