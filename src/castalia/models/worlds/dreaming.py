"""A dream that goes on step by step, as somebody acts in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from castalia.core.rng import SampleRng
from castalia.models.worlds.world_model import WorldModel


@dataclass(frozen=True)
class Moment:
    """What is seen after a step.

    Attributes:
        frame: ``uint8`` (C, H, W).
        reward: of the step; 0 where the model foresees none.
        over: whether the dream has ended.
        step: how many steps were done.
    """

    frame: Tensor
    reward: float
    over: bool
    step: int


class Dream:
    """One dream of a world model, from a beginning that training saw.

    With the actions of the model's controller it is the dream that sampling draws under the same seed and number.

    Args:
        model: the world model.
        seed: of the beginning and of all that happens.
        temperature: of what happens.
        number: of the dream.
    """

    def __init__(self, model: WorldModel, seed: int, temperature: float = 1.0, number: int = 0) -> None:
        self.model, self.temperature = model, temperature
        rng, steps, latents = SampleRng(seed, [number], model.device), model.spec.length, model.config.latents
        self._z = model.begun(rng)
        self._uniform, self._noise = rng.uniform("which", steps, latents), rng.normal("noise", steps, latents)
        self._rng, self._state = rng, model.memory.begin(1)
        self.step, self.over = 0, False

    def now(self) -> Moment:
        """What is seen before anything is done."""
        return Moment(self.model.shown(self._z)[0].cpu(), 0.0, self.over, self.step)

    @torch.no_grad()
    def act(self, action: Tensor | None) -> Moment:
        """Do something and see what comes of it.

        Args:
            action: numbers ``float32`` (A,) in [-1, 1], which stand for the ranges of the data's actions; None leaves
                it to the controller.

        Returns:
            What is seen then. After the end, or after as many steps as an example has, nothing changes any more.
        """
        model = self.model
        if self.over or self.step >= model.spec.length:
            self.over = True
            return self.now()
        unit = model.controller.acts(model.told(self._z, self._state)) if action is None else action[None].to(self._z)
        h, self._state = model.memory(self._z[:, None], model.in_range(unit.float())[:, None], self._state)
        after = model.memory.outlook(h[:, 0])
        reward = 0.0 if after.reward is None else float(after.reward)
        if after.end is not None:
            drawn = self._rng.at("end", self.step).uniform("end")
            self.over = bool(drawn < torch.sigmoid(after.end))
        if not self.over:
            self._z = after.drawn(self._uniform[:, self.step], self._noise[:, self.step], self.temperature)
        self.step += 1
        return Moment(model.shown(self._z)[0].cpu(), reward, self.over, self.step)
