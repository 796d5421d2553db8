#!/usr/bin/env bash
# Runs a verb on several machines that see one file system: start it on each, with its own NODE_RANK.
#
#   NUM_NODES=8 NODE_RANK=0 MASTER_ADDR=node0 bash scripts/multi_node.sh train configs/m18_sd21_quality_improvement.yaml
#   NUM_NODES=8 NODE_RANK=1 MASTER_ADDR=node0 bash scripts/multi_node.sh train configs/m18_sd21_quality_improvement.yaml
#   ... up to NODE_RANK=7: 64 GPUs
#
# torchrun needs neither ssh nor a hostfile. To try two machines on one, set NODE_RANK to 0
# and 1, MASTER_ADDR=localhost and NUM_PROCESSES=1 in two terminals.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

verb=${1:?usage: NUM_NODES=N NODE_RANK=I MASTER_ADDR=HOST bash scripts/multi_node.sh VERB CONFIG.yaml}
config=${2:?usage: NUM_NODES=N NODE_RANK=I MASTER_ADDR=HOST bash scripts/multi_node.sh VERB CONFIG.yaml}
shift 2
: "${NUM_NODES:?how many machines}" "${NODE_RANK:?which of them this is, from 0}"
: "${MASTER_ADDR:?the name or address of machine 0}"
num_processes=${NUM_PROCESSES:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
[ "$num_processes" -gt 0 ] || num_processes=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec torchrun \
  --nnodes "$NUM_NODES" --node_rank "$NODE_RANK" --nproc_per_node "$num_processes" \
  --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}" \
  -m altdiffusion "$verb" --config "$config" "$@"
