// A model together with the memory it points into: what make_model() and load_flat_model() build.
#pragma once

#include <cstring>
#include <deque>
#include <type_traits>
#include <vector>

#include "core/model.h"

namespace sdpg::core {

// Every pointer in a Model is one that own() returned: flatten_model() finds pointers by that.
struct OwnedModel : Model {
  std::deque<std::vector<unsigned char>> memory;

  template <class T>
  const T* own(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<unsigned char>& bytes = memory.emplace_back(values.size() * sizeof(T) + 1);
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), values.size() * sizeof(T));
    return reinterpret_cast<const T*>(bytes.data());
  }
  void own(const float* Constants<float>::*single, const double* Constants<double>::*full,
           const std::vector<double>& values) {
    f.*single = own(std::vector<float>(values.begin(), values.end()));
    d.*full = own(values);
  }
  void own(const Softness<float>* Constants<float>::*single,
           const Softness<double>* Constants<double>::*full,
           const std::vector<Softness<double>>& values);
};

}  // namespace sdpg::core
