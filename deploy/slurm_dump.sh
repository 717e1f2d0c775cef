#!/bin/bash
# Dump a teacher with one GPU a job, eight jobs side by side. From the root of a checkout, after make setup:
#     DATAROOT=/data/nuscenes CHECKPOINT=bevformer_r101_dcn_24ep.pth STORE=/data/teacher.zarr sbatch deploy/slurm_dump.sh
# A job that is stopped or runs out of time loses the scene in flight: submit the same again, and scenes that are
# published are kept. The last job to finish seals the store.
#SBATCH --job-name=focalcache-dump
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
set -eu

SHARDS=8  # as many as the array has, also when only some of it is submitted again
CONFIG=${CONFIG:-configs/teacher/bevformer_base.py}
: "${DATAROOT:?the folder of nuScenes}" "${CHECKPOINT:?the weights of the teacher}" "${STORE:?the store to write}"

if [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi
srun focalcache dump "$CONFIG" --checkpoint "$CHECKPOINT" --dataroot "$DATAROOT" --version v1.0-trainval \
    --split train --out "$STORE" --profile focal --device cuda --workers 6 --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
