#include "server/service.h"

#include <string.h>

#include "cuda/device.h"
#include "server/log.h"
#include "server/rpc.h"
#include "server/version.h"

namespace sdpg::server {
namespace {

namespace v1 = sdpg::sim::v1;
using batch::refuse;

}  // namespace

// A batch and who uses it.
struct SimulationService::Entry {
  std::unique_ptr<batch::Batch> batch;
  bool inline_transport = false;
  std::uint64_t bytes = 0;  // counted against the limit
  std::mutex mutex;         // held while the batch's state is read or changed
  // Under `mutex`.
  bool streaming = false;  // a Rollout stream owns it
  bool destroyed = false;  // a stream that still owns it frees the batch when it notices
};

SimulationService::SimulationService(std::shared_ptr<Resources> resources)
    : resources_(std::move(resources)), options_(resources_->options) {}

SimulationService::~SimulationService() = default;

std::shared_ptr<SimulationService::Entry> SimulationService::find(const std::string& batch_id) {
  std::lock_guard lock(mutex_);
  const auto found = batches_.find(batch_id);
  return found == batches_.end() ? nullptr : found->second;
}

namespace {

grpc::Status no_batch(const std::string& batch_id) {
  return refused(batch::kNotFound,
                 "batch '" + batch_id.substr(0, 64) + "' does not exist; create it first");
}

}  // namespace

grpc::Status SimulationService::Describe(grpc::ServerContext* context, const v1::DescribeRequest*,
                                         v1::DescribeResponse* response) {
  return guarded(context, "Describe", [&] {
    std::string error;
    const core::Kernels* kernels =
        core::select_kernels(core::Precision::kFloat32, options_.isa, &error);
    if (kernels == nullptr) return refused(batch::kFailedPrecondition, error);
    const bool on_device = options_.device != nullptr;
    response->set_version(version());
    response->set_isa(on_device ? "cuda" : kernels->isa);
    response->set_lanes(on_device ? cuda::kLanes : static_cast<std::uint32_t>(kernels->lanes));
    response->set_threads(static_cast<std::uint32_t>(options_.threads));
    if (on_device) response->add_transports(v1::TRANSPORT_CUDA_IPC);
    if (options_.shared_memory && !on_device) response->add_transports(v1::TRANSPORT_SHARED_MEMORY);
    response->add_transports(v1::TRANSPORT_INLINE);
    response->set_memory_limit_bytes(options_.memory_limit_bytes);
    return grpc::Status::OK;
  });
}

grpc::Status SimulationService::CreateBatch(grpc::ServerContext* context,
                                            const v1::CreateBatchRequest* request,
                                            v1::CreateBatchResponse* response) {
  return guarded(context, "CreateBatch", [&]() -> grpc::Status {
    const bool on_device = options_.device != nullptr;
    bool shared = options_.shared_memory && !on_device, ipc = on_device;
    switch (request->transport()) {
      case v1::TRANSPORT_UNSPECIFIED:
        shared = shared && is_local(context->peer());
        ipc = ipc && is_local(context->peer());
        break;
      case v1::TRANSPORT_SHARED_MEMORY:
        ipc = false;
        if (!shared)
          return refused(batch::kInvalidArgument,
                         on_device
                             ? "transport: the batch is on a CUDA device; use cuda_ipc or inline"
                             : "transport: this server does not offer shared memory; use inline");
        break;
      case v1::TRANSPORT_INLINE:
        shared = ipc = false;
        break;
      case v1::TRANSPORT_CUDA_IPC:
        shared = false;
        if (!ipc)
          return refused(batch::kInvalidArgument,
                         "transport: this server steps on the CPU; start it with --device cuda, or "
                         "use shared_memory or inline");
        break;
      default:
        return refused(batch::kInvalidArgument,
                       "transport: unknown value " + std::to_string(int{request->transport()}));
    }
    batch::CreateOptions create;
    create.threads = options_.threads;
    create.isa = options_.isa;
    create.shared_memory = shared;
    create.device = options_.device.get();
    create.cuda_ipc = ipc;
    auto entry = std::make_shared<Entry>();
    entry->inline_transport = !shared && !ipc;
    std::lock_guard creating(resources_->memory);
    create.memory_limit_bytes = resources_->left_bytes();
    if (batch::Status s = batch::Batch::create(*request, create, &entry->batch); !s.ok())
      return to_grpc(s);
    entry->bytes = entry->batch->state_bytes() + entry->batch->memory().bytes();
    const batch::BatchSizes& sizes = entry->batch->sizes();
    const std::uint64_t actor_bytes = std::uint64_t{sizes.nominals} * sizes.actor * 4;
    if (entry->inline_transport && actor_bytes > kMaxMessageBytes / 2)
      return refused(batch::kInvalidArgument,
                     "transport inline: the actor observations of one step are " +
                         std::to_string(actor_bytes) + " bytes, at most " +
                         std::to_string(kMaxMessageBytes / 2) + " fit a message");
    std::lock_guard lock(mutex_);
    const std::string id = "batch-" + std::to_string(++next_batch_);
    entry->batch->describe(response);
    response->set_batch_id(id);
    response->set_transport(ipc      ? v1::TRANSPORT_CUDA_IPC
                            : shared ? v1::TRANSPORT_SHARED_MEMORY
                                     : v1::TRANSPORT_INLINE);
    resources_->used_bytes += entry->bytes;
    batches_[id] = entry;
    log("info", "batch created",
        {{"batch", id},
         {"task", request->task().name().substr(0, 64)},
         {"nominals", std::to_string(sizes.nominals)},
         {"auxiliaries", std::to_string(sizes.auxiliaries)},
         {"horizon", std::to_string(sizes.horizon)},
         {"isa", entry->batch->isa()},
         {"bytes", std::to_string(entry->bytes)},
         {"transport", ipc      ? "cuda_ipc"
                       : shared ? "shared_memory"
                                : "inline"}});
    return grpc::Status::OK;
  });
}

grpc::Status SimulationService::DestroyBatch(grpc::ServerContext* context,
                                             const v1::DestroyBatchRequest* request,
                                             v1::DestroyBatchResponse*) {
  return guarded(context, "DestroyBatch", [&]() -> grpc::Status {
    std::shared_ptr<Entry> entry;
    {
      std::lock_guard lock(mutex_);
      const auto found = batches_.find(request->batch_id());
      if (found == batches_.end()) return no_batch(request->batch_id());
      entry = found->second;
      batches_.erase(found);
    }
    bool freed = false;
    {
      std::lock_guard lock(entry->mutex);
      entry->destroyed = true;
      // A stream may be listening at the doorbell, in the batch's own memory: it frees the batch.
      freed = !entry->streaming;
      if (freed) entry->batch.reset();
    }
    if (freed) resources_->give_back(entry->bytes);
    log("info", "batch destroyed", {{"batch", request->batch_id()}});
    return grpc::Status::OK;
  });
}

grpc::Status SimulationService::DescribeBatch(grpc::ServerContext* context,
                                              const v1::DescribeBatchRequest* request,
                                              v1::DescribeBatchResponse* response) {
  return guarded(context, "DescribeBatch", [&]() -> grpc::Status {
    const auto entry = find(request->batch_id());
    if (!entry) return no_batch(request->batch_id());
    std::lock_guard lock(entry->mutex);
    if (entry->destroyed) return no_batch(request->batch_id());
    const batch::Batch& batch = *entry->batch;
    response->set_buffer_bytes(batch.layout().bytes);
    response->set_state_bytes(batch.state_bytes());
    response->set_environment_bytes(batch.environment_bytes());
    response->set_environment_steps(batch.environment_steps());
    for (int bit = 0; bit < 8; ++bit) {
      if (batch.fault_count(bit) != 0)
        (*response->mutable_faults())[1u << bit] = batch.fault_count(bit);
    }
    return grpc::Status::OK;
  });
}

// ---- rollout
// -----------------------------------------------------------------------------------------

// One Rollout stream: checks the protocol, moves the batch, answers.
class SimulationService::RolloutStream {
 public:
  using Stream = grpc::ServerReaderWriter<v1::RolloutResponse, v1::RolloutRequest>;
  // Offsets and lengths in the rollout buffer, in bytes.
  using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

