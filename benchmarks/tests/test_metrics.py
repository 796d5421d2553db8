"""A new metric is one file: results and tables hold it with no other change."""

from types import SimpleNamespace

import numpy as np
import pytest

from crosslingual_benchmarks import metrics
from crosslingual_benchmarks.generation.settings import GenerationSettings
from crosslingual_benchmarks.generation.verb import evaluate_generation
from crosslingual_benchmarks.metrics import find_metrics
from crosslingual_benchmarks.report.verb import ReportSettings, report

INK = '''
"""Ink: the share of a picture that is dark."""

import numpy as np

from crosslingual_benchmarks.metrics import Metric, Score


def ink(sample):
    dark = [np.asarray(drawn.open()).mean() < 128 for _, drawn in sample.general]
    return Score(float(np.mean(dark)), [0.0, 1.0], {"ink": "below half grey"})


METRICS = (Metric("ink", "ink, %", ink, scale=100, decimals=1, better="low", is_share=True),)
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Adds a file to the folder of the metrics, for the time of a test."""

    def add(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
        find_metrics.cache_clear()

    yield add
    find_metrics.cache_clear()


def test_a_file_in_the_folder_is_a_metric_in_results_tables_and_plots(added, tmp_path, capsys):
    added("ink_of_a_test", INK)
    settings = GenerationSettings(
        "black", "testbed", languages=["de"], num_prompts=2, num_motif_prompts=1,
        use_references=False, scheduler="base", output_dir=str(tmp_path / "out"),
    )  # fmt: skip

    def black(prompts, **options):
        return SimpleNamespace(images=np.zeros((len(prompts), 64, 64, 3), np.float32))

    black.to, black.components = lambda *places: black, {}
    (line,) = evaluate_generation(lambda: black, settings)
    assert line["metrics"]["ink"] == 1.0 and line["interval95"]["ink"] == [0.0, 1.0]
    assert line["protocol"]["ink"] == "below half grey"
    assert "ink, %" in capsys.readouterr().out
    report(ReportSettings([str(tmp_path / "out")], str(tmp_path / "page"), published=False))
    text = (tmp_path / "page" / "report.md").read_text()
    assert "Ink in % by language" in text and "| ink, %" in text
    assert (tmp_path / "page" / "plots" / "text_to_image_ink.png").is_file()
    assert (tmp_path / "page" / "tables" / "text_to_image_ink.tex").is_file()


def test_the_order_of_tables_is_the_metrics_own_and_no_name_comes_twice(added):
    names = [metric.name for metric in find_metrics()]
    shares = ["text_accuracy", "culture_score"]
    assert names == [*shares, "clip_score", "text_accuracy_at_5", "fid", "kid"]
    added("ink_again", INK.replace('"ink"', '"fid"'))
    with pytest.raises(ValueError, match="two metrics of one name among .*fid, fid"):
        find_metrics()
