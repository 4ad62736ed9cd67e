"""Galleries: a page for each shard in the lake, with a video of each clip, failing clips first.

Here: which videos are made, the page, where both lie. Not here: drawing (`ego_assets.viewing`), the
asset (`dagster_project.galleries`), serving (`dagster_project.web`).
"""
