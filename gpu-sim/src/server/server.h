// A listening gRPC server around SimulationService and RenderService.
#pragma once

#include <memory>
#include <string>

#include "server/render_service.h"
#include "server/service.h"

namespace grpc {
class Server;
}

namespace sdpg::server {

class Server {
 public:
  // Null and one line in `error` when the address cannot be had.
  static std::unique_ptr<Server> start(const std::string& listen, const ServiceOptions& options,
                                       std::string* error);
  ~Server();

  // HOST:PORT with the port that was bound.
  const std::string& address() const { return address_; }
  // Ends streams after `grace_ms`, then frees every batch and scene. Idempotent.
  void stop(int grace_ms);

 private:
  Server() = default;

  std::string address_;
  std::unique_ptr<SimulationService> simulation_;
  std::unique_ptr<RenderService> render_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace sdpg::server
