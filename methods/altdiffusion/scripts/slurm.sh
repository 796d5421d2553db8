#!/usr/bin/env bash
#SBATCH --job-name=altdiffusion
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains under SLURM, a task a GPU, 64 of them; from methods/altdiffusion, in an environment that
# holds crosslingual-altdiffusion:
#
#   sbatch scripts/slurm.sh train configs/m18_sd21_quality_improvement.yaml
#   sbatch --nodes=1 scripts/slurm.sh train-text configs/m9_sd15_text.yaml
#
# Five minutes before the time limit, and when it is preempted, SLURM sends SIGTERM to every task: the
# run saves its state and ends, and a job that is queued again resumes from there.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"

verb=${1:?usage: sbatch scripts/slurm.sh train|train-text CONFIG.yaml [--setting value ...]}
config=${2:?usage: sbatch scripts/slurm.sh train|train-text CONFIG.yaml [--setting value ...]}
shift 2
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-29500} OMP_NUM_THREADS=1

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  set -- "$@" --resume_from_checkpoint latest
fi
exec srun python -m altdiffusion "$verb" --config "$config" "$@"
