#!/usr/bin/env bash
# Trains on this machine, one process for each GPU (or NUM_PROCESSES on CPU).
#
#   bash scripts/single_node.sh --config configs/testbed.yaml
#   NUM_PROCESSES=2 bash scripts/single_node.sh --config configs/testbed.yaml --resume_from_checkpoint latest
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
num_gpus=$(python -c 'import torch; print(torch.cuda.device_count())')
num_processes=${NUM_PROCESSES:-$((num_gpus > 0 ? num_gpus : 1))}
exec torchrun --standalone --nproc_per_node "$num_processes" -m template train "$@"
