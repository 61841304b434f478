"""Say how a run's configuration differs from another one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

HASHES = {
    "concepts_sha256": "the list gives other concepts now",
    "weights_sha256": "the model has other weights now",
    "model_sha256": "the model has another configuration or tokenizer now",
    "chat_frame": "the model's chat template writes something else before a text now",
}
CAUSES = {
    "concepts_sha256": {"concepts", "limit", "examples"},
    "weights_sha256": {"model"},
    "model_sha256": {"model", "weights_sha256"},
    "chat_frame": {"chat", "chat_role", "chat_system", "model"},
}
"""Differences that explain another hash."""


def config_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """Return {key: what differs}, in the keys' order; `there` is the run's configuration, `here` the new one.

    What only follows from another difference is left out: the options of a plugin that only one of the two uses, the
    hashes of another list or model.
    """
    shared = there.get("options", {}).keys() & here.get("options", {}).keys()
    found = dict(_differences(_with_options(there, shared), _with_options(here, shared)))
    return {
        key: HASHES.get(key, text) for key, text in found.items() if not CAUSES.get(key, set()) & found.keys()
    }


def _with_options(config: Mapping[str, Any], plugins: Collection[str]) -> dict[str, Any]:
    return {**config, "options": {name: config.get("options", {})[name] for name in plugins}}


def _differences(there: Any, here: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differences(there.get(key), here.get(key), f"{prefix}.{key}" if prefix else key)
    elif there != here:
        yield prefix, f"{prefix}: {_shown(there)} there, {_shown(here)} now"


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
