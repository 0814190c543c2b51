#!/bin/bash
# Builds the programs of a whole cluster: `hack/cluster-programs.sh [client | queue]`.
#   client: only what drives a cluster (kubectl, kind, helm); enough where the official node image can be pulled.
#   queue: an API server and Kueue, for the tests of runs in a queue.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
# shellcheck source=hack/programs.sh
. "$here/programs.sh"

case ${1:-all} in
  client) names=(kubectl kind helm) ;;
  queue) names=(etcd kube-apiserver kubectl kueue) ;;
  # Ordered so that the integration tests get theirs first and each build finds most of its packages built.
  all) names=(etcd kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kubeadm kube-proxy pause kind
    training-operator.v1 helm coredns) ;;
  *) die "usage: hack/cluster-programs.sh [client | queue]" ;;
esac
for name in "${names[@]}"; do program "$name"; done
