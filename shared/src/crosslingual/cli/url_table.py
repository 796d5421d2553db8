"""The verb `url-table` of the command `crosslingual`: CC3M and CC12M as img2dataset takes them.

They are lists of addresses and hold no pictures. img2dataset downloads these into shards, which are
then read as they are.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crosslingual.data.text import iter_lines
from crosslingual.files import refuse_input, replacing

COLUMNS = {"cc3m": ("caption", "url"), "cc12m": ("url", "caption")}
"""What the columns of `Train_GCC-training.tsv` and `cc12m.tsv` are; neither file says so."""


@dataclass
class UrlTableSettings:
    """Settings of `crosslingual url-table`.

    Attributes:
        dataset: data set that the input lists; it decides the order of the columns.
        input: Train_GCC-training.tsv or cc12m.tsv, plain or .gz.
        output: table to write.
    """

    dataset: Literal["cc3m", "cc12m"]
    input: str
    output: str


def url_table(settings: UrlTableSettings) -> None:
    """Writes a tab-separated table with the header `url`, `caption`, whole or not at all; quotes
    are escaped, since img2dataset reads them as a CSV reader does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not of two columns, one of them an address; it is named.
    """
    dataset, source, target = settings.dataset, Path(settings.input), Path(settings.output)
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}; give --input the tsv of {dataset}")
    refuse_input(target, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    url_column = COLUMNS[dataset].index("url")
    count = 0
    with replacing(target) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("url", "caption"))
        for count, line in enumerate(iter_lines(source), 1):
            cells = line.split("\t")
            if len(cells) != 2 or not cells[url_column].startswith("http"):
                form = " TAB ".join(COLUMNS[dataset])
                raise ValueError(f"{source} line {count} is not {form!r}, as in {dataset}")
            writer.writerow((cells[url_column], cells[1 - url_column].strip()))
    print(f"wrote {target}: {count} addresses; download the pictures with\n")
    print(
        f"  img2dataset --url_list {target} --input_format tsv --url_col url "
        f"--caption_col caption --output_format webdataset --output_folder {dataset}\n"
    )
    print(f"and train on {dataset}, or see crosslingual inspect {dataset}")
