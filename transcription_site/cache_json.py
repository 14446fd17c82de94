"""What the cache holds, written as a response is: a result's bytes can be sent as they are."""

from __future__ import annotations

import json
from typing import Any

from django_redis.serializers.base import BaseSerializer


class CompactJSONSerializer(BaseSerializer):  # type: ignore[misc]
    """JSON as REST framework renders it; escaped, Chinese would take twice the room."""

    def dumps(self, value: Any) -> bytes:
        """Raises TypeError for what JSON does not know."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, value: bytes) -> Any:
        """Raises ValueError for what is no JSON."""
        return json.loads(value)
