"""Which samples may train, and which only judge: by whole prompt family, never at random over samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random

from encyclo.seeds import derive_seed
from encyclo.types import Split

# Of the families of one stage: this share judges calibration, the same share judges accuracy, and the
# same share tells training when to stop. The rest trains.
HELD_OUT_SHARE = 0.15


def split_families(
    families: Mapping[int, Sequence[str]], seed: int, chosen: Collection[int] = ()
) -> dict[tuple[int, str], Split]:
    """Assign every (stage, family) to a split.

    `families` lists each stage's families. A stage with one family only trains; with two, one tests; with
    three, one also calibrates; from four on every split has at least one family. The stages in `chosen`, whose
    prompts were chosen by how they are read, only train: judged by them every interpreter would look worse
    than it is.
    """
    assigned: dict[tuple[int, str], Split] = {}
    for stage, names in sorted(families.items()):
        shuffled = sorted(set(names))
        Random(derive_seed(seed, "families", stage)).shuffle(shuffled)
        each = max(1, round(HELD_OUT_SHARE * len(shuffled)))
        held_out = [Split.TEST] * each + [Split.CALIBRATION] * each + [Split.VALIDATION] * each
        spare = 0 if stage in chosen else len(shuffled) - 1
        for index, name in enumerate(shuffled):
            keep = index < min(spare, len(held_out))
            assigned[stage, name] = held_out[index] if keep else Split.TRAIN
    return assigned
