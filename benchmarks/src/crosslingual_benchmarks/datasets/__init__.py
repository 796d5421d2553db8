"""Retrieval benchmarks in their published layouts, a file for each; a new one is a line here.

A reader takes the root of the user's copy and returns a `RetrievalSet`. Its keyword arguments are
settings of `crosslingual-bench retrieval`, which refuses the others. Without
`languages` a reader takes all that it finds, and without `image_dir` the pictures in `root/images`.
"""

from collections.abc import Callable

from crosslingual_benchmarks.datasets.clip_benchmark_wds import clip_benchmark_wds
from crosslingual_benchmarks.datasets.coco import coco
from crosslingual_benchmarks.datasets.multi30k import multi30k
from crosslingual_benchmarks.datasets.retrieval_set import Gallery, Picture, RetrievalSet
from crosslingual_benchmarks.datasets.shards import shards
from crosslingual_benchmarks.datasets.xflickrco import xflickrco
from crosslingual_benchmarks.datasets.xm3600 import xm3600
from crosslingual_benchmarks.datasets.xtd10 import xtd10

__all__ = ["DATASETS", "Gallery", "Picture", "RetrievalSet"]

DATASETS: dict[str, Callable[..., RetrievalSet]] = {
    "multi30k": multi30k,
    "coco": coco,
    "xflickrco": xflickrco,
    "xtd10": xtd10,
    "xm3600": xm3600,
    "clip_benchmark_wds": clip_benchmark_wds,
    "shards": shards,
}
