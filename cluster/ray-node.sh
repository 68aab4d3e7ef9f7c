#!/usr/bin/env bash
# Starts a Ray node and stays in front of it: `ray-node.sh head` or `ray-node.sh worker`.
#
# In: RAY_AUTH_TOKEN, RAY_OBJECT_STORE_BYTES (empty: Ray decides), and for a worker RAY_HEAD, WORKER_CPUS (empty: all)
# and WORKER_GPUS (a number or `all`). For a head RAY_REDIS_ADDRESS and RAY_REDIS_PASSWORD, where its state is to outlive
# it (empty: it does not). On SIGTERM Ray drains the node before it goes.
set -euo pipefail

# Ray's own answer to "which GPUs" is all of them, in every container. Each worker claims its own instead: a claim is
# a file lock in a folder that the host's containers share, and the kernel gives it back when the container ends.
claim_gpus() {
  local wanted=$1 present gpu lock
  local -a mine=()
  present=$(nvidia-smi --query-gpu=uuid --format=csv,noheader 2>/dev/null) || present=""
  [[ -n $present ]] || return 0
  for gpu in $present; do
    [[ $wanted == all || ${#mine[@]} -lt $wanted ]] || break
    exec {lock}>"${GPU_CLAIMS:-/gpu-claims}/$gpu"
    if flock --nonblock "$lock"; then mine+=("$gpu"); else exec {lock}>&-; fi
  done
  if [[ ${#mine[@]} -eq 0 || ($wanted != all && ${#mine[@]} -lt $wanted) ]]; then
    echo "ray-worker: WORKER_GPUS=$wanted, but only ${#mine[@]} of $(wc -w <<<"$present") GPUs of this host are not" \
      "claimed by another worker; lower WORKER_GPUS or the number of workers" >&2
    return 1
  fi
  CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${mine[*]}")
  export CUDA_VISIBLE_DEVICES
}

options=(--block --disable-usage-stats --metrics-export-port=8080)
[[ -z ${RAY_OBJECT_STORE_BYTES:-} ]] || options+=("--object-store-memory=$RAY_OBJECT_STORE_BYTES")

case ${1:-} in
  head)
    # Ray takes an empty address for an address.
    if [[ -n ${RAY_REDIS_ADDRESS:-} ]]; then
      options+=("--redis-password=${RAY_REDIS_PASSWORD:-}")
    else
      unset RAY_REDIS_ADDRESS
    fi
    # No CPUs and no GPUs: the head keeps the books and runs the jobs' drivers, workers do the work.
    exec ray start --head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 --num-cpus=0 --num-gpus=0 \
      "${options[@]}"
    ;;
  worker)
    claim_gpus "${WORKER_GPUS:-1}"
    [[ -z ${WORKER_CPUS:-} ]] || options+=("--num-cpus=$WORKER_CPUS")
    exec ray start --address="$RAY_HEAD" "${options[@]}"
    ;;
  *)
    echo "usage: ray-node.sh head|worker" >&2
    exit 2
    ;;
esac
