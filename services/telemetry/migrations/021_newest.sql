-- The newest numbers of each run are kept beside the scalars, part by part: run_progress asks for just these,
-- and a list of runs does not read every scalar of the store. Parts that were there before get theirs in the
-- background; until then they are read as before.
ALTER TABLE scalars ADD PROJECTION IF NOT EXISTS newest
(
    SELECT
        run_id, max(iteration), max(wall_time_s), max(env_steps_total), max(images_rendered),
        argMaxOrNullIf(value, iteration, name = 'rewards')
    GROUP BY run_id
);
ALTER TABLE scalars MATERIALIZE PROJECTION newest;
