from packages import REPOSITORY, find_packages, third_party_requirements


def test_packages_are_the_folders_with_a_pyproject(house):
    packages = find_packages(house)
    assert list(packages) == ["shared", "worlds", "benchmarks", "iap", "pea"]
    assert packages["iap"].folder == house / "methods" / "iap"
    assert packages["benchmarks"].import_name == "crosslingual_benchmarks"


def test_every_distribution_of_this_repository_is_found_and_so_tested():
    folders = {
        path.parent
        for pattern in ("*", "*/*")
        for path in REPOSITORY.glob(f"{pattern}/pyproject.toml")
    }
    assert folders == {package.folder for package in find_packages().values()}


def test_requirements_follow_our_packages_and_take_the_tests_of_the_named_one_only(house):
    packages = find_packages(house)
    alone = third_party_requirements([packages["iap"]], packages)
    assert alone == ["fonts", "numpy>=2", "peft", "pytest", "pyyaml", "scipy"]
    alone = third_party_requirements([packages["pea"]], packages)
    assert alone == ["numpy>=2", "pytest", "pyyaml"]


def test_the_tests_of_shared_need_what_the_worlds_need(house):
    packages = find_packages(house)
    needed = third_party_requirements([packages["shared"]], packages)
    assert needed == ["fonts", "numpy>=2", "pytest", "pyyaml"]


def test_requirements_of_several_packages_are_their_union(house):
    packages = find_packages(house)
    union = third_party_requirements(list(packages.values()), packages)
    assert union == ["fonts", "numpy>=2", "peft", "pytest", "pyyaml", "scipy"]