  RolloutStream(SimulationService& service, const grpc::ServerContext& context, Stream& stream)
      : service_(service), context_(context), stream_(stream) {}
  ~RolloutStream() { release(); }

  grpc::Status serve() {
    while (stream_.Read(&request_)) {
      grpc::Status status = check_envelope();
      if (!status.ok()) return status;
      switch (request_.message_case()) {
        case v1::RolloutRequest::kBegin:
          status = begin(request_.begin());
          if (status.ok()) status = answer_doorbell();
          break;
        case v1::RolloutRequest::kStep:
          status = step(request_.step());
          break;
        case v1::RolloutRequest::kEnd:
          status = end();
          break;
        case v1::RolloutRequest::kCredit:
          credits_ += request_.credit().chunks();
          break;
        default:
          status = refused(batch::kInvalidArgument,
                           "message " + std::to_string(request_.sequence()) +
                               ": expected begin, step, end or credit, got none of them");
      }
      if (!status.ok()) return status;
    }
    return grpc::Status::OK;  // the caller closed or cancelled the stream
  }

 private:
  grpc::Status check_envelope() {
    if (request_.sequence() != next_request_)
      return refused(batch::kInvalidArgument, "sequence: expected " +
                                                  std::to_string(next_request_) + ", got " +
                                                  std::to_string(request_.sequence()));
    next_request_ += 1;
    if (entry_ == nullptr) return attach();
    if (request_.batch_id() != batch_id_)
      return refused(batch::kInvalidArgument, "batch_id: this stream is for '" + batch_id_ +
                                                  "', got '" + request_.batch_id().substr(0, 64) +
                                                  "'");
    return grpc::Status::OK;
  }

