// Log lines as JSON objects on standard error: {"time","level","service","message", fields...}.
// SDPG_LOG chooses the lowest level that is written: debug, info (also when unset), warn, error,
// off.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

namespace sdpg::server {

// False and one line in `error` when SDPG_LOG is none of the levels.
bool check_log_level(std::string* error);

std::string json_string(const std::string& text);

// While it lives, what this thread logs carries "trace_id", "span_id" and "run", those of them that
// W3C headers name: `traceparent` as "00-<trace>-<span>-<flags>", and `rl.run.id` in `baggage`.
// Headers that are not well-formed are left out.
class LogTrace {
 public:
  LogTrace(const std::string& traceparent, const std::string& baggage);
  ~LogTrace();
  LogTrace(const LogTrace&) = delete;
};

void log(const char* level, const std::string& message,
         std::initializer_list<std::pair<const char*, std::string>> fields = {});

}  // namespace sdpg::server
