#!/bin/bash
# The test cluster: `hack/cluster.sh COMMAND`.
#   up          four nodes, training-operator, our images and our chart, all reused where they stand already
#   deploy      builds our images, brings what changed of them to the nodes and installs the chart
#   prepare     only what takes long the first time: programs, node image, base images
#   network     routes and pod networks again, after a node came back with another pod range
#   status      what stands
#   logs DIR    everything a failed test leaves to look at
#   down        deletes the cluster (the cache stays, the container engine too: hack/docker.sh stop)
#   env         prints what a shell evaluates to use it: kubeconfig, and where kubectl and sweeprun are
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

shared=$work/shared
audit=$work/audit.yaml
workers=("$cluster_name-worker" "$cluster_name-worker2" "$cluster_name-worker3")
nodes=("$cluster_name-control-plane" "${workers[@]}")
key_file=$work/cluster.key
applied=$work/training-operator.key

built_here() { [[ $1 == "$image_prefix"/* ]]; }

configuration() { # NODE_IMAGE
  sed "s#@SHARED@#$shared#; s#@AUDIT@#$audit#" "$here/kind.yaml"
  if built_here "$1"; then
    sed "s#@COREDNS_VERSION@#$COREDNS_VERSION#; s#@ETCD_VERSION@#$ETCD_VERSION#" "$here/kind-built.yaml"
  else
    cat "$here/kind-official.yaml"
  fi
}

stands() { # KEY: a cluster made of the same parts whose nodes are all ready
  [ "$(cat "$key_file" 2>/dev/null)" = "$1" ] && all_ready
}

all_ready() {
  local ready
  ready=$(kubectl get nodes --request-timeout=10s 2>/dev/null | awk '$2 == "Ready"' | wc -l) || return 1
  [ "$ready" = ${#nodes[@]} ]
}

create() { # NODE_IMAGE KEY
  rm -f "$key_file" "$applied"
  kind delete cluster --name "$cluster_name" --kubeconfig "$KUBECONFIG" >/dev/null 2>&1 || true
  mkdir -p "$shared"
  chmod 1777 "$shared"
  cp "$here/audit.yaml" "$audit"
  configuration "$1" >"$work/kind.yaml"
  say "creating the cluster on $1"
  if ! kind create cluster --name "$cluster_name" --config "$work/kind.yaml" --image "$1" --kubeconfig "$KUBECONFIG" \
    --retain >"$work/kind.log" 2>&1; then
    cat "$work/kind.log" >&2
    logs "$root/artifacts/cluster"
    die "kind could not create the cluster" "the nodes are kept; their logs: $root/artifacts/cluster"
  fi
  ! built_here "$1" || network
  kubectl wait --for=condition=Ready nodes --all --timeout=120s >/dev/null
  printf '%s\n' "$2" >"$key_file"
}

# What kindnet does where it can be had: a pod network on each node, and routes between them.
network() {
  local node peer pods address table
  built_here "$(docker inspect -f '{{.Config.Image}}' "${nodes[0]}")" || return 0
  table=$(kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name}{" "}{.spec.podCIDR}{" "}{.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}')
  while read -r node pods address; do
    docker exec -i "$node" sh -c 'mkdir -p /etc/cni/net.d && cat >/etc/cni/net.d/10-pods.conflist' <<JSON
{"cniVersion": "0.3.1", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam",
    "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    while read -r peer pods address; do
      [ "$peer" = "$node" ] || printf '%s %s\n' "$pods" "$address"
    done <<<"$table" | docker exec -i "$node" sh -c 'cat >/kind/pod-routes && systemctl restart pod-routes'
  done <<<"$table"
}

training_operator() { # NODE_IMAGE
  local overlay=$work/training-operator source image='' key
  ! built_here "$1" || image=$("$here/images.sh" training-operator)
  key="$(digest hack/training-operator) $TRAINING_OPERATOR_VERSION $image"
  if [ "$(cat "$applied" 2>/dev/null)" != "$key" ]; then
    need go "the manifests of training-operator come from its Go module"
    source=$(cd "$work" && go mod download -json "github.com/kubeflow/training-operator@v$TRAINING_OPERATOR_VERSION" |
      sed -n 's/.*"Dir": "\(.*\)",\{0,1\}$/\1/p')
    rm -rf "$overlay"
    mkdir -p "$overlay"
    cp -r "$source/manifests" "$overlay/manifests"
    chmod -R u+w "$overlay"
    cp -r "$here/training-operator" "$overlay/overlay"
    kubectl kustomize "$overlay/overlay" >"$overlay/manifest.yaml"
    if [ -n "$image" ]; then
      sed -i "s#image: [^ ]*/training-operator:.*#image: $image#" "$overlay/manifest.yaml"
      load_image "$image"
    fi
    say "applying training-operator $TRAINING_OPERATOR_VERSION"
    kubectl apply --server-side --force-conflicts -f "$overlay/manifest.yaml" >/dev/null
    printf '%s\n' "$key" >"$applied"
  fi
}

available() { # NAMESPACE DEPLOYMENT
  kubectl -n "$1" rollout status "deployment/$2" --timeout=180s >/dev/null ||
    die "$2 does not become ready" "kubectl --kubeconfig $KUBECONFIG -n $1 describe pods"
}

# Brings an image to the workers: those of its layers that they lack.
load_image() { # IMAGE
  local id node lacking=()
  id=$(docker image inspect -f '{{.Id}}' "$1")
  for node in "${workers[@]}"; do
    [ "$(docker exec "$node" cat "/kind/loaded/${1//\//_}" 2>/dev/null)" = "$id" ] || lacking+=("$node")
  done
  [ ${#lacking[@]} -gt 0 ] || return 0
  say "loading $1"
  python3 "$here/load_image.py" "$1" "$id" "${lacking[@]}" || die "$1 could not be loaded"
}

deploy() {
  local chart=$root/charts/sweeprun id
  "$here/images.sh" app
  load_image "$operator_image"
  load_image "$trainer_image"

  # The kubelet would make the subPath of the examples as root.
  mkdir -p "$shared/sweeps/experiments"
  chown 1000:1000 "$shared/sweeps" "$shared/sweeps/experiments" 2>/dev/null ||
    chmod 1777 "$shared/sweeps" "$shared/sweeps/experiments" # not everyone is root
  kubectl apply --server-side --force-conflicts -f "$here/sandbox.yaml" >/dev/null
  [ -f "$chart/Chart.yaml" ] || { say "no chart yet: the operator is not installed"; return 0; }
  helm upgrade --install sweeprun "$chart" --namespace sweeprun-system --create-namespace \
    --set 'watch.namespaces={sweeps}' --set image.registry= --set image.repository="${operator_image%:*}" \
    --set image.tag="${operator_image##*:}" --set image.pullPolicy=IfNotPresent >"$work/helm.log" 2>&1 ||
    { cat "$work/helm.log" >&2; die "the chart could not be installed"; }
  # The tag stays the same while the image changes: say so in the pod template.
  id=$(docker image inspect -f '{{.Id}}' "$operator_image")
  kubectl -n sweeprun-system patch deployment sweeprun --type=merge \
    -p "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"sweeprun.dev/image-id\":\"$id\"}}}}}" >/dev/null
  available sweeprun-system sweeprun
}

prepare() {
  local image
  "$here/docker.sh" start
  image=$("$here/images.sh" node | tail -1)
  if built_here "$image"; then "$here/images.sh" training-operator >/dev/null; else "$here/cluster-programs.sh" client; fi
  "$here/images.sh" bases >/dev/null
  "$here/cluster-programs.sh" queue
  say "prepared"
}

up() {
  local image key started=$SECONDS
  "$here/docker.sh" start
  image=$("$here/images.sh" node | tail -1)
  built_here "$image" || "$here/cluster-programs.sh" client
  key="$image $({ configuration "$image" && cat "$here/audit.yaml"; } | sha256sum | cut -c1-12)"
  if stands "$key"; then say "the cluster stands already"; else create "$image" "$key"; fi
  training_operator "$image"
  deploy
  available kubeflow training-operator
  say "the cluster is ready after $((SECONDS - started)) s: eval \"\$(hack/cluster.sh env)\""
}

# shellcheck disable=SC2016 # the reader's own PATH
environment() { printf 'export KUBECONFIG=%q PATH=%q:"$PATH"\n' "$KUBECONFIG" "$bin:$root/.venv/bin"; }

status() {
  docker info >/dev/null 2>&1 || die "no container engine answers" "hack/docker.sh start"
  all_ready || die "the cluster does not stand, or not all of it" "hack/cluster.sh up"
  kubectl get nodes -o wide
  kubectl get pods -A -o wide
  environment
}

logs() { # DIR
  local node namespace pod container
  mkdir -p "$1"
  for node in "${nodes[@]}"; do
    docker inspect "$node" >"$1/$node.inspect.json" 2>&1 || true
    docker logs "$node" >"$1/$node.console.log" 2>&1 || true
    timeout 30 docker exec "$node" journalctl --no-pager -u kubelet -u containerd >"$1/$node.journal.log" 2>&1 || true
  done
  kubectl get events -A --sort-by=.lastTimestamp --request-timeout=20s >"$1/events.txt" 2>&1 || return 0
  kubectl get nodes,pods,jobs,services,persistentvolumes,persistentvolumeclaims -A -o wide >"$1/objects.txt" 2>&1 || true
  kubectl get nodes,pods,jobs,configmaps,persistentvolumes,persistentvolumeclaims -A -o yaml >"$1/objects.yaml" 2>&1 || true
  kubectl get pytorchjobs -A -o yaml >"$1/pytorchjobs.yaml" 2>&1 || true
  kubectl get sweepruns -A -o yaml >"$1/sweepruns.yaml" 2>&1 || true
  kubectl get pods -A -o jsonpath='{range .items[*]}{.metadata.namespace} {.metadata.name} {.spec.containers[*].name} {.spec.initContainers[*].name}{"\n"}{end}' |
    while read -r namespace pod containers; do
      for container in $containers; do
        kubectl -n "$namespace" logs "$pod" -c "$container" --timestamps >"$1/$namespace.$pod.$container.log" 2>&1 || true
        kubectl -n "$namespace" logs "$pod" -c "$container" --timestamps --previous \
          >"$1/$namespace.$pod.$container.previous.log" 2>/dev/null || rm -f "$1/$namespace.$pod.$container.previous.log"
      done
    done
  (cd "$shared" && find . -maxdepth 8 -printf '%M %u:%g %8s %TT %p\n') >"$1/volume.txt" 2>&1 || true
  say "kept in $1"
}

down() {
  docker info >/dev/null 2>&1 || { say "no container engine answers: nothing to delete"; return 0; }
  program_present kind || return 0
  kind delete cluster --name "$cluster_name" --kubeconfig "$KUBECONFIG"
  rm -rf "$key_file" "$applied" "$shared"
}

program_present() { command -v "$1" >/dev/null; }

case ${1:-} in
  up | deploy | prepare | network | status | down) "$1" ;;
  logs) logs "${2:?the folder to write to}" ;;
  env) environment ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
