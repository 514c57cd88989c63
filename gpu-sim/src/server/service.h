// SimulationService: thin handlers over batches. Batches live until they are destroyed or the
// server stops, whatever becomes of the streams that used them.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "batch/batch.h"
#include "sdpg/sim/v1/sim.grpc.pb.h"

namespace sdpg::cuda {
class Device;
}

namespace sdpg::server {

struct ServiceOptions {
  int threads = 1;
  std::string isa;
  std::uint64_t memory_limit_bytes = UINT64_MAX;  // of all batches together
  bool shared_memory = true;
  std::shared_ptr<cuda::Device> device;  // steps on it; null: on the CPU
};

// Largest message the server takes; a longer one is RESOURCE_EXHAUSTED before it is read.
inline constexpr int kMaxMessageBytes = 32 << 20;
// Largest piece of a chunked transfer.
inline constexpr std::size_t kChunkBytes = 1 << 20;

class SimulationService final : public sim::v1::SimulationService::Service {
 public:
  explicit SimulationService(const ServiceOptions& options);
  ~SimulationService() override;

  grpc::Status Describe(grpc::ServerContext*, const sim::v1::DescribeRequest*,
                        sim::v1::DescribeResponse*) override;
  grpc::Status CreateBatch(grpc::ServerContext*, const sim::v1::CreateBatchRequest*,
                           sim::v1::CreateBatchResponse*) override;
  grpc::Status DestroyBatch(grpc::ServerContext*, const sim::v1::DestroyBatchRequest*,
                            sim::v1::DestroyBatchResponse*) override;
  grpc::Status DescribeBatch(grpc::ServerContext*, const sim::v1::DescribeBatchRequest*,
                             sim::v1::DescribeBatchResponse*) override;
  grpc::Status Rollout(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<sim::v1::RolloutResponse, sim::v1::RolloutRequest>*) override;
  grpc::Status SnapshotBatch(grpc::ServerContext*, const sim::v1::SnapshotBatchRequest*,
                             grpc::ServerWriter<sim::v1::SnapshotBatchResponse>*) override;
  grpc::Status RestoreBatch(grpc::ServerContext*, grpc::ServerReader<sim::v1::RestoreBatchRequest>*,
                            sim::v1::RestoreBatchResponse*) override;

 private:
  struct Entry;
  class RolloutStream;

  std::shared_ptr<Entry> find(const std::string& batch_id);
  // Takes a freed batch's bytes off the account.
  void give_back(const Entry& entry);

  const ServiceOptions options_;
  batch::ThreadPool pool_;
  std::mutex mutex_;  // of what follows
  std::map<std::string, std::shared_ptr<Entry>> batches_;
  std::uint64_t used_bytes_ = 0;  // granted to batches, those being created included
  std::uint64_t next_batch_ = 0;
};

}  // namespace sdpg::server