  grpc::Status attach() {
    auto entry = service_.find(request_.batch_id());
    if (!entry) return no_batch(request_.batch_id());
    std::lock_guard lock(entry->mutex);
    if (entry->destroyed) return no_batch(request_.batch_id());
    if (entry->streaming)
      return refused(
          batch::kFailedPrecondition,
          "batch '" + request_.batch_id() + "' already has a Rollout stream; end it first");
    entry->streaming = true;
    entry_ = entry;
    batch_id_ = request_.batch_id();
    response_.set_batch_id(batch_id_);
    return grpc::Status::OK;
  }

  void release() {
    if (entry_ == nullptr) return;
    {
      std::lock_guard lock(entry_->mutex);
      entry_->streaming = false;
      if (!entry_->destroyed) {
        entry_->batch->abandon();
        return;
      }
      entry_->batch.reset();
    }
    service_.resources_->give_back(entry_->bytes);
  }

  grpc::Status begin(const v1::Begin& begin) {
    std::unique_lock lock(entry_->mutex);
    if (entry_->destroyed) return no_batch(batch_id_);
    batch::BeginReport report;
    const batch::Status status =
        entry_->batch->begin(service_.resources_->pool, begin.epoch(), begin.reset(), &report);
    if (!status.ok()) return to_grpc(status);
    std::uint32_t chunks = 0;
    if (grpc::Status sent = send_images(0, lock, &chunks); !sent.ok()) return sent;
    auto* begun = response_.mutable_begun();
    set_actor(0, begun->mutable_actor());
    begun->set_images(report.images);
    begun->set_chunks(chunks);
    begun->clear_timings();
    for (const batch::PhaseTime& phase : report.phases) {
      if (phase.phase != nullptr) add_timing(phase, begun->add_timings());
    }
    // Before the caller can know that the segment has begun, and so before its first ring.
    if (batch::Doorbell* bell = entry_->batch->doorbell()) bell->listen();
    return write();
  }

