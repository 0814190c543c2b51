# shellcheck shell=bash disable=SC2034
# Sourced by the scripts beside it: where things are, what they say, and how a step is done once.

shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SWEEPRUN_CACHE:-$HOME/.cache/sweeprun}
work=$cache/cluster
bin=$work/bin
cluster_name=sweeprun
image_prefix=sweeprun.local # of what stands in for an official image
operator_image=sweeprun/operator:dev
trainer_image=sweeprun/trainer-example:dev
mkdir -p "$bin" "$work/locks" "$work/stamps"

# shellcheck source=hack/versions.env
. "$root/hack/versions.env"

# Never the user's own kubeconfig.
export KUBECONFIG=$work/kubeconfig
export PATH=$bin:$PATH:$work/docker/root/usr/bin:$work/docker/root/usr/sbin

set -E
trap 'say "failed (${BASH_SOURCE[0]##*/}:$LINENO): $BASH_COMMAND"' ERR

say() { printf '%(%H:%M:%S)T %s\n' -1 "$*" >&2; }

die() {
  printf '\nerror: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

need() { # PROGRAM HINT
  command -v "$1" >/dev/null || die "$1 is not on PATH" "$2"
}

# once NAME KEY COMMAND...: runs the command unless it has succeeded before under the same key.
# Two processes that want the same thing do it once: the second waits for the first.
once() {
  local name=$1 key=$2 started=$SECONDS lock
  shift 2
  [ "$(cat "$work/stamps/$name" 2>/dev/null)" != "$key" ] || return 0
  exec {lock}>"$work/locks/$name"
  flock "$lock"
  if [ "$(cat "$work/stamps/$name" 2>/dev/null)" != "$key" ]; then
    say "$name: making $key"
    # The lock must not live on in a daemon that the command leaves behind.
    # No `||` behind it: bash would then go on after a failure inside it.
    "$@" {lock}>&-
    printf '%s\n' "$key" >"$work/stamps/$name"
    say "$name: done in $((SECONDS - started)) s"
  fi
  exec {lock}>&-
}

# digest PATH...: a short name for the content of files and folders.
digest() {
  (cd "$root" && find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-12
}

is_debian_root() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && grep -q '^ID=debian' /etc/os-release
}

# The Debian mirror that this machine uses.
debian_mirror() {
  local mirror
  mirror=$(apt-get indextargets --format "\$(REPO_URI) \$(ORIGIN) \$(LABEL)" 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')
  [ -n "$mirror" ] || die "apt knows no Debian mirror yet" "run: apt-get update"
  printf '%s\n' "$mirror"
}

# apt_install PROGRAM=PACKAGE...: installs the packages whose programs are missing.
apt_install() {
  local pair missing=()
  for pair; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  is_debian_root || die "missing programs: ${missing[*]}" "install them, or run this as root on Debian"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y "${missing[@]}" >/dev/null
}

# The engine's newer builder where it is installed, its older one where not: the Dockerfile suits both.
docker_build() {
  if docker buildx version >/dev/null 2>&1; then
    DOCKER_BUILDKIT=1 docker build --quiet "$@"
  else
    # Its advice on the newer builder is not news to anyone.
    DOCKER_BUILDKIT=0 docker build --quiet "$@" 2> >(
      sed -e '/DEPRECATED/d; /buildx component/d; /BuildKit is currently/d; /environment-variable/d; /^ *http/d; /^$/d' >&2
    )
  fi
}
