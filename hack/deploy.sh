#!/bin/bash
# Installs the chart from this tree, as the README says it, into the cluster that hack/cluster.sh made.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
export PATH=${SWEEPRUN_CACHE:-$HOME/.cache/sweeprun}/cluster/bin:$PATH
KUBECONFIG=$(hack/cluster.sh kubeconfig)
export KUBECONFIG
helm upgrade --install sweeprun charts/sweeprun --namespace sweeprun-system --create-namespace --set 'watch.namespaces={sweeps}'
kubectl -n sweeprun-system rollout restart deployment/sweeprun
kubectl -n sweeprun-system rollout status deployment/sweeprun --timeout=180s
