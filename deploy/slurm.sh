#!/usr/bin/env bash
# A Ray cluster on a Slurm allocation, for one command:
#
#   sbatch --nodes=3 --gpus-per-node=1 deploy/slurm.sh train experiments/brats2020.yaml data.root=/shared/BraTS2020
#
# Submit it from the checkout, which every node must see, as it must see ACDIS_HOME (deploy/node.env). Drivers run on
# the first node, which trains as well. The same command goes on where a stopped allocation left off.
# ACDIS_IMAGE=acdis.sif in front: all of it runs in that image (deploy/acdis.def), and no environment is made.
#SBATCH --job-name=acdis
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
[ $# -gt 0 ] || { echo "error: say what to run, such as: train experiments/brats2020.yaml" >&2; exit 2; }

hosts=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
export ACDIS_HEAD_TRAINS=1 ACDIS_HOME="${ACDIS_HOME:-$PWD/runs}" ACDIS_SHARED="${ACDIS_SHARED:-$PWD}"
export ACDIS_VENV="${ACDIS_VENV:-$PWD/.venv}" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
inside=()
if [ -n "${ACDIS_IMAGE:-}" ]; then
  mkdir -p "$ACDIS_HOME"
  inside=(apptainer exec --nv --bind "$PWD,$ACDIS_HOME,$ACDIS_SHARED" "$ACDIS_IMAGE")
  ACDIS_VENV=/usr/local  # where the image has it
fi
export PATH="$ACDIS_VENV/bin:$PATH"
"${inside[@]}" deploy/node.sh setup
[ -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ] ||
  (umask 077; "${inside[@]}" ray get-auth-token --generate >/dev/null)

# Called in subshells alone: what is killed is srun itself, which then ends what it has started.
on() { exec srun --nodes=1 --ntasks=1 --overlap --nodelist="$1" "${inside[@]}" "${@:2}"; }
export RAY_HEAD_IP
RAY_HEAD_IP=$(on "${hosts[0]}" hostname -I | awk '{print $1}')

steps=()
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT  # srun passes it on, and ends what the step has started
on "${hosts[0]}" deploy/node.sh ray start --head --block --node-ip-address="$RAY_HEAD_IP" &
steps+=($!)
for host in "${hosts[@]:1}"; do
  on "$host" deploy/node.sh ray start --block &
  steps+=($!)
done

for _ in $(seq 120); do
  if (exec 3<>"/dev/tcp/$RAY_HEAD_IP/6379") 2>/dev/null; then break; fi
  sleep 1
done

# The command runs here, on the first node, where MLflow is, and waits for the others. Not through srun: told to
# end, srun kills what it has started, and nothing would stop in order.
"${inside[@]}" env RAY_ADDRESS="$RAY_HEAD_IP:6379" ACDIS_HOSTS="${#hosts[@]}" \
  MLFLOW_TRACKING_URI="http://127.0.0.1:${ACDIS_MLFLOW_PORT:-5000}" \
  python experiments/main.py "$@" &
command=$!
trap 'kill $command' TERM  # the end of the time: what trains stops in order, and goes on next time
wait $command || { code=$?; wait $command || code=$?; exit $code; }
