// Log lines as JSON objects on standard error: {"time","level","service","message", fields...}.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

namespace sdpg::server {

std::string json_string(const std::string& text);

void log(const char* level, const std::string& message,
         std::initializer_list<std::pair<const char*, std::string>> fields = {});

}  // namespace sdpg::server
