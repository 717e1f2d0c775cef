"""Stage 1: run a teacher once over a split and leave what distillation needs in a store."""
