"""Who waits: the users with chunks due, found without a walk through all that waits."""

from __future__ import annotations

from django.db import connection
from django.db.models.functions import Now

from jobs.models.chunk import Chunk
from jobs.models.states import ChunkStatus


def users_waiting(engine: str) -> list[str]:
    """The users with a chunk due, of jobs that were submitted for that engine.

    It leaps from user to user in the index `chunk_turns_waiting`: the cost grows with the users
    that wait, and not with their chunks.
    """
    table = connection.ops.quote_name(Chunk._meta.db_table)
    now, of_now = Chunk.objects.all().query.get_compiler(connection=connection).compile(Now())
    pending = f"{table} WHERE status = '{ChunkStatus.PENDING}' AND asked_engine = %s"
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE waiting(user_id) AS ("  # noqa: S608
            f"SELECT MIN(user_id) FROM {pending} UNION ALL "
            f"SELECT (SELECT MIN(user_id) FROM {pending} AND user_id > waiting.user_id) "
            "FROM waiting WHERE waiting.user_id IS NOT NULL) "
            f"SELECT user_id FROM waiting WHERE EXISTS (SELECT 1 FROM {pending} "
            f"AND user_id = waiting.user_id AND not_before <= {now})",
            [engine, engine, engine, *of_now],
        )
        return [user_id for (user_id,) in cursor.fetchall()]
