"""Shows clips to a person: what all tables say of them, in one recording or video.

Here: Rerun recordings (`recording`), plain videos (`overlay`), both made of `footage`. Not here:
serving, the command (`dagster_project`), the picture of one table (`preview.py` of its room).
"""