  // Serves the segment's steps by the doorbell, if the caller armed it before its Begin.
  grpc::Status answer_doorbell() {
    batch::Doorbell* const bell = entry_->batch->doorbell();
    if (bell == nullptr || bell->armed != 1) return grpc::Status::OK;
    const std::uint64_t mean_count = entry_->batch->action_values();
    while (true) {
      while (!bell->await_ring(kDoorbellMs)) {
        if (context_.IsCancelled()) return grpc::Status::CANCELLED;
        std::lock_guard lock(entry_->mutex);
        if (entry_->destroyed) return no_batch(batch_id_);
      }
      std::lock_guard lock(entry_->mutex);
      if (entry_->destroyed) return no_batch(batch_id_);
      // Both come from memory that the caller can still write: what is checked is a copy.
      const std::uint32_t command = bell->command;
      const std::uint32_t t = bell->t;
      const std::uint64_t log_std_count = std::min<std::uint64_t>(bell->log_std_count, mean_count);
      batch::Status status;
      if (command == batch::Doorbell::kStep) {
        mean_.assign(bell->values, bell->values + mean_count);
        log_std_.assign(bell->values + mean_count, bell->values + mean_count + log_std_count);
        status = entry_->batch->step(service_.resources_->pool, t, mean_.data(), mean_count,
                                     log_std_count == 0 ? nullptr : log_std_.data(), log_std_count,
                                     &report_);
        if (status.ok()) bell->add(report_);
      } else if (command == batch::Doorbell::kEnd) {
        std::uint32_t steps = 0;
        status = entry_->batch->end(&steps);
      } else {
        status =
            refuse(batch::kInvalidArgument, "doorbell: expected command 1 or 2, got %u", command);
      }
      bell->answer(static_cast<std::uint32_t>(status.code), status.message.c_str());
      if (!status.ok()) return to_grpc(status);
      if (command == batch::Doorbell::kEnd) return grpc::Status::OK;
    }
  }

  grpc::Status step(const v1::Step& step) {
    std::unique_lock lock(entry_->mutex);
    if (entry_->destroyed) return no_batch(batch_id_);
    if (step.mean().size() % 4 != 0 || step.log_std().size() % 4 != 0)
      return refused(batch::kInvalidArgument, "step: expected float32 arrays, got " +
                                                  std::to_string(step.mean().size()) + " and " +
                                                  std::to_string(step.log_std().size()) + " bytes");
    const batch::Status status = entry_->batch->step(
        service_.resources_->pool, step.t(), floats(step.mean(), &mean_), step.mean().size() / 4,
        step.log_std().empty() ? nullptr : floats(step.log_std(), &log_std_),
        step.log_std().size() / 4, &report_);
    if (!status.ok()) return to_grpc(status);
    const std::uint32_t t = step.t();  // the message's storage is needed for credits
    std::uint32_t chunks = 0;
    if (t + 1 < entry_->batch->sizes().horizon) {
      if (grpc::Status sent = send_images(t + 1, lock, &chunks); !sent.ok()) return sent;
    }
    auto* stepped = response_.mutable_stepped();
    stepped->set_t(t);
    set_actor(t + 1, stepped->mutable_actor());
    stepped->set_images(report_.images);
    stepped->set_chunks(chunks);
    stepped->set_nominals_done(report_.nominals_done);
    stepped->set_faults(report_.faults);
    stepped->clear_timings();
    for (const batch::PhaseTime& phase : report_.phases) {
      if (phase.phase != nullptr) add_timing(phase, stepped->add_timings());
    }
    return write();
  }

