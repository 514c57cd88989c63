-- Views for the questions that are asked of every run; docs/queries.md has them at work. Those with
-- {name:Type} in them are called with their parameters, view(name = value, ...), and refuse wrong ones.

-- Every curve under one name: the scalars, and the evaluations as "evaluation".
CREATE OR REPLACE VIEW curves AS
SELECT run_id, 'evaluation' AS name, iteration, return_mean AS value,
       env_steps_nominal, env_steps_total, images_rendered, wall_time_s, gpu_seconds
FROM evaluations
UNION ALL
SELECT run_id, name, iteration, value,
       env_steps_nominal, env_steps_total, images_rendered, wall_time_s, gpu_seconds
FROM scalars;

-- Which experiment a run belongs to: runs that differ in nothing but the seed (and in how long they
-- went on) are one. Its name ends in a hash of the configuration.
CREATE OR REPLACE VIEW experiments AS
SELECT
    run_id, task, algorithm, preset, observation, seed,
    concat(ifNull(task, '?'), ' ', ifNull(algorithm, '?'), ' ', ifNull(preset, '?'), ' ',
           lower(hex(toUInt32(sipHash64(ifNull(observation, ''), ifNull(configuration, ''))))))
        AS experiment
FROM runs;

-- Mean of a curve over the seeds of each experiment, with Student's 95 % interval of that mean, at the
-- multiples of `step` on an axis. Between its points a run's curve is a straight line; before its first
-- and after its last it has no value, so `seeds` says how many runs a mean is of. ci95 is half the
-- interval's width, nan for one seed. Values that are not finite are left out.
CREATE OR REPLACE VIEW learning_curves AS
WITH
    -- 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom; above, the expansion in 1/df of
    -- Abramowitz and Stegun 26.7.5, there exact to 1e-6.
    [12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
     2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
     2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272]
        AS t975,
    points AS (
        SELECT
            run_id, iteration, value,
            multiIf({axis:String} = 'iteration', toFloat64(iteration),
                    {axis:String} = 'env_steps_nominal', toFloat64(env_steps_nominal),
                    {axis:String} = 'env_steps_total', toFloat64(env_steps_total),
                    {axis:String} = 'images_rendered', toFloat64(images_rendered),
                    {axis:String} = 'wall_time_s', wall_time_s,
                    {axis:String} = 'gpu_seconds', gpu_seconds,
                    toFloat64(throwIf(1, 'axis: expected iteration, env_steps_nominal, env_steps_total, images_rendered, wall_time_s or gpu_seconds')))
                AS x
        FROM curves
        WHERE run_id IN {runs:Array(String)} AND name = {name:String} AND isFinite(value)
          AND NOT throwIf(NOT ({step:Float64} > 0), 'step: expected a number above 0')
    ),
    segments AS (
        SELECT
            run_id, x AS x0, value AS y0,
            leadInFrame(x, 1, x) OVER following AS x1,
            leadInFrame(value, 1, value) OVER following AS y1,
            leadInFrame(0, 1, 1) OVER following AS last
        FROM points
        WINDOW following AS (PARTITION BY run_id ORDER BY x, iteration
                             ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)
    ),
    -- Each segment holds the grid from its own first point up to the next one's; the last point, its own.
    gridded AS (
        SELECT
            run_id,
            arrayJoin(range(toInt64(ceil(x0 / {step:Float64})),
                            toInt64(if(last, floor(x0 / {step:Float64}) + 1, ceil(x1 / {step:Float64}))))) AS k,
            y0 + if(x1 > x0, (y1 - y0) * (k * {step:Float64} - x0) / (x1 - x0), 0) AS y
        FROM segments
        WHERE NOT throwIf((x1 - x0) / {step:Float64} > 100000, 'step: too small for this axis')
    )
SELECT
    e.experiment                AS experiment,
    g.k * {step:Float64}        AS x,
    count()                     AS seeds,
    avg(g.y)                    AS mean,
    stddevSamp(g.y)             AS std,
    std / sqrt(seeds) * multiIf(seeds < 2, nan, seeds <= 31, t975[seeds - 1],
        1.95996398 + 2.37227123 / (seeds - 1) + 2.82249861 / pow(seeds - 1, 2) + 2.5558497 / pow(seeds - 1, 3))
                                AS ci95
FROM gridded AS g
INNER JOIN experiments AS e ON e.run_id = g.run_id
GROUP BY e.experiment, g.k
ORDER BY e.experiment, g.k;

