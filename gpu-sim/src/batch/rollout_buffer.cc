#include "batch/rollout_buffer.h"

namespace sdpg::batch {

BufferLayout lay_out(const BufferSizes& sizes) {
  BufferLayout layout{{}, 0};
  const auto add = [&](const char* name, BufferArray::Type type, bool extra_slot,
                       std::uint64_t rows, std::int64_t columns) {
    BufferArray array;
    array.name = name;
    array.type = type;
    array.extra_slot = extra_slot;
    array.shape = {static_cast<std::int64_t>(sizes.horizon + extra_slot),
                   static_cast<std::int64_t>(rows)};
    if (columns >= 0) array.shape.push_back(columns);
    array.offset_bytes = layout.bytes;
    array.slot_bytes = rows * static_cast<std::uint64_t>(columns >= 0 ? columns : 1) *
                       (type == BufferArray::kUint8 ? 1 : 4);
    layout.bytes = (layout.bytes + array.bytes() + 63) / 64 * 64;
    layout.arrays.push_back(array);
  };
  const std::uint64_t e = sizes.environments;
  const auto columns = [](std::uint64_t n) { return static_cast<std::int64_t>(n); };
  constexpr std::int64_t kFlat = -1;  // [slot, rows] without a third extent
  add("privileged", BufferArray::kFloat32, true, e, columns(sizes.privileged));
  add("privileged_successor", BufferArray::kFloat32, false, e, columns(sizes.privileged));
  add("actor", BufferArray::kFloat32, true, sizes.nominals, columns(sizes.actor));
  add("noise", BufferArray::kFloat32, false, e, columns(sizes.actions));
  add("action", BufferArray::kFloat32, false, e, columns(sizes.actions));
  add("reward", BufferArray::kFloat32, false, e, kFlat);
  add("reward_terms", BufferArray::kFloat32, false, e, columns(sizes.rewards));
  add("terminated", BufferArray::kUint8, false, e, kFlat);
  add("truncated", BufferArray::kUint8, false, e, kFlat);
  add("done", BufferArray::kUint8, false, e, kFlat);
  add("fault", BufferArray::kUint8, false, e, kFlat);
  add("progress", BufferArray::kInt32, false, e, kFlat);
  return layout;
}

RolloutBuffer point_into(const BufferLayout& layout, void* memory) {
  const auto at = [&](int array) {
    return static_cast<std::uint8_t*>(memory) + layout.arrays[array].offset_bytes;
  };
  const auto floats = [&](int array) { return reinterpret_cast<float*>(at(array)); };
  return {floats(0), floats(1), floats(2), floats(3),
          floats(4), floats(5), floats(6), at(7),
          at(8),     at(9),     at(10),    reinterpret_cast<std::int32_t*>(at(11))};
}

}  // namespace sdpg::batch
