"""The tables of the store, as SQLAlchemy Core; `records.py` says what a row means and which moves are legal."""

import json
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

VERSION = 5
"""Of this schema. A change of it adds one here and a step to `migrations.py`."""


class _JsonText(TypeDecorator[Any]):
    """JSON as Python writes it. PostgreSQL's own type refuses NaN, and a diverging loss is NaN."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


_Json = JSON().with_variant(_JsonText(), "postgresql")
_Long = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits, which SQLite's INTEGER has: ids of events, and the size of a model's weights."""

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("state", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("plan", _Json, nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("started", Float),
    Column("ended", Float),
    Column("error", _Json),
    Column("queued", Float),
    Column("wait", _Json),
    Index("runs_by_state", "state"),
)

stage_runs = Table(
    "stage_runs",
    metadata,
    Column("run", String, primary_key=True),
    Column("stage", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("started", Float),
    Column("ended", Float),
    Column("outputs", _Json),
    Column("error", _Json),
    Index("stage_runs_by_digest", "digest", "state"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", _Long, primary_key=True),
    Column("digest", String, nullable=False, index=True),
    Column("run", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("name", String, nullable=False),
    Column("path", String, nullable=False),
    Column("bytes", _Long, nullable=False),
    Column("created", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", _Long, primary_key=True),
    Column("time", Float, nullable=False),
    Column("run", String, index=True),
    Column("stage", String),
    Column("service", String, index=True),
    Column("who", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("data", _Json, nullable=False),
)

services = Table(
    "services",
    metadata,
    Column("name", String, primary_key=True),
    Column("current", Integer),
    Column("version", Integer, nullable=False, default=0),
)

releases = Table(
    "releases",
    metadata,
    Column("service", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("run", String, nullable=False),
    Column("state", String, nullable=False),
    Column("spec", _Json, nullable=False),
    Column("url", String),
    Column("model", String),
    Column("pid", Integer),
    Column("created", Float, nullable=False),
    Column("promoted", Float),
    Column("withdrawn", Boolean, nullable=False, default=False),
    Column("request_fields", _Json),
    UniqueConstraint("service", "digest"),
)

benchmarks = Table(
    "benchmarks",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("run", String),
    Column("service", String),
    Column("source", String, nullable=False),
    Column("result", _Json, nullable=False),
)

baselines = Table(
    "baselines",
    metadata,
    Column("name", String, primary_key=True),
    Column("benchmark", String, nullable=False),
    Column("time", Float, nullable=False),
    Column("who", String, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", String, primary_key=True),
    Column("cron", String, nullable=False),
    Column("timezone", String, nullable=False),
    Column("command", _Json, nullable=False),
    Column("cwd", String, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("webhook", String),
    Column("missed", String, nullable=False),
    Column("overlap", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("next_tick", Float, nullable=False),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("id", _Long, primary_key=True),
    Column("schedule", String, nullable=False, index=True),
    Column("tick", Float, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("reason", String),
    Column("started", Float),
    Column("ended", Float),
    Column("exit_code", Integer),
    Column("pid", Integer),
    Column("log", String),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String),
    Column("fence", Integer, nullable=False),
    Column("expires", Float, nullable=False),
)

allocations = Table(
    "allocations",
    metadata,
    Column("owner", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("cluster", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("bundle", _Json, nullable=False),
    Column("placements", _Json, nullable=False),
    Column("created", Float, nullable=False),
    Column("renewed", Float, nullable=False),
    Column("begun", Boolean, nullable=False),
    Column("until", Float),
    Column("ended", Float),
    Column("cause", String),
    Column("reason", String),
)
