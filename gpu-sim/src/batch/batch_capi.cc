// The batch half of the C boundary (include/gpu_sim.h): one batch with its own threads.

#include <string.h>

#include <exception>
#include <new>

#include "batch/batch.h"
#include "gpu_sim.h"
#include "sdpg/sim/v1/sim.pb.h"

using sdpg::batch::Status;

struct gpu_sim_batch {
  std::unique_ptr<sdpg::batch::Batch> batch;
  std::unique_ptr<sdpg::batch::ThreadPool> pool;
  std::string layout;
  uint64_t images = 0;  // drawn since it was created
};

namespace {

int report(const Status& status, char* error, size_t error_bytes) {
  if (!status.ok() && error != nullptr && error_bytes > 0) {
    strncpy(error, status.message.c_str(), error_bytes - 1);
    error[error_bytes - 1] = 0;
  }
  return status.code;
}

// Runs f and turns whatever it throws (memory running out, in practice) into a status.
template <class Function>
int guarded(char* error, size_t error_bytes, const Function& f) {
  Status status;
  try {
    status = f();
  } catch (const std::bad_alloc&) {
    status = {sdpg::batch::kResourceExhausted, "out of memory"};
  } catch (const std::exception& e) {
    status = {sdpg::batch::kInternal, e.what()};
  }
  return report(status, error, error_bytes);
}

}  // namespace

extern "C" {

int gpu_sim_batch_create(const uint8_t* request_bytes, size_t size, int threads,
                         gpu_sim_batch** out, char* error, size_t error_bytes) {
  return guarded(error, error_bytes, [&]() -> Status {
    namespace v1 = sdpg::sim::v1;
    using sdpg::batch::refuse;
    *out = nullptr;
    if (threads < 1 || threads > 1024)
      return refuse(sdpg::batch::kInvalidArgument, "threads: expected 1 to 1024, got %d", threads);
    v1::CreateBatchRequest request;
    if (size > INT32_MAX || !request.ParseFromArray(request_bytes, static_cast<int>(size)))
      return refuse(sdpg::batch::kInvalidArgument,
                    "expected a serialised sdpg.sim.v1.CreateBatchRequest, got %zu other bytes",
                    size);
    sdpg::batch::CreateOptions options;
    options.threads = threads;
    options.shared_memory = request.transport() == v1::TRANSPORT_SHARED_MEMORY;
    auto handle = std::make_unique<gpu_sim_batch>();
    if (Status s = sdpg::batch::Batch::create(request, options, &handle->batch); !s.ok()) return s;
    handle->pool = std::make_unique<sdpg::batch::ThreadPool>(threads);
    v1::CreateBatchResponse response;
    handle->batch->describe(&response);
    response.set_transport(options.shared_memory ? v1::TRANSPORT_SHARED_MEMORY
                                                 : v1::TRANSPORT_INLINE);
    handle->layout = response.SerializeAsString();
    *out = handle.release();
    return {};
  });
}

void gpu_sim_batch_destroy(gpu_sim_batch* batch) { delete batch; }

const uint8_t* gpu_sim_batch_layout(const gpu_sim_batch* batch, size_t* bytes) {
  *bytes = batch->layout.size();
  return reinterpret_cast<const uint8_t*>(batch->layout.data());
}

void* gpu_sim_batch_buffer(gpu_sim_batch* batch, size_t* bytes) {
  *bytes = batch->batch->memory().bytes();
  return batch->batch->buffer();
}

int gpu_sim_batch_begin(gpu_sim_batch* batch, uint64_t epoch, int reset, char* error,
                        size_t error_bytes) {
  return guarded(error, error_bytes, [&] {
    sdpg::batch::BeginReport report;
    Status status = batch->batch->begin(*batch->pool, epoch, reset != 0, &report);
    batch->images += report.images;
    return status;
  });
}

int gpu_sim_batch_step(gpu_sim_batch* batch, uint32_t t, const float* mean, size_t mean_count,
                       const float* log_std, size_t log_std_count, char* error,
                       size_t error_bytes) {
  return guarded(error, error_bytes, [&] {
    sdpg::batch::StepReport report;
    Status status =
        batch->batch->step(*batch->pool, t, mean, mean_count, log_std, log_std_count, &report);
    batch->images += report.images;
    return status;
  });
}

int gpu_sim_batch_end(gpu_sim_batch* batch, char* error, size_t error_bytes) {
  return guarded(error, error_bytes, [&] { return batch->batch->end(nullptr); });
}

uint64_t gpu_sim_batch_images(const gpu_sim_batch* batch) { return batch->images; }

size_t gpu_sim_batch_snapshot_bytes(const gpu_sim_batch* batch) {
  return batch->batch->snapshot_bytes();
}

int gpu_sim_batch_snapshot(const gpu_sim_batch* batch, uint8_t* out, size_t bytes, char* error,
                           size_t error_bytes) {
  return guarded(error, error_bytes, [&] { return batch->batch->snapshot(out, bytes); });
}

int gpu_sim_batch_restore(gpu_sim_batch* batch, const uint8_t* state, size_t bytes, char* error,
                          size_t error_bytes) {
  return guarded(error, error_bytes, [&] { return batch->batch->restore(state, bytes); });
}

}  // extern "C"
