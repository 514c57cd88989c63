// Working memory of the fused operators.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <string>

#include "runtime.h"

namespace sdpg {

// 64-byte aligned floats; contents are undefined.
class Scratch {
 public:
  explicit Scratch(size_t floats)
      : data_(
            static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64))) {
    if (data_ == nullptr)
      refuse("not enough memory for " + std::to_string(floats * sizeof(float)) +
             " bytes of scratch");
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return data_; }

 private:
  float* data_;
};

inline size_t round_up(size_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace sdpg
