"""Parts of `fix.py`: modules with `run(world)`, which returns a block of figures and keeps files in `world.work`."""

from collections.abc import Callable
from typing import Any

from tests.benchmarks.creatures.parts import (
    base,
    best_of_4_guided,
    best_of_32,
    ddpo,
    failures,
    first_result,
    guided,
    pair_dpo,
    treated,
)
from tests.benchmarks.creatures.world import World


PARTS: dict[str, Callable[[World], dict[str, Any]]] = {
    "base": base.run,
    "first_result": first_result.run,
    "best_of_32": best_of_32.run,
    "guided": guided.run,
    "best_of_4_guided": best_of_4_guided.run,
    "ddpo": ddpo.run,
    "ddpo_by_the_oracle": ddpo.run_by_the_oracle,
    "treated": treated.run,
    "treated_guided": treated.run_guided,
    "pair_dpo": pair_dpo.run,
    "pair_dpo_injected": pair_dpo.run_injected,
    "failures": failures.run,
}
