// sdpg.render.v1.RenderService: thin handlers over scenes. A scene is a set of image stacks and the
// poses they are drawn from, which come with every Draw or lie in a batch's shared memory. Scenes
// live until they are destroyed or the server stops, whatever becomes of the streams that used
// them.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "sdpg/render/v1/render.grpc.pb.h"
#include "server/resources.h"

namespace sdpg::server {

class RenderService final : public render::v1::RenderService::Service {
 public:
  explicit RenderService(std::shared_ptr<Resources> resources);
  ~RenderService() override;

  grpc::Status Describe(grpc::ServerContext*, const render::v1::DescribeRequest*,
                        render::v1::DescribeResponse*) override;
  grpc::Status CreateScene(grpc::ServerContext*, const render::v1::CreateSceneRequest*,
                           render::v1::CreateSceneResponse*) override;
  grpc::Status DestroyScene(grpc::ServerContext*, const render::v1::DestroySceneRequest*,
                            render::v1::DestroySceneResponse*) override;
  grpc::Status Render(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<render::v1::RenderResponse, render::v1::RenderRequest>*) override;

 private:
  struct Entry;
  class RenderStream;

  std::shared_ptr<Entry> find(const std::string& scene_id);

  const std::shared_ptr<Resources> resources_;
  const ServiceOptions& options_;  // of `resources_`
  std::mutex mutex_;               // of what follows
  std::map<std::string, std::shared_ptr<Entry>> scenes_;
  std::uint64_t next_scene_ = 0;
};

}  // namespace sdpg::server
