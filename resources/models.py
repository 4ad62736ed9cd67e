"""Dagster resource that names the backend of each operator."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import Field

from resources.backends import registry


class Backends(dg.ConfigurableResource):
    """Which implementation runs: a name of the registry, or your own as package.module:Class."""

    segmenter: str = Field(default="baseline", description="detections and masks")
    hand_estimator: str = Field(default="baseline", description="hand_poses")
    reconstructor: str = Field(default="pycolmap", description="scene_reconstruction")
    object_pose_estimator: str = Field(default="baseline", description="object_poses")
    movement_estimator: str = Field(default="baseline", description="object_movements")
    retargeter: str = Field(default="dex_retargeting", description="robot_mappings")

    weights_dir: str = Field(
        default="",
        description="folder of all models' weights; empty: EGO_WEIGHTS, else ~/.cache/ego",
    )
    settings: dict[str, dict[str, Any]] = Field(
        default={},
        description="by operator: what its backend knows beyond (or other than) the launchpad form",
    )

    def chosen(self, operator: str) -> str:
        """Name of the backend of an operator. Raises UnknownBackendError if there is none."""
        name = getattr(self, operator)
        registry.find(operator, name)
        return name

    def settings_of(self, operator: str, form: dict[str, Any]) -> dict[str, Any]:
        """Settings of the chosen backend: what it knows of the asset's form, and its own."""
        known = registry.find(operator, getattr(self, operator)).settings.model_fields
        return {k: v for k, v in form.items() if k in known} | self.settings.get(operator, {})
