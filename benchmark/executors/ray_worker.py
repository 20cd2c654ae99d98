"""This side of an actor somewhere in a Ray cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from benchmark.base.errors import RecordError
from benchmark.executors.actor import Answer, StageActor, code_of, is_over
from benchmark.executors.track import Failure
from benchmark.executors.transfer import CHECKPOINT, RECORDS, Files, pack, unpack
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.stage.context import Tick

Actor: Any = ray.remote(StageActor)
"""What Ray makes actors of."""


class RayWorker:
    """Asks an actor for news, one call at a time; if that is lost, so is only its stage.

    Args:
        actor: the handle of one, which may be anywhere.
        cache: where the files of stages are gathered; None if a folder is shared.
    """

    def __init__(self, actor: Any, cache: Path | None) -> None:  # noqa: ANN401 - Ray's handles
        self.actor, self.cache = actor, cache
        self.spec: StageSpec | None = None
        self.is_ready = False
        self.reply: Any = actor.start.remote()

    def begin(self, spec: StageSpec) -> None:
        """Send a stage, and where no folder is shared what is known of it and its parent."""
        self.spec = spec
        needed: Files = {}
        if self.cache is not None:
            needed = pack(self.cache, spec.id, RECORDS)
            needed |= pack(self.cache, spec.parent, [CHECKPOINT]) if spec.parent else {}
        self.reply = self.actor.begin.remote(spec, code_of(spec), needed)

    def news(self) -> Iterator[Tick | StageResult | Failure]:
        """What the actor has passed on; the loss of its machine is a failure of the stage.

        Raises:
            RecordError: the actor cannot work where it is.
        """
        if self.reply is None or not ray.wait([self.reply], timeout=0)[0]:
            return
        reply, self.reply = self.reply, None
        try:
            answer = ray.get(reply)
        except RayTaskError as error:
            if not self.is_ready:
                raise RecordError(str(error.cause)) from error
            yield Failure("failed", f"{type(error.cause).__name__}: {error.cause}")
        except RayError as error:
            reason = str(error).partition("\n")[0]
            yield Failure("failed", f"its place in the cluster was lost: {reason}")
        else:
            if self.is_ready:
                yield from self._heard(answer)
            self.is_ready = True

    def _heard(self, answer: Answer) -> Iterator[Tick | StageResult | Failure]:
        """Put files in place before anybody learns that the stage is over."""
        if self.cache is not None:
            unpack(self.cache, answer.files)
        if not is_over(answer.messages):
            self.reply = self.actor.news.remote()
        yield from answer.messages

    def stop(self) -> None:
        """End the actor, and with it the process that it keeps."""
        ray.kill(self.actor)
