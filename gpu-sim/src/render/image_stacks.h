// Stacks of frames: what cameras saw of N environments, F frames a stack, oldest first, in T slots
// of a buffer. A batch advances its own while it steps; the render service advances those of a
// scene from poses that it is given. Both draw the same bits, whatever the number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "batch/rollout_buffer.h"
#include "batch/shared_memory.h"
#include "batch/status.h"
#include "batch/thread_pool.h"
#include "render/renderer.h"

namespace google::protobuf {
template <class T>
class RepeatedPtrField;
}

namespace sdpg::render {

inline constexpr int kMaxViews = 64;

struct StackOptions {
  std::uint32_t environments, slots;
  std::uint64_t seed;  // of the depth noise
  int threads;         // of the pool that `advance` will run on
  std::string isa;     // forces an instruction set; empty for the best
};

class ImageStacks {
 public:
  // Checks the views against the model; takes no memory for images yet.
  static batch::Status create(const model::v1::Model& model,
                              const google::protobuf::RepeatedPtrField<view::v1::View>& views,
                              const StackOptions& options, std::unique_ptr<ImageStacks>* out);

  // B, bodies of a pose, the world included.
  std::uint32_t bodies() const { return bodies_; }
  std::uint32_t environments() const { return options_.environments; }
  const std::vector<View>& views() const { return views_; }
  const Scene& scene() const { return *scene_; }
  // Of a view's array in the buffer.
  std::uint64_t offset(std::size_t view) const { return offsets_[view]; }
  const char* isa() const { return renderer_->isa; }
  // Of all slots; may be more than any machine has.
  double image_bytes() const;
  // Of scratch and counters.
  std::uint64_t state_bytes() const { return state_bytes_; }

  // Appends the array "image/<view>" of every view.
  void lay_out(batch::BufferLayout* layout);
  // Takes scratch and counters, and the place of the arrays: the buffer of that layout.
  batch::Status allocate(void* buffer);

  // Draws environments into slot `to`: a stack keeps the newest F - 1 frames that it has in slot
  // `from`, or becomes F times the drawn one where `fresh` is not 0. The slots may be the same one.
  // pose: [N][B][kPoseNumbers]; fresh: [N], null for all; chosen: [count], null for the first
  // `count` environments. Returns the number of pictures.
  std::uint32_t advance(batch::ThreadPool& pool, std::uint32_t from, std::uint32_t to,
                        const float* pose, const std::uint8_t* fresh, const std::uint32_t* chosen,
                        std::uint32_t count);
  // The same stacks in another slot; nothing is drawn.
  void copy(std::uint32_t from, std::uint32_t to);

  // Calls f(offset, bytes) for the places of `chosen` environments (as in `advance`) in a slot.
  void ranges(std::uint32_t slot, const std::uint32_t* chosen, std::uint32_t count,
              const std::function<void(std::uint64_t, std::uint64_t)>& f) const;

  // What the next `advance` from `slot` depends on: how many pictures each environment had, and
  // its stacks, but for those that `fresh` [N] says start anew.
  std::uint64_t saved_bytes() const;
  void save(std::uint32_t slot, const std::uint8_t* fresh, std::uint8_t* out) const;
  void restore(std::uint32_t slot, const std::uint8_t* in);
  // Of the views, which say what saved bytes mean.
  std::uint64_t fingerprint() const { return fingerprint_; }

 private:
  ImageStacks() = default;
  std::uint64_t stack_bytes(std::size_t view) const {
    return frame_bytes(views_[view]) * static_cast<std::uint64_t>(views_[view].frames);
  }
  std::uint64_t place(std::size_t view, std::uint32_t slot, std::uint32_t environment) const {
    return offsets_[view] +
           (std::uint64_t{slot} * options_.environments + environment) * stack_bytes(view);
  }
  std::uint8_t* stack(std::size_t view, std::uint32_t slot, std::uint32_t environment) const {
    return buffer_ + place(view, slot, environment);
  }

  StackOptions options_{};
  std::uint32_t bodies_ = 0;
  std::shared_ptr<const Scene> scene_;
  const Renderer* renderer_ = nullptr;
  std::vector<View> views_;
  std::uint64_t fingerprint_ = 0;
  std::uint64_t scratch_stride_ = 0, state_bytes_ = 0;
  std::unique_ptr<batch::Memory> memory_;
  std::uint64_t* pictures_ = nullptr;  // [N] drawn of each environment, all views of a slot as one
  std::uint8_t* scratch_ = nullptr;    // [threads][scratch_stride_]
  std::uint8_t* buffer_ = nullptr;
  std::vector<std::uint64_t> offsets_;  // [views] of slot 0 in the buffer
};

}  // namespace sdpg::render
