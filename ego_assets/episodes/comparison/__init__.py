"""How shards of episodes are compared."""
