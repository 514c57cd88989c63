#include "render/image_stacks.h"

#include <string.h>

#include <algorithm>

#include "batch/batch.h"
#include "sdpg/model/v1/model.pb.h"
#include "sdpg/view/v1/view.pb.h"

namespace sdpg::render {
namespace {

std::uint64_t align64(std::uint64_t bytes) { return (bytes + 63) / 64 * 64; }

// A view's pixels are numbers of this type.
batch::BufferArray::Type type_of(Kind kind) {
  switch (kind) {
    case Kind::kRgb:
      return batch::BufferArray::kUint8;
    case Kind::kDepth:
      return batch::BufferArray::kFloat32;
    case Kind::kSegmentation:
      break;
  }
  return batch::BufferArray::kInt32;
}

}  // namespace

batch::Status ImageStacks::create(const model::v1::Model& model,
                                  const google::protobuf::RepeatedPtrField<view::v1::View>& views,
                                  const StackOptions& options, std::unique_ptr<ImageStacks>* out) {
  using batch::refuse;
  if (views.size() > kMaxViews)
    return refuse(batch::kInvalidArgument, "views: expected at most %d, got %d", kMaxViews,
                  views.size());
  std::unique_ptr<ImageStacks> stacks(new ImageStacks);
  stacks->options_ = options;
  stacks->fingerprint_ = batch::fingerprint(nullptr, 0);
  std::string error;
  stacks->renderer_ = select_renderer(options.isa, &error);
  if (stacks->renderer_ == nullptr) return refuse(batch::kFailedPrecondition, "%s", error.c_str());
  stacks->scene_ = make_scene(model, &error);
  if (!stacks->scene_) return refuse(batch::kInvalidArgument, "model: %s", error.c_str());
  stacks->bodies_ = static_cast<std::uint32_t>(nbody(*stacks->scene_));
  for (const view::v1::View& message : views) {
    View view;
    if (!make_view(*stacks->scene_, message, &view, &error))
      return refuse(batch::kInvalidArgument, "%s", error.c_str());
    for (const View& other : stacks->views_) {
      if (other.name == view.name)
        return refuse(batch::kInvalidArgument,
                      "view '%s': the name is taken by another view; give each its own",
                      view.name.c_str());
    }
    const std::string bytes = message.SerializeAsString();
    stacks->fingerprint_ = batch::fingerprint(bytes.data(), bytes.size(), stacks->fingerprint_);
    stacks->scratch_stride_ = std::max(
        stacks->scratch_stride_, align64(stacks->renderer_->scratch_bytes(*stacks->scene_, view)));
    stacks->views_.push_back(std::move(view));
  }
  stacks->state_bytes_ = align64(options.environments * std::uint64_t{8}) +
                         stacks->scratch_stride_ * static_cast<std::uint64_t>(options.threads);
  *out = std::move(stacks);
  return {};
}

double ImageStacks::image_bytes() const {
  double bytes = 0;
  for (std::size_t v = 0; v < views_.size(); ++v)
    bytes += static_cast<double>(stack_bytes(v)) * options_.environments * options_.slots;
  return bytes;
}

void ImageStacks::lay_out(batch::BufferLayout* layout) {
  for (const View& view : views_) {
    const auto n = [](int count) { return static_cast<std::uint64_t>(count); };
    batch::BufferArray& array = batch::add_array(
        layout, "image/" + view.name, type_of(view.kind), options_.slots,
        {options_.environments, n(view.frames * planes(view.kind)), n(view.height), n(view.width)});
    array.image = true;
    offsets_.push_back(array.offset_bytes);
  }
}

batch::Status ImageStacks::allocate(void* buffer) {
  std::string error;
  memory_ = batch::Memory::plain(state_bytes_, &error);
  if (!memory_) return batch::refuse(batch::kResourceExhausted, "%s", error.c_str());
  buffer_ = static_cast<std::uint8_t*>(buffer);
  pictures_ = static_cast<std::uint64_t*>(memory_->data());
  scratch_ = static_cast<std::uint8_t*>(memory_->data()) +
             align64(options_.environments * std::uint64_t{8});
  return {};
}

std::uint32_t ImageStacks::advance(batch::ThreadPool& pool, std::uint32_t from, std::uint32_t to,
                                   const float* pose, const std::uint8_t* fresh,
                                   const std::uint32_t* chosen, std::uint32_t count) {
  const auto views = static_cast<std::uint32_t>(views_.size());
  pool.run(static_cast<int>(count * views), [&](int item, int worker) {
    const std::uint32_t v = static_cast<std::uint32_t>(item) % views;
    const std::uint32_t place = static_cast<std::uint32_t>(item) / views;
    const std::uint32_t e = chosen != nullptr ? chosen[place] : place;
    const View& view = views_[v];
    const std::size_t frame = frame_bytes(view);
    const std::size_t kept = frame * static_cast<std::size_t>(view.frames - 1);
    const bool anew = fresh == nullptr || fresh[e] != 0;
    std::uint8_t* const into = stack(v, to, e);
    if (!anew) memmove(into, stack(v, from, e) + frame, kept);
    const NoiseKey key{options_.seed, e, pictures_[e] * views + v};
    renderer_->draw(*scene_, view, pose + std::uint64_t{e} * bodies_ * kPoseNumbers, key,
                    into + kept, scratch_ + static_cast<std::uint64_t>(worker) * scratch_stride_);
    for (std::size_t at = 0; anew && at < kept; at += frame) memcpy(into + at, into + kept, frame);
  });
  for (std::uint32_t i = 0; i < count; ++i) pictures_[chosen != nullptr ? chosen[i] : i] += 1;
  return count * views;
}

void ImageStacks::copy(std::uint32_t from, std::uint32_t to) {
  if (from == to) return;
  for (std::size_t v = 0; v < views_.size(); ++v)
    memcpy(stack(v, to, 0), stack(v, from, 0), stack_bytes(v) * options_.environments);
}

void ImageStacks::ranges(std::uint32_t slot, const std::uint32_t* chosen, std::uint32_t count,
                         const std::function<void(std::uint64_t, std::uint64_t)>& f) const {
  for (std::size_t v = 0; v < views_.size(); ++v) {
    const auto at = [&](std::uint32_t i) { return chosen != nullptr ? chosen[i] : i; };
    for (std::uint32_t first = 0, end; first < count; first = end) {
      for (end = first + 1; end < count && at(end) == at(end - 1) + 1;) ++end;
      f(place(v, slot, at(first)), stack_bytes(v) * (end - first));
    }
  }
}

std::uint64_t ImageStacks::saved_bytes() const {
  std::uint64_t bytes = 8;
  for (std::size_t v = 0; v < views_.size(); ++v) bytes += stack_bytes(v);
  return bytes * options_.environments;
}

void ImageStacks::save(std::uint32_t slot, const std::uint8_t* fresh, std::uint8_t* out) const {
  const std::uint64_t counters = options_.environments * std::uint64_t{8};
  memcpy(out, pictures_, counters);
  out += counters;
  for (std::size_t v = 0; v < views_.size(); ++v) {
    const std::uint64_t bytes = stack_bytes(v);
    for (std::uint32_t e = 0; e < options_.environments; ++e, out += bytes) {
      if (fresh[e] != 0)
        memset(out, 0, bytes);
      else
        memcpy(out, stack(v, slot, e), bytes);
    }
  }
}

void ImageStacks::restore(std::uint32_t slot, const std::uint8_t* in) {
  const std::uint64_t counters = options_.environments * std::uint64_t{8};
  memcpy(pictures_, in, counters);
  in += counters;
  for (std::size_t v = 0; v < views_.size(); ++v) {
    const std::uint64_t bytes = stack_bytes(v) * options_.environments;
    memcpy(stack(v, slot, 0), in, bytes);
    in += bytes;
  }
}

}  // namespace sdpg::render
