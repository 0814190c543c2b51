#!/bin/bash
# The end-to-end tests from nothing to nothing: `hack/e2e.sh [PYTEST ARGUMENTS]`. What a failure leaves is kept in
# artifacts/e2e. E2E_KEEP=1 leaves the cluster standing; E2E_PARALLEL is how many stories are told at once (3).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
cd "$root"

kept=$root/artifacts/e2e
nodes=
engine_was_up=no
! docker info >/dev/null 2>&1 || engine_was_up=yes

finish() {
  local status=$?
  trap - EXIT
  [ -z "$nodes" ] || kill "$nodes" 2>/dev/null || true
  if [ "$status" -ne 0 ]; then
    say "failed ($status)"
    "$here/cluster.sh" logs "$kept" || true
  fi
  if [ "${E2E_KEEP:-}" = 1 ]; then
    say "the cluster is kept: eval \"\$(hack/cluster.sh env)\"; make e2e-down removes it"
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
"$here/cluster-programs.sh" queue

# Most of a story is waiting: several are told at once, those of the node that is lost one after the other beside them.
# Those that stop an operator or measure times come afterwards.
status=0
judge() { # EXIT STATUS OF PYTEST; 5: no test was chosen, as when `-k` names one of another part
  [ "$1" = 5 ] || status=$1
}
stories=(.venv/bin/python -m pytest tests/e2e --durations=15)
"${stories[@]}" --junit-xml="$kept/nodes.xml" -m nodes "$@" >"$kept/nodes.log" 2>&1 &
nodes=$!
"${stories[@]}" --junit-xml="$kept/together.xml" -m 'not alone and not nodes and not afterwards' -n "${E2E_PARALLEL:-3}" "$@" || judge $?
wait "$nodes" || judge $?
nodes=
cat "$kept/nodes.log"
"${stories[@]}" --junit-xml="$kept/alone.xml" -m alone "$@" || judge $?
# What is judged by all stories together, where all were told.
[ $# -gt 0 ] || "${stories[@]}" --junit-xml="$kept/afterwards.xml" -m afterwards || judge $?
(exit "$status")
