"""`mclip embed`: pictures or texts as rows of a matrix, for a search index.

The rows are L2-normalised: a search engine for inner products answers with cosines.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crosslingual.data.pictures import decode_pixels, picture_files
from crosslingual.data.records import PICTURES, describe_faults
from crosslingual.data.shards import iter_shards
from crosslingual.data.tars import FOREIGN, expand_shards
from crosslingual.data.text import iter_lines
from crosslingual.files import read_fields
from crosslingual.folders import check_results, write_results
from crosslingual.frozen.weights import weights_hash
from mclip.pipeline import Embedder, load_embedder
from mclip.settings import EmbedSettings

KNOWN_BY = ("model", "num_rows", "names")
FIELDS = {"kind": str, "source": str | None, "model": str, "model_weights": str | None}
FIELDS |= {"num_rows": int, "width": int, "names": list[str], "sha256": str | None}


@dataclass(frozen=True)
class Index:
    """Embeddings, and the pictures or texts that they belong to.

    Attributes:
        rows: (N, D) float32.
        names: N pictures' paths below `source` or keys in it, or N texts.
        source: the folder or shards of pictures; None for texts.
        kind: images, shards or texts.
    """

    rows: np.ndarray
    names: list[str]
    source: str | None
    kind: str


def list_pictures(folder: str) -> list[str]:
    """The pictures below a folder by their paths in it, sorted.

    Raises:
        FileNotFoundError: there is none.
        ValueError: one is of a format that is not read.
    """
    names = sorted(str(path.relative_to(folder)) for path in picture_files(Path(folder)))
    if not names:
        raise FileNotFoundError(f"no picture ({', '.join(PICTURES)}) in {folder}")
    return names


def read_pictures(
    kind: str,
    source: str,
    resolution: int,
    faults: dict[str, str],
    wanted: set[str] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pixels (resolution, resolution, 3) of the pictures of a folder or of shards.

    Args:
        kind: images or shards.
        source: the folder, or the shards.
        resolution: of the pixels.
        faults: gets what cannot be read, reason by name.
        wanted: the names to read, as far as they are there; all if None.

    Raises:
        FileNotFoundError: there is no picture and no shard.
    """
    for name, data in _read_bytes(kind, source, faults, wanted):
        try:
            yield name, decode_pixels(data, resolution)
        except ValueError as error:
            faults[name] = str(error)


def _read_bytes(
    kind: str, source: str, faults: dict[str, str], wanted: set[str] | None
) -> Iterator[tuple[str, bytes]]:
    if kind == "images":
        paths = map(Path(source).joinpath, list_pictures(source) if wanted is None else wanted)
        there = (path for path in paths if path.is_file())
        yield from ((str(path.relative_to(source)), path.read_bytes()) for path in there)
        return
    num_left = -1 if wanted is None else len(wanted)
    records = iter_shards(expand_shards(source), faults=faults)
    while num_left and (record := next(records, None)):
        if wanted is None or record.key in wanted:
            num_left -= 1
            if isinstance(record.image, bytes):
                yield record.key, record.image
            else:
                faults[record.key] = "no picture"


def read_texts(path: str) -> list[str]:
    """One text per line; only "\\n" ends a line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds an empty line, or nothing.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    texts = [line.strip() for line in iter_lines(Path(path))] or [""]
    if not all(texts):
        raise ValueError(f"{path}: line {texts.index('') + 1} is empty; a row is a line: drop it")
    return texts


def embed_source(embedder: Embedder, kind: str, source: str) -> Index:
    """Embeds all of a source: a folder of images, shards, or a file of texts. Pictures that cannot
    be read are left out, and counted and named in a printed line.

    Raises:
        ValueError: no picture can be read.
    """
    if kind == "texts":
        texts = read_texts(source)
        return Index(embedder.embed_text(texts).numpy(), texts, None, kind)
    names: list[str] = []
    faults: dict[str, str] = {}

    def pixels() -> Iterator[np.ndarray]:
        for name, picture in read_pictures(kind, source, embedder.resolution, faults):
            names.append(name)
            yield picture

    rows = embedder.embed_pixels(pixels())
    if not names:
        raise ValueError(f"{source} holds no picture that can be read ({describe_faults(faults)})")
    if lost := {name: reason for name, reason in faults.items() if reason != FOREIGN}:
        print(f"{source}: {len(lost)} samples are left out: {describe_faults(lost)}")
    return Index(rows.numpy(), names, source, kind)


def write_index(prefix: str, index: Index, model: str, weights: str | None) -> None:
    """Writes PREFIX.npy and PREFIX.json, which names the model and hashes the rows, in place of an
    earlier index.
    """

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, index.rows)

    facts = {"kind": index.kind, "source": index.source, "model": model, "model_weights": weights}
    facts |= {"num_rows": len(index.rows), "width": index.rows.shape[1], "names": index.names}
    facts["sha256"] = hashlib.sha256(np.ascontiguousarray(index.rows)).hexdigest()
    folder, listing, rows = _files_of(prefix)
    write_results(folder, listing, facts, {rows: save}, KNOWN_BY)


def _files_of(prefix: str) -> tuple[Path, str, str]:
    """The folder of an index, and the names of its two files."""
    path = Path(f"{prefix}.json")
    return path.parent, path.name, f"{path.name.removesuffix('json')}npy"


def load_index(prefix: str, model: str) -> Index:
    """Reads an index of `write_index`, the rows memory-mapped.

    Raises:
        FileNotFoundError: no such index.
        ValueError: another model made the index, or its two files do not fit.
    """
    path, matrix = Path(f"{prefix}.json"), Path(f"{prefix}.npy")
    if not (path.is_file() and matrix.is_file()):
        raise FileNotFoundError(f"no index {prefix}.npy with {prefix}.json; run `mclip embed`")
    facts = read_fields(path, FIELDS, "embed again")
    weights = weights_hash(model)
    is_same = facts["model_weights"] == weights if weights else facts["model"] == model
    if not is_same:
        raise ValueError(f"{prefix} was made by another model ({facts['model']}): embed again")
    try:
        rows = np.load(matrix, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{matrix} is broken ({error}): embed again") from error
    if rows.shape != (facts["num_rows"], facts["width"]) or len(facts["names"]) != len(rows):
        raise ValueError(f"{matrix} holds {rows.shape}, which {path} does not say: embed again")
    if facts.get("sha256") not in (None, hashlib.sha256(rows).hexdigest()):
        raise ValueError(f"{matrix} is not what {path} describes: embed again")
    return Index(rows, facts["names"], facts["source"], facts["kind"])


def embed(settings: EmbedSettings) -> Path:
    """`mclip embed`: writes PREFIX.npy and PREFIX.json and returns the path of the first."""
    kinds = ("images", "shards", "texts")
    given = [kind for kind in kinds if getattr(settings, kind)]
    if len(given) != 1:
        raise ValueError("give one of --images FOLDER, --shards SHARDS and --texts FILE")
    folder, listing, rows = _files_of(settings.output)
    check_results(folder, listing, [rows], KNOWN_BY)
    embedder = load_embedder(settings.model, batch_size=settings.batch_size)
    index = embed_source(embedder, given[0], getattr(settings, given[0]))
    write_index(settings.output, index, settings.model, embedder.weights)
    print(f"{settings.output}.npy: {len(index.rows)} rows of width {embedder.width}")
    return Path(f"{settings.output}.npy")
