import pytest

from crosslingual_benchmarks.cli import main
from crosslingual_benchmarks.perf import find_perf_scripts


def test_scripts_are_listed_by_name_with_the_first_line_of_their_docstring(tmp_path):
    (tmp_path / "step.py").write_text('"""Times a step.\n\nMore.\n"""\nraise SystemExit(1)\n')
    (tmp_path / "loader.py").write_text("import no_such_module\n")
    scripts = find_perf_scripts(tmp_path)
    assert [(script.path.name, script.summary) for script in scripts] == [
        ("loader.py", ""),
        ("step.py", "Times a step."),
    ]


def test_a_folder_without_scripts_is_a_one_line_error_with_exit_code_2(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("crosslingual_benchmarks.cli.PERF_FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["crosslingual-bench", "perf"])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_verb_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["crosslingual-bench"])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
