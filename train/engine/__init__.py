"""What drives a training: data, schedule, checkpoints, resume, evaluation. On mmengine's Runner."""
