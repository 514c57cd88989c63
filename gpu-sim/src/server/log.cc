#include "server/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

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

// Fields of the call that this thread serves, as they stand in a line.
thread_local std::string call_fields;

bool is_hex(const std::string& text) {
  return text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_zero(const std::string& text) { return text.find_first_not_of('0') == std::string::npos; }

// Value of a member of a `baggage` header; empty where there is none, or none that a run could
// have.
std::string run_of(const std::string& baggage) {
  static const std::string name = "rl.run.id=";
  for (std::size_t at = 0; at < baggage.size();) {
    const std::size_t end = std::min(baggage.find(',', at), baggage.size());
    std::string member = baggage.substr(at, end - at);
    member.erase(0, member.find_first_not_of(" \t"));
    if (member.rfind(name, 0) == 0) {
      const std::string value = member.substr(name.size(), member.find(';') - name.size());
      const bool plain =
          value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
      return plain && value.size() <= 64 ? value : "";
    }
    at = end + 1;
  }
  return "";
}

}  // namespace

LogTrace::LogTrace(const std::string& traceparent, const std::string& baggage) {
  call_fields.clear();
  // 2 + 1 + 32 + 1 + 16 + 1 + 2 characters; later versions may append more.
  if (traceparent.size() >= 55 && traceparent[2] == '-' && traceparent[35] == '-' &&
      traceparent[52] == '-' && (traceparent.size() == 55 || traceparent[55] == '-')) {
    const std::string version = traceparent.substr(0, 2), trace = traceparent.substr(3, 32),
                      span = traceparent.substr(36, 16);
    if (is_hex(version) && version != "ff" && is_hex(trace) && !is_zero(trace) && is_hex(span) &&
        !is_zero(span))
      call_fields += ",\"trace_id\":\"" + trace + "\",\"span_id\":\"" + span + "\"";
  }
  if (const std::string run = run_of(baggage); !run.empty())
    call_fields += ",\"run\":\"" + run + "\"";
}

LogTrace::~LogTrace() { call_fields.clear(); }

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
  line += call_fields + "}\n";
  // One write, so that lines of several threads do not mix; nothing can be done where it fails.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace sdpg::server
