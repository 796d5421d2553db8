"""A report from made-up result lines: its numbers, its protocols, its escapes, its look."""

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.report.verb import ReportSettings, report

pytestmark = pytest.mark.filterwarnings("error:constrained_layout")  # a plot without room

CHROMIUM = shutil.which("chromium")
HOSTILE = "<script>alert('x')</script>|*_$&"
PROMPTS = {"en": "a large red star", "de": "ein großer roter Stern", "ar": "نجمة حمراء كبيرة"}
ARMS = {"pea": 0.612, HOSTILE: 0.4, "as_is": 0.123, "english_upper_bound": 0.807}


def generation_lines(steps=20):
    for place, (model, accuracy) in enumerate(ARMS.items()):
        for language in PROMPTS:
            if (model, language) == (HOSTILE, "ar"):
                continue
            metrics = {"text_accuracy": accuracy, "culture_score": 0.25, "fid": 40.25 + place}
            metrics |= {"clip_score": 25.5 + place, "kid": 0.01234}
            yield {
                "task": "text_to_image",
                "dataset": "testbed",
                "model": model,
                "pretrained": f"runs/{model}",
                "language": language,
                "metrics": metrics,
                "interval95": {"text_accuracy": [accuracy - 0.031, accuracy + 0.033]},
                "protocol": {"steps": steps},
                "trained_languages": ["en", "de"],
                "samples": [{"prompt": PROMPTS[language], "is_right": language == "de"}],
                "command": f"crosslingual-bench generation --arm '{model}'",
                "seed": 7,
                "versions": {"torch": "2.13.0"},
            }


def other_lines():
    recalls = {
        f"{way}_retrieval_recall@{k}": k / 20 for way in ("image", "text") for k in (1, 5, 10)
    }
    yield {
        "task": "zeroshot_retrieval",
        "dataset": "multi30k",
        "model": "mclip",
        "language": "de",
        "metrics": recalls,
        "mean_recall": 0.26667,
        "interval95": {"mean_recall": [0.251, 0.281]},
        "protocol": {"captions": "first"},
        "n_images": 1000,
        "n_texts": 1000,
        "n_ties": 3,
        "dataset_sha256": "ab" * 32,
        "command": ["crosslingual-bench", "retrieval", "--root", "my data"],
    }
    for model, seconds, trainable in (("pea", 1800.0, 118_000), (HOSTILE, 900.0, 5_000_000)):
        yield {
            "task": "training",
            "dataset": "testbed",
            "model": model,
            "metrics": {
                "train_s": seconds,
                "num_processes": 2,
                "trainable_parameters": trainable,
                "total_parameters": 10_000_000,
                "peak_gb": 1.25,
            },
            "protocol": {"budget": "equal"},
        }
    for model, milliseconds in (("mclip", 3.9), ("translate_test", 61.2)):
        yield {
            "task": "latency",
            "dataset": "testbed",
            "model": model,
            "metrics": {"text_to_image_ms": milliseconds, "image_to_text_ms": 3.1},
            "quartiles": {"text_to_image_ms": [milliseconds - 0.5, milliseconds + 0.5]},
            "protocol": {"gallery": 500},
        }


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def make_report(folder, **settings):
    results = folder / "results"
    write_lines(results / "all.json", [*generation_lines(), *other_lines()])
    (results / "pea-testbed").mkdir()
    Image.new("L", (64, 64), 90).save(results / "pea-testbed" / "grid.png")
    Image.new("RGB", (32, 32), (200, 30, 30)).save(results / "motifs.png")
    report(ReportSettings([str(results)], str(folder / "report"), **settings))
    return folder / "report"


def report_of(folder, lines, **settings):
    """A report of some lines, without the published tables."""
    write_lines(folder / "a.json", lines)
    settings = {"published": False, **settings}
    report(ReportSettings([str(folder / "a.json")], str(folder / "out"), **settings))
    return folder / "out"


