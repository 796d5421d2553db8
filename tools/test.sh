#!/usr/bin/env bash
# Installs and tests every package, each in a fresh environment that holds it alone.
#
#   bash tools/test.sh              all of it
#   bash tools/test.sh pea shared   some packages
#   bash tools/test.sh root         ruff, the import contracts and the tests of tools/
#
# It needs Python 3.11, pip and a package index. Its work folder (.work, or $CROSSLINGUAL_WORK) may be
# kept between runs and cached by CI. Eight environments with a torch each would be 10 GB and a
# quarter of an hour of unpacking, so the third-party distributions are installed once, in a store,
# and hard-linked from there (tools/environment.py); our own packages are installed by pip each time.
# PYTEST_ADDOPTS reaches every pytest; TEST_PROCESSES (2) is how many of its processes run at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-$(command -v python3.11 || command -v python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "error: $python is older than 3.11; name another: PYTHON=... bash tools/test.sh" >&2; exit 2; }
all_packages=$("$python" tools/packages.py list)
if [ $# -eq 0 ]; then
  # shellcheck disable=SC2086
  set -- root $all_packages
fi
packages=()
for name in "$@"; do
  [ "$name" = root ] || packages+=("$name")
done

work=${CROSSLINGUAL_WORK:-.work}
store=$work/store
results=$work/results
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # the processes of pytest share the cores
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore TOKENIZERS_PARALLELISM=false
# A folder of the user's python must not lend a package what it does not declare.
unset PYTHONPATH
export PYTHONNOUSERSITE=1

say() { printf '\n== [%4ds] %s\n' "$SECONDS" "$*"; }

say "store of third-party packages in $store"
requirements=$("$python" tools/packages.py requirements ${packages[@]+"${packages[@]}"})
mkdir -p "$work"
rm -rf "$results" && mkdir "$results"
[ -x "$store/bin/python" ] || "$python" -m venv "$store"
# shellcheck disable=SC2086
"$store/bin/python" -m pip install -c constraints.txt --requirement /dev/stdin <<LIST
pip>=23.2
packaging
pytest
pytest-xdist
ruff
import-linter
$requirements
LIST

# A step that fails is one failure in the sum, and the others still run.
step() {
  local name=$1
  shift
  "$@" || { echo "FAILED: $name"; echo "$name" >>"$results/failed_steps"; }
}

run_pytest() { # interpreter, name, folder of tests
  local status=0
  "$1" -m pytest -q -p no:cacheprovider -n "${TEST_PROCESSES:-2}" --dist loadfile \
    --junitxml "$results/$2.xml" -o junit_family=xunit2 "$3" || status=$?
  [ -s "$results/$2.xml" ] || return 1   # it ended before it could count
  [ "$status" -le 1 ]                    # 1: some tests failed, and the file counts them
}

check_root() {
  step "ruff check" "$store/bin/ruff" check --output-format concise .
  step "ruff format" "$store/bin/ruff" format --check --output-format concise .
  step "import contracts" "$store/bin/python" tools/import_contracts.py
  step "pytest tools" run_pytest "$store/bin/python" root tools/tests
}

# What a test compares with, and whose dependencies are too large to follow it.
install_without_dependencies() { # environment, list
  [ ! -f "$2" ] ||
    "$store/bin/python" -m pip --python "$1/bin/python" install -q --no-deps -r "$2"
}

# The tests of shared use the worlds, which bring a copy of shared along: the folder itself comes
# last. `-e shared -e tools/worlds` in one command is two sources for one package, which pip refuses.
install_package() { # environment, name, folder
  local pip=("$store/bin/python" -m pip --python "$1/bin/python" install -q)
  if [ "$2" = shared ]; then
    "${pip[@]}" -c constraints.txt -e tools/worlds && "${pip[@]}" --no-deps -e shared
  else
    "${pip[@]}" -c constraints.txt -e "$3[test]"
  fi
}

check_package() {
  local folder environment=$work/environments/$1
  folder=$("$python" tools/packages.py folder "$1")
  "$store/bin/python" tools/environment.py "$environment" "$1" &&
    install_package "$environment" "$1" "$folder" &&
    "$store/bin/python" -m pip --python "$environment/bin/python" check &&
    install_without_dependencies "$environment" "$folder/tests/no_deps.txt" &&
    run_pytest "$environment/bin/python" "$1" "$folder/tests"
}

for name in "$@"; do
  say "$name"
  if [ "$name" = root ]; then
    check_root
  else
    step "$name" check_package "$name"
  fi
done

say "done"
"$python" tools/count_results.py "$results"
