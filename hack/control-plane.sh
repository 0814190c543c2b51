#!/bin/bash
# Makes sure of what the integration tests need: etcd, kube-apiserver and kubectl, found on PATH or built once.
# Prints the folder they are in.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
# shellcheck source=hack/programs.sh
. "$here/programs.sh"

for name in etcd kube-apiserver kubectl; do program "$name"; done
printf '%s\n' "$bin"
