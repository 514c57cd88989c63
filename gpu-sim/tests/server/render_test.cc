// Pictures over gRPC: images of a batch on its Rollout stream and at the doorbell, the render
// service beside the simulator's and alone in a server of its own, and what bad requests get from
// it.

#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "batch/doorbell.h"
#include "server/server.h"
#include "support/fixtures.h"
#include "support/views.h"

namespace sdpg::server {
namespace {

namespace v1 = sdpg::render::v1;
namespace sim = sdpg::sim::v1;
using ::sdpg::testing::add_view;
using ::sdpg::testing::hopper_request;
using ::sdpg::testing::test_seed;

constexpr std::uint32_t kNominals = 4, kActions = 3, kHorizon = 6;
constexpr std::uint64_t kLimit = std::uint64_t{1} << 30;

// The same two views for batches and scenes; the second is large enough for several chunks a slot.
template <class Request>
void add_views(Request* request) {
  add_view(request, "colour", view::v1::IMAGE_KIND_RGB, 3, 21, 13);
  add_view(request, "depth", view::v1::IMAGE_KIND_DEPTH, 2, 256, 144, 0.01);
}

// Memory as a caller maps it: the object of the first array.
template <class Response>
struct Mapping {
  explicit Mapping(const Response& response) {
    const auto& shared = response.tensors(0).tensor().shared_memory();
    bytes = shared.object_bytes();
    const int file = shm_open(shared.name().c_str(), O_RDWR, 0);
    EXPECT_GE(file, 0);
    void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    EXPECT_NE(mapped, MAP_FAILED);
    close(file);
    data = static_cast<char*>(mapped);
  }
  ~Mapping() { munmap(data, bytes); }
  char* data;
  std::size_t bytes;
};

bool object_exists(const std::string& name) {
  const int file = shm_open(name.c_str(), O_RDONLY, 0);
  if (file >= 0) close(file);
  return file >= 0;
}

template <class Response>
const sim::BufferTensor& tensor_of(const Response& response, const std::string& name) {
  for (const auto& tensor : response.tensors())
    if (tensor.name() == name) return tensor;
  ADD_FAILURE() << "no array " << name;
  return response.tensors(0);
}

// One slot of an array in a buffer of that response's layout.
template <class Response>
std::string slot_of(const Response& response, const char* buffer, const std::string& name,
                    std::uint32_t slot) {
  const auto& tensor = tensor_of(response, name);
  std::size_t bytes = tensor.tensor().dtype() == tensor::v1::DTYPE_UINT8 ? 1 : 4;
  for (int i = 1; i < tensor.tensor().shape_size(); ++i)
    bytes *= static_cast<std::size_t>(tensor.tensor().shape(i));
  return {buffer + tensor.offset_bytes() + slot * bytes, bytes};
}

// A stream of either service, as a caller drives it.
template <class Request, class Response>
struct Stream {
  bool send(Request request) {
    request.set_sequence(sequence++);
    set_id(request);
    return stream->Write(request);
  }
  bool credit(std::uint32_t chunks) {
    Request request;
    request.mutable_credit()->set_chunks(chunks);
    return send(request);
  }
  Response read() {
    Response response;
    EXPECT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.sequence(), answers++);
    return response;
  }
  // Reads what is not a chunk, granting a credit at a time; chunks go into `buffer`.
  Response read_through(std::string* buffer, std::uint32_t* chunks) {
    for (*chunks = 0;; ++*chunks) {
      EXPECT_TRUE(credit(1));
      const Response response = read();
      if (!response.has_chunk()) return response;
      const auto& chunk = response.chunk();
      EXPECT_LE(chunk.data().size(), 1u << 20);
      if (chunk.offset_bytes() + chunk.data().size() > buffer->size()) {
        ADD_FAILURE() << "chunk beyond the buffer";
        return response;
      }
      memcpy(buffer->data() + chunk.offset_bytes(), chunk.data().data(), chunk.data().size());
    }
  }
  grpc::Status finish() {
    stream->WritesDone();
    Response response;
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }

