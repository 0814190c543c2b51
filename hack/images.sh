#!/bin/bash
# Images: `hack/images.sh [node|bases|app|training-operator]...`, default app.
#   node               the node image: the official one where it can be pulled, else one built here
#   training-operator  its image, where the node image is built here (else the nodes pull the official one)
#   bases              base images of ours: the Dockerfile's defaults where they can be pulled, else built here
#   app                sweeprun/operator:dev and sweeprun/trainer-example:dev
# What is built here is named by what goes into it, so that nothing is built twice. The last line on stdout for
# `node` is its name. SWEEPRUN_IMAGES=built never asks a registry; =official never builds.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

choice=${SWEEPRUN_IMAGES:-auto}
kubernetes=v$KUBERNETES_VERSION

present() { docker image inspect "$1" >/dev/null 2>&1; }

pullable() { # IMAGE
  present "$1" && return
  [ "$choice" != built ] || return 1
  say "pulling $1"
  timeout 900 docker pull --quiet "$1" >/dev/null 2>"$work/pull.log" && return
  [ "$choice" != official ] || die "cannot pull $1" "$(cat "$work/pull.log")"
  say "cannot be pulled here, an equivalent is used: $1"
  return 1
}

bootstrap() { # NAME SUITE PACKAGES: a Debian root file system
  local tree=$work/rootfs/$1
  apt_install debootstrap=debootstrap
  rm -rf "$tree"
  mkdir -p "$tree"
  debootstrap --variant=minbase --include="$3" "$2" "$tree" "$(debian_mirror)" >"$tree.log" 2>&1 ||
    { tail -5 "$tree.log" >&2; return 1; }
  rm -rf "$tree"/var/cache/apt/*.bin "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
}

debian() { # NAME SUITE PACKAGES
  [ -d "$work/rootfs/$1/usr" ] || rm -f "$work/stamps/rootfs-$1"
  once "rootfs-$1" "$2:$3" bootstrap "$1" "$2" "$3"
}

import_base() { # IMAGE NAME
  # The certificates that this machine trusts, so that pip works in it wherever it works here.
  local tree=$work/rootfs/$2
  install -m 644 /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
  tar -C "$tree" --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./usr/lib/libtorch-test -c . |
    docker import --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - "$1" >/dev/null
}

base() { # ARGUMENT NAME SUITE PACKAGES: the base image for a build argument
  local official image
  official=$(sed -n "s/^ARG $1=//p" "$root/Dockerfile")
  image=$image_prefix/base-$2:$3-$(sha256sum <<<"$4" | cut -c1-8)
  if [ "$choice" != official ] && present "$image"; then
    :
  elif pullable "$official"; then
    image=$official
  else
    debian "$2" "$3" "$4"
    import_base "$image" "$2"
  fi
  printf '%s\n' "$image"
}

operator_base() { base OPERATOR_BASE operator bookworm "$OPERATOR_PACKAGES"; }

trainer_base() { base TRAINER_BASE trainer trixie "$TRAINER_PACKAGES"; }

app() {
  local bases operator trainer
  operator=$(operator_base)
  trainer=$(trainer_base)
  bases=(--build-arg "OPERATOR_BASE=$operator" --build-arg "TRAINER_BASE=$trainer")
  say "building $operator_image"
  docker_build --network host "${bases[@]}" --target operator -t "$operator_image" "$root" >/dev/null
  say "building $trainer_image"
  docker_build --network host "${bases[@]}" --target trainer-example -t "$trainer_image" "$root" >/dev/null
}

# --- what is built where no registry can be reached -----------------------------------------------------------------

from_scratch() { # IMAGE FOLDER ENTRYPOINT: an image of one folder
  printf 'FROM scratch\nCOPY . /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nENTRYPOINT ["%s"]\n' \
    "$3" >"$2.Dockerfile"
  docker_build -t "$1" -f "$2.Dockerfile" "$2" >/dev/null
}

component() { # IMAGE PROGRAM NAME
  local folder=$context/$3
  mkdir -p "$folder/usr/local/bin"
  cp -L "$bin/$2" "$folder/usr/local/bin/$3"
  [ "$3" != kube-proxy ] || iptables_into "$folder"
  from_scratch "$1" "$folder" "/usr/local/bin/$3"
}

iptables_into() { # FOLDER: kube-proxy calls iptables and conntrack
  mkdir -p "$1/run" "$1/tmp"
  (
    cd "$work/rootfs/node"
    shopt -s nullglob
    local libraries=usr/lib/x86_64-linux-gnu
    [ -d "$libraries" ] || libraries=usr/lib/aarch64-linux-gnu
    tar -c usr/sbin/xtables-*-multi usr/sbin/{ip,ip6}tables* usr/sbin/conntrack "$libraries/xtables" \
      "$libraries"/lib{xtables,mnl,nftnl,nfnetlink,netfilter_conntrack,c,m,ip4tc,ip6tc}.so* \
      "$libraries"/ld-linux-*.so.* etc/alternatives lib lib64 usr/lib64 usr/lib/ld-linux-*.so.*
  ) | tar -C "$1" -x
}

build_node() { # IMAGE
  local images=() name
  "$here/cluster-programs.sh"
  debian node bookworm "$NODE_PACKAGES"
  context=$(mktemp -d "$work/context.XXXXXX")
  trap 'rm -rf "$context"' RETURN
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
    images+=("$image_prefix/$name:$kubernetes")
    component "${images[-1]}" "$name" "$name"
  done
  images+=("$image_prefix/etcd:$ETCD_VERSION-0" "$image_prefix/coredns:v$COREDNS_VERSION" "$image_prefix/pause:$PAUSE_VERSION")
  component "${images[-3]}" etcd etcd
  component "${images[-2]}" coredns coredns
  component "${images[-1]}" pause pause

  local debian_image
  debian_image=$image_prefix/debian:node-$(sha256sum <<<"$NODE_PACKAGES" | cut -c1-8)
  present "$debian_image" || tar -C "$work/rootfs/node" -c . | docker import - "$debian_image" >/dev/null
  local tree=$context/node
  mkdir -p "$tree/kind"
  cp -r "$root/hack/node/." "$tree/"
  sed -i "s#@PAUSE_IMAGE@#${images[-1]}#" "$tree/etc/containerd/config.toml"
  printf '%s\n' "$kubernetes" >"$tree/kind/version"
  cp -L "$bin"/{kubelet,kubeadm,kubectl} "$tree/usr/local/bin/"
  docker save "${images[@]}" >"$context/images.tar"
  cat >"$tree.Dockerfile" <<DOCKERFILE
FROM $debian_image
COPY . /
RUN systemctl enable containerd kubelet dns-relay pod-routes \
 && systemctl set-default multi-user.target \
 && systemctl mask systemd-udevd systemd-logind getty@tty1 apt-daily.timer apt-daily-upgrade.timer \
    dev-hugepages.mount sys-fs-fuse-connections.mount systemd-remount-fs \
 && rm -f /etc/cni/net.d/*
ENV container=docker
STOPSIGNAL SIGRTMIN+3
DOCKERFILE
  docker_build -t "$1-base" -f "$tree.Dockerfile" "$tree" >/dev/null

  # kubeadm's images go into the node's own image store, which only its containerd can write.
  local builder=$cluster_name-node-build
  docker rm -f "$builder" >/dev/null 2>&1 || true
  docker run -d --name "$builder" --privileged -v "$context:/build:ro" --entrypoint sleep "$1-base" infinity >/dev/null
  docker exec "$builder" bash -ec '
    containerd >/tmp/containerd.log 2>&1 &
    until ctr version >/dev/null 2>&1; do sleep 0.2; done
    ctr -n k8s.io images import --no-unpack /build/images.tar >/dev/null
    kill %1
    wait || true'
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' "$builder" "$1" >/dev/null
  docker rm -f "$builder" >/dev/null
  docker image rm "$1-base" >/dev/null
}

built_node_image() {
  printf '%s/node:%s-%s\n' "$image_prefix" "$kubernetes" "$(digest hack/node hack/versions.env hack/go)"
}

node() {
  local image
  image=$(built_node_image)
  if [ "$choice" != official ] && present "$image"; then
    :
  elif pullable "$OFFICIAL_NODE_IMAGE"; then
    image=$OFFICIAL_NODE_IMAGE
  else
    [ "$(uname -m)" = x86_64 ] || say "building a node image on $(uname -m) has never been tried"
    build_node "$image" >&2
  fi
  printf '%s\n' "$image"
}

training_operator() {
  local image=$image_prefix/training-operator:v$TRAINING_OPERATOR_VERSION
  if ! present "$image"; then
    "$here/cluster-programs.sh"
    context=$(mktemp -d "$work/context.XXXXXX")
    mkdir -p "$context/image"
    cp -L "$bin/training-operator.v1" "$context/image/manager"
    from_scratch "$image" "$context/image" /manager
    rm -rf "$context"
  fi
  printf '%s\n' "$image"
}

"$here/docker.sh" start
[ $# -gt 0 ] || set -- app
for what; do
  case $what in
    node) node ;;
    training-operator) training_operator ;;
    bases) operator_base; trainer_base ;;
    app) app ;;
    *) die "usage: hack/images.sh [node|bases|app|training-operator]..." ;;
  esac
done
