#!/bin/bash
# Renews the files in requirements/ : `hack/lock.sh [--upgrade]`. Needs uv.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
cd "$root"

PATH=$PATH:$cache/bootstrap/bin
need uv "pip install uv"
compile() {
  uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
    --no-emit-package sweeprun --python-version 3.11 "$@"
}
compile "$@" --all-extras pyproject.toml -o requirements/dev.txt
# The images take the versions that the tests ran with.
compile --constraint requirements/dev.txt --extra operator pyproject.toml -o requirements/operator.txt
compile --constraint requirements/dev.txt requirements/trainer.in -o requirements/trainer.txt
compile "$@" requirements/build.in -o requirements/build.txt
