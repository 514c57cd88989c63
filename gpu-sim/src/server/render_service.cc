#include "server/render_service.h"

#include <string.h>
#include <time.h>

#include <cmath>
#include <vector>

#include "batch/batch.h"
#include "render/image_stacks.h"
#include "server/rpc.h"
#include "server/version.h"

namespace sdpg::server {
namespace {

namespace v1 = sdpg::render::v1;
namespace sim = sdpg::sim::v1;
using batch::refuse;
using batch::Status;

constexpr std::uint32_t kMaxEnvironments = 1u << 22;
constexpr std::uint32_t kMaxSlots = 65536;
// Slots of a batch's arrays: one more than its horizon.
constexpr std::int64_t kMaxPoseSlots = 65537;

grpc::Status no_scene(const std::string& scene_id) {
  return refused(batch::kNotFound,
                 "scene '" + scene_id.substr(0, 64) + "' does not exist; create it first");
}

std::uint64_t now() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1000000000u + static_cast<std::uint64_t>(t.tv_nsec);
}

// An array of a batch, as the caller describes it.
struct Place {
  const char* name;
  tensor::v1::Dtype dtype;
  std::uint64_t element_bytes;
  std::vector<std::int64_t> extents;  // after the slots
};

// Checks that the array lies in shared memory in the right form.
Status check_place(const Place& place, const sim::BufferTensor& buffer, std::int64_t* slots) {
  const tensor::v1::Tensor& tensor = buffer.tensor();
  if (!tensor.has_shared_memory())
    return refuse(
        batch::kInvalidArgument,
        "%s: expected an array in shared memory; create the batch with that transport, or "
        "send the poses with every Draw",
        place.name);
  if (tensor.dtype() != place.dtype)
    return refuse(batch::kInvalidArgument, "%s: expected dtype %d, got %d", place.name,
                  static_cast<int>(place.dtype), static_cast<int>(tensor.dtype()));
  std::string expected = "[slots", got;
  bool same = static_cast<std::size_t>(tensor.shape_size()) == place.extents.size() + 1 &&
              tensor.shape(0) >= 1 && tensor.shape(0) <= kMaxPoseSlots;
  std::uint64_t bytes = place.element_bytes;
  for (std::size_t i = 0; i < place.extents.size(); ++i) {
    expected += ", " + std::to_string(place.extents[i]);
    same = same && tensor.shape(static_cast<int>(i + 1)) == place.extents[i];
    bytes *= static_cast<std::uint64_t>(place.extents[i]);
  }
  for (int i = 0; i < std::min(tensor.shape_size(), 8); ++i)
    got += (i == 0 ? "" : ", ") + std::to_string(tensor.shape(i));
  if (!same)
    return refuse(batch::kInvalidArgument, "%s: expected shape %s], got [%s]", place.name,
                  expected.c_str(), got.c_str());
  bytes *= static_cast<std::uint64_t>(tensor.shape(0));
  const tensor::v1::SharedMemory& shared = tensor.shared_memory();
  if (shared.offset_bytes() % 64 != 0 || shared.offset_bytes() > shared.object_bytes() ||
      bytes > shared.object_bytes() - shared.offset_bytes())
    return refuse(batch::kInvalidArgument,
                  "%s: expected %llu bytes from a multiple of 64 within the object's %llu, got "
                  "offset %llu",
                  place.name, static_cast<unsigned long long>(bytes),
                  static_cast<unsigned long long>(shared.object_bytes()),
                  static_cast<unsigned long long>(shared.offset_bytes()));
  *slots = tensor.shape(0);
  return {};
}

}  // namespace

