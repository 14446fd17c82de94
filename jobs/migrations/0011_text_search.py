from typing import Any

import django.db.models.deletion
from django.db import migrations, models

from jobs.search_words import fold

BATCH = 500

# array_to_tsvector and not to_tsvector: the words are words already, and no parser is to find
# addresses and numbers in them. The user is one more word, which no text has: so the index finds
# one user's texts among all that have a word.
POSTGRESQL = [
    """
ALTER TABLE jobs_searchtext ADD COLUMN word_index tsvector NOT NULL GENERATED ALWAYS AS (
  array_to_tsvector(array_prepend('@' || user_id, string_to_array(btrim(words), ' '))) ) STORED
""",
    "CREATE INDEX search_text_by_word ON jobs_searchtext USING gin (word_index)",
]
POSTGRESQL_BACK = ["ALTER TABLE jobs_searchtext DROP COLUMN word_index"]

# The words are folded already: `ascii` takes them as they are. A later migration that makes Django
# copy the table anew has to make the triggers again.
SQLITE = [
    """
CREATE VIRTUAL TABLE jobs_wordindex USING fts5 (
  words, content = 'jobs_searchtext', content_rowid = 'id', tokenize = 'ascii', detail = none)
""",
    """
CREATE TRIGGER jobs_wordindex_insert AFTER INSERT ON jobs_searchtext BEGIN
  INSERT INTO jobs_wordindex (rowid, words) VALUES (new.id, new.words);
END
""",
    """
CREATE TRIGGER jobs_wordindex_delete AFTER DELETE ON jobs_searchtext BEGIN
  INSERT INTO jobs_wordindex (jobs_wordindex, rowid, words) VALUES ('delete', old.id, old.words);
END
""",
    """
CREATE TRIGGER jobs_wordindex_update AFTER UPDATE OF id, words ON jobs_searchtext BEGIN
  INSERT INTO jobs_wordindex (jobs_wordindex, rowid, words) VALUES ('delete', old.id, old.words);
  INSERT INTO jobs_wordindex (rowid, words) VALUES (new.id, new.words);
END
""",
]
# The triggers go with the table.
SQLITE_BACK = ["DROP TABLE jobs_wordindex"]


def make_index(apps: Any, schema_editor: Any) -> None:
    _run(schema_editor, postgresql=POSTGRESQL, sqlite=SQLITE)


def drop_index(apps: Any, schema_editor: Any) -> None:
    _run(schema_editor, postgresql=POSTGRESQL_BACK, sqlite=SQLITE_BACK)


def _run(schema_editor: Any, **scripts: list[str]) -> None:
    for statement in scripts[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def fill(apps: Any, schema_editor: Any) -> None:
    """The texts that there are, some at a time."""
    SearchText = apps.get_model("jobs", "SearchText")
    rows = apps.get_model("jobs", "Transcript").objects.order_by("pk")
    rows = rows.exclude(job__status="in_progress").values_list(
        "pk", "job__user_id", "job__status", "text"
    )
    batch = list(rows[:BATCH])
    while batch:
        SearchText.objects.bulk_create(
            SearchText(job_id=pk, user_id=user_id, job_status=status, words=fold(text))
            for pk, user_id, status, text in batch
        )
        batch = list(rows.filter(pk__gt=batch[-1][0])[:BATCH])


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0010_webhook_places"),
    ]

    operations = [
        migrations.CreateModel(
            name="SearchText",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("user_id", models.CharField(max_length=150)),
                (
                    "job_status",
                    models.CharField(
                        choices=[
                            ("in_progress", "In Progress"),
                            ("completed", "Completed"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "words",
                    models.TextField(
                        help_text="Folded: small, without accents, a space around each."
                    ),
                ),
                (
                    "job",
                    models.OneToOneField(
                        help_text="The transcript, whose key is its job's.",
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="search_text",
                        to="jobs.transcript",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("job_status__in", ("completed", "failed", "cancelled"))
                        ),
                        name="search_text_is_of_an_ended_job",
                    )
                ],
            },
        ),
        migrations.RunPython(make_index, drop_index),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=True),
    ]
