"""Triggers on the event log: nobody changes or removes what was written, not even by hand; listeners hear of it."""

from sqlalchemy import Connection, text

_SQLITE = (
    """CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
       BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END""",
    """CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events
       BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION orch_refuse() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'the event log is append-only'; END $$""",
    """CREATE TRIGGER events_are_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON events
       FOR EACH STATEMENT EXECUTE FUNCTION orch_refuse()""",
    """CREATE FUNCTION orch_notify() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN NOTIFY orch; RETURN NULL; END $$""",
    """CREATE TRIGGER events_are_heard AFTER INSERT ON events
       FOR EACH STATEMENT EXECUTE FUNCTION orch_notify()""",
)


def create(connection: Connection) -> None:
    """On tables that have none yet. Part of migration 2 -> 3: a change here needs a step of its own."""
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.execute(text(statement))
