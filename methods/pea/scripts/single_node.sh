#!/usr/bin/env bash
# Trains on all GPUs of this machine (or in processes on its cores), started by torchrun.
#
#   bash scripts/single_node.sh configs/sd15_zh.yaml
#   NUM_PROCESSES=2 bash scripts/single_node.sh configs/testbed.yaml --max_train_steps 20
#   LAUNCHER=deepspeed bash scripts/single_node.sh configs/sd15_zh.yaml
#
# After any stop, the same command with `--resume_from_checkpoint latest` resumes the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

config=${1:?usage: bash scripts/single_node.sh CONFIG.yaml [--setting value ...]}
shift
num_processes=${NUM_PROCESSES:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
[ "$num_processes" -gt 0 ] || num_processes=1  # no GPU, and NUM_PROCESSES is not set
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

if [ "${LAUNCHER:-torchrun}" = deepspeed ]; then
  exec deepspeed -q --num_accelerators "$num_processes" --module pea train --config "$config" "$@"
fi
exec torchrun --standalone --nproc_per_node "$num_processes" -m pea train --config "$config" "$@"
