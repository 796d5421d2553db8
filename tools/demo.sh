#!/usr/bin/env bash
# Installs methods/pea alone in a new environment (.venv-demo) and runs `pea demo`, whose options it
# takes. It needs Python 3.11, a C compiler, and a package index; no GPU, no other network.
#
# On Linux the plain index's torch brings CUDA along (several GB); to take the CPU build, point
# PIP_EXTRA_INDEX_URL at the index that PyTorch's installation page names for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-$(command -v python3.11 || command -v python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "error: $python is older than 3.11; name another: PYTHON=... bash tools/demo.sh" >&2; exit 2; }

[ -x .venv-demo/bin/python ] || "$python" -m venv .venv-demo
.venv-demo/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e methods/pea
exec .venv-demo/bin/pea demo "$@"