  grpc::Status end() {
    std::uint32_t steps = 0, chunks = 0;
    Ranges ranges;
    {
      std::lock_guard lock(entry_->mutex);
      if (entry_->destroyed) return no_batch(batch_id_);
      if (batch::Status s = entry_->batch->end(&steps); !s.ok()) return to_grpc(s);
      if (entry_->inline_transport) {
        entry_->batch->written_ranges(steps, [&](std::uint64_t offset, std::uint64_t bytes) {
          ranges.emplace_back(offset, bytes);
          return true;
        });
      }
    }
    if (grpc::Status status = send_chunks(ranges, &chunks); !status.ok()) return status;
    auto* ended = response_.mutable_ended();
    ended->set_steps(steps);
    ended->set_chunks(chunks);
    return write();
  }

  // With the inline transport, sends the images of a slot. `lock` is on the entry; it is given up
  // while credits are awaited, and held again where this succeeds.
  grpc::Status send_images(std::uint32_t slot, std::unique_lock<std::mutex>& lock,
                           std::uint32_t* chunks) {
    if (!entry_->inline_transport || !entry_->batch->draws()) return grpc::Status::OK;
    Ranges ranges;
    entry_->batch->image_ranges(slot, [&](std::uint64_t offset, std::uint64_t bytes) {
      ranges.emplace_back(offset, bytes);
    });
    lock.unlock();
    if (grpc::Status status = send_chunks(ranges, chunks); !status.ok()) return status;
    lock.lock();
    return entry_->destroyed ? no_batch(batch_id_) : grpc::Status::OK;
  }

  // Sends ranges of the buffer, a chunk a credit.
  grpc::Status send_chunks(const Ranges& ranges, std::uint32_t* chunks) {
    for (auto [offset, bytes] : ranges) {
      while (bytes > 0) {
        while (credits_ == 0) {
          if (!stream_.Read(&request_)) return grpc::Status::CANCELLED;
          if (grpc::Status status = check_envelope(); !status.ok()) return status;
          if (request_.message_case() != v1::RolloutRequest::kCredit)
            return refused(batch::kInvalidArgument, "expected credit while chunks are under way");
          credits_ += request_.credit().chunks();
        }
        const std::uint64_t length = std::min<std::uint64_t>(bytes, kChunkBytes);
        {
          std::lock_guard lock(entry_->mutex);
          if (entry_->destroyed) return no_batch(batch_id_);
          auto* chunk = response_.mutable_chunk();
          chunk->set_offset_bytes(offset);
          chunk->set_data(static_cast<const char*>(entry_->batch->buffer()) + offset, length);
        }
        if (grpc::Status status = write(); !status.ok()) return status;
        credits_ -= 1;
        *chunks += 1;
        offset += length;
        bytes -= length;
      }
    }
    return grpc::Status::OK;
  }

  void set_actor(std::uint32_t slot, std::string* out) {
    out->clear();
    if (!entry_->inline_transport) return;
    const batch::Batch& batch = *entry_->batch;
    const auto& actor = batch.layout().arrays[2];
    out->assign(
        static_cast<const char*>(batch.buffer()) + actor.offset_bytes + slot * actor.slot_bytes,
        actor.slot_bytes);
  }

  static void add_timing(const batch::PhaseTime& time, v1::Timing* timing) {
    timing->set_phase(time.phase);
    timing->set_start_unix_nano(time.start);
    timing->set_end_unix_nano(time.end);
  }

  // The bytes as floats: in place, or copied where a string's storage is not aligned for them.
  static const float* floats(const std::string& bytes, std::vector<float>* copy) {
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(float) == 0)
      return reinterpret_cast<const float*>(bytes.data());
    copy->resize(bytes.size() / 4);
    memcpy(copy->data(), bytes.data(), bytes.size());
    return copy->data();
  }

