"""The imagination engine: an observation in, step instructions and keyframes out.

One prefill reads the prompt (instruction and current frame); everything that is imagined continues copies of
its cache.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from emu_agent.decoding.autoregressive import (
    ImageRequest,
    Keyframe,
    StepText,
    decode_text,
    pad_left,
    read_text,
)
from emu_agent.decoding.decoders import image_decoder
from emu_agent.decoding.grammar import ImageBlock, size_characters
from emu_agent.decoding.noise import DidaConfig
from emu_agent.errors import ConfigError, lookup
from emu_agent.imagination.imagination import Context, Imagination, ImaginationConfig, require_words_fit
from emu_agent.observation import Observation, fitted
from emu_agent.tokens.action import ActionBins, choose_bins
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.sequence import ImageGrid, SequenceFormat
from emu_agent.tokens.text import TEXT_FILE, BytePairTokenizer, TextTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model import checkpoint
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.fast import FastModel, TokenModel
from emu_agent.world_model.transformer import WorldModel


class ImaginationEngine:
    """Image tokenizer, text tokenizer and world model, put together to imagine.

    Args:
        image_tokenizer: pictures to codes and back.
        sequence_format: the grammar, with vocabulary and text tokenizer.
        world_model: the transformer, as it is or made for decoding (`FastModel`).
        action_bins: how the actions of each embodiment become tokens; needed by `simulate` only.
        config: defaults of imagining.
        dida: what the world model was adapted to, if it was.
        image_size: height and width to which observations are brought; None takes them as they are.
        fit: how, see `emu_agent.observation.fitted`.
        subtasks: texts that the world model has learned; written in fewer calls than others.

    Raises:
        ConfigError: the parts do not fit together.
        CheckpointError: the world model cannot do what the config asks for.
    """

    def __init__(  # noqa: PLR0913 - the parts, and what a checkpoint says of them
        self,
        image_tokenizer: ImageTokenizer,
        sequence_format: SequenceFormat,
        world_model: TokenModel,
        action_bins: Mapping[str, ActionBins] | None = None,
        config: ImaginationConfig | None = None,
        *,
        dida: DidaConfig | None = None,
        image_size: tuple[int, int] | None = None,
        fit: str = "resize",
        subtasks: Sequence[str] = (),
    ) -> None:
        vocabulary = sequence_format.vocabulary
        sizes = (
            (vocabulary.size, world_model.config.vocab_size),
            (len(vocabulary.visual), image_tokenizer.num_codes),
        )
        for what, (mine, theirs) in zip(("ids (world model)", "codes (image tokenizer)"), sizes, strict=True):
            if mine != theirs:
                raise ConfigError(f"the vocabulary has {mine} {what}, but the model has {theirs}")
        # Channels last: convolutions are faster so, on a CPU by a third.
        self.image_tokenizer = image_tokenizer.eval()
        image_tokenizer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - not in its stubs
        self.sequence_format = sequence_format
        self.world_model = world_model.eval() if isinstance(world_model, WorldModel) else world_model
        self.action_bins = dict(action_bins or {})
        self.image_size, self.fit, self.subtasks = image_size, fit, tuple(subtasks)
        self._guesses = [sequence_format.text_tokenizer.encode(text) for text in subtasks]
        self.config = config or ImaginationConfig()
        self.decoder, self.dida = self.config.choose(dida)
        codebook = image_tokenizer.quantize.embedding.weight
        fast = not isinstance(world_model, WorldModel)
        self._decode_image = image_decoder(self.decoder, self.dida, codebook, fast=fast)
        self._characters = size_characters(sequence_format.text_tokenizer)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str | None = None, config: ImaginationConfig | None = None
    ) -> "ImaginationEngine":
        """Load an agent checkpoint; without a folder the one inside the package.

        Raises:
            CheckpointError: the folder is not such a checkpoint, is damaged, or its parts do not fit
                together.
        """
        folder = checkpoint.bundled_checkpoint() if folder is None else Path(folder)
        values, tensors = checkpoint.read_part(folder, "image_tokenizer")
        image_tokenizer = ImageTokenizer(ImageTokenizerConfig.from_dict(values))
        checkpoint.load_state(image_tokenizer, tensors, folder)
        meta = checkpoint.read_config(folder)
        vocabulary = Vocabulary.from_dict(checkpoint.read_section(meta, "vocabulary", folder))
        world_model = checkpoint.load_world_model(folder, vocab_size=vocabulary.size)
        model = FastModel(world_model) if config is not None and config.compile else world_model
        return cls.from_parts(
            meta, image_tokenizer, BytePairTokenizer.load(folder / TEXT_FILE), model, config
        )

    @classmethod
    def from_parts(
        cls,
        meta: Mapping[str, Any],
        image_tokenizer: ImageTokenizer,
        text_tokenizer: TextTokenizer,
        world_model: TokenModel,
        config: ImaginationConfig | None = None,
    ) -> "ImaginationEngine":
        """Put loaded parts together as the config of their checkpoint says.

        Raises:
            ConfigError: the parts do not fit together.
            CheckpointError: the world model cannot do what the config asks for.
        """
        vocabulary = Vocabulary.from_dict(checkpoint.read_section(meta, "vocabulary", "the checkpoint"))
        size = meta.get("image_size")
        return cls(
            image_tokenizer,
            SequenceFormat(vocabulary, text_tokenizer),
            world_model,
            ActionBins.of_checkpoint(meta),
            config,
            dida=DidaConfig.from_dict(meta["dida"]) if "dida" in meta else None,
            image_size=None if size is None else (int(size[0]), int(size[1])),
            fit=meta.get("fit", "resize"),
            subtasks=meta.get("subtasks", ()),
        )

    @property
    def device(self) -> torch.device:
        """Where the world model lives."""
        return self.world_model.head.device

    @torch.no_grad()
    def observe(self, observation: Observation, camera: str) -> Context:
        """Read an observation: one prefill, to be continued as often as one likes.

        Raises:
            UnknownNameError: the observation has no such camera.
        """
        images = lookup("camera", camera, observation.images)
        return self.context(self.encode(images), observation.instruction)

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "batch height width 3"]) -> Int64[Tensor, "batch rows cols"]:
        """Codes of images of any size, brought to the one that the model was trained on."""
        images = images.to(self.device)
        return self.image_tokenizer.encode(
            images if self.image_size is None else fitted(images, self.image_size, self.fit)
        )

    @torch.no_grad()
    def context(self, codes: Int64[Tensor, "batch rows cols"], instructions: Sequence[str]) -> Context:
        """Read frames that are already codes; an instruction must leave room for a keyframe."""
        grids = list(codes.cpu())
        prompts = [
            self.sequence_format.imagine_prompt(t, c) for t, c in zip(instructions, grids, strict=True)
        ]
        room = self.world_model.config.max_position_embeddings - self._block(codes).grid.block_length - 2
        require_words_fit(self.sequence_format.text_tokenizer, instructions, prompts, room)
        if self.config.guidance_scale is not None:
            prompts += [self.sequence_format.unconditional_prompt(grid) for grid in grids]
        cache, hidden, length = self._prefill(prompts)
        features = hidden[: len(codes)].gather(1, self._visual_index(prompts[: len(codes)], length, hidden))
        return Context(cache, codes, features)

    @torch.no_grad()
    def imagine(
        self,
        observation: Observation | Context,
        *,
        camera: str = "agentview",
        steps: int = 1,
        candidates: int = 1,
        texts: Sequence[str] | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> Imagination:
        """Imagine `steps` step instructions with their keyframes, `candidates` times.

        Args:
            observation: what is seen, or the context that `observe` has made of it.
            camera: third-person camera to imagine; not used with a context.
            steps: how many steps to imagine, one after the other.
            candidates: how many futures per row.
            texts: what the first step is to be, in the words of the training data, one per row; without them
                the model writes it.
            seed: the same seed gives the same imagination; not used with a generator.
            generator: source of randomness.

        Raises:
            ConfigError: `steps` or `candidates` is below 1, there is not one text per row, or the sequence
                outgrows the model's positions.
        """
        if steps < 1 or candidates < 1:
            raise ConfigError(f"steps={steps} and candidates={candidates} must be at least 1")
        context = observation if isinstance(observation, Context) else self.observe(observation, camera)
        generator = generator or torch.Generator(self.device).manual_seed(seed)
        block, batch = self._block(context.codes), len(context.codes)
        given = self._given(texts, batch, candidates)
        longest = max([self.config.max_text_tokens, *map(len, given or ())])
        room = steps * (longest + 2 + block.grid.block_length)
        cache = context.cache.fork(candidates, context.cache.length + room)
        made = [
            self._step(cache, block, candidates, generator, given if step == 0 else None)
            for step in range(steps)
        ]
        words = [[self.sequence_format.text_tokenizer.decode(row) for row in text.rows()] for text, _ in made]
        return Imagination.of(made, words, candidates)

    @torch.no_grad()
    def features_of(
        self,
        codes: Int64[Tensor, "batch rows cols"],
        instructions: Sequence[str],
        texts: Sequence[str],
        keyframes: Int64[Tensor, "batch rows cols"],
    ) -> Float[Tensor, "batch tokens hidden_size"]:
        """What `Imagination.features` would be, had the model imagined these steps and keyframes."""
        rows, prompts, answers = zip(codes, instructions, texts, keyframes, strict=True), [], []
        for now, instruction, text, keyframe in rows:
            prompts.append(self.sequence_format.imagine_prompt(instruction, now.cpu()))
            answers.append(self.sequence_format.imagine_answer([(text, keyframe.cpu())])[:-2])
        sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        _, hidden, length = self._prefill(sequences)
        features = hidden.gather(1, self._visual_index(answers, length, hidden))
        words = []
        for row, answer in enumerate(answers):
            first = length - len(answer) + 1  # behind BOC
            count = answer.index(self.sequence_format.vocabulary.eoc) - 1
            words.append(hidden[row, first : first + count].sum(dim=0) / max(1, count))
        return torch.cat([torch.stack(words)[:, None], features], dim=1)

    @torch.no_grad()
    def simulate(
        self,
        codes: Int64[Tensor, "batch rows cols"],
        actions: Float[Tensor, "batch time action_dim"],
        embodiment: str | None = None,
    ) -> tuple[Int64[Tensor, "batch rows cols"], Float[Tensor, " batch"]]:
        """Predict the frame after a chunk of actions: the world model as a simulator.

        Args:
            codes: of the frame before.
            actions: in the units of the dataset.
            embodiment: whose actions they are; None is the only one with so many components.

        Returns:
            Codes of the later frame, and their mean log-probability.

        Raises:
            CheckpointError: the model was not trained on actions of this embodiment.
        """
        bins, chunks = choose_bins(self.action_bins, actions.shape[-1], embodiment), list(actions.cpu())
        conditioned = bool(self.world_model.config.action_features)
        prompts = [
            self.sequence_format.simulate_prompt(grid, None if conditioned else bins.encode(chunk))
            for grid, chunk in zip(codes.cpu(), chunks, strict=True)
        ]
        block = self._block(codes)
        cache, _, _ = self._prefill(prompts, block.grid.block_length)
        if conditioned:
            cache.condition = self.world_model.condition(bins.features(actions.float()).to(self.device))
        generator = torch.Generator(self.device).manual_seed(0)  # for decoders that begin with noise
        frame = self._decode_image(self.world_model, cache, ImageRequest(block, self.config.image), generator)
        return frame.codes, frame.log_prob

    def _given(self, texts: Sequence[str] | None, batch: int, candidates: int) -> list[list[int]] | None:
        if texts is None:
            return None
        if len(texts) != batch:
            raise ConfigError(f"there are {len(texts)} texts for {batch} observations; give one for each")
        rows = [self.sequence_format.text_tokenizer.encode(text) for text in texts]
        return [row for row in rows for _ in range(candidates)]

    def _step(
        self,
        cache: KVCache,
        block: ImageBlock,
        candidates: int,
        generator: torch.Generator,
        given: list[list[int]] | None,
    ) -> tuple[StepText, Keyframe]:
        guided = self.config.guidance_scale is not None
        vocabulary = self.sequence_format.vocabulary
        if given is not None:
            text = read_text(self.world_model, cache, vocabulary, given, guided=guided)
        else:
            text = decode_text(
                self.world_model, cache, vocabulary, self.config.text, generator,
                max_tokens=self.config.max_text_tokens, guided=guided, guesses=self._guesses,
            )  # fmt: skip
        sampling = self.config.image if candidates == 1 else self.config.candidate_image
        request = ImageRequest(block, sampling, (vocabulary.eoc,), self.config.guidance_scale)
        return text, self._decode_image(self.world_model, cache, request, generator)

    def _prefill(self, prompts: list[list[int]], room: int = 0) -> tuple[KVCache, Tensor, int]:
        ids, valid = pad_left(prompts, self.sequence_format.vocabulary.pad, self.device)
        length = ids.shape[1]
        cache, hidden = self.world_model.prefill(ids, valid, max_length=length + room)
        return cache, hidden, length

    def _visual_index(self, prompts: list[list[int]], length: int, hidden: Tensor) -> Tensor:
        """Where the codes of the picture at each row's end stand after padding, as an index for `gather`."""
        rows = [
            self.sequence_format.visual_positions(prompt)[0].flatten() + length - len(prompt)
            for prompt in prompts
        ]
        return torch.stack(rows).to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1])

    def _block(self, codes: Tensor) -> ImageBlock:
        grid = ImageGrid(*codes.shape[-2:])
        return ImageBlock.build(grid, self.sequence_format.vocabulary, self._characters)