// A scene and who uses it.
struct RenderService::Entry {
  std::unique_ptr<render::ImageStacks> stacks;
  std::unique_ptr<batch::Memory> images;
  bool inline_transport = false;
  std::uint32_t slots = 0;
  // The batch's arrays; null where poses come with every Draw.
  std::unique_ptr<batch::Memory> pose_memory,
      fresh_memory;                     // the latter where it is another object
  const float* pose = nullptr;          // [pose_slots, N, B, 7]
  const std::uint8_t* fresh = nullptr;  // [pose_slots, N]
  std::uint32_t pose_slots = 0;
  std::uint64_t bytes = 0;  // counted against the limit
  std::mutex mutex;         // held while the scene is drawn or freed
  // Under `mutex`.
  bool streaming = false;  // a Render stream owns it
  bool destroyed = false;

  Status map_arrays(const v1::CreateSceneRequest& request);
  void free() {
    stacks.reset();
    images.reset();
    pose_memory.reset();
    fresh_memory.reset();
  }
};

Status RenderService::Entry::map_arrays(const v1::CreateSceneRequest& request) {
  const std::int64_t n = stacks->environments();
  std::int64_t slots = 0, fresh_slots = 0;
  const Place poses = {"pose", tensor::v1::DTYPE_FLOAT32, 4, {n, stacks->bodies(), 7}};
  const Place starts = {"fresh", tensor::v1::DTYPE_UINT8, 1, {n}};
  if (Status s = check_place(poses, request.pose(), &slots); !s.ok()) return s;
  if (Status s = check_place(starts, request.fresh(), &fresh_slots); !s.ok()) return s;
  if (slots != fresh_slots)
    return refuse(batch::kInvalidArgument, "fresh: expected %lld slots as pose has, got %lld",
                  static_cast<long long>(slots), static_cast<long long>(fresh_slots));
  const auto& pose_at = request.pose().tensor().shared_memory();
  const auto& fresh_at = request.fresh().tensor().shared_memory();
  std::string error;
  pose_memory = batch::Memory::map(pose_at.name(), pose_at.object_bytes(), &error);
  if (!pose_memory) return refuse(batch::kInvalidArgument, "pose: %s", error.c_str());
  if (fresh_at.name() != pose_at.name() || fresh_at.object_bytes() != pose_at.object_bytes()) {
    fresh_memory = batch::Memory::map(fresh_at.name(), fresh_at.object_bytes(), &error);
    if (!fresh_memory) return refuse(batch::kInvalidArgument, "fresh: %s", error.c_str());
  }
  const auto at = [](const batch::Memory& memory, std::uint64_t offset) {
    return static_cast<const std::uint8_t*>(memory.data()) + offset;
  };
  pose = reinterpret_cast<const float*>(at(*pose_memory, pose_at.offset_bytes()));
  fresh = at(fresh_memory ? *fresh_memory : *pose_memory, fresh_at.offset_bytes());
  pose_slots = static_cast<std::uint32_t>(slots);
  return {};
}

RenderService::RenderService(std::shared_ptr<Resources> resources)
    : resources_(std::move(resources)), options_(resources_->options) {}

RenderService::~RenderService() = default;

std::shared_ptr<RenderService::Entry> RenderService::find(const std::string& scene_id) {
  std::lock_guard lock(mutex_);
  const auto found = scenes_.find(scene_id);
  return found == scenes_.end() ? nullptr : found->second;
}

grpc::Status RenderService::Describe(grpc::ServerContext* context, const v1::DescribeRequest*,
                                     v1::DescribeResponse* response) {
  return guarded(context, "Describe", [&] {
    std::string error;
    const render::Renderer* renderer = render::select_renderer(options_.isa, &error);
    if (renderer == nullptr) return refused(batch::kFailedPrecondition, error);
    response->set_version(version());
    response->set_isa(renderer->isa);
    response->set_threads(static_cast<std::uint32_t>(options_.threads));
    if (options_.shared_memory) response->add_transports(sim::TRANSPORT_SHARED_MEMORY);
    response->add_transports(sim::TRANSPORT_INLINE);
    response->set_memory_limit_bytes(options_.memory_limit_bytes);
    return grpc::Status::OK;
  });
}