  void set_id(sim::RolloutRequest& request) const { request.set_batch_id(id); }
  void set_id(v1::RenderRequest& request) const { request.set_scene_id(id); }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<Request, Response>> stream;
  std::string id;
  std::uint64_t sequence = 0, answers = 0;
};

struct Rollout : Stream<sim::RolloutRequest, sim::RolloutResponse> {
  Rollout(sim::SimulationService::Stub& stub, const std::string& batch) {
    stream = stub.Rollout(&context);
    id = batch;
  }
  bool begin(std::uint64_t epoch) {
    sim::RolloutRequest request;
    request.mutable_begin()->set_epoch(epoch);
    return send(request);
  }
  bool step(std::uint32_t t) {
    sim::RolloutRequest request;
    std::string means(kNominals * kActions * 4, 0);
    for (std::size_t i = 0; i < kNominals * kActions; ++i) {
      const float mean = std::sin(static_cast<float>(i + t));
      memcpy(&means[i * 4], &mean, 4);
    }
    request.mutable_step()->set_t(t);
    request.mutable_step()->set_mean(means);
    return send(request);
  }
  bool end() {
    sim::RolloutRequest request;
    request.mutable_end();
    return send(request);
  }
};

struct Drawing : Stream<v1::RenderRequest, v1::RenderResponse> {
  Drawing(v1::RenderService::Stub& stub, const std::string& scene) {
    stream = stub.Render(&context);
    id = scene;
  }
  bool draw(const v1::Draw& draw) {
    v1::RenderRequest request;
    *request.mutable_draw() = draw;
    return send(request);
  }
};

class RenderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    google::protobuf::SetLogHandler(nullptr);
    setenv("SDPG_LOG", "warn", 1);
    std::string error;
    server_ = Server::start("127.0.0.1:0", {2, "", kLimit, true, nullptr, true}, &error);
    ASSERT_TRUE(server_) << error;
    apart_ = Server::start("127.0.0.1:0", {1, "", kLimit, true, nullptr, false}, &error);
    ASSERT_TRUE(apart_) << error;
    const auto channel = [](const Server& server) {
      return grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials());
    };
    simulation_ = sim::SimulationService::NewStub(channel(*server_));
    beside_ = v1::RenderService::NewStub(channel(*server_));
    channel_ = channel(*apart_);
    render_ = v1::RenderService::NewStub(channel_);
  }

  sim::CreateBatchResponse create(sim::Transport transport, bool views = true) {
    auto request = hopper_request(kNominals, 2, kHorizon);
    request.mutable_task()->set_episode_length(4);
    request.set_transport(transport);
    request.set_poses(true);
    if (views) add_views(&request);
    grpc::ClientContext context;
    sim::CreateBatchResponse response;
    const grpc::Status status = simulation_->CreateBatch(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  static v1::CreateSceneRequest scene_request(const sim::CreateBatchResponse* batch,
                                              sim::Transport transport) {
    v1::CreateSceneRequest request;
    EXPECT_TRUE(request.mutable_model()->ParseFromString(testing::read_file("hopper.model.binpb")));
    add_views(&request);
    request.set_environments(kNominals);
    request.set_slots(kHorizon);
    request.set_seed(7);  // of hopper_request
    request.set_transport(transport);
    request.set_label("render-test");
    if (batch != nullptr) {
      *request.mutable_pose() = tensor_of(*batch, "pose");
      *request.mutable_fresh() = tensor_of(*batch, "fresh");
    }
    return request;
  }
  static grpc::Status create(v1::RenderService::Stub& stub, const v1::CreateSceneRequest& request,
                             v1::CreateSceneResponse* response) {
    grpc::ClientContext context;
    return stub.CreateScene(&context, request, response);
  }
  v1::CreateSceneResponse created(v1::RenderService::Stub& stub,
                                  const v1::CreateSceneRequest& request) {
    v1::CreateSceneResponse response;
    const grpc::Status status = create(stub, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  static grpc::Status destroy(v1::RenderService::Stub& stub, const std::string& id) {
    grpc::ClientContext context;
    v1::DestroySceneRequest request;
    request.set_scene_id(id);
    v1::DestroySceneResponse response;
    return stub.DestroyScene(&context, request, &response);
  }

  std::unique_ptr<Server> server_, apart_;
  std::shared_ptr<grpc::Channel> channel_;  // of `apart_`
  std::unique_ptr<sim::SimulationService::Stub> simulation_;
  std::unique_ptr<v1::RenderService::Stub> beside_, render_;
};

const char* const kImages[] = {"image/colour", "image/depth"};

// A batch draws its nominals; four scenes draw them from its poses: beside the simulator and apart,
// poses and images in shared memory or in messages.
TEST_F(RenderTest, DrawsApartWhatTheBatchDraws) {
  const auto batch = create(sim::TRANSPORT_SHARED_MEMORY);
  Mapping mapping(batch);
  struct Scene {
    v1::CreateSceneResponse response;
    std::unique_ptr<Mapping<v1::CreateSceneResponse>> mapping;
    std::string buffer;
    std::unique_ptr<Drawing> stream;
    bool arrays;
  };
  std::vector<Scene> scenes;
  for (v1::RenderService::Stub* stub : {beside_.get(), render_.get()}) {
    for (const bool shared : {true, false}) {
      Scene scene;
      scene.arrays = shared;
      scene.response = created(
          *stub, scene_request(shared ? &batch : nullptr,
                               shared ? sim::TRANSPORT_SHARED_MEMORY : sim::TRANSPORT_INLINE));
      if (shared)
        scene.mapping = std::make_unique<Mapping<v1::CreateSceneResponse>>(scene.response);
      scene.buffer.assign(scene.response.buffer_bytes(), '\xEE');
      scene.stream = std::make_unique<Drawing>(*stub, scene.response.scene_id());
      scenes.push_back(std::move(scene));
    }
  }
  const auto compare = [&](std::uint32_t slot, std::uint32_t previous) {
    for (Scene& scene : scenes) {
      v1::Draw draw;
      draw.set_slot(slot);
      draw.set_previous_slot(previous);
      if (scene.arrays) {
        draw.set_pose_slot(slot);
      } else {
        draw.set_pose(slot_of(batch, mapping.data, "pose", slot));
        draw.set_fresh(slot_of(batch, mapping.data, "fresh", slot));
      }
      ASSERT_TRUE(scene.stream->draw(draw));
      std::uint32_t chunks = 0;
      const auto answer =
          scene.arrays ? scene.stream->read() : scene.stream->read_through(&scene.buffer, &chunks);
      ASSERT_TRUE(answer.has_rendered());
      EXPECT_EQ(answer.scene_id(), scene.response.scene_id());
      EXPECT_EQ(answer.rendered().slot(), slot);
      EXPECT_EQ(answer.rendered().images(), 2 * kNominals);
      EXPECT_EQ(answer.rendered().chunks(), chunks);
      EXPECT_EQ(chunks > 1, !scene.arrays);
      ASSERT_EQ(answer.rendered().timings_size(), 1);
      EXPECT_EQ(answer.rendered().timings(0).phase(), "render");
      for (const char* name : kImages)
        ASSERT_TRUE(slot_of(scene.response,
                            scene.arrays ? scene.mapping->data : scene.buffer.data(), name,
                            slot) == slot_of(batch, mapping.data, name, slot))
            << name << " slot " << slot << (scene.arrays ? " shared" : " inline");
    }
  };
  Rollout rollout(*simulation_, batch.batch_id());
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    ASSERT_TRUE(rollout.begin(epoch));
    const auto begun = rollout.read();
    ASSERT_TRUE(begun.has_begun());
    EXPECT_EQ(begun.begun().images(), 2 * kNominals);
    EXPECT_EQ(begun.begun().chunks(), 0u);
    ASSERT_EQ(begun.begun().timings_size(), 2);
    EXPECT_EQ(begun.begun().timings(1).phase(), "render");
    compare(0, kHorizon - 1);
    for (std::uint32_t t = 0; t < kHorizon; ++t) {
      ASSERT_TRUE(rollout.step(t));
      const auto stepped = rollout.read().stepped();
      EXPECT_EQ(stepped.images(), t + 1 < kHorizon ? 2 * kNominals : 0);
      ASSERT_EQ(stepped.timings_size(), 5);
      EXPECT_EQ(stepped.timings(4).phase(), "render");
      if (t + 1 < kHorizon) compare(t + 1, t);
    }
    ASSERT_TRUE(rollout.end());
    ASSERT_TRUE(rollout.read().has_ended());
  }
  for (Scene& scene : scenes) EXPECT_TRUE(scene.stream->finish().ok());
}

TEST_F(RenderTest, TransportsOfABatchCarryTheSameImages) {
  const auto shared = create(sim::TRANSPORT_SHARED_MEMORY);
  const auto inlined = create(sim::TRANSPORT_INLINE);
  Mapping mapping(shared);
  Rollout one(*simulation_, shared.batch_id()), two(*simulation_, inlined.batch_id());
  std::string assembled(inlined.buffer_bytes(), '\xEE');
  const auto compare = [&](std::uint32_t slot) {
    for (const char* name : kImages)
      ASSERT_TRUE(slot_of(inlined, assembled.data(), name, slot) ==
                  slot_of(shared, mapping.data, name, slot))
          << name << " slot " << slot;
  };
  for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
    std::uint32_t chunks = 0;
    ASSERT_TRUE(one.begin(epoch) && two.begin(epoch));
    ASSERT_TRUE(one.read().has_begun());
    const auto begun = two.read_through(&assembled, &chunks).begun();
    EXPECT_EQ(begun.chunks(), chunks);
    EXPECT_GT(chunks, 2u);
    EXPECT_EQ(begun.images(), 2 * kNominals);
    compare(0);
    const std::uint32_t steps = epoch == 0 ? kHorizon : 2;
    for (std::uint32_t t = 0; t < steps; ++t) {
      ASSERT_TRUE(one.step(t) && two.step(t));
      ASSERT_TRUE(one.read().has_stepped());
      const auto stepped = two.read_through(&assembled, &chunks).stepped();
      EXPECT_EQ(stepped.chunks(), chunks);
      EXPECT_EQ(chunks > 2, t + 1 < kHorizon);
      if (t + 1 < kHorizon) compare(t + 1);
    }
    ASSERT_TRUE(one.end() && two.end());
    ASSERT_TRUE(one.read().has_ended());
    // Images are not sent a second time; poses and flags come now.
    const std::string sent = assembled;
    ASSERT_TRUE(two.read_through(&assembled, &chunks).has_ended());
    for (const char* name : kImages)
      for (std::uint32_t slot = 0; slot < kHorizon; ++slot)
        ASSERT_TRUE(slot_of(inlined, assembled.data(), name, slot) ==
                    slot_of(inlined, sent.data(), name, slot));
    for (std::uint32_t slot = 0; slot <= steps; ++slot)
      for (const char* name : {"pose", "fresh", "privileged"})
        ASSERT_TRUE(slot_of(inlined, assembled.data(), name, slot) ==
                    slot_of(shared, mapping.data, name, slot));
  }
  EXPECT_TRUE(two.finish().ok());
}

TEST_F(RenderTest, SendsNoImageWithoutCredit) {
  const auto batch = create(sim::TRANSPORT_INLINE);
  Rollout rollout(*simulation_, batch.batch_id());
  ASSERT_TRUE(rollout.begin(0));
  ASSERT_TRUE(rollout.step(0));  // a step, where only credit can be: the images wait for it
  const grpc::Status status = rollout.finish();
  EXPECT_EQ(status.error_message(), "expected credit while chunks are under way");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RenderTest, CountsTheImagesOfADoorbellsSteps) {
  const auto batch = create(sim::TRANSPORT_SHARED_MEMORY);
  Mapping mapping(batch);
  auto* const bell = reinterpret_cast<batch::Doorbell*>(mapping.data + batch.buffer_bytes());
  Rollout rollout(*simulation_, batch.batch_id());
  for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
    bell->armed = 1;
    ASSERT_TRUE(rollout.begin(epoch));
    EXPECT_EQ(rollout.read().begun().images(), 2 * kNominals);
    for (std::uint32_t t = 0; t < kHorizon; ++t) {
      bell->command = batch::Doorbell::kStep;
      bell->t = t;
      bell->log_std_count = 0;
      ASSERT_TRUE(bell->ring(20'000));
      ASSERT_EQ(bell->status, 0u) << bell->error;
      EXPECT_EQ(bell->images, std::min(t + 1, kHorizon - 1) * 2 * kNominals);
    }
    EXPECT_EQ(bell->phase_count, 5u);
    EXPECT_STREQ(bell->phases[4].name, "render");
    bell->command = batch::Doorbell::kEnd;
    ASSERT_TRUE(bell->ring(20'000));
  }
  EXPECT_TRUE(rollout.finish().ok());
}

// ---- the render service
// ---------------------------------------------------------------------------

std::string upright_poses(std::uint32_t environments, std::int64_t bodies) {
  std::string bytes;
  for (std::int64_t i = 0; i < environments * bodies; ++i) {
    const float pose[7] = {0, 0, 0.2f * static_cast<float>(i), 1, 0, 0, 0};
    bytes.append(reinterpret_cast<const char*>(pose), sizeof pose);
  }
  return bytes;
}

TEST_F(RenderTest, DrawsChosenEnvironmentsAndSendsThoseAlone) {
  auto request = scene_request(nullptr, sim::TRANSPORT_INLINE);
  const auto bodies = request.model().bodies().name_size();
  const auto scene = created(*render_, request);
  Drawing stream(*render_, scene.scene_id());
  std::string buffer(scene.buffer_bytes(), '\xEE');
  v1::Draw draw;
  draw.set_slot(1);
  draw.set_pose(upright_poses(kNominals, bodies));
  for (const std::uint32_t e : {0u, 2u, 3u}) draw.add_env_indices(e);
  ASSERT_TRUE(stream.draw(draw));
  std::uint32_t chunks = 0;
  EXPECT_EQ(stream.read_through(&buffer, &chunks).rendered().images(), 6u);
  for (const char* name : kImages) {
    const std::string slot = slot_of(scene, buffer.data(), name, 1);
    const std::size_t stack = slot.size() / kNominals;
    for (std::uint32_t e = 0; e < kNominals; ++e)
      EXPECT_EQ(slot.substr(e * stack, stack) == std::string(stack, '\xEE'), e == 1) << e;
    const std::string other = slot_of(scene, buffer.data(), name, 0);
    EXPECT_EQ(other, std::string(other.size(), '\xEE'));
  }
  EXPECT_TRUE(stream.finish().ok());
}

TEST_F(RenderTest, RefusesScenesByNameAndGoesOnServing) {
  const auto batch = create(sim::TRANSPORT_SHARED_MEMORY, false);
  const auto bodies = std::to_string(hopper_request(1, 0, 1).model().bodies().name_size());
  using Request = v1::CreateSceneRequest;
  constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  const struct {
    std::string says;  // where the line begins
    grpc::StatusCode code;
    std::function<void(Request*)> edit;
  } cases[] = {
      {"model: expected a model, got none", kInvalid, [](Request* r) { r->clear_model(); }},
      {"views: expected at least one, got none", kInvalid, [](Request* r) { r->clear_views(); }},
      {"views: expected at most 64, got 66", kInvalid,
       [](Request* r) {
         for (int i = 0; i < 64; ++i)
           add_view(r, ("v" + std::to_string(i)).c_str(), view::v1::IMAGE_KIND_RGB, 1, 4, 4);
       }},
      {"view 'colour': the name is taken", kInvalid,
       [](Request* r) { r->mutable_views(1)->set_name("colour"); }},
      {"view 'depth'", kInvalid, [](Request* r) { r->mutable_views(1)->set_camera("front"); }},
      {"view 'depth'", kInvalid, [](Request* r) { r->mutable_views(1)->set_width(5000); }},
      {"view 'depth'", kInvalid, [](Request* r) { r->mutable_views(1)->set_frames(17); }},
      {"environments: expected 1 to 4194304, got 0", kInvalid,
       [](Request* r) { r->set_environments(0); }},
      {"environments: expected 1 to 4194304, got 4294967295", kInvalid,
       [](Request* r) { r->set_environments(UINT32_MAX); }},
      {"slots: expected 1 to 65536, got 0", kInvalid, [](Request* r) { r->set_slots(0); }},
      {"slots: expected 1 to 65536, got 70000", kInvalid, [](Request* r) { r->set_slots(70000); }},
      {"label: expected [a-z0-9-]{0,40}, got 'No/Such'", kInvalid,
       [](Request* r) { r->set_label("No/Such"); }},
      {"transport: expected shared_memory or inline, got 3", kInvalid,
       [](Request* r) { r->set_transport(sim::TRANSPORT_CUDA_IPC); }},
      {"pose, fresh: expected both arrays or neither", kInvalid,
       [](Request* r) { r->clear_fresh(); }},
      {"pose: expected an array in shared memory", kInvalid,
       [](Request* r) { r->mutable_pose()->mutable_tensor()->clear_shared_memory(); }},
      {"pose: expected dtype 1, got 2", kInvalid,
       [](Request* r) {
         r->mutable_pose()->mutable_tensor()->set_dtype(tensor::v1::DTYPE_FLOAT64);
       }},
      {"pose: expected shape [slots, 4, " + bodies + ", 7], got [7, 3, " + bodies + ", 7]",
       kInvalid, [](Request* r) { r->mutable_pose()->mutable_tensor()->set_shape(1, 3); }},
      {"pose: expected shape [slots, 5, ", kInvalid, [](Request* r) { r->set_environments(5); }},
      {"pose: expected shape ", kInvalid,
       [](Request* r) { r->mutable_pose()->mutable_tensor()->set_shape(0, INT64_MAX); }},
      {"pose: expected shape ", kInvalid,
       [](Request* r) { r->mutable_pose()->mutable_tensor()->clear_shape(); }},
      {"fresh: expected shape [slots, 4], got [7, 4, 1]", kInvalid,
       [](Request* r) { r->mutable_fresh()->mutable_tensor()->add_shape(1); }},
      {"fresh: expected 7 slots as pose has, got 6", kInvalid,
       [](Request* r) { r->mutable_fresh()->mutable_tensor()->set_shape(0, 6); }},
      {"pose: expected ", kInvalid,
       [](Request* r) {
         r->mutable_pose()->mutable_tensor()->mutable_shared_memory()->set_offset_bytes(32);
       }},
      {"pose: expected ", kInvalid,
       [](Request* r) {
         r->mutable_pose()->mutable_tensor()->mutable_shared_memory()->set_offset_bytes(UINT64_MAX /
                                                                                        64 * 64);
       }},
      {"pose: shared memory '/sdpg-", kInvalid,
       [](Request* r) {
         auto* shared = r->mutable_pose()->mutable_tensor()->mutable_shared_memory();
         shared->set_object_bytes(shared->object_bytes() + 4096);
       }},
      {"pose: cannot open shared memory '", kInvalid,
       [](Request* r) {
         auto* shared = r->mutable_pose()->mutable_tensor()->mutable_shared_memory();
         std::string name = shared->name();
         name.back() = name.back() == '0' ? '1' : '0';
         shared->set_name(name);
       }},
      {"pose: shared memory '/etc/passwd': expected a name", kInvalid,
       [](Request* r) {
         r->mutable_pose()->mutable_tensor()->mutable_shared_memory()->set_name("/etc/passwd");
       }},
      {"fresh: shared memory '': expected a name", kInvalid,
       [](Request* r) {
         r->mutable_fresh()->mutable_tensor()->mutable_shared_memory()->clear_name();
       }},
      {"the scene needs ", grpc::StatusCode::RESOURCE_EXHAUSTED,
       [](Request* r) { r->set_slots(2000); }},
      {"the scene needs ", grpc::StatusCode::RESOURCE_EXHAUSTED,
       [](Request* r) {  // more bytes than 64 bits count
         r->clear_views();
         for (int i = 0; i < 64; ++i)
           add_view(r, ("v" + std::to_string(i)).c_str(), view::v1::IMAGE_KIND_DEPTH, 16, 4096,
                    4096);
         r->set_slots(65536);
         r->set_environments(65536);
         r->clear_pose();
         r->clear_fresh();
       }},
  };
  for (const auto& c : cases) {
    auto request = scene_request(&batch, sim::TRANSPORT_SHARED_MEMORY);
    c.edit(&request);
    v1::CreateSceneResponse response;
    const grpc::Status status = create(*render_, request, &response);
    EXPECT_EQ(status.error_message().rfind(c.says, 0), 0u)
        << "expected " << c.says << ", got " << status.error_message();
    EXPECT_EQ(status.error_code(), c.code) << c.says;
    EXPECT_EQ(status.error_message().find('\n'), std::string::npos);
  }
  EXPECT_EQ(destroy(*render_, "scene-99").error_code(), grpc::StatusCode::NOT_FOUND);
  const auto scene = created(*render_, scene_request(&batch, sim::TRANSPORT_SHARED_MEMORY));
  EXPECT_TRUE(destroy(*render_, scene.scene_id()).ok());
  EXPECT_EQ(destroy(*render_, scene.scene_id()).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RenderTest, MapsNothingThatAnotherMadeOrThatIsGone) {
  const auto batch = create(sim::TRANSPORT_SHARED_MEMORY, false);
  const std::string name = tensor_of(batch, "pose").tensor().shared_memory().name();
  ASSERT_EQ(chmod(("/dev/shm" + name).c_str(), 0644), 0);
  v1::CreateSceneResponse response;
  const auto request = scene_request(&batch, sim::TRANSPORT_INLINE);
  EXPECT_EQ(create(*render_, request, &response).error_message(),
            "pose: shared memory '" + name + "': expected an object of this user with mode 0600");
  ASSERT_EQ(chmod(("/dev/shm" + name).c_str(), 0600), 0);
  EXPECT_TRUE(create(*render_, request, &response).ok());
  Rollout rollout(*simulation_, batch.batch_id());
  ASSERT_TRUE(rollout.begin(0));
  rollout.read();
  const grpc::Status late = create(*render_, request, &response);
  EXPECT_NE(late.error_message().find("give it before the batch's first Begin"), std::string::npos)
      << late.error_message();
}

TEST_F(RenderTest, RefusesDrawsByNameAndKeepsTheScene) {
  const auto batch = create(sim::TRANSPORT_SHARED_MEMORY, false);
  const auto with = created(*render_, scene_request(&batch, sim::TRANSPORT_SHARED_MEMORY));
  const auto request = scene_request(nullptr, sim::TRANSPORT_INLINE);
  const auto bodies = request.model().bodies().name_size();
  const auto without = created(*render_, request);
  const std::string pose = upright_poses(kNominals, bodies);
  const std::string bytes = std::to_string(pose.size());
  const auto valid = [&](bool arrays) {
    v1::Draw draw;
    if (!arrays) draw.set_pose(pose);
    return draw;
  };
  const struct {
    std::string says;
    bool arrays;
    std::function<void(v1::Draw*)> edit;
  } cases[] = {
      {"draw: slot: expected below 6, got 6", true, [](v1::Draw* d) { d->set_slot(6); }},
      {"draw: previous_slot: expected below 6, got 99", true,
       [](v1::Draw* d) { d->set_previous_slot(99); }},
      {"draw: pose_slot: expected below 7, got 7", true, [](v1::Draw* d) { d->set_pose_slot(7); }},
      {"draw: env_indices[0]: expected 0 to 3, ascending, got 4", true,
       [](v1::Draw* d) { d->add_env_indices(4); }},
      {"draw: env_indices[1]: expected 3 to 3, ascending, got 2", true,
       [](v1::Draw* d) {
         d->add_env_indices(2);
         d->add_env_indices(2);
       }},
      {"draw: env_indices[1]: expected 4 to 3, ascending, got 4294967295", false,
       [](v1::Draw* d) {
         d->add_env_indices(3);
         d->add_env_indices(UINT32_MAX);
       }},
      {"draw: the scene has arrays of poses: expected pose_slot only, got " + bytes +
           " bytes of pose and 0 of fresh",
       true, [&](v1::Draw* d) { d->set_pose(pose); }},
      {"draw: pose_slot: the scene has no arrays of poses: expected 0, got 1", false,
       [](v1::Draw* d) { d->set_pose_slot(1); }},
      {"draw: pose: expected [4, " + std::to_string(bodies) + ", 7] float32 = " + bytes +
           " bytes, got 5",
       false, [](v1::Draw* d) { d->set_pose("short"); }},
      {"draw: pose[9] is nan, expected a finite number", false,
       [](v1::Draw* d) {
         const float nan = NAN;
         memcpy(d->mutable_pose()->data() + 9 * 4, &nan, 4);
       }},
      {"draw: fresh: expected 4 bytes or none, got 3", false,
       [](v1::Draw* d) { d->set_fresh("abc"); }},
  };
  for (const auto& c : cases) {
    Drawing stream(*render_, c.arrays ? with.scene_id() : without.scene_id());
    v1::Draw draw = valid(c.arrays);
    c.edit(&draw);
    stream.draw(draw);
    const grpc::Status status = stream.finish();
    EXPECT_EQ(status.error_message(), c.says);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << c.says;
  }
  const auto fails = [&](const std::string& id, const std::function<void(Drawing&)>& drive) {
    Drawing stream(*render_, id);
    drive(stream);
    return stream.finish().error_message();
  };
  EXPECT_EQ(fails("scene-99", [&](Drawing& s) { s.draw(valid(true)); }),
            "scene 'scene-99' does not exist; create it first");
  EXPECT_EQ(fails(with.scene_id(), [](Drawing& s) { s.send({}); }),
            "message 0: expected draw or credit, got neither");
  EXPECT_EQ(fails(with.scene_id(),
                  [&](Drawing& s) {
                    s.sequence = 3;
                    s.draw(valid(true));
                  }),
            "sequence: expected 0, got 3");
  EXPECT_EQ(fails(with.scene_id(),
                  [&](Drawing& s) {
                    s.draw(valid(true));
                    s.id = "scene-98";
                    s.draw(valid(true));
                  }),
            "scene_id: this stream is for '" + with.scene_id() + "', got 'scene-98'");
  EXPECT_EQ(fails(without.scene_id(),
                  [&](Drawing& s) {
                    s.draw(valid(false));
                    s.draw(valid(false));
                  }),
            "expected credit while chunks are under way");
  Drawing first(*render_, with.scene_id());
  ASSERT_TRUE(first.draw(valid(true)));
  EXPECT_EQ(first.read().rendered().images(), 2 * kNominals);
  EXPECT_EQ(fails(with.scene_id(), [&](Drawing& s) { s.draw(valid(true)); }),
            "scene '" + with.scene_id() + "' already has a Render stream; end it first");
  // A stream learns that its scene is gone.
  EXPECT_TRUE(destroy(*render_, with.scene_id()).ok());
  ASSERT_TRUE(first.draw(valid(true)));
  EXPECT_EQ(first.finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RenderTest, NamesUnguessableMemoryAndRemovesTheNameAtTheFirstDraw) {
  const auto request = scene_request(nullptr, sim::TRANSPORT_SHARED_MEMORY);
  const auto scene = created(*render_, request);
  const std::string name = scene.tensors(0).tensor().shared_memory().name();
  struct stat found;
  ASSERT_EQ(stat(("/dev/shm" + name).c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0600u);
  EXPECT_EQ(name.rfind("/sdpg-" + std::to_string(getuid()) + "-" + std::to_string(getpid()) +
                           "-render-test-",
                       0),
            0u);
  Drawing stream(*render_, scene.scene_id());
  v1::Draw draw;
  draw.set_pose(upright_poses(kNominals, request.model().bodies().name_size()));
  ASSERT_TRUE(stream.draw(draw));
  EXPECT_TRUE(stream.read().has_rendered());
  EXPECT_FALSE(object_exists(name));
  const auto second = created(*render_, request);
  EXPECT_TRUE(destroy(*render_, second.scene_id()).ok());
  EXPECT_FALSE(object_exists(second.tensors(0).tensor().shared_memory().name()));
  const auto third = created(*render_, request);
  EXPECT_TRUE(stream.finish().ok());
  apart_->stop(100);
  EXPECT_FALSE(object_exists(third.tensors(0).tensor().shared_memory().name()));
}

TEST_F(RenderTest, SharesTheMemoryLimitWithBatches) {
  // A scene of 6 slots x 4 environments x 2 frames of depth is 7 MB.
  std::string error;
  server_ = Server::start("127.0.0.1:0", {1, "", 20 << 20, true, nullptr, true}, &error);
  ASSERT_TRUE(server_) << error;
  const auto channel = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  simulation_ = sim::SimulationService::NewStub(channel);
  beside_ = v1::RenderService::NewStub(channel);
  const auto batch = create(sim::TRANSPORT_INLINE);  // draws, and takes as much
  const auto request = scene_request(nullptr, sim::TRANSPORT_INLINE);
  const auto scene = created(*beside_, request);
  v1::CreateSceneResponse response;
  const grpc::Status status = create(*beside_, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("are allowed; lower environments"), std::string::npos);
  EXPECT_TRUE(destroy(*beside_, scene.scene_id()).ok());
  EXPECT_TRUE(create(*beside_, request, &response).ok());
}

TEST_F(RenderTest, DescribesItselfAndSimulatesNothingApart) {
  grpc::ClientContext context;
  v1::DescribeResponse response;
  ASSERT_TRUE(render_->Describe(&context, {}, &response).ok());
  EXPECT_FALSE(response.version().empty());
  EXPECT_FALSE(response.isa().empty());
  EXPECT_EQ(response.threads(), 1u);
  ASSERT_EQ(response.transports_size(), 2);
  EXPECT_EQ(response.transports(0), sim::TRANSPORT_SHARED_MEMORY);
  EXPECT_EQ(response.memory_limit_bytes(), kLimit);
  const auto simulation = sim::SimulationService::NewStub(channel_);
  grpc::ClientContext other;
  sim::DescribeResponse described;
  EXPECT_EQ(simulation->Describe(&other, {}, &described).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(RenderTest, RefusesSharedMemoryWhereItIsNotOffered) {
  const auto batch = create(sim::TRANSPORT_SHARED_MEMORY, false);
  std::string error;
  apart_ = Server::start("127.0.0.1:0", {1, "", kLimit, false, nullptr, false}, &error);
  ASSERT_TRUE(apart_) << error;
  render_ = v1::RenderService::NewStub(
      grpc::CreateChannel(apart_->address(), grpc::InsecureChannelCredentials()));
  v1::CreateSceneResponse response;
  EXPECT_EQ(create(*render_, scene_request(nullptr, sim::TRANSPORT_SHARED_MEMORY), &response)
                .error_message(),
            "transport: this server does not offer shared memory; use inline");
  EXPECT_EQ(
      create(*render_, scene_request(&batch, sim::TRANSPORT_INLINE), &response).error_message(),
      "pose: this server does not offer shared memory; send the poses with every Draw");
  const auto scene = created(*render_, scene_request(nullptr, sim::TRANSPORT_UNSPECIFIED));
  EXPECT_EQ(scene.transport(), sim::TRANSPORT_INLINE);
}

// Random and randomly changed requests; the server answers each and still works afterwards.
TEST_F(RenderTest, SurvivesMalformedMessages) {
  std::mt19937_64 random(test_seed());
  SCOPED_TRACE(::testing::Message() << "seed " << test_seed());
  grpc::GenericStub generic(channel_);
  const auto call = [&](const std::string& method, const std::string& body) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    grpc::CompletionQueue queue;
    grpc::Slice slice(body);
    const auto pending = generic.PrepareUnaryCall(
        &context, "/sdpg.render.v1.RenderService/" + method, grpc::ByteBuffer(&slice, 1), &queue);
    pending->StartCall();
    grpc::ByteBuffer reply;
    grpc::Status status;
    pending->Finish(&reply, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    EXPECT_NE(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << method;
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNAVAILABLE) << method;
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNKNOWN) << method;
    std::vector<grpc::Slice> slices;
    std::string bytes;
    if (status.ok()) reply.Dump(&slices);
    for (const auto& s : slices) bytes.append(reinterpret_cast<const char*>(s.begin()), s.size());
    return bytes;
  };
  auto request = scene_request(nullptr, sim::TRANSPORT_INLINE);
  request.mutable_views(1)->set_width(8);
  request.mutable_views(1)->set_height(8);
  const std::string pose = upright_poses(kNominals, request.model().bodies().name_size());
  const std::string good = request.SerializeAsString();
  int drawn = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string body = good;
    const int changes = 1 + static_cast<int>(random() % 5);
    for (int i = 0; i < changes; ++i) body[random() % body.size()] = static_cast<char>(random());
    if (round % 10 == 0) body.resize(random() % body.size());
    v1::CreateSceneResponse scene;
    if (!scene.ParseFromString(call("CreateScene", body)) || scene.scene_id().empty()) continue;
    // What was let through can be drawn, unless the change was in its sizes.
    Drawing stream(*render_, scene.scene_id());
    v1::Draw draw;
    draw.set_pose(pose);
    stream.credit(1000);
    if (stream.draw(draw)) {
      v1::RenderResponse answer;
      while (stream.stream->Read(&answer) && answer.has_chunk()) {
      }
      drawn += answer.has_rendered();
    }
    stream.finish();
    destroy(*render_, scene.scene_id());
  }
  EXPECT_GT(drawn, 50);
  for (int round = 0; round < 300; ++round) {
    std::string body(random() % 64, 0);
    for (char& c : body) c = static_cast<char>(random());
    for (const char* method : {"Describe", "DestroyScene"}) call(method, body);
  }
  EXPECT_TRUE(destroy(*render_, created(*render_, request).scene_id()).ok());
}

}  // namespace
}  // namespace sdpg::server
