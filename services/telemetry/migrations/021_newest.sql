-- The newest numbers of each run are kept beside the scalars, part by part: run_progress and throughput ask
-- for just these, and a list of runs does not read every scalar of the store. Parts that were there before
-- get theirs in the background; until then they are read as before.
ALTER TABLE scalars ADD PROJECTION IF NOT EXISTS newest
(
    SELECT
        run_id, max(iteration), max(env_steps_nominal), max(env_steps_total), max(images_rendered),
        max(wall_time_s), argMaxOrNullIf(value, iteration, name = 'rewards')
    GROUP BY run_id
);
ALTER TABLE scalars MATERIALIZE PROJECTION newest;
