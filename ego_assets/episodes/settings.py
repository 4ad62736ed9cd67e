"""Settings of episodes: the rules, the cleaning, the words and the splits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ego_assets.consent import NO_CONSENTS, Consents, Licenses, items_of
from ego_assets.episodes.words import check_template
from ego_assets.quality.settings import ProbeSettings, Share
from ego_assets.settings import Settings

Template = Annotated[str, AfterValidator(check_template)]


class EpisodeSettings(Settings):
    """episodes, episode_frames, episode_hands, footage."""

    accepted_consents: Consents = Field(
        default="granted, research_only, unknown",
        description="footage with another consent is dropped; refused and withdrawn always are",
    )
    require_consent: bool = Field(
        default=False, description="footage of whose consent nothing is said is dropped, too"
    )
    accepted_licenses: Licenses = Field(
        default="",
        description="footage with another license, or none, is dropped; empty: any, or none",
    )
    whose_hands: Literal["wearer", "anyone"] = Field(
        default="wearer",
        description="whose hands are looked at; anyone: also where the camera is worn by nobody",
    )
    hands: Literal["any", "both"] = Field(default="any", description="which hands must be there")
    max_hand_gap_s: float = Field(
        default=0.5, ge=0, le=10, description="hands may be away for so long within an episode"
    )
    min_valid_hand_share: Share = Field(
        default=0.7,
        ge=0,
        le=1,
        description="of the frames of an episode: the hands that must be there are valid",
    )
    min_valid_camera_share: Share = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of the frames of an episode; raise it where positions in a world are needed",
    )
    share_window_s: float = Field(
        default=2.0, gt=0, le=60, description="the two shares are looked at in windows of this"
    )
    max_head_turn_dps: float = Field(
        default=180.0, gt=0, description="the head may turn by so many degrees a second"
    )
    min_hand_speed_mps: float = Field(
        default=0.03,
        ge=0,
        description="the hands are idle while no wrist or fingertip is faster (metres a second)",
    )
    max_idle_s: float = Field(
        default=2.0, ge=0, le=600, description="hands may be idle for so long within an episode"
    )
    failed_checks: Literal["error", "all", "none"] = Field(
        default="error",
        description="probes by which a clip is dropped: those of severity error, all, or none",
    )
    min_length_s: float = Field(default=2.0, gt=0, le=600, description="of an episode")
    max_length_s: float = Field(
        default=60.0, gt=0, le=3600, description="longer ones become several of equal length"
    )
    fill_gap_s: float = Field(
        default=0.2, ge=0, le=2, description="gaps of hands and cameras up to this are filled"
    )
    outlier_m: float = Field(
        default=0.05,
        gt=0,
        description="a wrist is an outlier that lies so far from its neighbours' median, and "
        "three robust deviations",
    )
    smoothing_s: float = Field(
        default=0.25,
        ge=0,
        le=2,
        description="length of the filter of trajectories, which has no lag, and needs five frames "
        "in it; 0: none",
    )
    instruction: Template = Field(
        default="{Verb} the {objects} with the {hands}",
        description="template for stretches in which something is held or touched; {Verb}, "
        "{objects} and {hands} are filled in",
    )
    instruction_without_objects: Template = Field(
        default="Move the {hands}", description="template where nothing is"
    )
    captioner: str = Field(
        default="",
        description="name of an installed captioner (entry points of ego_assets.captioners) that "
        "says it instead",
    )
    validation_share: Share = Field(
        default=0.1,
        ge=0,
        le=1,
        description="of wearers and recordings, about: those of the split validation",
    )
    test_share: Share = Field(default=0.0, ge=0, le=1, description="the same of the split test")
    split_seed: str = Field(
        default="0", description="another one puts wearers and recordings into other splits"
    )

    @model_validator(mode="after")
    def _fits(self) -> EpisodeSettings:
        if never := set(NO_CONSENTS) & set(items_of(self.accepted_consents)):
            raise ValueError(f"accepted_consents: {', '.join(sorted(never))} is never accepted")
        if self.max_length_s < 2 * self.min_length_s:
            raise ValueError("max_length_s must be at least twice min_length_s")
        if self.validation_share + self.test_share > 1:
            raise ValueError("validation_share and test_share are more than 1 together")
        return self


class EpisodeProbeSettings(ProbeSettings):
    """Thresholds of the probes of episodes."""

    min_kept_share: Share = Field(
        default=0.05, ge=0, le=1, description="of an accepted video's duration is kept"
    )
    max_little_kept_share: Share = Field(
        default=0.5, ge=0, le=1, description="videos of which less is kept"
    )
    max_clean_jitter_mm: float = Field(
        default=5.0, gt=0, description="mean second difference of cleaned wrists, mm/frame²"
    )
