#!/usr/bin/env bash
# Run all GPU tests and measurements in at most 8 minutes. Needs torch and the imports of trainables, but no Ray. Each
# part has a time limit, so that a part that fails or is too slow does not use up the time of the others; the exit code is
# the number of such parts. Lines for programs are `RESULT name value unit`.
#
#   benchmarks/gpu.sh [--data-dir PATH]      on the GPU; with CIFAR-10, of which some training files may be missing
#   benchmarks/gpu.sh --device cpu --quick   a rehearsal on the CPU
set -uo pipefail
cd "$(dirname "$0")/.."

device=cuda quick=() data=()
while (($#)); do
  case $1 in
    --device) device=$2; shift 2 ;;
    --data-dir) data=(--data-dir "$2"); shift 2 ;;
    --quick) quick=(--quick); shift ;;
    *) echo "$0: unknown option $1; allowed are --device cuda|cpu, --data-dir PATH, --quick" >&2; exit 64 ;;
  esac
done
python=${PYTHON:-python3}
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

failed=()
part() { # name, seconds, command
  local name=$1 limit=$2 started=$SECONDS status
  shift 2
  echo "== $name: $*"
  timeout --kill-after=5 "$limit" "$@"
  status=$?
  ((status == 0)) || failed+=("$name ($([[ $status == 124 || $status == 137 ]] && echo "over $limit s" || echo "exit code $status"))")
  echo "RESULT part_$name $((SECONDS - started)) s"
}
gpu() { part "$1" "$2" "$python" -m benchmarks.gpu --device "$device" --parts "$3" "${@:4}" ${quick[@]+"${quick[@]}"}; }

# Without MPS, a GPU is time-sliced between processes. This script starts its own daemon and ends it; the settings of the
# GPU are not changed.
with_mps() {
  if ! command -v nvidia-cuda-mps-control >/dev/null; then
    echo "== $1: skipped, nvidia-cuda-mps-control is not installed"
    return
  fi
  CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) CUDA_MPS_LOG_DIRECTORY=$(mktemp -d)
  export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  if nvidia-cuda-mps-control -d; then
    gpu "$@"
    echo quit | timeout 20 nvidia-cuda-mps-control
  else
    failed+=("$1 (no MPS)")
  fi
  rm -rf "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

if [[ $device == cuda ]]; then
  nvidia-smi --query-gpu=name,driver_version,memory.used,utilization.gpu --format=csv
  part tests 100 "$python" -m pytest -q -p no:cacheprovider -m gpu tests/trainables
  gpu alone 100 alone,trial --images 20000 --epochs 4 --rounds 2
  with_mps together_mps 110 together --images 20000 --rounds 1
  gpu together 60 together --images 20000 --rounds 1 --copies 8
else
  part tests 100 "$python" -m pytest -q -p no:cacheprovider -m gpu --collect-only tests/trainables
  gpu alone 100 alone,trial --images 256 --epochs 2 --rounds 1
  gpu together 100 together --images 256 --rounds 1 --copies 1,2
fi
part trials 80 "$python" -m benchmarks.trials --device "$device" ${data[@]+"${data[@]}"} ${quick[@]+"${quick[@]}"}

((${#failed[@]} == 0)) || printf 'FAILED %s\n' "${failed[@]}"
exit ${#failed[@]}
