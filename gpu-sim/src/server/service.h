// SimulationService: thin handlers over batches. Batches live until they are destroyed or the
// server stops, whatever becomes of the streams that used them.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "batch/batch.h"
#include "sdpg/sim/v1/sim.grpc.pb.h"
#include "server/resources.h"

namespace sdpg::server {

class SimulationService final : public sim::v1::SimulationService::Service {
 public:
  explicit SimulationService(std::shared_ptr<Resources> resources);
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

  const std::shared_ptr<Resources> resources_;
  const ServiceOptions& options_;  // of `resources_`
  std::mutex mutex_;               // of what follows
  std::map<std::string, std::shared_ptr<Entry>> batches_;
  std::uint64_t next_batch_ = 0;
};

}  // namespace sdpg::server
