"""Trains a small policy on the episodes of a lake: a picture and a state in, 16 actions out.

python examples/train_a_policy/train.py --lake .ego/demo/lake
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import ego_assets as ego
from ego_assets.training import (
    ContentSettings,
    EpisodeDataset,
    EpisodeLoader,
    EpisodeStream,
    WindowSettings,
)

SIDE_PX, ACTIONS = 96, 16


class Policy(nn.Module):
    """Behaviour cloning: a few convolutions and an MLP.

    What states and actions are on average is part of it, so that it takes and gives metres.
    """

    def __init__(self, states: torch.Tensor, actions: torch.Tensor) -> None:
        super().__init__()
        for name, values in (("state", states), ("action", actions)):
            self.register_buffer(f"{name}_mean", values.mean(dim=0))
            self.register_buffer(f"{name}_scale", values.std(dim=0).clamp(min=1e-3))
        self.eye = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=3),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(32 * 4 + states.shape[1], 128),
            nn.ReLU(),
            nn.Linear(128, ACTIONS * actions.shape[1]),
        )

    def forward(self, pictures: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """(B, 16, n) actions from (B, 3, H, W) uint8 pictures and (B, n) states."""
        seen = self.eye(pictures.float() / 127.5 - 1)
        state = (states - self.state_mean) / self.state_scale
        ahead = self.head(torch.cat([seen, state], dim=1)).unflatten(1, (ACTIONS, -1))
        # What the head gives is how far the hands get from where they are.
        return states[:, None] + ahead * self.action_scale

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """How far off the actions are, in standard deviations; what is padding does not count."""
        pictures, states = batch["observation.images.ego"][:, -1], batch["observation.state"][:, -1]
        off = (self(pictures, states) - batch["action"]) / self.action_scale
        counts = ~batch["action_is_pad"]
        return functional.smooth_l1_loss(off, torch.zeros_like(off), reduction="none")[
            counts
        ].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", default=".ego/demo/lake")
    parser.add_argument("--split", default="train", choices=["train", "all"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("policy.pt"))
    options = parser.parse_args()
    torch.manual_seed(0)

    lake = ego.open(options.lake)
    content = ContentSettings(split=options.split)
    windows = WindowSettings(observation=1, action=ACTIONS, size=(SIDE_PX, SIDE_PX))
    numbers = EpisodeDataset(lake, windows.model_copy(update={"size": None}), content)
    states, actions = (
        torch.from_numpy(numbers.column(name)) for name in ("observation.state", "action")
    )
    print(f"{len(numbers.episodes)} episodes, {len(states) / numbers.fps:.1f} s")

    policy = Policy(states, actions)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    stream = EpisodeStream(lake, windows, content, buffer=256)
    loader = EpisodeLoader(stream, batch_size=options.batch, num_workers=options.workers)
    losses: list[float] = []
    while len(losses) < options.steps:
        for batch in loader:
            loss = policy.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % 10 == 0:
                print(f"step {len(losses):4}: loss {sum(losses[-10:]) / 10:.4f}")
            if len(losses) == options.steps:
                break
    torch.save(policy.state_dict(), options.out)
    print(f"weights are in {options.out}")


if __name__ == "__main__":
    main()
