-- A store as the first version wrote it: its DDL as it was, and a row or two in every table.
CREATE TABLE runs (
	id VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	owner VARCHAR NOT NULL,
	"plan" JSON NOT NULL,
	created FLOAT NOT NULL,
	started FLOAT,
	ended FLOAT,
	error JSON,
	PRIMARY KEY (id)
);
CREATE TABLE stage_runs (
	run VARCHAR NOT NULL,
	stage VARCHAR NOT NULL,
	position INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	attempts INTEGER NOT NULL,
	started FLOAT,
	ended FLOAT,
	outputs JSON,
	error JSON,
	PRIMARY KEY (run, stage)
);
CREATE INDEX stage_runs_by_digest ON stage_runs (digest, state);
CREATE TABLE artifacts (
	id INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	run VARCHAR NOT NULL,
	stage VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	path VARCHAR NOT NULL,
	bytes INTEGER NOT NULL,
	created FLOAT NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX ix_artifacts_digest ON artifacts (digest);
CREATE TABLE events (
	id INTEGER NOT NULL,
	time FLOAT NOT NULL,
	run VARCHAR,
	stage VARCHAR,
	service VARCHAR,
	who VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	data JSON NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX ix_events_run ON events (run);
CREATE INDEX ix_events_service ON events (service);
CREATE TABLE services (
	name VARCHAR NOT NULL,
	current INTEGER,
	version INTEGER NOT NULL,
	PRIMARY KEY (name)
);
CREATE TABLE releases (
	service VARCHAR NOT NULL,
	number INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	run VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	spec JSON NOT NULL,
	url VARCHAR,
	model VARCHAR,
	pid INTEGER,
	created FLOAT NOT NULL,
	promoted FLOAT,
	withdrawn BOOLEAN NOT NULL,
	PRIMARY KEY (service, number),
	UNIQUE (service, digest)
);
CREATE TABLE benchmark_results (
	id INTEGER NOT NULL,
	run VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	created FLOAT NOT NULL,
	metrics JSON NOT NULL,
	report JSON NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX ix_benchmark_results_run ON benchmark_results (run);
PRAGMA user_version = 1;

INSERT INTO runs VALUES ('quickstart-1', 'quickstart', 'succeeded', 'ann', '{"stages": []}', 100.0, 101.0, 109.0, NULL);
INSERT INTO stage_runs VALUES ('quickstart-1', 'data', 0, 'd1', 'succeeded', 1, 101.0, 102.0, '{"metrics": {}}', NULL);
INSERT INTO stage_runs VALUES ('quickstart-1', 'benchmark', 1, 'b1', 'succeeded', 1, 102.0, 109.0,
	'{"metrics": {"gguf.ttft_p95": 0.02}, "report": {"target": "gguf", "levels": [{"concurrency": 1, "latencies": {"ttft": {"n": 8, "mean": 0.01, "p50": 0.01, "p95": 0.02, "p99": 0.02}}}]}}', NULL);
INSERT INTO artifacts VALUES (1, 'a1', 'quickstart-1', 'data', 'rows', '/data/rows.jsonl', 3, 102.0);
INSERT INTO events VALUES (1, 100.0, 'quickstart-1', NULL, NULL, 'ann', 'run.queued', '{}');
INSERT INTO events VALUES (2, 109.0, 'quickstart-1', NULL, NULL, 'ann', 'run.succeeded', '{}');
INSERT INTO services VALUES ('legal', 1, 1);
INSERT INTO releases VALUES ('legal', 1, 'r1', 'quickstart-1', 'warm', '{"port": 8800}', 'http://127.0.0.1:41231/v1', 'legal', 77, 105.0, 106.0, 0);
INSERT INTO benchmark_results VALUES (1, 'quickstart-1', 'b1', 109.0, '{"gguf.ttft_p95": 0.02}',
	'{"target": "gguf", "levels": [{"concurrency": 1, "latencies": {"ttft": {"n": 8, "mean": 0.01, "p50": 0.01, "p95": 0.02, "p99": 0.02}}}]}');
