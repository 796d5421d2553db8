"""A suite's question: the table and the map that its arms' answers fill, over seeds."""

from crosslingual_benchmarks.report.sections.questions import question_sections

QUESTION = {"title": "Do they merge?", "text": "Two against one."}
ACCURACIES = {"joint": {"de": 0.8, "ja": 0.6}, "only_de": {"de": 0.9, "ja": 0.0}}
ACCURACIES["only_ja"] = {"de": 0.1, "ja": 0.7}
ANSWERS = {
    "joint": [{"row": "one for all", "column": "PEA", "languages": ["de", "ja"]}],
    "only_de": [{"row": "own", "column": "PEA", "languages": ["de"], "against": None}],
    "only_ja": [
        {"row": "own", "column": "PEA", "languages": ["ja"]},
        {"row": "own", "column": "lost", "languages": ["de", "ja"], "against": "joint"},
    ],
}


def lines(seed, worse=0.0, without=()):
    for model, accuracies in ACCURACIES.items():
        yield {
            "task": "training",
            "dataset": "merging",
            "model": model,
            "metrics": {"train_s": 1.0, "num_processes": 1},
            "protocol": {},
            "seed": seed,
            "question": QUESTION,
            "answers": ANSWERS[model],
        }
        for language, value in accuracies.items():
            if (model, language) not in without:
                yield {
                    "task": "text_to_image",
                    "dataset": "testbed",
                    "model": model,
                    "language": language,
                    "metrics": {"text_accuracy": max(value - worse, 0.0)},
                    "protocol": {"steps": 20},
                    "seed": seed,
                }


def table_of(told):
    (section,) = question_sections(told)
    (table,), (figure,) = section.tables, section.figures
    assert section.title == QUESTION["title"] and figure.png.startswith(b"\x89PNG")
    heads = table.heads[1:]
    return {row[0].text: dict(zip(heads, row[1:], strict=True)) for row in table.rows}


def test_a_cell_is_the_mean_of_its_arms_and_a_change_is_from_the_other_arm():
    rows = table_of(list(lines(0)))
    assert list(rows) == ["one for all", "own"]
    assert rows["one for all"]["PEA"].text == "70.0" and rows["one for all"]["lost"].text == "-"
    assert rows["own"]["PEA"].text == "80.0"  # 0.9 of de, 0.7 of ja
    assert rows["own"]["lost"].text == "-30.0"


def test_seeds_are_one_cell_with_their_ends_and_an_arm_that_lacks_a_language_has_none():
    told = [*lines(0), *lines(1, worse=0.2)]
    assert table_of(told)["one for all"]["PEA"].text == "60.0"
    assert table_of(told)["one for all"]["PEA"].aside == "50.0, 70.0"
    told = [*lines(0, without=[("joint", "ja")]), *lines(1, worse=0.2)]
    rows = table_of(told)
    assert rows["one for all"]["PEA"].text == "50.0" and rows["own"]["PEA"].aside != ""
    assert rows["own"]["lost"].text == "-25.0"  # of the second seed alone


def test_what_finds_pictures_answers_in_a_table_of_its_own():
    line = {"task": "zeroshot_retrieval", "dataset": "test", "model": "joint", "language": "de"}
    line |= {"metrics": {}, "mean_recall": 0.25, "protocol": {}, "seed": 0}
    recall = {"row": "mCLIP", "column": "found", "languages": ["de"], "measure": "mean_recall"}
    told = list(lines(0))
    told[0] = told[0] | {"answers": [*told[0]["answers"], recall]}
    (section,) = question_sections([*told, line])
    drawn, found = section.tables
    assert [cell.text for cell in found.rows[0]] == ["mCLIP", "25.0"] and len(found.rows) == 1
    assert "Mean recall in %" in found.title and "Text accuracy in %" in drawn.title
    assert len({figure.key for figure in section.figures}) == 2


def test_lines_without_a_question_or_without_pictures_make_no_section():
    assert question_sections([line for line in lines(0) if line["task"] == "training"]) == []
    assert question_sections([{**line, "question": None} for line in lines(0)]) == []
