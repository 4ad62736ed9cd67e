"""Robot hands that ship with the project: URDF, mapping, and the generator that writes them.

Not here: how a hand is driven (`operators/robots.py`, `operators/retarget.py`).
"""
