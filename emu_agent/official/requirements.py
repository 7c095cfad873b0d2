"""Look at a folder of published weights: what is in it, what it needs, what is missing or broken.

Of the language model only the heads of the files are read, which takes a second for 68 GB; the tokenizers are
loaded as they would be for use.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from emu_agent.errors import CheckpointError, EmuAgentError
from emu_agent.finding import Finding
from emu_agent.official.assembly import find_folders
from emu_agent.tokens.image import CONFIG_FILE as IMAGE_CONFIG_FILE
from emu_agent.tokens.image import ImageTokenizer
from emu_agent.tokens.text import RANKS_FILE, VISION_FILE, EmuTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model import shards
from emu_agent.world_model.checkpoint import empty_model
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.folders import CONFIG_FILE
from emu_agent.world_model.placement import QUANTIZED_BITS, quantized_bytes

AGAIN = "copy or download it again"
HASHES = {
    RANKS_FILE: "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
    VISION_FILE: "f3c4f0aa4a971ff38ba4caf4c8e4a3968b4c938c5343579f3e64c4ce2d7659b1",
}
"""SHA-256 of the published files."""
GIB = 2**30


def examine_weights(folder: Path | str) -> list[Finding]:
    """Look at every part of a folder of published weights."""
    try:
        parts = find_folders(folder)
    except EmuAgentError as error:
        return [Finding("weights", "fail", str(error), "give weights=FOLDER")]
    return [
        *_language_model(parts.language_model),
        _part("image tokenizer", parts.image_tokenizer, _image_tokenizer, IMAGE_CONFIG_FILE),
        _part("text tokenizer", parts.text_tokenizer, _text_tokenizer, RANKS_FILE),
    ]


def memory_of(tensors: Mapping[str, shards.StoredTensor]) -> dict[str, int]:
    """Bytes of a world model in each precision; few bits are for the matrices of the layers only."""
    numbers = sum(tensor.numel for tensor in tensors.values())
    sizes = {"float32": 4 * numbers, "bfloat16": 2 * numbers}
    for kind in QUANTIZED_BITS:
        sizes[kind] = sum(
            quantized_bytes(*tensor.shape, kind)
            if len(tensor.shape) == 2 and name.startswith("model.layers.")
            else 2 * tensor.numel
            for name, tensor in tensors.items()
        )
    return sizes


def cache_bytes(config: TransformerConfig, tokens: int = 1000, bytes_each: int = 2) -> int:
    """Bytes of keys and values of so many tokens of one row."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_each * tokens


def _language_model(folder: Path | None) -> list[Finding]:
    name = "language model"
    if folder is None:
        mend = f"give the folder with its {CONFIG_FILE} and safetensors"
        return [Finding(name, "fail", f"no {CONFIG_FILE} of one", mend)]
    if broken := _broken_files(folder):
        return broken
    try:
        config = TransformerConfig.from_dict(shards.read_json(folder / CONFIG_FILE))
        tensors = shards.stored_tensors(folder)
        empty_model(config, tensors, folder)
    except EmuAgentError as error:
        return [Finding(name, "fail", str(error), f"{AGAIN}, with its {CONFIG_FILE}")]
    files, types = ({getattr(t, what) for t in tensors.values()} for what in ("file", "dtype"))
    found = (
        f"{folder.name}: {_count(sum(tensor.numel for tensor in tensors.values()))} parameters in "
        f"{len(tensors)} tensors and {len(files)} files, {'/'.join(sorted(types))}; "
        f"{config.num_hidden_layers} layers, {config.max_position_embeddings} positions"
    )
    ids, each = Vocabulary.official().size, cache_bytes(config)
    other = f"the published vocabulary has {ids}; the published tokenizers do not fit"
    cache = f"{_size(each)} per 1,000 tokens in bfloat16, {_size(2 * each)} in float32; guidance doubles it"
    return [
        Finding(name, "ok", found),
        Finding.of("vocabulary", config.vocab_size == ids, f"{config.vocab_size} ids", other, "note"),
        *_index_size(folder, tensors),
        _memory(tensors),
        Finding("KV cache", "ok", cache),
    ]


def _broken_files(folder: Path) -> list[Finding]:
    """One finding for each file that the index names and that is missing or cut off."""
    findings = []
    try:
        names = sorted(set(shards.index_of(folder).values()))
    except CheckpointError as error:
        return [Finding(shards.INDEX_FILE, "fail", str(error), AGAIN)]
    for name in names:
        try:
            if not (folder / name).is_file():
                raise CheckpointError("it is missing, but the index names it")
            with shards.opened(folder / name):
                pass
        except CheckpointError as error:
            findings.append(Finding(name, "fail", str(error), AGAIN))
    return findings


def _index_size(folder: Path, tensors: Mapping[str, shards.StoredTensor]) -> list[Finding]:
    """What the index says of the size of all tensors, against what the files hold."""
    if not shards.index_of(folder):
        return []
    total = sum(tensor.numel * shards.FLOATING[tensor.dtype] for tensor in tensors.values())
    said = shards.read_json(folder / shards.INDEX_FILE).get("metadata", {}).get("total_size", total)
    found = f"{total} bytes of tensors, {'as in the index' if said == total else f'not {said}'}"
    return [Finding.of("index", said == total, found, f"the index is of other files; {AGAIN}", "note")]


def _memory(tensors: Mapping[str, shards.StoredTensor]) -> Finding:
    sizes = memory_of(tensors)
    gpus = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    room = max([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *gpus])
    fitting = [kind for kind, size in sizes.items() if size < room]
    remedy = (
        f"quantize={fitting[0]}, or device_map=auto" if fitting else "device_map=auto leaves layers on disk"
    )
    found = ", ".join(f"{kind} {_size(size)}" for kind, size in sizes.items())
    mend = f"the largest device here has {_size(room)}: {remedy}"
    return Finding.of("memory", "bfloat16" in fitting, found, mend, "note")


def _part(name: str, folder: Path | None, look: Callable[[Path], Finding], file: str) -> Finding:
    if folder is None:
        mend = "put its folder into this one or beside it; text alone needs none of it"
        return Finding(name, "note", f"no {file} here, inside or beside", mend)
    try:
        return look(folder)
    except EmuAgentError as error:
        return Finding(name, "fail", str(error), AGAIN)


def _image_tokenizer(folder: Path) -> Finding:
    tokenizer, codes = ImageTokenizer.from_pretrained(folder), len(Vocabulary.official().visual)
    numbers = sum(parameter.numel() for parameter in tokenizer.parameters())
    found = (
        f"{folder.name}: {_count(numbers)} parameters, {tokenizer.num_codes} codes, one per "
        f"{tokenizer.downsampling}x{tokenizer.downsampling} pixels; {_size(4 * numbers)} as float32"
    )
    mend = f"the published vocabulary has {codes} codes"
    return Finding.of("image tokenizer", tokenizer.num_codes == codes, found, mend, "note")


def _text_tokenizer(folder: Path) -> Finding:
    tokenizer = EmuTokenizer.from_folder(folder)
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in HASHES}
    foreign = [name for name, digest in digests.items() if digest != HASHES[name]]
    found = f"{folder.name}: {tokenizer.num_text} text ids, {tokenizer.size} in all"
    mend = f"{' and '.join(foreign)} differ from the published files; {AGAIN}"
    return Finding.of("text tokenizer", not foreign, found, mend, "note")


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"


def _count(numbers: int) -> str:
    return f"{numbers / 1e9:.1f} B" if numbers >= 1e9 else f"{numbers / 1e6:.1f} M"
