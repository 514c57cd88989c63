/* C boundary of gpu-sim's core: what the gRPC server, the in-process benchmark and the parity
 * tests call. Messages are serialised protobuf (proto/sdpg/sim/v1). Every function returns 0 or
 * a gRPC status code (3 INVALID_ARGUMENT, 8 RESOURCE_EXHAUSTED, 9 FAILED_PRECONDITION, 13
 * INTERNAL, ...) and then writes one NUL-terminated line into `error`. No exception crosses it. */
#ifndef GPU_SIM_H_
#define GPU_SIM_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GPU_SIM_API __attribute__((visibility("default")))

typedef struct gpu_sim_batch gpu_sim_batch;
typedef struct gpu_sim_physics gpu_sim_physics;

/* ---- batch ------------------------------------------------------------------------------ */

/* `request`: sdpg.sim.v1.CreateBatchRequest. `threads`: workers, at least 1. The rollout buffer
 * is plain memory of this process unless the request asks for shared memory. */
GPU_SIM_API int gpu_sim_batch_create(const uint8_t* request, size_t request_bytes, int threads,
                                     gpu_sim_batch** out, char* error, size_t error_bytes);
GPU_SIM_API void gpu_sim_batch_destroy(gpu_sim_batch* batch);

/* Serialised sdpg.sim.v1.CreateBatchResponse: the layout of the rollout buffer. Valid until
 * destroy. */
GPU_SIM_API const uint8_t* gpu_sim_batch_layout(const gpu_sim_batch* batch, size_t* bytes);
/* The rollout buffer itself. */
GPU_SIM_API void* gpu_sim_batch_buffer(gpu_sim_batch* batch, size_t* bytes);

GPU_SIM_API int gpu_sim_batch_begin(gpu_sim_batch* batch, uint64_t epoch, int reset, char* error,
                                    size_t error_bytes);
/* mean: [N, A]; log_std: [A] or [N, A] by `log_std_count`, or NULL for no noise. */
GPU_SIM_API int gpu_sim_batch_step(gpu_sim_batch* batch, uint32_t t, const float* mean,
                                   size_t mean_count, const float* log_std, size_t log_std_count,
                                   char* error, size_t error_bytes);
GPU_SIM_API int gpu_sim_batch_end(gpu_sim_batch* batch, char* error, size_t error_bytes);

/* Pictures drawn since the batch was created, those of all views. */
GPU_SIM_API uint64_t gpu_sim_batch_images(const gpu_sim_batch* batch);

/* Size, then bytes, of the exact state. */
GPU_SIM_API size_t gpu_sim_batch_snapshot_bytes(const gpu_sim_batch* batch);
GPU_SIM_API int gpu_sim_batch_snapshot(const gpu_sim_batch* batch, uint8_t* out, size_t bytes,
                                       char* error, size_t error_bytes);
GPU_SIM_API int gpu_sim_batch_restore(gpu_sim_batch* batch, const uint8_t* state, size_t bytes,
                                      char* error, size_t error_bytes);

/* ---- doorbell (batch/doorbell.h): the caller's half, on the mapped shared memory ---------------
 */

/* Rings and waits for the answer; 1 when it came within `timeout_ms`, else 0. */
GPU_SIM_API int gpu_sim_doorbell_ring(void* doorbell, int timeout_ms);
/* Goes on waiting for the answer of the newest ring. */
GPU_SIM_API int gpu_sim_doorbell_await(void* doorbell, int timeout_ms);

/* ---- physics alone (parity tests, benchmark) ----------------------------------------------- */

/* `model`: sdpg.model.v1.Model. `precision`: 4 or 8 bytes. State crosses in double, [env][index].
 */
GPU_SIM_API int gpu_sim_physics_create(const uint8_t* model, size_t model_bytes, int environments,
                                       int precision, int threads, const char* isa,
                                       gpu_sim_physics** out, char* error, size_t error_bytes);
/* The same for a model some of whose constants differ between environments. `slots`:
 * [slot_count][2], sdpg.task.v1.ParameterField and the element of MuJoCo's array of that name.
 * All environments begin with the model's own values. */
GPU_SIM_API int gpu_sim_physics_create_with(const uint8_t* model, size_t model_bytes,
                                            const int32_t* slots, int slot_count, int environments,
                                            int precision, int threads, const char* isa,
                                            gpu_sim_physics** out, char* error, size_t error_bytes);
GPU_SIM_API void gpu_sim_physics_destroy(gpu_sim_physics* physics);
/* nq, nv, nu, nbody, max_contacts, max_rows, lanes, bytes per environment. */
GPU_SIM_API void gpu_sim_physics_sizes(const gpu_sim_physics* physics, int32_t out[8]);
/* Also zeroes the warm start and the activations, as after mj_resetData. */
GPU_SIM_API void gpu_sim_physics_set(gpu_sim_physics* physics, const double* qpos,
                                     const double* qvel, const double* ctrl);
GPU_SIM_API void gpu_sim_physics_set_ctrl(gpu_sim_physics* physics, const double* ctrl);
/* Number of activations, and what they are: [env][na]. */
GPU_SIM_API int gpu_sim_physics_na(const gpu_sim_physics* physics);
GPU_SIM_API void gpu_sim_physics_set_act(gpu_sim_physics* physics, const double* act);
GPU_SIM_API void gpu_sim_physics_get_act(const gpu_sim_physics* physics, double* act);
/* [env][slot], absolute values in the order of the slots. */
GPU_SIM_API void gpu_sim_physics_set_parameters(gpu_sim_physics* physics, const double* values);
GPU_SIM_API void gpu_sim_physics_get(const gpu_sim_physics* physics, double* qpos, double* qvel);
GPU_SIM_API void gpu_sim_physics_step(gpu_sim_physics* physics, int substeps);
/* qacc, qacc_smooth, qfrc_constraint: [env][nv]. contacts: [env][max_contacts][21] as in
 * core/kernels.h, with contact_count [env]. Any pointer may be NULL. */
GPU_SIM_API void gpu_sim_physics_forward(gpu_sim_physics* physics, double* qacc,
                                         double* qacc_smooth, double* qfrc_constraint,
                                         double* contacts, int32_t* contact_count);
GPU_SIM_API void gpu_sim_physics_status(const gpu_sim_physics* physics, uint32_t* status);

/* ---- renderer alone (tests) --------------------------------------------------------------- */

/* `model`: sdpg.model.v1.Model. */
GPU_SIM_API int sdpg_render_open(const uint8_t* model, size_t model_bytes, void** scene,
                                 char* error, size_t error_bytes);
/* Draws one frame of `view`, an sdpg.view.v1.View, into `pixels`, which has exactly its bytes.
 * pose: [nbody][7] position in m and quaternion (w, x, y, z), the world's body first. seed,
 * environment, picture: key of the depth noise. isa: empty or NULL for the best one. */
GPU_SIM_API int sdpg_render_draw(void* scene, const uint8_t* view, size_t view_bytes,
                                 const float* pose, uint64_t seed, uint32_t environment,
                                 uint64_t picture, const char* isa, void* pixels,
                                 size_t pixel_bytes, char* error, size_t error_bytes);
GPU_SIM_API void sdpg_render_close(void* scene);

#ifdef __cplusplus
}
#endif
#endif /* GPU_SIM_H_ */
