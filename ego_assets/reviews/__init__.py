"""What people say of episodes and clips: kept in the lake, held against what the lake has now."""
