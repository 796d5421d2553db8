#!/usr/bin/env bash
#SBATCH --job-name=mclip
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains under SLURM, a task a GPU; from methods/mclip, in an environment that holds
# crosslingual-mclip. VERB is the verb: train-encoder (stage 1), train (stage 2, if not given).
#
#   sbatch --export=ALL,VERB=train-encoder scripts/slurm.sh configs/mclip_base_step_a.yaml
#   sbatch --nodes=2 scripts/slurm.sh configs/mclip_base.yaml
#
# Two minutes before the time limit, and when it is preempted, SLURM sends SIGTERM to every task: the
# run saves its state and ends, and a job that is queued again resumes from there.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"

config=${1:?usage: sbatch scripts/slurm.sh CONFIG.yaml [--setting value ...]}
shift
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-29500} OMP_NUM_THREADS=1

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  set -- "$@" --resume_from_checkpoint latest
fi
exec srun python -m mclip "${VERB:-train}" --config "$config" "$@"