grpc::Status RenderService::CreateScene(grpc::ServerContext* context,
                                        const v1::CreateSceneRequest* request,
                                        v1::CreateSceneResponse* response) {
  return guarded(context, "CreateScene", [&]() -> grpc::Status {
    const auto invalid = [](const std::string& line) {
      return refused(batch::kInvalidArgument, line);
    };
    bool shared = options_.shared_memory;
    switch (request->transport()) {
      case sim::TRANSPORT_UNSPECIFIED:
        shared = shared && is_local(context->peer());
        break;
      case sim::TRANSPORT_SHARED_MEMORY:
        if (!shared)
          return invalid("transport: this server does not offer shared memory; use inline");
        break;
      case sim::TRANSPORT_INLINE:
        shared = false;
        break;
      default:
        return invalid("transport: expected shared_memory or inline, got " +
                       std::to_string(int{request->transport()}));
    }
    if (!request->has_model()) return invalid("model: expected a model, got none");
    if (request->views_size() == 0) return invalid("views: expected at least one, got none");
    if (request->environments() < 1 || request->environments() > kMaxEnvironments)
      return invalid("environments: expected 1 to " + std::to_string(kMaxEnvironments) + ", got " +
                     std::to_string(request->environments()));
    if (request->slots() < 1 || request->slots() > kMaxSlots)
      return invalid("slots: expected 1 to " + std::to_string(kMaxSlots) + ", got " +
                     std::to_string(request->slots()));
    if (Status s = batch::check_label(request->label()); !s.ok()) return to_grpc(s);
    if (request->has_pose() != request->has_fresh())
      return invalid("pose, fresh: expected both arrays or neither");
    if (request->has_pose() && !options_.shared_memory)
      return invalid(
          "pose: this server does not offer shared memory; send the poses with every Draw");

    auto entry = std::make_shared<Entry>();
    entry->inline_transport = !shared;
    entry->slots = request->slots();
    const render::StackOptions stacks{request->environments(), request->slots(), request->seed(),
                                      options_.threads, options_.isa};
    if (Status s =
            render::ImageStacks::create(request->model(), request->views(), stacks, &entry->stacks);
        !s.ok())
      return to_grpc(s);
    const std::uint64_t pose_bytes =
        std::uint64_t{request->environments()} * entry->stacks->bodies() * render::kPoseNumbers * 4;
    if (!request->has_pose() && pose_bytes > kMaxMessageBytes / 2)
      return invalid("pose: the poses of one Draw are " + std::to_string(pose_bytes) +
                     " bytes, at most " + std::to_string(kMaxMessageBytes / 2) +
                     " fit a message; give the arrays of a batch, or make several scenes");
    if (request->has_pose()) {
      if (Status s = entry->map_arrays(*request); !s.ok()) return to_grpc(s);
    }

    std::lock_guard creating(resources_->memory);
    const double images = entry->stacks->image_bytes();  // more than 64 bits hold, perhaps
    const double needed = images + static_cast<double>(entry->stacks->state_bytes());
    const double allowed = static_cast<double>(resources_->left_bytes());
    if (needed > allowed)
      return to_grpc(refuse(batch::kResourceExhausted,
                            "the scene needs %.0f bytes (%.0f of them images), %.0f are allowed; "
                            "lower environments, slots or the views' sizes or frames, or raise "
                            "--memory-limit-mb",
                            needed, images, allowed));
    batch::BufferLayout layout{{}, 0};
    entry->stacks->lay_out(&layout);
    std::string error;
    entry->images = shared ? batch::Memory::shared(layout.bytes, request->label(), &error)
                           : batch::Memory::plain(layout.bytes, &error);
    if (!entry->images) return refused(batch::kResourceExhausted, error);
    if (Status s = entry->stacks->allocate(entry->images->data()); !s.ok()) return to_grpc(s);
    entry->bytes = layout.bytes + entry->stacks->state_bytes();

    std::lock_guard lock(mutex_);
    const std::string id = "scene-" + std::to_string(++next_scene_);
    response->set_scene_id(id);
    response->set_transport(shared ? sim::TRANSPORT_SHARED_MEMORY : sim::TRANSPORT_INLINE);
    response->set_buffer_bytes(layout.bytes);
    for (const batch::BufferArray& array : layout.arrays) {
      sim::BufferTensor* const described = response->add_tensors();
      batch::describe_array(array, described);
      if (!shared) continue;
      auto* const place = described->mutable_tensor()->mutable_shared_memory();
      place->set_name(entry->images->name());
      place->set_offset_bytes(array.offset_bytes);
      place->set_object_bytes(layout.bytes);
    }
    resources_->used_bytes += entry->bytes;
    scenes_[id] = entry;
    log("info", "scene created",
        {{"scene", id},
         {"model", request->model().name().substr(0, 64)},
         {"views", std::to_string(request->views_size())},
         {"environments", std::to_string(request->environments())},
         {"slots", std::to_string(request->slots())},
         {"isa", entry->stacks->isa()},
         {"bytes", std::to_string(entry->bytes)},
         {"transport", shared ? "shared_memory" : "inline"},
         {"poses", request->has_pose() ? "shared_memory" : "inline"}});
    return grpc::Status::OK;
  });
}

