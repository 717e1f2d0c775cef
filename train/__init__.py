"""Stage 2: train a student from the store, without the teacher."""
