"""Assets of data sets that are written out of a lake, beside the commands that write them."""
