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

void log(const char* level, const std::string& message,
         std::initializer_list<std::pair<const char*, std::string>> fields = {});

}  // namespace sdpg::server
