from count_results import count_results

SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'


def test_counts_are_summed_over_packages_and_skips_are_neither(tmp_path):
    (tmp_path / "pea.xml").write_text(SUITE.format(10, 2, 1, 3))
    (tmp_path / "shared.xml").write_text(SUITE.format(5, 0, 0, 0))
    assert count_results(tmp_path) == (9, 3)


def test_a_step_that_fails_is_a_failure(tmp_path):
    (tmp_path / "pea.xml").write_text(SUITE.format(1, 0, 0, 0))
    (tmp_path / "failed_steps").write_text("ruff check\nshared\n")
    assert count_results(tmp_path) == (1, 2)
