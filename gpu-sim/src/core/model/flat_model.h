// A model as one piece of memory that can be moved: to a GPU, or into a file that a machine without
// protobuf reads (gpu-sim/tests/data/*.flat). The bytes are the Model struct and behind it the
// arrays it points to; `pointers` says where in the bytes a pointer is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/model.h"

namespace sdpg::core {

struct FlatModel {
  std::vector<unsigned char> bytes;     // pointers are offsets from the start
  std::vector<std::uint32_t> pointers;  // ascending offsets of the pointers that are not null

  // The struct and its arrays as they must lie at address `base`.
  std::vector<unsigned char> at(std::uintptr_t base) const;
};

// `model` comes from make_model() or load_flat_model().
FlatModel flatten_model(const Model& model);

// A file: magic, layout, bytes and pointers. It belongs to one build's layout of Model.
std::string save_flat_model(const FlatModel& flat);
// Null and a line in `error` when the bytes are not a flat model of this build's layout.
std::shared_ptr<const Model> load_flat_model(const std::string& file, std::string* error);

}  // namespace sdpg::core
