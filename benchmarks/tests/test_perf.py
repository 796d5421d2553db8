import pytest

from crosslingual_benchmarks.__main__ import main
from crosslingual_benchmarks.perf import find_perf_cases
from crosslingual_benchmarks.verbs import VERBS


def test_cases_are_listed_by_name_with_the_first_line_of_their_docstring(tmp_path):
    (tmp_path / "step.py").write_text('"""Times a step.\n\nMore.\n"""\nraise SystemExit(1)\n')
    (tmp_path / "loader.py").write_text("import no_such_module\n")
    cases = find_perf_cases(tmp_path)
    assert list(cases.items()) == [("loader", ""), ("step", "Times a step.")]


def test_a_folder_without_cases_is_a_one_line_error_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("crosslingual_benchmarks.perf.PERF_FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["crosslingual-bench", "perf"])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_verb_all_are_listed_and_an_unknown_one_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["crosslingual-bench"])
    assert main() == 0
    listed = capsys.readouterr().out
    assert all(f"  {verb} " in listed for verb in VERBS)
    monkeypatch.setattr("sys.argv", ["crosslingual-bench", "comapre"])
    assert main() == 2
    assert "did you mean 'compare'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "perf"])
def test_every_verb_answers_help(verb, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["crosslingual-bench", verb, "--help"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert f"crosslingual-bench {verb}" in capsys.readouterr().out
