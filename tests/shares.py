"""What choices have where nothing else may be written, by `Engine.score`: token by token, with nothing shared."""

from __future__ import annotations

import numpy as np

from slmops.engines.base import Engine, Prompts


def by_score(engine: Engine, prompts: Prompts, choices: Prompts) -> np.ndarray:
    """Log-likelihoods [prompts, choices], as `Engine.score_choices` gives them."""
    found = np.zeros((len(prompts), len(choices)))
    for row, prompt in enumerate(prompts):
        for i, choice in enumerate(choices):
            for depth, token in enumerate(choice):
                path = choice[:depth]
                allowed = sorted({other[depth] for other in choices if other[:depth] == path})
                weights = engine.score([[*prompt, *path]] * len(allowed), [[one] for one in allowed])
                found[row, i] += weights[allowed.index(token)][0] - np.logaddexp.reduce([one[0] for one in weights])
    return found