grpc::Status RenderService::DestroyScene(grpc::ServerContext* context,
                                         const v1::DestroySceneRequest* request,
                                         v1::DestroySceneResponse*) {
  return guarded(context, "DestroyScene", [&]() -> grpc::Status {
    std::shared_ptr<Entry> entry;
    {
      std::lock_guard lock(mutex_);
      const auto found = scenes_.find(request->scene_id());
      if (found == scenes_.end()) return no_scene(request->scene_id());
      entry = found->second;
      scenes_.erase(found);
    }
    {
      // A stream that still has it draws under the lock, and looks at `destroyed` first.
      std::lock_guard lock(entry->mutex);
      entry->destroyed = true;
      entry->free();
    }
    resources_->give_back(entry->bytes);
    log("info", "scene destroyed", {{"scene", request->scene_id()}});
    return grpc::Status::OK;
  });
}

// ---- drawing
// -------------------------------------------------------------------------------------------

// One Render stream: checks the protocol, draws, answers.
class RenderService::RenderStream {
 public:
  using Stream = grpc::ServerReaderWriter<v1::RenderResponse, v1::RenderRequest>;

  RenderStream(RenderService& service, Stream& stream) : service_(service), stream_(stream) {}
  ~RenderStream() {
    if (entry_ == nullptr) return;
    std::lock_guard lock(entry_->mutex);
    entry_->streaming = false;
  }

  grpc::Status serve() {
    while (stream_.Read(&request_)) {
      grpc::Status status = check_envelope();
      if (!status.ok()) return status;
      switch (request_.message_case()) {
        case v1::RenderRequest::kDraw:
          status = draw(request_.draw());
          break;
        case v1::RenderRequest::kCredit:
          credits_ += request_.credit().chunks();
          break;
        default:
          status =
              refused(batch::kInvalidArgument, "message " + std::to_string(request_.sequence()) +
                                                   ": expected draw or credit, got neither");
      }
      if (!status.ok()) return status;
    }
    return grpc::Status::OK;  // the caller closed or cancelled the stream
  }

 private:
  grpc::Status check_envelope() {
    if (request_.sequence() != next_request_)
      return refused(batch::kInvalidArgument, "sequence: expected " +
                                                  std::to_string(next_request_) + ", got " +
                                                  std::to_string(request_.sequence()));
    next_request_ += 1;
    if (entry_ == nullptr) return attach();
    if (request_.scene_id() != scene_id_)
      return refused(batch::kInvalidArgument, "scene_id: this stream is for '" + scene_id_ +
                                                  "', got '" + request_.scene_id().substr(0, 64) +
                                                  "'");
    return grpc::Status::OK;
  }

