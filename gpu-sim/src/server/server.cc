#include "server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>

namespace sdpg::server {

std::unique_ptr<Server> Server::start(const std::string& listen, const ServiceOptions& options,
                                      std::string* error) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  std::unique_ptr<Server> server(new Server);
  const auto resources = std::make_shared<Resources>(options);
  server->render_ = std::make_unique<RenderService>(resources);
  if (options.simulates) server->simulation_ = std::make_unique<SimulationService>(resources);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  if (server->simulation_) builder.RegisterService(server->simulation_.get());
  builder.RegisterService(server->render_.get());
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // Two servers must not share a port and split the calls between them.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // One stream holds one thread. Beyond the limit calls are refused, not queued.
  grpc::ResourceQuota quota;
  quota.SetMaxThreads(128);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 4);
  server->server_ = builder.BuildAndStart();
  if (!server->server_ || port == 0) {
    *error =
        "cannot listen on " + listen +
        ": the address is in use or not of this machine; choose another port, or 0 for a free one";
    return nullptr;
  }
  server->address_ = listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
  return server;
}

Server::~Server() { stop(0); }

void Server::stop(int grace_ms) {
  if (!server_) return;
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(grace_ms));
  server_->Wait();
  server_.reset();
  simulation_.reset();
  render_.reset();
}

}  // namespace sdpg::server
