-- Curves know when each of their points was made, which files of TensorBoard hold beside the step.
CREATE OR REPLACE VIEW curves AS
SELECT run_id, 'evaluation' AS name, iteration, return_mean AS value,
       env_steps_nominal, env_steps_total, images_rendered, wall_time_s, gpu_seconds, time
FROM evaluations
UNION ALL
SELECT run_id, name, iteration, value,
       env_steps_nominal, env_steps_total, images_rendered, wall_time_s, gpu_seconds, time
FROM scalars;
