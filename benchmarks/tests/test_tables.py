"""Tables in three forms: what is written is what a reader sees."""

import pytest

from crosslingual_benchmarks.report.tables import render_latex, render_markdown, render_plain

HEADS = ["arm", "price"]
ROWS = [["pea", "$12.00"], ["as_is", "-"]]


def test_markdown_sets_numbers_right_and_texts_left():
    assert render_markdown(HEADS, ROWS) == (
        "| arm | price |\n| --- | ---: |\n| pea | \\$12.00 |\n| as\\_is | - |"
    )


@pytest.mark.parametrize("text", ["~65*", "<$1k", "a|b", "as_is", "[6]", r"C:\x", "`x`", ">$1,468"])
def test_markdown_shows_a_cell_as_it_is_written(text):
    markdown_it = pytest.importorskip("markdown_it")
    tokens = (
        markdown_it.MarkdownIt("commonmark")
        .enable("table")
        .parse(render_markdown(["head", "next"], [[text, "b"]]))
    )
    cells = [
        "".join(child.content for child in token.children)
        for token in tokens
        if token.type == "inline"
    ]
    assert cells == ["head", "next", text, "b"]


def test_a_line_break_in_a_cell_breaks_no_table():
    assert render_markdown(["a"], [["x\ny"]]).splitlines()[-1] == "| x y |"
    assert r"x y \\" in render_latex(["a"], [["x\ny"]])
    assert render_plain(["a"], [["x\ny"]]).splitlines()[-1] == "x y"


def test_latex_escapes_every_special_sign():
    table = render_latex(["a"], [[r"50% of #1 & $2_3 {x} ~y^z \w <1k | →"]])
    assert (
        r"50\% of \#1 \& \$2\_3 \{x\} \textasciitilde{}y\textasciicircum{}z "
        r"\textbackslash{}w \textless{}1k \textbar{} $\rightarrow$ \\"
    ) in table


def test_latex_with_a_caption_is_a_table_around_the_tabular():
    table = render_latex(HEADS, ROWS, caption="Cost & gain", label="tab:cost")
    assert table.splitlines()[:6] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Cost \& gain}",
        r"\label{tab:cost}",
        r"\begin{tabular}{lr}",
        r"\hline",
    ]
    assert table.endswith("\\end{tabular}\n\\end{table}")


def test_plain_columns_line_up_where_signs_are_two_wide():
    table = render_plain(["language", "x"], [["中文", "1.0"], ["de", "10.0"]])
    assert table == "language     x\n--------  ----\n中文       1.0\nde        10.0"


@pytest.mark.parametrize("render", [render_markdown, render_latex, render_plain])
def test_a_row_of_another_length_is_an_error_that_names_it(render):
    with pytest.raises(ValueError, match="row 2 has 1 cells and the table 2 columns"):
        render(["a", "b"], [["1", "2"], ["3"]])


@pytest.mark.parametrize("render", [render_markdown, render_latex, render_plain])
def test_a_table_without_heads_is_an_error(render):
    with pytest.raises(ValueError, match="needs heads"):
        render([], [])


def test_a_label_without_a_caption_is_an_error():
    with pytest.raises(ValueError, match="needs a caption"):
        render_latex(["a"], [], label="tab:x")


def test_a_column_of_dashes_is_not_taken_for_numbers():
    assert "| --- |" in render_markdown(["a"], [["-"], [""]])
