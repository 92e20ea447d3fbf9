#!/usr/bin/env bash
# One node of a cluster. cluster.yaml, cluster.local.yaml and slurm.sh call it; what differs is in node.env.
#
#   node.sh setup                       storage, and a Python environment with this package
#   node.sh ray start --head [WORDS]    Ray's head, and MLflow's server as long as it runs
#   node.sh ray start [WORDS]           a worker node of the head at $RAY_HEAD_IP
#
# Every node wants a token from whoever speaks to it; what people look at is on loopback alone.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
package="$(dirname "$here")"
set -a
. "$here/node.env"
set +a
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"
export RAY_USAGE_STATS_ENABLED=0 PATH="$ACDIS_VENV/bin:$PATH"
export RAY_TMPDIR="${RAY_TMPDIR:-/tmp}"  # Slurm's TMPDIR may be too long for the paths of Ray's sockets

fail() {
  echo "error: $(hostname): $*" >&2
  exit 2
}

setup() {
  if [ -n "$ACDIS_NFS" ] && ! mountpoint -q "$ACDIS_SHARED"; then
    sudo mkdir -p "$ACDIS_SHARED"
    sudo mount -t nfs4 -o nfsvers=4.1,hard,noresvport "$ACDIS_NFS" "$ACDIS_SHARED"
  fi
  [ -d "$ACDIS_SHARED" ] || fail "$ACDIS_SHARED is not there: mount the shared storage, or set ACDIS_NFS in node.env"
  mkdir -p "$ACDIS_HOME" 2>/dev/null && [ -w "$ACDIS_HOME" ] || fail "$ACDIS_HOME cannot be written to"
  if ! pinned; then
    "$ACDIS_PYTHON" -m venv "$ACDIS_VENV"
    "$ACDIS_VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
      --constraint "$package/constraints.txt" "$package[all]"
    pinned || fail "$ACDIS_VENV does not have the versions of constraints.txt"
  fi
  # `ray down` and `ray exec` look for `ray` on a login shell's path.
  local line="export PATH=\"$ACDIS_VENV/bin:\$PATH\""
  grep -qxF "$line" ~/.bashrc 2>/dev/null || echo "$line" >> ~/.bashrc
}

# Whether the environment has this package, and the pinned versions of what nodes must agree on.
pinned() {
  "$ACDIS_VENV/bin/python" - "$package/constraints.txt" 2>/dev/null <<'CHECK'
import sys
from importlib.metadata import version

pins = dict(line.strip().split("==") for line in open(sys.argv[1]) if "==" in line)
same = all(version(name).split("+")[0] == pins[name] for name in ("ray", "torch", "mlflow"))
sys.exit(not (same and version("acdis-platform")))
CHECK
}

token() {
  [ -s "$RAY_AUTH_TOKEN_PATH" ] || fail "no token in $RAY_AUTH_TOKEN_PATH; make one with: umask 077; ray get-auth-token --generate"
  chmod 600 "$RAY_AUTH_TOKEN_PATH"
}

start_head() {
  token
  export MLFLOW_TRACKING_URI="http://127.0.0.1:$ACDIS_MLFLOW_PORT"
  local word
  for word in "$@"; do
    case "$word" in --autoscaling-config=*) export ACDIS_CLUSTER_FILE="${word#*=}" ;; esac
  done
  # No CPUs and no GPUs: what trains is never placed here. Drivers are.
  local own="--num-cpus=0 --num-gpus=0"
  [ -z "$ACDIS_HEAD_TRAINS" ] || own=""
  if [ -n "$ACDIS_MLFLOW_PORT" ]; then
    export MLFLOW_TRACKING_URI="http://127.0.0.1:$ACDIS_MLFLOW_PORT"
    setsid "$here/node.sh" mlflow </dev/null >>"$HOME/acdis-mlflow.log" 2>&1 &
  fi
  ray start --head --port=6379 $own --resources="{\"driver\": $ACDIS_DRIVERS}" \
    --dashboard-host=127.0.0.1 --dashboard-port=8265 --disable-usage-stats $ACDIS_RAY_OPTIONS "$@"
}

start_worker() {
  token
  [ -n "${RAY_HEAD_IP:-}" ] || fail "RAY_HEAD_IP is not set: the head's address"
  ray start --address="$RAY_HEAD_IP:6379" --disable-usage-stats $ACDIS_RAY_OPTIONS "$@"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# MLflow's server with our pages beside it, for as long as Ray's dashboard listens.
mlflow_server() {
  ! listens "$ACDIS_MLFLOW_PORT" || fail "port $ACDIS_MLFLOW_PORT is taken; MLflow is not started again"
  # A shell starts what runs beside it with SIGINT ignored, which is what ends this one in order.
  env --default-signal=INT acdis dashboard --port "$ACDIS_MLFLOW_PORT" &
  server=$!
  trap 'kill -INT $server' EXIT
  local away=0 patience=60  # the dashboard comes up meanwhile
  while [ $away -lt $patience ] && kill -0 $server; do
    sleep 2
    if listens 8265; then away=0 patience=5; else away=$((away + 1)); fi
  done
}

case "$*" in
  setup) setup ;;
  "ray start --head"*) start_head "${@:4}" ;;
  "ray start"*) start_worker "${@:3}" ;;
  mlflow) mlflow_server ;;
  *) fail "what is '$*'? see the head of this file" ;;
esac
