// What a call of a batch says when it refuses: a gRPC status code and one clear line.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>

namespace sdpg::batch {

enum Code {
  kOk = 0,
  kInvalidArgument = 3,
  kNotFound = 5,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kInternal = 13,
};

struct Status {
  int code = kOk;
  std::string message;

  bool ok() const { return code == kOk; }
};

__attribute__((format(printf, 2, 3))) inline Status refuse(Code code, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  for (char* c = line; *c != 0; ++c) {
    if (static_cast<unsigned char>(*c) < 32)
      *c = ' ';  // names come from outside; one line stays one
  }
  return {code, line};
}

}  // namespace sdpg::batch
