# shellcheck shell=bash disable=SC2154
# Sourced: how each program of a cluster is found or built, into $bin. From Go modules, since those are what a
# machine without a container registry can still reach.

use_from_path() { # PROGRAM PATTERN COMMAND...: links a program on PATH if its version fits
  local program=$1 pattern=$2 found
  shift 2
  found=$(PATH=${PATH//$bin:/} command -v "$program") || return 1
  "$found" "$@" 2>/dev/null | grep -q "$pattern" || return 1
  ln -sf "$found" "$bin/$program"
}

go_ready() {
  need go "install Go 1.25 or newer: the programs of the test cluster are built from their Go modules"
}

build_kubernetes() { # PROGRAM
  go_ready
  local version=v$KUBERNETES_VERSION flags package
  flags='-s -w'
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitTreeState=clean"
    flags+=" -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION")"
  done
  (cd "$root/hack/go/kubernetes" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$bin/" "k8s.io/kubernetes/cmd/$1")
}

build_etcd() {
  go_ready
  (cd "$root/hack/go/etcd" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$bin/etcd" go.etcd.io/etcd/server/v3)
}

build_pause() {
  go_ready
  (cd "$root/hack/go/pause" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$bin/pause" .)
}

build_kueue() {
  go_ready
  (cd "$root/hack/go/kueue" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$bin/" sigs.k8s.io/kueue/cmd/kueue)
}

build_module() { # PACKAGE@VERSION
  go_ready
  CGO_ENABLED=0 GOBIN=$bin go install -trimpath -ldflags '-s -w' "$1"
}

find_or() { # "PATTERN" "VERSION ARGUMENTS" PROGRAM BUILD...
  local pattern=$1 arguments=$2 program=$3
  shift 3
  # shellcheck disable=SC2086  # the arguments are words
  use_from_path "$program" "$pattern" $arguments || "$@"
}

program() { # NAME
  [ -e "$bin/$1" ] || rm -f "$work/stamps/$1"
  local minor=${KUBERNETES_VERSION%.*}
  case $1 in
    kube-apiserver)
      once "$1" "$KUBERNETES_VERSION" find_or "v${minor/./\\.}\." --version "$1" build_kubernetes "$1" ;;
    kubectl)
      once "$1" "$KUBERNETES_VERSION" find_or "v${minor/./\\.}\." "version --client" "$1" build_kubernetes "$1" ;;
    etcd) once "$1" "$ETCD_VERSION" find_or ' 3\.6\.' --version "$1" build_etcd ;;
    kind) once "$1" "$KIND_VERSION" find_or " v${KIND_VERSION//./\\.} " version "$1" build_module "sigs.k8s.io/kind@v$KIND_VERSION" ;;
    helm) once "$1" "$HELM_VERSION" find_or '^v3\.' 'version --short' "$1" build_module "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION" ;;
    kubelet | kubeadm | kube-controller-manager | kube-scheduler | kube-proxy)
      once "$1" "$KUBERNETES_VERSION" build_kubernetes "$1" ;;
    pause) once "$1" "$PAUSE_VERSION" build_pause ;;
    coredns) once "$1" "$COREDNS_VERSION" build_module "github.com/coredns/coredns@v$COREDNS_VERSION" ;;
    training-operator.v1)
      once "$1" "$TRAINING_OPERATOR_VERSION" build_module \
        "github.com/kubeflow/training-operator/cmd/training-operator.v1@v$TRAINING_OPERATOR_VERSION" ;;
    kueue) once "$1" "$KUEUE_VERSION" build_kueue ;;
    *) die "no such program: $1" ;;
  esac
}
