#!/bin/bash
# The end-to-end tests from nothing to nothing: `hack/e2e.sh [PYTEST ARGUMENTS]`. What a failure leaves is kept in
# artifacts/e2e. E2E_KEEP=1 leaves the cluster standing; E2E_PARALLEL is how many stories are told at once (3).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
cd "$root"

kept=$root/artifacts/e2e
engine_was_up=no
! docker info >/dev/null 2>&1 || engine_was_up=yes

finish() {
  local status=$?
  trap - EXIT
  if [ "$status" -ne 0 ]; then
    say "failed ($status)"
    "$here/cluster.sh" logs "$kept" || true
  fi
  if [ "${E2E_KEEP:-}" = 1 ]; then
    say "the cluster is kept: export KUBECONFIG=$KUBECONFIG; make e2e-down removes it"
  else
    "$here/cluster.sh" down || true
    [ "$engine_was_up" = yes ] || "$here/docker.sh" stop || true
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

rm -rf "$kept"
mkdir -p "$kept"
"$here/cluster.sh" up

# Most of a story is waiting: several are told at once. Those that kill the operator or measure
# times come afterwards.
status=0
tell() { # NAME PYTEST ARGUMENTS...
  local name=$1 code=0
  shift
  .venv/bin/python -m pytest tests/e2e --durations=15 --junit-xml="$kept/$name.xml" "$@" || code=$?
  # 5: no test was chosen, as when `-k` names one of the other half
  [ "$code" = 0 ] || [ "$code" = 5 ] || status=$code
}
tell together -m 'not alone' -n "${E2E_PARALLEL:-3}" "$@"
tell alone -m alone "$@"
(exit "$status")
