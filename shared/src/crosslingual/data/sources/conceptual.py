"""CC3M and CC12M: lists of addresses, made into the table that img2dataset takes.

They hold no pictures. img2dataset downloads them into shards, which are then read as they are.
"""

import csv
import os
from pathlib import Path
from typing import Literal

from crosslingual.data.text import iter_lines

COLUMNS = {"cc3m": ("caption", "url"), "cc12m": ("url", "caption")}
"""What the columns of `Train_GCC-training.tsv` and `cc12m.tsv` are; neither file says so."""


def write_url_table(dataset: Literal["cc3m", "cc12m"], input_path: str, output_path: str) -> int:
    """Writes a tab-separated table with the header `url`, `caption`, whole or not at all, from the
    data set's tsv file, plain or `.gz`; returns the number of pictures.

    Quotes are escaped, since img2dataset reads them as a CSV reader does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not of two columns, one of them an address; it is named.
    """
    source, target = Path(input_path), Path(output_path)
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}; give --input the tsv of {dataset}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    url_column = COLUMNS[dataset].index("url")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(("url", "caption"))
            for count, line in enumerate(iter_lines(source), 1):
                cells = line.split("\t")
                if len(cells) != 2 or not cells[url_column].startswith("http"):
                    form = " TAB ".join(COLUMNS[dataset])
                    raise ValueError(f"{source} line {count} is not {form!r}, as in {dataset}")
                writer.writerow((cells[url_column], cells[1 - url_column].strip()))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return count
