#include "batch/rollout_buffer.h"

namespace sdpg::batch {

BufferArray& add_array(BufferLayout* layout, const std::string& name, BufferArray::Type type,
                       std::uint64_t slots, const std::vector<std::uint64_t>& extents) {
  BufferArray array;
  array.name = name;
  array.type = type;
  array.extra_slot = false;
  array.shape = {static_cast<std::int64_t>(slots)};
  array.offset_bytes = layout->bytes;
  array.slot_bytes = type == BufferArray::kUint8 ? 1 : 4;
  for (const std::uint64_t extent : extents) {
    array.shape.push_back(static_cast<std::int64_t>(extent));
    array.slot_bytes *= extent;
  }
  layout->bytes = (layout->bytes + array.bytes() + 63) / 64 * 64;
  layout->arrays.push_back(array);
  return layout->arrays.back();
}

BufferLayout lay_out(const BufferSizes& sizes) {
  BufferLayout layout{{}, 0};
  const auto add = [&](const char* name, BufferArray::Type type, bool extra_slot,
                       const std::vector<std::uint64_t>& extents) {
    add_array(&layout, name, type, sizes.horizon + extra_slot, extents).extra_slot = extra_slot;
  };
  const std::uint64_t e = sizes.environments, n = sizes.nominals;
  add("privileged", BufferArray::kFloat32, true, {e, sizes.privileged});
  add("privileged_successor", BufferArray::kFloat32, false, {e, sizes.privileged});
  add("actor", BufferArray::kFloat32, true, {n, sizes.actor});
  add("noise", BufferArray::kFloat32, false, {e, sizes.actions});
  add("action", BufferArray::kFloat32, false, {e, sizes.actions});
  add("reward", BufferArray::kFloat32, false, {e});
  add("reward_terms", BufferArray::kFloat32, false, {e, sizes.rewards});
  add("terminated", BufferArray::kUint8, false, {e});
  add("truncated", BufferArray::kUint8, false, {e});
  add("done", BufferArray::kUint8, false, {e});
  add("fault", BufferArray::kUint8, false, {e});
  add("progress", BufferArray::kInt32, false, {e});
  if (sizes.bodies > 0) {
    add("pose", BufferArray::kFloat32, true, {n, sizes.bodies, 7});
    add("fresh", BufferArray::kUint8, true, {n});
  }
  return layout;
}

RolloutBuffer point_into(const BufferLayout& layout, void* memory) {
  const auto at = [&](std::size_t array) {
    return static_cast<std::uint8_t*>(memory) + layout.arrays[array].offset_bytes;
  };
  const auto floats = [&](std::size_t array) { return reinterpret_cast<float*>(at(array)); };
  const bool poses = layout.arrays.size() > 13 && layout.arrays[12].name == "pose";
  return {floats(0),
          floats(1),
          floats(2),
          floats(3),
          floats(4),
          floats(5),
          floats(6),
          at(7),
          at(8),
          at(9),
          at(10),
          reinterpret_cast<std::int32_t*>(at(11)),
          poses ? floats(12) : nullptr,
          poses ? at(13) : nullptr};
}

}  // namespace sdpg::batch