  grpc::Status attach() {
    auto entry = service_.find(request_.scene_id());
    if (!entry) return no_scene(request_.scene_id());
    std::lock_guard lock(entry->mutex);
    if (entry->destroyed) return no_scene(request_.scene_id());
    if (entry->streaming)
      return refused(batch::kFailedPrecondition, "scene '" + request_.scene_id() +
                                                     "' already has a Render stream; end it first");
    entry->streaming = true;
    entry_ = entry;
    scene_id_ = request_.scene_id();
    response_.set_scene_id(scene_id_);
    return grpc::Status::OK;
  }

  grpc::Status draw(const v1::Draw& draw) {
    Ranges ranges;
    const std::uint32_t slot = draw.slot();  // the message's storage is needed for credits
    std::uint32_t images = 0;
    std::uint64_t started = 0, finished = 0;
    {
      std::lock_guard lock(entry_->mutex);
      if (entry_->destroyed) return no_scene(scene_id_);
      const float* pose = nullptr;
      const std::uint8_t* fresh = nullptr;
      if (Status s = check(draw); !s.ok()) return to_grpc(s);
      if (Status s = find_poses(draw, &pose, &fresh); !s.ok()) return to_grpc(s);
      const std::uint32_t* const chosen =
          draw.env_indices().empty() ? nullptr : draw.env_indices().data();
      const std::uint32_t count = chosen == nullptr
                                      ? entry_->stacks->environments()
                                      : static_cast<std::uint32_t>(draw.env_indices_size());
      entry_->images->unlink();  // the caller has mapped it by now
      started = now();
      images = entry_->stacks->advance(service_.resources_->pool, draw.previous_slot(), slot, pose,
                                       fresh, chosen, count);
      finished = now();
      if (entry_->inline_transport) {
        entry_->stacks->ranges(slot, chosen, count, [&](std::uint64_t offset, std::uint64_t bytes) {
          ranges.emplace_back(offset, bytes);
        });
      }
    }
    std::uint32_t chunks = 0;
    if (grpc::Status status = send_chunks(ranges, &chunks); !status.ok()) return status;
    v1::Rendered* const rendered = response_.mutable_rendered();
    rendered->Clear();
    rendered->set_slot(slot);
    rendered->set_images(images);
    rendered->set_chunks(chunks);
    sim::Timing* const timing = rendered->add_timings();
    timing->set_phase("render");
    timing->set_start_unix_nano(started);
    timing->set_end_unix_nano(finished);
    return write();
  }

  Status check(const v1::Draw& draw) const {
    const auto below = [](const char* what, std::uint32_t value, std::uint32_t end) -> Status {
      if (value < end) return {};
      return refuse(batch::kInvalidArgument, "draw: %s: expected below %u, got %u", what, end,
                    value);
    };
    if (Status s = below("slot", draw.slot(), entry_->slots); !s.ok()) return s;
    if (Status s = below("previous_slot", draw.previous_slot(), entry_->slots); !s.ok()) return s;
    std::uint32_t next = 0;
    for (int i = 0; i < draw.env_indices_size(); ++i) {
      const std::uint32_t e = draw.env_indices(i);
      if (e < next || e >= entry_->stacks->environments())
        return refuse(batch::kInvalidArgument,
                      "draw: env_indices[%d]: expected %u to %u, ascending, got %u", i, next,
                      entry_->stacks->environments() - 1, e);
      next = e + 1;
    }
    if (entry_->pose != nullptr) {
      if (!draw.pose().empty() || !draw.fresh().empty())
        return refuse(batch::kInvalidArgument,
                      "draw: the scene has arrays of poses: expected pose_slot only, got %zu bytes "
                      "of pose and %zu of fresh",
                      draw.pose().size(), draw.fresh().size());
      return below("pose_slot", draw.pose_slot(), entry_->pose_slots);
    }
    if (draw.pose_slot() != 0)
      return refuse(batch::kInvalidArgument,
                    "draw: pose_slot: the scene has no arrays of poses: expected 0, got %u",
                    draw.pose_slot());
    const std::size_t n = entry_->stacks->environments();
    const std::size_t bytes = n * entry_->stacks->bodies() * render::kPoseNumbers * sizeof(float);
    if (draw.pose().size() != bytes)
      return refuse(batch::kInvalidArgument,
                    "draw: pose: expected [%zu, %u, 7] float32 = %zu bytes, got %zu", n,
                    entry_->stacks->bodies(), bytes, draw.pose().size());
    if (!draw.fresh().empty() && draw.fresh().size() != n)
      return refuse(batch::kInvalidArgument, "draw: fresh: expected %zu bytes or none, got %zu", n,
                    draw.fresh().size());
    return {};
  }

