#!/usr/bin/env bash
# Installs a method and the worlds that it is shown in (its extra `demo`) in a new environment
# (.venv-demo/METHOD) and runs its demo, whose options it takes: `bash tools/demo.sh`, which is
# pea's, `bash tools/demo.sh mclip --num_processes 1`, `bash tools/demo.sh pea --world emoji`, which
# fetches 110 MB of pictures, names and an encoder. It needs Python 3.11, a C compiler, and a
# package index; no GPU, no other network.
#
# On Linux the plain index's torch brings CUDA along (several GB); to take the CPU build, point
# PIP_EXTRA_INDEX_URL at the index that PyTorch's installation page names for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

method=pea
case ${1:--} in
  -*) ;;
  *) method=$1; shift ;;
esac
[ -f "methods/$method/pyproject.toml" ] ||
  { echo "error: no method $method; there are: $(ls methods | xargs)" >&2; exit 2; }
python=${PYTHON:-$(command -v python3.11 || command -v python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "error: $python is older than 3.11; name another: PYTHON=... bash tools/demo.sh" >&2; exit 2; }

environment=.venv-demo/$method
[ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
"$environment/bin/python" -m pip install --disable-pip-version-check -c constraints.txt -e "methods/$method[demo]"
case " $* " in
  *" --world emoji "*)
    "$environment/bin/python" -m pip install --disable-pip-version-check -c constraints.txt \
      -e 'tools/worlds[emoji]' ;;
esac
exec "$environment/bin/$method" demo "$@"