-- The first evaluation of each run that reached a return, on every axis; NULL where none did.
CREATE OR REPLACE VIEW time_to_return AS
SELECT
    run_id,
    {threshold:Float64}                                                      AS threshold,
    countIf(e.return_mean >= {threshold:Float64}) > 0                        AS reached,
    minOrNullIf(e.iteration, e.return_mean >= {threshold:Float64})           AS iteration,
    argMinOrNullIf(e.env_steps_nominal, e.iteration, e.return_mean >= {threshold:Float64}) AS env_steps_nominal,
    argMinOrNullIf(e.env_steps_total, e.iteration, e.return_mean >= {threshold:Float64})   AS env_steps_total,
    argMinOrNullIf(e.images_rendered, e.iteration, e.return_mean >= {threshold:Float64})   AS images_rendered,
    argMinOrNullIf(e.wall_time_s, e.iteration, e.return_mean >= {threshold:Float64})       AS wall_time_s,
    argMinOrNullIf(e.gpu_seconds, e.iteration, e.return_mean >= {threshold:Float64})       AS gpu_seconds
FROM evaluations AS e
GROUP BY run_id;

-- Evaluations of each run in short: the newest, the best, and the mean of the newest `last`.
CREATE OR REPLACE VIEW evaluation_summary AS
SELECT
    run_id,
    count()                                             AS evaluations,
    argMax(e.return_mean, e.iteration)                  AS newest,
    max(e.return_mean)                                  AS best,
    argMin(e.iteration, (-e.return_mean, e.iteration))  AS best_iteration,
    least(evaluations, {last:UInt32})                   AS averaged,
    arrayAvg(arraySlice(
        arrayMap(pair -> pair.2, arraySort(groupArray((e.iteration, e.return_mean)))), -toInt32(averaged)))
                                                        AS mean_last
FROM evaluations AS e
WHERE isFinite(e.return_mean)
  AND NOT throwIf({last:UInt32} = 0, 'last: expected a whole number, 1 or more')
GROUP BY run_id;

-- Memory of a run by second and service, and of all its services together ('all'). Proportional set
-- size, so that a page shared by several processes is counted once.
CREATE OR REPLACE VIEW memory AS
SELECT run_id, arrayJoin([toString(p.service), 'all']) AS service, second, sum(p.bytes) AS bytes
FROM (
    SELECT r.run_id AS run_id, r.service AS service, r.pid AS pid, toStartOfSecond(r.time) AS second,
           max(r.proportional_bytes) AS bytes
    FROM resources AS r
    GROUP BY r.run_id, r.service, r.pid, second
) AS p
GROUP BY run_id, service, second;

-- The most memory of each service of a run, of all of them ('all'), and when that was first.
CREATE OR REPLACE VIEW peak_memory AS
SELECT run_id, service, max(m.bytes) AS peak_bytes, argMin(m.second, (-toInt64(m.bytes), m.second)) AS peak_at
FROM memory AS m
GROUP BY run_id, service;

-- What a run's training time went into. Phases are nested by their names: rollout/simulation is a part
-- of rollout; those of depth 1 add up to wall_time_s together with '(other)', which no phase explains.
CREATE OR REPLACE VIEW phase_shares AS
SELECT
    run_id,
    entry.1                                     AS phase,
    toUInt8(countSubstrings(phase, '/') + 1)    AS depth,
    entry.2                                     AS seconds,
    seconds / wall_time_s                       AS share,
    wall_time_s,
    epochs
FROM (
    SELECT
        s.run_id AS run_id,
        sumMap(map(substring(toString(s.name), 7), s.value)) AS phases,
        max(s.wall_time_s) AS wall_time_s,
        uniqExact(s.iteration) AS epochs,
        arraySum(arrayFilter((seconds, phase) -> position(phase, '/') = 0, mapValues(phases), mapKeys(phases)))
            AS explained
    FROM scalars AS s
    WHERE startsWith(s.name, 'phase/')
    GROUP BY s.run_id
)
ARRAY JOIN arrayPushBack(arrayZip(mapKeys(phases), mapValues(phases)),
                         ('(other)', wall_time_s - explained)) AS entry;

-- Work per second of training time, evaluations and checkpoints included.
CREATE OR REPLACE VIEW throughput AS
SELECT
    run_id,
    max(s.iteration)                            AS epochs,
    max(s.wall_time_s)                          AS wall_time_s,
    epochs / wall_time_s                        AS epochs_per_s,
    max(s.env_steps_nominal) / wall_time_s      AS env_steps_nominal_per_s,
    max(s.env_steps_total) / wall_time_s        AS env_steps_total_per_s,
    max(s.images_rendered) / wall_time_s        AS images_per_s
FROM scalars AS s
GROUP BY run_id;

-- How far each run is: runs, with its newest training return (mean of the last 100 episodes) and
-- evaluation, NULL while there is none.
CREATE OR REPLACE VIEW run_progress AS
SELECT
    r.run_id AS run_id, r.task AS task, r.algorithm AS algorithm, r.preset AS preset,
    r.observation AS observation, r.seed AS seed, r.state AS state, r.reason AS reason,
    p.epochs AS epochs, p.wall_time_s AS wall_time_s, p.env_steps_total AS env_steps_total,
    p.images_rendered AS images_rendered, p.return AS return, e.newest AS evaluation,
    r.started_at AS started_at, r.updated_at AS updated_at
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
