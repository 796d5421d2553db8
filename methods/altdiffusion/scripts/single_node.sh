#!/usr/bin/env bash
# Runs a verb on all GPUs of this machine (or in processes on its cores), started by torchrun.
#
#   bash scripts/single_node.sh train configs/m9_sd15_concept_alignment.yaml
#   NUM_PROCESSES=2 bash scripts/single_node.sh train-text configs/testbed_text.yaml
#   LAUNCHER=deepspeed bash scripts/single_node.sh train configs/m9_sd15_quality_improvement.yaml
#
# After any stop, the same command with `--resume_from_checkpoint latest` resumes the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

verb=${1:?usage: bash scripts/single_node.sh train|train-text|features CONFIG.yaml [--setting value ...]}
config=${2:?usage: bash scripts/single_node.sh train|train-text|features CONFIG.yaml [--setting value ...]}
shift 2
num_processes=${NUM_PROCESSES:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
[ "$num_processes" -gt 0 ] || num_processes=1  # no GPU, and NUM_PROCESSES is not set
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

if [ "${LAUNCHER:-torchrun}" = deepspeed ]; then
  exec deepspeed -q --num_accelerators "$num_processes" --module altdiffusion "$verb" --config "$config" "$@"
fi
exec torchrun --standalone --nproc_per_node "$num_processes" -m altdiffusion "$verb" --config "$config" "$@"
