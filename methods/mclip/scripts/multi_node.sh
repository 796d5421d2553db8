#!/usr/bin/env bash
# Trains on several machines that see one file system: run it on each of them, with its own
# NODE_RANK. VERB is the verb: train-encoder (stage 1), train (stage 2, if not given).
#
#   export VERB=train-encoder NUM_NODES=2 MASTER_ADDR=node0
#   NODE_RANK=0 bash scripts/multi_node.sh configs/mclip_base_step_b.yaml      # on node0
#   NODE_RANK=1 bash scripts/multi_node.sh configs/mclip_base_step_b.yaml      # on node1
#
# torchrun needs neither ssh nor a hostfile. To try two machines on one: MASTER_ADDR=localhost,
# NUM_PROCESSES=1, and NODE_RANK 0 and 1 in two terminals.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

config=${1:?usage: NUM_NODES=N NODE_RANK=I MASTER_ADDR=HOST bash scripts/multi_node.sh CONFIG.yaml}
shift
: "${NUM_NODES:?how many machines}" "${NODE_RANK:?which of them this is, from 0}"
: "${MASTER_ADDR:?the name or address of machine 0}"
num_processes=${NUM_PROCESSES:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
[ "$num_processes" -gt 0 ] || num_processes=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec torchrun \
  --nnodes "$NUM_NODES" --node_rank "$NODE_RANK" --nproc_per_node "$num_processes" \
  --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}" \
  -m mclip "${VERB:-train}" --config "$config" "$@"
