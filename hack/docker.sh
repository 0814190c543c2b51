#!/bin/bash
# A container engine: `hack/docker.sh [start|stop|status]`.
# An engine that answers is used as it is. Else, as root on Debian, Debian 13's dockerd is unpacked into the cache and
# started on this Debian's containerd; `stop` stops that one and never another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

engine=$work/docker
started=$engine/started  # one line for each process that was started here: name, process id, start time in ticks

answers() { docker info >/dev/null 2>&1; }

unpack() {
  apt_install containerd=containerd runc=runc iptables=iptables
  local lists mirror
  mirror=$(debian_mirror)
  lists=$(mktemp -d)
  # Lists of our own: this machine's apt never hears of the other release.
  mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$engine/packages"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$mirror" >"$lists/sources"
  local options=(-qq -o "Dir::Etc::SourceList=$lists/sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$engine/packages" && apt-get "${options[@]}" download docker.io docker-cli)
  rm -rf "$lists" "$engine/root"
  local package
  for package in "$engine"/packages/*.deb; do dpkg -x "$package" "$engine/root"; done
}

ticks() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null; }

launch() { # NAME COMMAND...
  local name=$1
  shift
  setsid "$@" </dev/null >"$engine/$name.log" 2>&1 &
  printf '%s %s %s\n' "$name" "$!" "$(ticks $!)" >>"$started"
}

start() {
  ! answers || return 0
  is_debian_root || die "no container engine answers" "start Docker, see that 'docker info' works, and try again"
  # Debian 12's own dockerd (20.10) cannot run privileged containers without CAP_SYS_RESOURCE; 26.1 can.
  [ -x "$engine/root/usr/sbin/dockerd" ] || rm -f "$work/stamps/docker-engine"
  once docker-engine trixie unpack
  : >"$started"
  if ! [ -S /run/containerd/containerd.sock ] || ! ctr version >/dev/null 2>&1; then
    launch containerd containerd
    for _ in {1..60}; do ! ctr version >/dev/null 2>&1 || break; sleep 0.25; done
  fi
  rm -f /var/run/docker.pid
  launch dockerd "$engine/root/usr/sbin/dockerd" --containerd /run/containerd/containerd.sock
  for _ in {1..120}; do ! answers || { say "container engine started"; return 0; }; sleep 0.5; done
  tail -20 "$engine/dockerd.log" >&2
  die "dockerd did not start" "its log: $engine/dockerd.log"
}

stop() {
  [ -s "$started" ] || { say "no container engine was started here"; return 0; }
  local name process born
  # In the other order of their start.
  while read -r name process born; do
    [ "$(ticks "$process")" = "$born" ] || continue
    kill "$process"
    for _ in {1..100}; do [ "$(ticks "$process")" = "$born" ] || break; sleep 0.2; done
    say "$name stopped"
  done < <(tac "$started")
  rm -f "$started"
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  status)
    answers || die "no container engine answers"
    if [ -s "$started" ]; then say "running, started here"; else say "running"; fi
    ;;
  *) die "usage: hack/docker.sh [start|stop|status]" ;;
esac