class Page(HTMLParser):
    """Tags with their attributes, and cells by table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.cell, self.table = [], {}, None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.table = self.tables.setdefault(dict(attrs)["id"].removeprefix("table-"), [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.table[-1].append(self.cell.strip())
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"), price_per_hour=3.0)


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_numbers_of_the_page_equal_the_lines(page):
    table = page.tables["text_to_image_text_accuracy"]
    means = ["mean foreign", "mean trained (1)", "mean zero-shot (1)"]
    assert table[0] == ["arm", *means, "en", "ar", "de"]
    whole, part = "61.2[58.1, 64.5]", "40.0[36.9, 43.3]"
    mean = "61.2 (2)[58.1, 64.5]"
    assert table[1] == ["PEA", mean, whole, whole, whole, whole, whole]
    row = next(row for row in table if row[0] == HOSTILE)
    assert row == [HOSTILE, "40.0 (1)[36.9, 43.3]", part, "-", part, "-", part]
    rows = {(row[0].split()[0], row[1]): row[2:] for row in page.tables["text_to_image"][1:]}
    assert rows["de", "as-is"] == ["12.3[9.2, 15.6]", "25.0", "27.50", "42.25", "12.34"]
    head, row = page.tables["zeroshot_retrieval"]
    ways = [f"{way} R@{k}" for way in ("text→image", "image→text") for k in (1, 5, 10)]
    assert head[2:] == [*ways, "mean recall", "ties"]
    assert row[2:] == [*["5.0", "25.0", "50.0"] * 2, "26.7[25.1, 28.1]", "3"]
    assert page.tables["latency"][2] == ["translate-test", "3.1", "61.2[60.7, 61.7]"]
    assert page.tables["training"][1][1:4] == ["118,000", "10,000,000", "1.18"]


def test_cost_is_hours_times_processes_times_price(page):
    head, pea, *_ = [row for row in page.tables["trade_off_text_to_image_text_accuracy"]]
    told = dict(zip(head, pea, strict=True))
    assert (told["arm"], told["device-hours"], told["cost, USD"]) == ("PEA", "1.000", "3.00")
    assert told["USD per point"] == "0.0490"  # 3 / 61.2
    assert told["points over as-is"] == "+48.9"
    assert told["USD per point gained"] == "0.0613"  # 3 / 48.9


def test_without_a_price_costs_are_device_hours_and_published_tables_can_be_left_out(tmp_path):
    lines = [line for line in generation_lines() if line["language"] == "de"]
    lines += list(other_lines())[1:3]
    text = (report_of(tmp_path, lines) / "report.md").read_text(encoding="utf-8")
    assert "device-hours per point" in text and "USD" not in text
    assert "not measured here" not in text


def test_markdown_and_latex_hold_the_same_numbers(folder):
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    latex = (folder / "tables" / "text_to_image_text_accuracy.tex").read_text(encoding="utf-8")
    whole = "61.2 [58.1, 64.5] *"
    assert (
        f"| de | PEA | {whole} |".replace("[", r"\[").replace("]", r"\]").replace(" *", r" \*")
        in markdown
    )
    assert f"& {whole} & {whole} \\\\" in latex
    assert [latex.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert r"\hline" not in latex and r"\$\&" in latex


def test_every_table_has_a_latex_file_and_every_picture_of_the_markdown_lies_there(folder, page):
    assert {path.stem for path in (folder / "tables").glob("*.tex")} == set(page.tables)
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((plots/[^)]+)\)", markdown)
    assert len(pictures) == 6 and all((folder / name).is_file() for name in pictures)


def test_names_from_results_run_no_script(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;alert(&#39;x&#39;)" in text
    assert "<script" not in (folder / "report.md").read_text(encoding="utf-8").replace(r"\<", "")


def test_nothing_is_loaded_from_outside_the_page(page, folder):
    loading = ("link", "script", "img", "iframe", "source", "object")
    assert all(tag not in loading or tag == "img" for tag, _ in page.tags)
    for tag, attributes in page.tags:
        address = attributes.get("src") or attributes.get("href") or "#"
        assert address.startswith(("data:image/png;base64,", "#")), (tag, address[:80])
    style = (folder / "report.html").read_text(encoding="utf-8").split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_the_page_can_be_read_without_sight(page):
    assert ("html", {"lang": "en"}) in page.tags
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert heads and all(attributes.get("scope") in ("col", "row") for attributes in heads)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 6 and all(attributes["alt"] for attributes in pictures)
    assert all("[" not in attributes["alt"] for attributes in pictures)
    spoken = {(a["lang"], a["dir"]) for tag, a in page.tags if tag == "span" and "lang" in a}
    assert spoken == {("ar", "rtl"), ("de", "ltr"), ("en", "ltr")}


def test_results_of_two_protocols_stand_in_two_tables_and_a_note_says_why(tmp_path):
    lines = [line for n in (20, 50) for line in generation_lines(n) if line["model"] == "pea"]
    text = (report_of(tmp_path, lines) / "report.html").read_text(encoding="utf-8")
    tables = Page(text).tables
    assert [len(tables[f"text_to_image_{number}"]) for number in (1, 2)] == [4, 4]
    assert "text_to_image" not in tables
    assert "stand in 2 groups of tables, since they differ in protocol (steps)" in text


def test_the_best_is_marked_and_only_where_intervals_part(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    table = text.split('<table id="table-text_to_image_text_accuracy">')[1].split("</table>")[0]
    marked = re.findall(r'class="best"[^>]*>([^<]+)<', table)
    assert set(marked) == {"61.2", "61.2 (2)"} and len(marked) == 6  # not 80.7, the bound
    assert '<tr class="bound">' in table
    fid = text.split('<table id="table-text_to_image_fid">')[1].split("</table>")[0]
    assert "best" not in fid  # its lines have no intervals


def test_published_tables_stand_apart_with_sources_and_doubts(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    sections = re.findall(r"<section.*?</section>", text, re.S)
    published = [section for section in sections if 'class="published"' in section]
    assert len(published) == 4
    for section in published:
        assert "Published, not measured here" in section
        assert "What cannot be compared" in section and "Sources" in section
    inside = {name for section in published for name in re.findall(r'id="table-(\w+)"', section)}
    assert inside == {f"published_{number}" for number in range(1, 7)}
    row = next(row for row in page.tables["published_2"] if row[0] == "mCLIP+")
    assert row == ["mCLIP+", "77.1", "76.6", "76.1", "74.5", "76.1", "paper table", "[6]", "mCLIP"]


def test_commands_seeds_versions_and_hashes_are_told_once_for_lines_alike(page, folder):
    rows = page.tables["repeating"][1:]
    (pea,) = [row for row in rows if row[:3] == ["text_to_image", "testbed", "PEA"]]
    command = "crosslingual-bench generation --arm 'pea'"
    assert pea[3:9] == [command, "runs/pea", "en ar de", "7", "-", "torch 2.13.0"]
    (mclip,) = [row for row in rows if row[0] == "zeroshot_retrieval"]
    assert mclip[3] == "crosslingual-bench retrieval --root 'my data'"
    assert mclip[-1] == "ab" * 32
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "4 of 16 result lines do not say which command made them" in text
    assert f"--output_dir {folder} --price_per_hour 3.0" in text
    settings = (folder / "report.yaml").read_text(encoding="utf-8")
    assert "price_per_hour: 3.0" in settings


def test_plots_are_pictures_and_not_blank(folder):
    names = {path.stem for path in (folder / "plots").glob("*.png")}
    plots = {"text_to_image_text_accuracy", "text_to_image_culture_score"}
    plots |= {"trade_off_text_to_image_text_accuracy", "zeroshot_retrieval_mean"}
    assert names == plots | {"samples_1", "samples_2"}
    for name in plots:
        with Image.open(folder / "plots" / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_equal_results_give_equal_bytes(folder, tmp_path):
    again = make_report(tmp_path, price_per_hour=3.0)
    for path in (folder / "plots").glob("*.png"):
        assert path.read_bytes() == (again / "plots" / path.name).read_bytes()
    one, other = ((place / "report.html").read_text() for place in (folder, again))
    assert one.replace(str(folder.parent), "") == other.replace(str(again.parent), "")


def test_training_that_took_no_time_has_a_row_and_no_point_on_the_logarithmic_axis(tmp_path):
    lines = [line for line in generation_lines() if line["language"] == "de"][:1]
    training = list(other_lines())[1]
    training["metrics"]["train_s"] = 0.0
    out = report_of(tmp_path, [*lines, training])
    assert (out / "tables" / "trade_off_text_to_image_text_accuracy.tex").is_file()
    assert not list((out / "plots").glob("trade_off*"))


def test_warnings_of_lines_are_told(tmp_path):
    lines = [line | {"warnings": ["FID from 3 pictures"]} for line in generation_lines()]
    text = (report_of(tmp_path, lines[:2]) / "report.html").read_text(encoding="utf-8")
    assert text.count("testbed, PEA: FID from 3 pictures") == 1


def test_large_sheets_are_embedded_in_fewer_colours(tmp_path):
    sheet = Image.merge("RGB", [Image.effect_noise((400, 400), 90) for _ in range(3)])
    sheet.save(tmp_path / "sheet.png")
    lines = list(generation_lines())[:1]
    out = report_of(tmp_path, lines, grids=[str(tmp_path / "sheet.png")])
    embedded = out / "plots" / "samples_1.png"
    assert embedded.stat().st_size < (tmp_path / "sheet.png").stat().st_size / 2
    with Image.open(io.BytesIO(embedded.read_bytes())) as picture:
        assert picture.size == (400, 400) and picture.mode == "P"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--results {folder}/none --output_dir out", "no result files at"),
        ("--results {folder}/empty.json --output_dir out", "no result line in"),
        ("--results --output_dir out", "results is empty"),
        ("--results {folder}/a.json --output_dir out --price_per_hour 0", "give a price above 0"),
        ("--results {folder}/a.json --output_dir out --grids {folder}/no.png", "no picture"),
        ("--results {folder}/a.json --output_dir out --grids {folder}/a.json", "is no PNG"),
        ("--results {folder}/broken.json --output_dir out", "broken.json line 1 is broken JSON"),
    ],
)
def test_errors_of_a_user_are_one_line_with_the_remedy(words, message, tmp_path, capsys):
    write_lines(tmp_path / "a.json", list(generation_lines())[:1])
    (tmp_path / "empty.json").write_text("\n")
    (tmp_path / "broken.json").write_text("{\n")
    assert main(["report", *words.format(folder=tmp_path).split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


HIDDEN = "a\u202eb\x1b[2Kc\u200bd"
SHOWN = r"a\u202eb\x1b[2Kc\u200bd"


def test_control_and_bidirectional_characters_are_shown_and_not_obeyed(tmp_path, capsys):
    lines = [line for line in generation_lines() if line["model"] in ("pea", "as_is")]
    for line in lines:
        line |= {"model": line["model"] + HIDDEN, "dataset": HIDDEN, "command": HIDDEN}
        line |= {"warnings": [HIDDEN], "samples": [{"prompt": HIDDEN}], "pretrained": HIDDEN}
        line["protocol"] = {HIDDEN: HIDDEN}
    training = list(other_lines())[1] | {"model": lines[0]["model"]}
    out = report_of(tmp_path, [*lines, training], title=HIDDEN, currency=HIDDEN, price_per_hour=1.0)
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in [*out.glob("report.*"), *out.glob("*/*.tex")]
    }
    pages = {path: text for path, text in texts.items() if path.suffix != ".yaml"}
    assert len(pages) > 4
    for path, text in pages.items():
        assert not set(text) & {"\u202e", "\x1b", "\u200b"}, path
    assert SHOWN in pages[out / "report.html"]
    words = ["--results", str(tmp_path / "a.json"), "--price_per_hour", "1"]
    assert main(["cost", *words]) == 0
    told = capsys.readouterr().out
    assert SHOWN in told and not set(told) & {"\u202e", "\x1b", "\u200b"}


@pytest.mark.parametrize("how", ["absolute", "parent", "link", "found"])
def test_a_result_line_embeds_no_picture_from_outside_of_its_folder(how, tmp_path, capsys):
    secret, results = tmp_path / "secret.png", tmp_path / "results"
    Image.new("L", (8, 8)).save(secret)
    names = {"absolute": str(secret), "parent": "../secret.png", "link": "a.png", "found": None}
    line = next(generation_lines()) | ({"grids": [names[how]]} if names[how] else {})
    write_lines(results / "a.json", [line])
    if how in ("link", "found"):
        (results / {"link": "a.png", "found": "grid.png"}[how]).symlink_to(secret)
    words = ["report", "--results", str(results), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "outside of" in error and "--grids" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    if how == "absolute":
        write_lines(results / "a.json", [line | {"grids": []}])
        assert main([*words, "--grids", str(secret)]) == 0


def test_a_line_may_name_a_picture_of_its_folder(tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "more" / "x.png")
    out = report_of(tmp_path, [next(generation_lines()) | {"grids": ["more/x.png"]}])
    assert (out / "plots" / "samples_1.png").is_file()


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path, capsys):
    lines = list(generation_lines())[:2]
    out = report_of(tmp_path, lines)
    assert (out / "tables" / "text_to_image_fid.tex").is_file()
    for line in lines:
        del line["metrics"]["fid"]
    (out / "crosslingual.json").unlink()  # as an earlier version left it
    report_of(tmp_path, lines)
    assert not (out / "tables" / "text_to_image_fid.tex").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds notes.txt, which this program did not write"):
        report_of(tmp_path, lines)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "broken",
    [
        {"metrics": []},
        {"samples": {"prompt": 1}},
        {"interval95": {"text_accuracy": [0.9, 0.1]}},
        {"warnings": [3]},
        {"grids": "x.png"},
        {"versions": []},
        {"language": 3},
        {"protocol": None},
        {"trained_languages": "de"},
        {"quartiles": {"a": [None, None]}},
        {"metrics": {"samples": 1.0}, "samples": None},
    ],
)
@pytest.mark.parametrize("verb", ["report", "cost", "recommend"])
def test_a_line_of_wrong_types_is_one_line_of_error_with_its_place(broken, verb, tmp_path, capsys):
    lines = [next(generation_lines()), *list(other_lines())[1:2]]
    write_lines(tmp_path / "a.json", [lines[1], lines[0] | broken])
    words = {"report": ["--output_dir", str(tmp_path / "out")], "recommend": ["--culture"]}
    words["cost"] = ["--price_per_hour", "1"]
    assert main([verb, "--results", str(tmp_path / "a.json"), *words[verb]]) == 2
    error = capsys.readouterr().err
    assert "a.json line 2" in error and error.count("\n") == 1


def test_a_metric_named_as_another_key_of_lines_is_shown(tmp_path):
    first, second = list(generation_lines())[:2]
    first["metrics"]["samples"] = first["metrics"]["protocol"] = 1.0
    text = (report_of(tmp_path, [first, second]) / "report.md").read_text(encoding="utf-8")
    assert "| samples |" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_shows_the_page(folder, tmp_path, width):
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update --disable-sync"
    flags += f" --hide-scrollbars --window-size={width},1600 --user-data-dir={tmp_path}/profile"
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            CHROMIUM,
            *flags.split(),
            f"--screenshot={picture}",
            "--dump-dom",
            (folder / "report.html").as_uri(),
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    dom = Page(done.stdout.decode())
    assert dom.tables == Page((folder / "report.html").read_text(encoding="utf-8")).tables
    with Image.open(picture) as shot:
        assert shot.size == (width, 1600)
        assert len(shot.convert("RGB").getcolors(1 << 22)) > 100
        # wide tables scroll inside their boxes: nothing reaches the page's right edge
        assert len(shot.convert("RGB").crop((width - 8, 0, width, 1600)).getcolors()) == 1
