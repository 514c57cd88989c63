-- What people say of runs: tags and a note. A row is one change, of a tag or, where that is empty, of the
-- note; nothing is changed in place, and of what was said about the same thing the latest holds (of the
-- same time: by sender and number). source and sequence name the row: they make it exactly one.
CREATE TABLE IF NOT EXISTS annotations
(
    run_id   LowCardinality(String),
    time     DateTime64(9, 'UTC'),
    tag      LowCardinality(String),
    removed  UInt8,
    note     String,
    source   LowCardinality(String),
    sequence UInt64
)
ENGINE = MergeTree
ORDER BY (run_id, tag, time)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What holds now: one row per run that was ever annotated.
CREATE OR REPLACE VIEW run_annotations AS
SELECT
    run_id,
    arraySort(groupArrayIf(toString(tag), tag != '' AND NOT latest.1)) AS tags,
    anyIf(latest.2, tag = '')                                          AS note
FROM (
    SELECT run_id, tag, argMax((a.removed, a.note), (a.time, a.source, a.sequence)) AS latest
    FROM annotations AS a
    GROUP BY run_id, tag
)
GROUP BY run_id;

-- runs as before, with what people said of each: no tags and an empty note where nothing was.
CREATE OR REPLACE VIEW runs AS
SELECT
    r.run_id AS run_id, task, algorithm, preset, observation, seed, state, reason, epochs, configuration,
    code_version, hardware, state_hash, checkpoint, started_at, updated_at,
    a.tags AS tags, a.note AS note
FROM (
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
    GROUP BY run_id
) AS r
LEFT JOIN run_annotations AS a ON a.run_id = r.run_id;

CREATE OR REPLACE VIEW run_progress AS
SELECT
    r.run_id AS run_id, r.task AS task, r.algorithm AS algorithm, r.preset AS preset,
    r.observation AS observation, r.seed AS seed, r.state AS state, r.reason AS reason,
    p.epochs AS epochs, p.wall_time_s AS wall_time_s, p.env_steps_total AS env_steps_total,
    p.images_rendered AS images_rendered, p.return AS return, e.newest AS evaluation,
    r.started_at AS started_at, r.updated_at AS updated_at, r.tags AS tags, r.note AS note
FROM runs AS r
LEFT JOIN (
    SELECT
        s.run_id AS run_id, max(s.iteration) AS epochs, max(s.wall_time_s) AS wall_time_s,
        max(s.env_steps_total) AS env_steps_total, max(s.images_rendered) AS images_rendered,
        argMaxOrNullIf(s.value, s.iteration, s.name = 'rewards') AS return
    FROM scalars AS s
    GROUP BY s.run_id
) AS p ON p.run_id = r.run_id
LEFT JOIN (
    SELECT run_id, toNullable(argMax(return_mean, iteration)) AS newest
    FROM evaluations
    GROUP BY run_id
) AS e ON e.run_id = r.run_id;