  grpc::Status write() {
    response_.set_sequence(next_response_++);
    grpc::WriteOptions options;
    options.set_no_compression();
    return stream_.Write(response_, options) ? grpc::Status::OK : grpc::Status::CANCELLED;
  }

  // How long a listener at the doorbell takes to notice that its caller is gone.
  static constexpr int kDoorbellMs = 100;

  SimulationService& service_;
  const grpc::ServerContext& context_;
  Stream& stream_;
  std::shared_ptr<Entry> entry_;
  std::string batch_id_;
  std::uint64_t next_request_ = 0, next_response_ = 0, credits_ = 0;
  // Reused from message to message.
  v1::RolloutRequest request_;
  v1::RolloutResponse response_;
  batch::StepReport report_;
  std::vector<float> mean_, log_std_;
};

grpc::Status SimulationService::Rollout(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::RolloutResponse, v1::RolloutRequest>* stream) {
  return guarded(context, "Rollout",
                 [&] { return RolloutStream(*this, *context, *stream).serve(); });
}

// ---- snapshots
// -----------------------------------------------------------------------------------------

grpc::Status SimulationService::SnapshotBatch(
    grpc::ServerContext* context, const v1::SnapshotBatchRequest* request,
    grpc::ServerWriter<v1::SnapshotBatchResponse>* writer) {
  return guarded(context, "SnapshotBatch", [&]() -> grpc::Status {
    const auto entry = find(request->batch_id());
    if (!entry) return no_batch(request->batch_id());
    std::string bytes;
    {
      std::lock_guard lock(entry->mutex);
      if (entry->destroyed) return no_batch(request->batch_id());
      bytes.resize(entry->batch->snapshot_bytes());
      const batch::Status status =
          entry->batch->snapshot(reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size());
      if (!status.ok()) return to_grpc(status);
    }
    v1::SnapshotBatchResponse response;
    for (std::size_t at = 0; at < bytes.size(); at += kChunkBytes) {
      response.set_data(bytes.data() + at, std::min(kChunkBytes, bytes.size() - at));
      if (!writer->Write(response)) return grpc::Status::CANCELLED;
    }
    return grpc::Status::OK;
  });
}

grpc::Status SimulationService::RestoreBatch(grpc::ServerContext* context,
                                             grpc::ServerReader<v1::RestoreBatchRequest>* reader,
                                             v1::RestoreBatchResponse*) {
  return guarded(context, "RestoreBatch", [&]() -> grpc::Status {
    v1::RestoreBatchRequest request;
    std::shared_ptr<Entry> entry;
    std::string batch_id, bytes;
    std::uint64_t expected = 0;
    while (reader->Read(&request)) {
      if (!entry) {
        batch_id = request.batch_id();
        entry = find(batch_id);
        if (!entry) return no_batch(batch_id);
        std::lock_guard lock(entry->mutex);
        if (entry->destroyed) return no_batch(batch_id);
        expected = entry->batch->snapshot_bytes();
      } else if (!request.batch_id().empty() && request.batch_id() != batch_id) {
        return refused(batch::kInvalidArgument,
                       "batch_id: this stream restores '" + batch_id + "'");
      }
      if (request.data().size() > kChunkBytes)
        return refused(batch::kInvalidArgument, "restore: expected at most 1 MiB a message, got " +
                                                    std::to_string(request.data().size()) +
                                                    " bytes");
      if (bytes.size() + request.data().size() > expected)
        return refused(batch::kInvalidArgument,
                       "restore: expected " + std::to_string(expected) + " bytes, got more");
      bytes += request.data();
    }
    if (!entry)
      return refused(batch::kInvalidArgument,
                     "restore: expected a message with batch_id, got none");
    std::lock_guard lock(entry->mutex);
    if (entry->destroyed) return no_batch(batch_id);
    return to_grpc(
        entry->batch->restore(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
  });
}

}  // namespace sdpg::server
