"""One life of a simulated process: it ends between any two steps, or right before or after anything that lasts."""

from collections.abc import Callable

from tests.simulation.world import SimulatedLoop, World


class Process:
    """What everything outside knows of a process.

    Attributes:
        alive: False once it has ended; nothing that it does counts from then on.
    """

    def __init__(self, world: World, name: str, on_end: Callable[["Process"], None]) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.loop = SimulatedLoop(world, self._after_step)
        self._on_end = on_end
        self._steps_left = -1
        self._effects_left = -1
        self._spare_effect = False
        self._dying = False

    def crash_after_steps(self, steps: int) -> None:
        """End after so many more callbacks of the loop."""
        self._steps_left = steps

    def crash_at_effect(self, effects: int, *, before: bool) -> None:
        """End right before or after the so-many-th thing from now on that outlasts the process."""
        self._effects_left, self._spare_effect = effects, before

    def calm(self) -> None:
        """Do not end after all, unless it has begun to."""
        self._steps_left = self._effects_left = -1

    def before_effect(self) -> bool:
        """Whether something that outlasts the process may happen now."""
        if self._dying or not self.alive:
            return False
        if self._effects_left == 0 and self._spare_effect:
            self._dying = True
            return False
        return True

    def after_effect(self) -> None:
        """Something that outlasts the process has happened."""
        if self._effects_left == 0:
            self._dying = True
        if self._effects_left >= 0:
            self._effects_left -= 1

    def _after_step(self) -> bool:
        if self._steps_left >= 0:
            self._steps_left -= 1
            if self._steps_left < 0:
                self._dying = True
        return self.settle()

    def settle(self) -> bool:
        """End now, where that was decided outside of a step; whether it has ended."""
        if self._dying and self.alive:
            self.kill()
        return not self.alive

    def kill(self) -> None:
        """kill -9."""
        if self.alive:
            self.alive = False
            self.loop.kill()
            self._on_end(self)
