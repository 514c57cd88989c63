// What handlers of every service do alike: statuses, exceptions, where a caller is.
#pragma once

#include <grpcpp/grpcpp.h>

#include <exception>
#include <new>
#include <string>

#include "batch/status.h"
#include "server/log.h"

namespace sdpg::server {

inline grpc::Status to_grpc(const batch::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code), status.message};
}

inline grpc::Status refused(batch::Code code, const std::string& line) {
  return to_grpc(batch::refuse(code, "%s", line.c_str()));
}

// Value of a header of the call, or nothing.
inline std::string header(const grpc::ServerContext& context, const char* name) {
  const auto& headers = context.client_metadata();
  const auto found = headers.find(name);
  return found == headers.end() ? "" : std::string(found->second.data(), found->second.size());
}

// Runs a handler; whatever it throws stays here, and its text in the log. What is logged meanwhile
// names the trace and the run that the caller sent along.
template <class Function>
grpc::Status guarded(const grpc::ServerContext* context, const char* method,
                     const Function& handle) {
  const LogTrace trace(header(*context, "traceparent"), header(*context, "baggage"));
  try {
    return handle();
  } catch (const std::bad_alloc&) {
    return refused(batch::kResourceExhausted, std::string(method) + ": out of memory");
  } catch (const std::exception& e) {
    log("error", std::string(method) + ": " + e.what());
    return refused(batch::kInternal, std::string(method) + ": internal error");
  }
}

inline bool is_local(const std::string& peer) {
  return peer.rfind("ipv4:127.", 0) == 0 || peer.rfind("ipv6:[::1]", 0) == 0 ||
         peer.rfind("ipv6:%5B::1%5D", 0) == 0 || peer.rfind("unix:", 0) == 0;
}

}  // namespace sdpg::server
