"""The survey's tables as data: what they say, what they leave open, and the rules they keep."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from crosslingual_benchmarks.published.checks import arithmetic_checks
from crosslingual_benchmarks.published.entries import STRENGTHS, Row
from crosslingual_benchmarks.published.tables import PUBLISHED, load_published

SEED = Path(__file__).parents[3] / "shared" / "reference" / "seed-paper.md"


def all_cells():
    for table in load_published().tables.values():
        for row in table.rows:
            for name, cell in row.cells.items():
                yield table, row, name, cell


def test_the_six_tables_of_the_paper_are_all_there():
    assert [table for table in load_published().tables if table.isdigit()] == list("123456")
    assert [len(load_published().tables[table].rows) for table in "123456"] == [3, 6, 4, 3, 5, 3]


def test_a_row_is_what_the_paper_prints():
    (row,) = [row for row in load_published().tables["2"].rows if row.method == "mCLIP+"]
    assert [cell.text for cell in row.cells.values()] == ["77.1", "76.6", "76.1", "74.5", "76.1"]
    assert row.arm == "mclip" and row.strength == "paper table"
    assert load_published().references[row.references[0]].venue == "ACL 2023"


@pytest.mark.skipif(not SEED.is_file(), reason="the survey's paper is not beside this checkout")
@pytest.mark.parametrize("table", range(1, 7))
def test_each_row_is_a_line_of_the_seeds_paper(table):
    lines = SEED.read_text(encoding="utf-8").replace("\\$", "$").split("\n")
    for row in load_published().tables[str(table)].rows:
        assert "\t".join([row.method, *(cell.text for cell in row.cells.values())]) in lines


@pytest.mark.parametrize(
    ("table", "method", "column", "low", "high"),
    [
        ("5", "MuLan", "cost_usd", None, 1000),
        ("5", "MURAL", "cost_usd", 100_000, None),
        ("5", "MURAL", "cost_per_point", 1468, None),
        ("5", "MuLan", "zero_shot_average", 65, 65),
        ("2", "CLIP (EN)", "en", 90, None),
        ("2", "CLIP (EN)", "de", None, None),
        ("3", "UC2", "ja", None, None),
        ("6", "AltDiffusion", "text_to_image_ms", 25, 25),
        ("efficiency", "IAP", "cost_usd", 2000, 5000),
    ],
)
def test_bounds_and_approximations_are_no_points(table, method, column, low, high):
    cell = load_published().cell(table, method, column)
    assert (cell.low, cell.high) == (low, high)
    with pytest.raises(ValueError, match=f"'{re.escape(cell.text)}' is not one number"):
        cell.point()


def test_a_point_is_its_number():
    assert load_published().cell("6", "CLIP + Translate", "text_to_image_ms").point() == 438.7


def test_every_bound_is_a_number_of_its_text():
    units = {"k": 1e3, "M": 1e6, "B": 1e9, "GB": 1e3}
    for table, row, name, cell in all_cells():
        if cell.text == "billions" or name == "training_time_h" or name == "size_mb":
            continue
        found = re.findall(r"(\d[\d,]*(?:\.\d+)?)(k|M|B)?", cell.text)
        told = {float(n.replace(",", "")) * units.get(unit, 1) for n, unit in found}
        bounds = {bound for bound in (cell.low, cell.high) if bound is not None}
        assert bounds <= told, (table.name, row.method, name, cell.text)


def test_every_cell_has_a_strength_and_every_table_its_doubts():
    assert all(cell.strength in STRENGTHS for *_, cell in all_cells())
    assert all(table.what_cannot_be_compared for table in load_published().tables.values())


def test_numbers_without_a_source_are_marked_and_not_taken_for_the_papers():
    cell = load_published().cell
    assert cell("4", "AltDiffusion m18", "culture_score").strength == "unsupported"
    assert "never released" in cell("4", "AltDiffusion m18", "culture_score").note
    assert cell("2", "IAP", "average").strength == "unsupported"
    assert cell("1", "PixArt-α", "cost_usd").strength == "abstract"


def test_what_is_counted_from_code_stands_beside_what_the_seed_says():
    cell = load_published().cell
    assert cell("efficiency", "mCLIP (TriKD)", "trainable_parameters").text == "13M"
    assert cell("counted", "mCLIP projectors", "trainable_parameters").point() == 14_568_960
    assert cell("counted", "PEA for SDXL", "trainable_parameters").point() == 6_033_408


def test_published_numbers_cannot_be_changed():
    row = load_published().tables["5"].rows[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.method = "ours"
    with pytest.raises(TypeError):
        row.cells["cost_usd"] = row.cells["trainable_share"]


def test_references_past_the_seeds_list_say_how_they_were_resolved():
    for key, reference in load_published().references.items():
        if key.isdigit():
            is_listed = reference.resolved_by == "the survey's list of references"
            assert is_listed == (int(key) <= 16), key
            assert reference.arxiv or reference.url, key


def test_bounds_are_numbers_in_order_and_fit_their_text():
    for table, row, name, cell in all_cells():
        where = (table.name, row.method, name)
        bounds = [bound for bound in cell.span if bound is not None]
        assert all(type(bound) in (int, float) and math.isfinite(bound) for bound in bounds), where
        assert bounds == sorted(bounds) and cell.text, where
        assert not cell.text.startswith("<") or cell.low is None, where
        assert not cell.text.startswith(">") or cell.high is None, where


def test_entries_have_known_keys_and_names_of_their_own():
    tables = json.loads(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    assert len({table["name"] for table in tables}) == len(tables)
    for table in tables:
        assert table["title"] and table["origin"] and table["rows"]
        columns = {column["name"] for column in table["columns"]}
        methods = [row["method"] for row in table["rows"]]
        assert len(set(methods)) == len(methods) and all(methods)
        for row in table["rows"]:
            assert row.keys() <= Row.__dataclass_fields__.keys() and row["strength"] in STRENGTHS
            assert row["cells"].keys() <= columns, row["method"]
            assert load_published().references.keys() >= set(row["references"]), row["method"]


def test_a_cell_that_the_file_leaves_out_is_a_dash():
    absent = [cell for *_, cell in all_cells() if cell.text == "-"]
    assert absent and all(cell.span == (None, None) for cell in absent)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("7", "A", "x"), "no published table named '7'"),
        (("5", "Mulan", "cost_usd"), "did you mean 'MuLan'"),
        (("5", "MuLan", "cost"), "did you mean 'cost_usd'"),
    ],
)
def test_a_cell_that_is_not_there_is_an_error(asked, message):
    with pytest.raises(ValueError, match=message):
        load_published().cell(*asked)


def test_the_file_is_the_one_that_the_wheel_ships():
    assert PUBLISHED.parents[1].name == "crosslingual_benchmarks" and PUBLISHED.is_file()


def test_table_5s_arithmetic_comes_out_to_its_last_digit():
    checks = [check for check in arithmetic_checks() if check.table == "5"]
    divisions = [check for check in checks if check.what.startswith("cost / points")]
    assert [(check.row, check.comes_out) for check in divisions] == [
        ("mCLIP+", True),
        ("MuLan", True),
        ("IAP", True),
        ("AltDiff", True),
        ("MURAL", True),
    ]
    assert "28.53" in divisions[0].recomputed and divisions[1].recomputed == "<15.38"
    assert divisions[4].recomputed == ">1,468.43"


def test_what_does_not_come_out_is_marked():
    found = {
        (check.table, check.row): check for check in arithmetic_checks() if not check.comes_out
    }
    assert "75.2" in found["5", "MURAL"].recomputed
    assert {row for table, row in found if table == "efficiency"} == {
        "mCLIP (TriKD)",
        "MuLan Adapter",
        "PEA-Diffusion",
        "IAP",
        "AltDiffusion",
    }
    assert found["efficiency", "mCLIP (TriKD)"].recomputed == "585.94 by hours, 160-320 by cost"


def test_the_averages_of_tables_2_and_3_come_out():
    checks = [check for check in arithmetic_checks() if check.table in ("2", "3")]
    assert len(checks) == 8 and all(check.comes_out for check in checks)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"columns": [', '"columns": 3, "x": [', "tables.0.columns is 3, not a list"),
        ('"text": "', '"text": 3, "x": "', "is 3, not a text"),
        ('"venue": "', '"place": "', "unexpected keyword argument 'place'"),
        ('"references": {', "{", "broken JSON"),
        ('"tables": [', '"tabels": [', "lacks tables"),
    ],
)
def test_a_changed_file_of_wrong_types_is_an_error_with_its_name(old, new, message, tmp_path):
    path = tmp_path / "published.json"
    path.write_text(PUBLISHED.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"published\.json.*{message}"):
        load_published(path)
