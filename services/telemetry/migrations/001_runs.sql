-- The record of runs: one row per iteration and name, evaluation, sample of a process, fault and
-- change of a run's state. Statements end with a semicolon at the end of a line; a migration that was
-- cut off is run again from its beginning, hence IF NOT EXISTS. Nothing here expires.

-- Learning curves. Five axes, so that a plot can choose the one that is fair (docs/telemetry.md).
CREATE TABLE IF NOT EXISTS scalars
(
    run_id            LowCardinality(String),
    iteration         UInt64 CODEC(DoubleDelta, ZSTD(1)),
    name              LowCardinality(String),
    value             Float64 CODEC(ZSTD(1)),
    env_steps_nominal UInt64 CODEC(DoubleDelta, ZSTD(1)),
    env_steps_total   UInt64 CODEC(DoubleDelta, ZSTD(1)),
    images_rendered   UInt64 CODEC(DoubleDelta, ZSTD(1)),
    wall_time_s       Float64 CODEC(ZSTD(1)),
    gpu_seconds       Float64 CODEC(ZSTD(1)),
    time              DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (run_id, name, iteration)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Deterministic policy, one row per evaluation; return_std is of the sample, return_ci95 half the
-- width of Student's 95 % interval of the mean (nan for one episode).
CREATE TABLE IF NOT EXISTS evaluations
(
    run_id            LowCardinality(String),
    iteration         UInt64,
    env_steps_nominal UInt64,
    env_steps_total   UInt64,
    images_rendered   UInt64,
    wall_time_s       Float64,
    gpu_seconds       Float64,
    episodes          UInt32,
    return_mean       Float64,
    return_std        Float64,
    return_ci95       Float64,
    return_min        Float64,
    return_max        Float64,
    length_mean       Float64,
    time              DateTime64(9, 'UTC')
)
ENGINE = MergeTree
ORDER BY (run_id, iteration)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The episodes of those evaluations, numbered from 0.
CREATE TABLE IF NOT EXISTS episodes
(
    run_id    LowCardinality(String),
    iteration UInt64,
    episode   UInt32,
    return    Float64,
    length    UInt64
)
ENGINE = MergeTree
ORDER BY (run_id, iteration, episode)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Processes of a run now and then. Bytes as in /proc/<pid>/smaps_rollup: proportional is PSS,
-- which may be summed over services. source and sequence name the row: they make it exactly one.
CREATE TABLE IF NOT EXISTS resources
(
    run_id             LowCardinality(String),
    service            LowCardinality(String),
    pid                UInt32,
    time               DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    cpu_seconds        Float64 CODEC(ZSTD(1)),
    resident_bytes     UInt64 CODEC(ZSTD(1)),
    proportional_bytes UInt64 CODEC(ZSTD(1)),
    shared_bytes       UInt64 CODEC(ZSTD(1)),
    source             LowCardinality(String),
    sequence           UInt64 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (run_id, service, time)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What went wrong and was contained.
CREATE TABLE IF NOT EXISTS faults
(
    run_id    LowCardinality(String),
    service   LowCardinality(String),
    kind      LowCardinality(String),
    iteration UInt64,
    count     UInt64,
    message   String,
    time      DateTime64(9, 'UTC'),
    source    LowCardinality(String),
    sequence  UInt64
)
ENGINE = MergeTree
ORDER BY (run_id, time)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Every change of a run's state in order of arrival (position); NULL keeps what was known before.
CREATE TABLE IF NOT EXISTS run_states
(
    run_id        LowCardinality(String),
    position      UInt64,
    state         LowCardinality(String),
    task          LowCardinality(Nullable(String)),
    algorithm     LowCardinality(Nullable(String)),
    preset        LowCardinality(Nullable(String)),
    observation   LowCardinality(Nullable(String)),
    seed          Nullable(UInt64),
    configuration Nullable(String),
    code_version  Nullable(String),
    hardware      Nullable(String),
    epochs        Nullable(UInt64),
    reason        Nullable(String),
    state_hash    Nullable(String),
    checkpoint    Nullable(String),
    time          DateTime64(9, 'UTC'),
    source        LowCardinality(String),
    sequence      UInt64
)
ENGINE = MergeTree
ORDER BY (run_id, position)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- One row per run: its newest state and what is known of it. configuration and hardware are JSON;
-- reason is that of the newest state.
CREATE OR REPLACE VIEW runs AS
SELECT
    run_id,
    argMax(s.task, s.position)          AS task,
    argMax(s.algorithm, s.position)     AS algorithm,
    argMax(s.preset, s.position)        AS preset,
    argMax(s.observation, s.position)   AS observation,
    argMax(s.seed, s.position)          AS seed,
    argMax(s.state, s.position)         AS state,
    argMax(ifNull(s.reason, ''), s.position) AS reason,
    argMax(s.epochs, s.position)        AS epochs,
    argMax(s.configuration, s.position) AS configuration,
    argMax(s.code_version, s.position)  AS code_version,
    argMax(s.hardware, s.position)      AS hardware,
    argMax(s.state_hash, s.position)    AS state_hash,
    argMax(s.checkpoint, s.position)    AS checkpoint,
    min(s.time)                         AS started_at,
    max(s.time)                         AS updated_at
FROM run_states AS s
GROUP BY run_id;
