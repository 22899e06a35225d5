"""What every verb prints alike."""

from __future__ import annotations

import json
from typing import Any

from castalia.core.errors import HIDDEN


def print_json(value: Any) -> None:
    """Print a value for programs; what could steer a terminal is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text))