  // [N, B, 7] and [N] of what is to be drawn.
  Status find_poses(const v1::Draw& draw, const float** pose, const std::uint8_t** fresh) {
    const std::size_t n = entry_->stacks->environments();
    const std::size_t numbers = n * entry_->stacks->bodies() * render::kPoseNumbers;
    if (entry_->pose != nullptr) {
      *pose = entry_->pose + draw.pose_slot() * numbers;
      *fresh = entry_->fresh + draw.pose_slot() * n;
      return {};
    }
    pose_.resize(numbers);  // a string's storage is not aligned for floats
    memcpy(pose_.data(), draw.pose().data(), draw.pose().size());
    for (std::size_t i = 0; i < numbers; ++i) {
      if (!std::isfinite(pose_[i]))
        return refuse(batch::kInvalidArgument, "draw: pose[%zu] is %g, expected a finite number", i,
                      pose_[i]);
    }
    *pose = pose_.data();
    *fresh =
        draw.fresh().empty() ? nullptr : reinterpret_cast<const std::uint8_t*>(draw.fresh().data());
    return {};
  }

  // Offsets and lengths in the buffer, in bytes.
  using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

  // Sends ranges of the buffer, a chunk a credit.
  grpc::Status send_chunks(const Ranges& ranges, std::uint32_t* chunks) {
    for (auto [offset, bytes] : ranges) {
      while (bytes > 0) {
        while (credits_ == 0) {
          if (!stream_.Read(&request_)) return grpc::Status::CANCELLED;
          if (grpc::Status status = check_envelope(); !status.ok()) return status;
          if (request_.message_case() != v1::RenderRequest::kCredit)
            return refused(batch::kInvalidArgument, "expected credit while chunks are under way");
          credits_ += request_.credit().chunks();
        }
        const std::uint64_t length = std::min<std::uint64_t>(bytes, kChunkBytes);
        {
          std::lock_guard lock(entry_->mutex);
          if (entry_->destroyed) return no_scene(scene_id_);
          auto* const chunk = response_.mutable_chunk();
          chunk->set_offset_bytes(offset);
          chunk->set_data(static_cast<const char*>(entry_->images->data()) + offset, length);
        }
        if (grpc::Status status = write(); !status.ok()) return status;
        credits_ -= 1;
        *chunks += 1;
        offset += length;
        bytes -= length;
      }
    }
    return grpc::Status::OK;
  }

  grpc::Status write() {
    response_.set_sequence(next_response_++);
    grpc::WriteOptions options;
    options.set_no_compression();
    return stream_.Write(response_, options) ? grpc::Status::OK : grpc::Status::CANCELLED;
  }

  RenderService& service_;
  Stream& stream_;
  std::shared_ptr<Entry> entry_;
  std::string scene_id_;
  std::uint64_t next_request_ = 0, next_response_ = 0, credits_ = 0;
  // Reused from message to message.
  v1::RenderRequest request_;
  v1::RenderResponse response_;
  std::vector<float> pose_;
};

grpc::Status RenderService::Render(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::RenderResponse, v1::RenderRequest>* stream) {
  return guarded(context, "Render", [&] { return RenderStream(*this, *stream).serve(); });
}

}  // namespace sdpg::server
