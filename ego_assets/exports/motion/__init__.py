"""What moves in an episode, as columns that several formats are written from (`columns`)."""
