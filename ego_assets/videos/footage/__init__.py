"""The file beside a video that says whose footage it is, and what may be done with it."""
