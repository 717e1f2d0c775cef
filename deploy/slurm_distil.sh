#!/bin/bash
# Distil a student from a store on eight GPUs of one node, and score it. From the root of a checkout, after make setup:
#     DATAROOT=/data/nuscenes STORE=/data/teacher.zarr INIT_FROM=r101_dcn_fcos3d_pretrain.pth WORK_DIR=work/small-fd3d \
#         sbatch deploy/slurm_distil.sh
# With sbatch --nodes=2 the same file trains on two nodes; one sample a GPU then makes a batch of 16. Every start
# resumes from the newest checkpoint in the work folder.
#SBATCH --job-name=focalcache-distil
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=256G
#SBATCH --time=48:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -eu

CONFIG=${CONFIG:-configs/distill/bevformer_base_to_small_fd3d.py}
STUDENT=${STUDENT:-configs/student/bevformer_small.py}
GPUS=${SLURM_GPUS_ON_NODE:-8}
: "${DATAROOT:?the folder of nuScenes}" "${STORE:?the store of the teacher}" "${INIT_FROM:?the weights to start from}"
: "${WORK_DIR:?the folder for checkpoints and logs}"

if [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$GPUS" --rdzv-backend c10d \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:29500" \
    -m focalcache distil "$CONFIG" --cache "$STORE" --init-from "$INIT_FROM" --dataroot "$DATAROOT" \
    --version v1.0-trainval --work-dir "$WORK_DIR" --resume
srun --nodes 1 --ntasks 1 torchrun --standalone --nproc-per-node "$GPUS" \
    -m focalcache evaluate "$STUDENT" --checkpoint "$WORK_DIR/last.pth" --dataroot "$DATAROOT" \
    --version v1.0-trainval --split val --out "$WORK_DIR/val"
