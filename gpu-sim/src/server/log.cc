#include "server/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

namespace sdpg::server {
namespace {

constexpr const char* kLevels[] = {"debug", "info", "warn", "error", "off"};

// Index in kLevels, or -1.
int level_index(const std::string& name) {
  for (int i = 0; i < 5; ++i) {
    if (name == kLevels[i]) return i;
  }
  return -1;
}

std::string chosen_level() {
  const char* chosen = getenv("SDPG_LOG");
  return chosen == nullptr || *chosen == 0 ? "info" : chosen;
}

}  // namespace

bool check_log_level(std::string* error) {
  if (level_index(chosen_level()) >= 0) return true;
  *error = "SDPG_LOG: expected debug, info, warn, error or off, got '" + chosen_level() + "'";
  return false;
}

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) == 127) {
      char escaped[8];
      snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

void log(const char* level, const std::string& message,
         std::initializer_list<std::pair<const char*, std::string>> fields) {
  if (level_index(level) < level_index(chosen_level())) return;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char time[40];
  const size_t end = strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(time + end, sizeof time - end, ".%03ldZ", now.tv_nsec / 1000000);
  std::string line = std::string("{\"time\":\"") + time + "\",\"level\":\"" + level +
                     "\",\"service\":\"gpu-sim\",\"message\":" + json_string(message);
  for (const auto& [name, value] : fields)
    line += std::string(",\"") + name + "\":" + json_string(value);
  line += "}\n";
  // One write, so that lines of several threads do not mix; nothing can be done where it fails.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace sdpg::server
