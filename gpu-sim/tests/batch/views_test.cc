// What a batch's nominals show: poses, pictures, stacks of frames. The expected stacks are kept
// here by the rules of sim.proto, with pictures that the renderer's table draws one at a time.

#include "support/views.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <set>

#include "batch/batch.h"
#include "core/block.h"
#include "render/image_stacks.h"
#include "support/randomise.h"

namespace sdpg::batch {
namespace {

using ::sdpg::testing::add_view;
using ::sdpg::testing::hopper_request;
using ::sdpg::testing::test_seed;

constexpr std::uint32_t kActions = 3, kGroups = 3, kHorizon = 10;
constexpr std::uint64_t kSeed = 7;

// Three groups of three, episodes of at most four steps, three different views.
sim::v1::CreateBatchRequest request_with_views(std::uint32_t horizon = kHorizon) {
  auto request = hopper_request(kGroups, 2, horizon, kSeed);
  request.mutable_task()->set_episode_length(4);
  request.set_poses(true);
  add_view(&request, "colour", view::v1::IMAGE_KIND_RGB, 3, 19, 11);
  add_view(&request, "depth", view::v1::IMAGE_KIND_DEPTH, 2, 8, 8, 0.01);
  add_view(&request, "parts", view::v1::IMAGE_KIND_SEGMENTATION, 1, 5, 7);
  return request;
}

struct Rig {
  explicit Rig(const sim::v1::CreateBatchRequest& request, int threads = 1,
               const std::string& isa = "")
      : pool(threads) {
    CreateOptions options;
    options.threads = threads;
    options.isa = isa;
    const Status status = Batch::create(request, options, &batch);
    EXPECT_TRUE(status.ok()) << status.message;
    if (!status.ok()) std::abort();
    out = point_into(batch->layout(), batch->buffer());
    means.assign(batch->sizes().nominals * kActions, 0.0f);
    memset(batch->buffer(), 0xEE, batch->layout().bytes);  // what is not written is seen
  }

  std::uint32_t begin(std::uint64_t epoch, bool reset = false) {
    BeginReport report;
    const Status status = batch->begin(pool, epoch, reset, &report);
    EXPECT_TRUE(status.ok()) << status.message;
    EXPECT_STREQ(report.phases[1].phase, "render");
    EXPECT_LE(report.phases[1].start, report.phases[1].end);
    return report.images;
  }
  std::uint32_t step(std::uint32_t t, std::mt19937_64& random) {
    std::normal_distribution<float> normal;
    for (float& m : means) m = normal(random);
    StepReport report;
    const float log_std[kActions] = {-0.5f, -0.5f, -0.5f};
    const Status status =
        batch->step(pool, t, means.data(), means.size(), log_std, kActions, &report);
    EXPECT_TRUE(status.ok()) << status.message;
    EXPECT_STREQ(report.phases[4].phase, "render");
    EXPECT_LE(report.phases[4].start, report.phases[4].end);
    return report.images;
  }
  void end() { ASSERT_TRUE(batch->end(nullptr).ok()); }
  void segment(std::uint64_t epoch, std::mt19937_64& random, std::uint32_t steps = kHorizon) {
    begin(epoch);
    for (std::uint32_t t = 0; t < steps; ++t) step(t, random);
    end();
  }

  std::vector<std::uint8_t> snapshot() const {
    std::vector<std::uint8_t> bytes(batch->snapshot_bytes());
    EXPECT_TRUE(batch->snapshot(bytes.data(), bytes.size()).ok());
    return bytes;
  }
  const BufferArray& array(const std::string& name) const {
    for (const BufferArray& array : batch->layout().arrays)
      if (array.name == name) return array;
    ADD_FAILURE() << "no array " << name;
    return batch->layout().arrays[0];
  }
  // One nominal's share of a slot.
  std::string at(const std::string& name, std::uint32_t slot, std::uint32_t nominal) const {
    const BufferArray& a = array(name);
    const std::uint64_t bytes = a.slot_bytes / batch->sizes().nominals;
    return {static_cast<const char*>(batch->buffer()) + a.offset_bytes + slot * a.slot_bytes +
                nominal * bytes,
            bytes};
  }
  std::string images() const {
    std::string bytes;
    for (const BufferArray& a : batch->layout().arrays)
      if (a.image)
        bytes.append(static_cast<const char*>(batch->buffer()) + a.offset_bytes, a.bytes());
    return bytes;
  }
  bool ends(std::uint32_t t, std::uint32_t nominal) const {
    const std::uint64_t at =
        std::uint64_t{t} * batch->sizes().environments + nominal * batch->sizes().members;
    return out.terminated[at] != 0 || out.truncated[at] != 0;
  }

  std::unique_ptr<Batch> batch;
  ThreadPool pool;
  RolloutBuffer out;
  std::vector<float> means;
};

// The stacks as they should be.
struct Expected {
  explicit Expected(const sim::v1::CreateBatchRequest& request) : nominals(request.nominals()) {
    std::string error;
    renderer = render::select_renderer("", &error);
    scene = render::make_scene(request.model(), &error);
    EXPECT_TRUE(renderer != nullptr && scene) << error;
    for (const auto& message : request.views()) {
      views.emplace_back();
      EXPECT_TRUE(render::make_view(*scene, message, &views.back(), &error)) << error;
      scratch = std::max(scratch, renderer->scratch_bytes(*scene, views.back()));
    }
    memory.reset(static_cast<unsigned char*>(std::aligned_alloc(64, (scratch + 127) / 64 * 64)));
    stacks.resize(nominals * views.size());
    pictures.assign(nominals, 0);
  }

  void draw(std::uint32_t n, const float* pose, bool fresh) {
    for (std::uint32_t v = 0; v < views.size(); ++v) {
      std::string frame(render::frame_bytes(views[v]), '\xEE');
      const render::NoiseKey key{kSeed, n, pictures[n] * views.size() + v};
      renderer->draw(*scene, views[v], pose, key, frame.data(), memory.get());
      std::string& stack = stacks[n * views.size() + v];
      if (fresh) {
        stack.clear();
        for (int f = 0; f < views[v].frames; ++f) stack += frame;
      } else {
        stack = stack.substr(frame.size()) + frame;
      }
    }
    pictures[n] += 1;
  }
  void check(const Rig& rig, std::uint32_t slot) const {
    for (std::uint32_t n = 0; n < nominals; ++n)
      for (std::uint32_t v = 0; v < views.size(); ++v)
        ASSERT_TRUE(rig.at("image/" + views[v].name, slot, n) == stacks[n * views.size() + v])
            << views[v].name << " slot " << slot << " nominal " << n;
  }

  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  std::uint32_t nominals;
  const render::Renderer* renderer;
  std::shared_ptr<const render::Scene> scene;
  std::vector<render::View> views;
  std::size_t scratch = 0;
  std::unique_ptr<unsigned char, Free> memory;
  std::vector<std::string> stacks;  // [N][view]
  std::vector<std::uint64_t> pictures;
};

const float* pose_of(const Rig& rig, std::uint32_t slot, std::uint32_t n) {
  const auto bodies = static_cast<std::uint64_t>(rig.array("pose").shape[2]);
  return rig.out.pose + (slot * std::uint64_t{rig.batch->sizes().nominals} + n) * bodies * 7;
}
std::uint8_t fresh_of(const Rig& rig, std::uint32_t slot, std::uint32_t n) {
  return rig.out.fresh[std::uint64_t{slot} * rig.batch->sizes().nominals + n];
}

TEST(Views, StacksFollowTheRulesOverSegments) {
  SCOPED_TRACE(::testing::Message() << "seed " << test_seed());
  for (const std::uint32_t horizon : {kHorizon, 1u}) {
    const auto request = request_with_views(horizon);
    Rig rig(request, 2);
    Expected expected(request);
    std::mt19937_64 random(test_seed());
    std::vector<bool> fresh(kGroups, true);
    int fresh_seen = 0, kept_seen = 0, fresh_at_begin = 0;
    for (std::uint64_t epoch = 0; epoch < 12; ++epoch) {
      const bool reset = epoch == 2;
      if (reset) fresh.assign(kGroups, true);
      ASSERT_EQ(rig.begin(epoch, reset), kGroups * 3);
      for (std::uint32_t t = 0;; ++t) {
        for (std::uint32_t n = 0; n < kGroups; ++n) {
          ASSERT_EQ(fresh_of(rig, t, n), fresh[n]) << "epoch " << epoch << " slot " << t;
          if (t < horizon) expected.draw(n, pose_of(rig, t, n), fresh[n]);
          fresh_seen += fresh[n];
          kept_seen += !fresh[n];
          fresh_at_begin += fresh[n] && t == 0 && epoch > 2;
        }
        if (t < horizon) expected.check(rig, t);
        if (t == horizon) break;
        ASSERT_EQ(rig.step(t, random), t + 1 < horizon ? kGroups * 3 : 0);
        for (std::uint32_t n = 0; n < kGroups; ++n) fresh[n] = rig.ends(t, n);
      }
      rig.end();
    }
    EXPECT_GT(fresh_seen, 3);
    EXPECT_GT(kept_seen, 10);
    EXPECT_GT(fresh_at_begin, 0) << "no episode ended with a segment";
  }
}

// Checks the poses of a slot that shows the present state against the kinematics of each nominal's
// own model.
void check_poses(const Rig& rig, std::uint32_t slot, const core::Kernels& kernels,
                 const std::function<std::shared_ptr<const core::Model>(std::uint32_t)>& model_of) {
  const auto state = rig.snapshot();
  const BatchSizes& sizes = rig.batch->sizes();
  const std::uint32_t lanes = static_cast<std::uint32_t>(kernels.lanes);
  const std::uint32_t blocks = (sizes.environments + lanes - 1) / lanes;
  const std::size_t bytes = static_cast<std::size_t>(kernels.scalar_bytes);
  const std::size_t stride =
      (state.size() - 160 - blocks * lanes * 4 - sizes.nominals * 4) / blocks;
  for (std::uint32_t n = 0; n < sizes.nominals; ++n) {
    const auto model = model_of(n);
    testing::Block block(*model, kernels);
    const std::uint32_t e = n * sizes.members;
    for (int i = 0; i < core::nq(*model); ++i) {
      const std::uint8_t* at = state.data() + 160 + e / lanes * stride +
                               (static_cast<std::uint32_t>(i) * lanes + e % lanes) * bytes;
      float single = 0;
      double wide = 0;
      memcpy(bytes == 8 ? static_cast<void*>(&wide) : &single, at, bytes);
      block.set(testing::Block::kQpos, i, 0, bytes == 8 ? wide : single);
    }
    block.kinematics();
    const float* pose = pose_of(rig, slot, n);
    for (int b = 0; b < core::nbody(*model); ++b) {
      for (int k = 0; k < 3; ++k)
        ASSERT_EQ(pose[b * 7 + k],
                  static_cast<float>(block.get(testing::Block::kXpos, b * 3 + k, 0)))
            << kernels.isa << bytes << " nominal " << n << " body " << b;
      for (int k = 0; k < 4; ++k)
        ASSERT_EQ(pose[b * 7 + 3 + k],
                  static_cast<float>(block.get(testing::Block::kXquat, b * 4 + k, 0)));
    }
  }
}

TEST(Views, PosesAreTheKinematicsOfTheNominals) {
  for (const core::Kernels* kernels : testing::all_kernels()) {
    auto request = hopper_request(37, 2, 1);
    request.set_poses(true);
    request.set_precision(kernels->scalar_bytes == 8 ? sim::v1::PRECISION_FLOAT64
                                                     : sim::v1::PRECISION_FLOAT32);
    Rig rig(request, 2, kernels->isa);
    const auto model = testing::made(request.model());
    std::mt19937_64 random(3);
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
      rig.segment(epoch, random, 1);
      check_poses(rig, 1, *kernels, [&](std::uint32_t) { return model; });
    }
  }
}

// The angle at which a joint's bodies are unturned differs from nominal to nominal.
TEST(Views, PosesAreThoseOfTheNominalsOwnParameters) {
  std::string error;
  const core::Kernels* kernels = core::select_kernels(core::Precision::kFloat32, "", &error);
  ASSERT_TRUE(kernels) << error;
  auto request = hopper_request(20, 2, 1);
  request.set_poses(true);
  constexpr std::uint32_t kThighAngle = 3;
  testing::randomise(&request, task::v1::PARAMETER_FIELD_QPOS0, kThighAngle, 0.1f, 0.6f, true);
  Rig rig(request);
  std::mt19937_64 random(3);
  std::set<float> angles;
  rig.segment(0, random, 1);
  check_poses(rig, 1, *kernels, [&](std::uint32_t n) {
    const BatchSizes& sizes = rig.batch->sizes();
    const std::uint64_t row = std::uint64_t{sizes.environments} + n * sizes.members;
    const float angle = rig.out.privileged[(row + 1) * sizes.privileged - 1];  // seen last
    angles.insert(angle);
    auto message = request.model();
    message.set_qpos0(kThighAngle, angle);
    return testing::made(message);
  });
  EXPECT_EQ(angles.size(), 20u);
}

TEST(Views, LeaveEverythingElseAsItIs) {
  auto plain = request_with_views();
  plain.clear_views();
  plain.clear_poses();
  Rig with(request_with_views());
  CreateOptions options;
  std::unique_ptr<Batch> without;
  ASSERT_TRUE(Batch::create(plain, options, &without).ok());
  memset(without->buffer(), 0xEE, without->layout().bytes);
  std::mt19937_64 random(4);
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::mt19937_64 same = random;
    with.segment(epoch, random);
    BeginReport begun;
    ASSERT_TRUE(without->begin(with.pool, epoch, false, &begun).ok());
    EXPECT_EQ(begun.phases[1].phase, nullptr);
    const float log_std[kActions] = {-0.5f, -0.5f, -0.5f};
    for (std::uint32_t t = 0; t < kHorizon; ++t) {
      std::normal_distribution<float> normal;
      for (float& m : with.means) m = normal(same);
      StepReport report;
      ASSERT_TRUE(
          without
              ->step(with.pool, t, with.means.data(), with.means.size(), log_std, kActions, &report)
              .ok());
      EXPECT_EQ(report.phases[4].phase, nullptr);
      EXPECT_EQ(report.images, 0u);
    }
    ASSERT_TRUE(without->end(nullptr).ok());
  }
  ASSERT_EQ(without->layout().arrays.size(), 12u);
  const std::uint64_t end = with.array("pose").offset_bytes;
  EXPECT_EQ(end, without->layout().bytes);
  EXPECT_EQ(memcmp(with.batch->buffer(), without->buffer(), end), 0);
}

TEST(Views, GiveTheSameBitsForAnyNumberOfThreadsAndWithoutTheArrayOfPoses) {
  std::vector<std::string> images;
  for (const int threads : {1, 2, 5}) {
    auto request = request_with_views();
    request.set_poses(threads != 5);
    Rig rig(request, threads);
    std::mt19937_64 random(5);
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) rig.segment(epoch, random);
    images.push_back(rig.images());
  }
  EXPECT_TRUE(images[0] == images[1]);
  EXPECT_TRUE(images[0] == images[2]);
}

TEST(Views, ASegmentThatEndedEarlyGoesOnWithTheStacksItHad) {
  Rig rig(request_with_views());
  Rig whole(request_with_views());
  std::mt19937_64 random(6);
  std::mt19937_64 same = random;
  // The same seven steps in one segment, and in segments of 0, 3, 0 and 4 steps. The noise of the
  // actions differs by epoch and step, but no nominal has any.
  whole.begin(0);
  for (std::uint32_t t = 0; t < 7; ++t) whole.step(t, same);
  whole.end();
  EXPECT_EQ(rig.begin(0), kGroups * 3);
  rig.end();
  EXPECT_EQ(rig.begin(1), 0u);
  const auto check = [&](std::uint32_t slot, std::uint32_t same_as) {
    for (const char* name : {"image/colour", "image/depth", "image/parts", "pose", "fresh"})
      for (std::uint32_t n = 0; n < kGroups; ++n)
        ASSERT_TRUE(rig.at(name, slot, n) == whole.at(name, same_as, n)) << name << " " << same_as;
  };
  check(0, 0);
  for (std::uint32_t t = 0; t < 3; ++t) {
    EXPECT_EQ(rig.step(t, random), kGroups * 3);
    check(t + 1, t + 1);
  }
  rig.end();
  EXPECT_EQ(rig.begin(2), 0u);
  check(0, 3);
  rig.batch->abandon();
  EXPECT_EQ(rig.begin(3), 0u);
  check(0, 3);
  for (std::uint32_t t = 0; t < 4; ++t) {
    rig.step(t, random);
    check(t + 1, t + 4);
  }
  rig.end();
}

TEST(Views, SnapshotAndRestoreContinueWithTheSameBits) {
  // After a whole segment, after one that ended early, and before any.
  for (const int steps : {static_cast<int>(kHorizon), 3, -1}) {
    Rig first(request_with_views());
    std::mt19937_64 random(7);
    if (steps >= 0) {
      first.segment(0, random);
      first.segment(1, random, static_cast<std::uint32_t>(steps));
    }
    const auto saved = first.snapshot();
    std::mt19937_64 later = random;
    first.segment(2, random);

    Rig second(request_with_views(), 2);
    std::mt19937_64 other(8);
    second.segment(0, other, 2);
    ASSERT_TRUE(second.batch->restore(saved.data(), saved.size()).ok());
    EXPECT_TRUE(second.snapshot() == saved);
    second.segment(2, later);
    EXPECT_TRUE(second.images() == first.images()) << "after " << steps << " steps";
    EXPECT_TRUE(second.snapshot() == first.snapshot());
  }
}

TEST(Views, ASnapshotOfOtherViewsIsRefused) {
  Rig rig(request_with_views());
  std::mt19937_64 random(9);
  rig.segment(0, random);
  const auto own = rig.snapshot();
  const auto says = [&](const std::vector<std::uint8_t>& bytes) {
    const Status status = rig.batch->restore(bytes.data(), bytes.size());
    EXPECT_TRUE(rig.snapshot() == own);
    EXPECT_EQ(status.code, kInvalidArgument);
    return status.message;
  };
  auto request = request_with_views();
  request.clear_views();
  Rig plain(request);
  EXPECT_EQ(says(plain.snapshot()),
            "restore: the snapshot is of a batch without views, this one has some");
  const Status status = plain.batch->restore(own.data(), own.size());
  EXPECT_EQ(status.message, "restore: the snapshot is of a batch with views, this one has none");
  request = request_with_views();
  request.mutable_views(0)->set_width(20);
  EXPECT_EQ(says(Rig(request).snapshot()), "restore: the snapshot is of other views");
  request = request_with_views();
  request.mutable_views(2)->set_name("others");
  EXPECT_EQ(says(Rig(request).snapshot()), "restore: the snapshot is of other views");
  for (std::size_t length = 0; length < own.size(); length += 997)
    says({own.begin(), own.begin() + static_cast<std::ptrdiff_t>(length)});
  for (int round = 0; round < 200; ++round) {
    auto damaged = own;
    // The counters of the header, bytes 88 to 160, are not bound to anything.
    damaged[160 + random() % (damaged.size() - 160)] ^=
        static_cast<std::uint8_t>(1 + random() % 255);
    says(damaged);
  }
}

TEST(Views, AFaultedNominalIsFreshAndTheOthersAreNot) {
  Rig rig(request_with_views());
  std::mt19937_64 random(10);
  rig.begin(0);
  rig.step(0, random);
  rig.means.assign(rig.means.size(), 0.1f);
  rig.means[1 * kActions] = NAN;
  StepReport report;
  ASSERT_TRUE(
      rig.batch->step(rig.pool, 1, rig.means.data(), rig.means.size(), nullptr, 0, &report).ok());
  EXPECT_EQ(report.faults, 3u);
  for (std::uint32_t n = 0; n < kGroups; ++n) {
    EXPECT_EQ(fresh_of(rig, 2, n), n == 1);
    const std::string stack = rig.at("image/colour", 2, n);
    const std::size_t frame = stack.size() / 3;
    if (n == 1) {
      EXPECT_EQ(stack.substr(0, frame), stack.substr(frame, frame));
      EXPECT_EQ(stack.substr(0, frame), stack.substr(2 * frame));
    } else {
      EXPECT_EQ(stack.substr(0, frame), rig.at("image/colour", 0, n).substr(2 * frame));
    }
  }
}

// ---- requests -----------------------------------------------------------------------------------

TEST(Views, AreLaidOutAsTheContractSays) {
  Rig rig(request_with_views(5));
  sim::v1::CreateBatchResponse response;
  rig.batch->describe(&response);
  ASSERT_EQ(response.tensors_size(), 17);
  const struct {
    const char* name;
    tensor::v1::Dtype dtype;
    std::vector<std::int64_t> shape;
  } expected[] = {
      {"pose",
       tensor::v1::DTYPE_FLOAT32,
       {6, 3, static_cast<std::int64_t>(hopper_request(1, 0, 1).model().bodies().name_size()), 7}},
      {"fresh", tensor::v1::DTYPE_UINT8, {6, 3}},
      {"image/colour", tensor::v1::DTYPE_UINT8, {5, 3, 9, 11, 19}},
      {"image/depth", tensor::v1::DTYPE_FLOAT32, {5, 3, 2, 8, 8}},
      {"image/parts", tensor::v1::DTYPE_INT32, {5, 3, 1, 7, 5}}};
  for (int i = 0; i < 5; ++i) {
    const auto& tensor = response.tensors(12 + i);
    EXPECT_EQ(tensor.name(), expected[i].name);
    EXPECT_EQ(tensor.tensor().dtype(), expected[i].dtype);
    EXPECT_EQ(
        std::vector<std::int64_t>(tensor.tensor().shape().begin(), tensor.tensor().shape().end()),
        expected[i].shape);
    EXPECT_EQ(tensor.offset_bytes() % 64, 0u);
  }
  // The paper's rollout holds its images once.
  auto paper = hopper_request(64, 0, 32);
  add_view(&paper, "colour", view::v1::IMAGE_KIND_RGB, 3, 84, 84);
  const Rig large(paper);
  EXPECT_EQ(large.array("image/colour").bytes(), 32u * 64 * 9 * 84 * 84);
}

TEST(Views, AreRefusedByNameWhereTheyDoNotFit) {
  const auto refused = [](const sim::v1::CreateBatchRequest& request,
                          std::uint64_t limit = UINT64_MAX) {
    CreateOptions options;
    options.memory_limit_bytes = limit;
    std::unique_ptr<Batch> batch;
    const Status status = Batch::create(request, options, &batch);
    EXPECT_FALSE(batch);
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(status.message.find('\n'), std::string::npos);
    return status;
  };
  auto request = hopper_request(2, 1, 2);
  for (int i = 0; i < 65; ++i)
    add_view(&request, ("v" + std::to_string(i)).c_str(), view::v1::IMAGE_KIND_RGB, 1, 4, 4);
  EXPECT_EQ(refused(request).message, "views: expected at most 64, got 65");
  request = request_with_views();
  request.mutable_views(2)->set_name("depth");
  EXPECT_EQ(refused(request).message,
            "view 'depth': the name is taken by another view; give each its own");
  const std::function<void(view::v1::View*)> edits[] = {
      [](view::v1::View* v) { v->set_camera("no such"); },
      [](view::v1::View* v) { v->set_camera(""); },
      [](view::v1::View* v) { v->set_name(""); },
      [](view::v1::View* v) { v->set_name("Colour"); },
      [](view::v1::View* v) { v->set_name("a/b"); },
      [](view::v1::View* v) { v->set_name(std::string(41, 'a')); },
      [](view::v1::View* v) { v->set_width(0); },
      [](view::v1::View* v) { v->set_width(4097); },
      [](view::v1::View* v) { v->set_height(0); },
      [](view::v1::View* v) { v->set_height(4000000000u); },
      [](view::v1::View* v) { v->set_frames(0); },
      [](view::v1::View* v) { v->set_frames(17); },
      [](view::v1::View* v) { v->set_kind(view::v1::IMAGE_KIND_UNSPECIFIED); },
      [](view::v1::View* v) { v->set_kind(static_cast<view::v1::ImageKind>(9)); },
      [](view::v1::View* v) { v->set_near(-1); },
      [](view::v1::View* v) { v->set_near(NAN); },
      [](view::v1::View* v) {
        v->set_near(2);
        v->set_far(1);
      },
      [](view::v1::View* v) { v->set_depth_noise(-1); },
      [](view::v1::View* v) { v->set_depth_noise(INFINITY); },
  };
  for (const auto& edit : edits) {
    request = request_with_views();
    edit(request.mutable_views(1));
    const Status status = refused(request);
    EXPECT_EQ(status.code, kInvalidArgument) << request.views(1).ShortDebugString();
    EXPECT_EQ(status.message.rfind("view '", 0), 0u) << status.message;
  }

  request = hopper_request(64, 0, 32);
  add_view(&request, "colour", view::v1::IMAGE_KIND_RGB, 3, 84, 84);
  const Status limited = refused(request, 64 << 20);
  EXPECT_EQ(limited.code, kResourceExhausted);
  EXPECT_NE(limited.message.find(", 130056192 of it images), 67108864 are allowed; lower nominals"),
            std::string::npos)
      << limited.message;
  // More bytes than 64 bits count.
  request = hopper_request(1 << 22, 0, 65536);
  for (int i = 0; i < 64; ++i)
    add_view(&request, ("v" + std::to_string(i)).c_str(), view::v1::IMAGE_KIND_DEPTH, 16, 4096,
             4096);
  EXPECT_EQ(refused(request, std::uint64_t{1} << 40).code, kResourceExhausted);
}

// ---- stacks alone -------------------------------------------------------------------------------

TEST(ImageStacks, DrawChosenEnvironmentsAndLeaveTheOthers) {
  const auto request = request_with_views();
  render::StackOptions options{5, 2, kSeed, 2, ""};
  std::unique_ptr<render::ImageStacks> stacks;
  const Status status =
      render::ImageStacks::create(request.model(), request.views(), options, &stacks);
  ASSERT_TRUE(status.ok()) << status.message;
  BufferLayout layout{{}, 0};
  stacks->lay_out(&layout);
  EXPECT_LE(stacks->image_bytes(), static_cast<double>(layout.bytes));
  std::vector<std::uint8_t> buffer(layout.bytes, 0xEE);
  ASSERT_TRUE(stacks->allocate(buffer.data()).ok());
  std::vector<float> pose(5 * stacks->bodies() * 7, 0.0f);
  for (std::size_t i = 3; i < pose.size(); i += 7) pose[i] = 1;
  ThreadPool pool(2);
  const std::uint32_t chosen[] = {1, 2, 4};
  EXPECT_EQ(stacks->advance(pool, 0, 1, pose.data(), nullptr, chosen, 3), 9u);
  const auto places = [&](std::uint32_t slot, std::uint32_t e) {
    std::string bytes;
    const std::uint32_t one[] = {e};
    stacks->ranges(slot, one, 1, [&](std::uint64_t offset, std::uint64_t length) {
      bytes.append(reinterpret_cast<const char*>(buffer.data()) + offset, length);
    });
    return bytes;
  };
  const std::string untouched(places(0, 0).size(), '\xEE');
  for (std::uint32_t e = 0; e < 5; ++e) {
    EXPECT_EQ(places(0, e), untouched);
    EXPECT_EQ(places(1, e) == untouched, e == 0 || e == 3);
  }
  // In the same slot: frames move up by one.
  const std::string before = places(1, 2);
  pose[2 * stacks->bodies() * 7 + 7] += 0.5f;
  const std::uint8_t going_on[5] = {};
  const std::uint32_t second[] = {2};
  EXPECT_EQ(stacks->advance(pool, 1, 1, pose.data(), going_on, second, 1), 3u);
  const std::string after = places(1, 2);
  const std::size_t frame = 19 * 11 * 3;
  EXPECT_EQ(after.substr(0, 2 * frame), before.substr(frame, 2 * frame));
  // Neighbours are one range of each view.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  stacks->ranges(1, chosen, 3, [&](std::uint64_t offset, std::uint64_t length) {
    ranges.emplace_back(offset, length);
  });
  ASSERT_EQ(ranges.size(), 6u);
  EXPECT_EQ(ranges[0].first, 6 * 3 * frame);
  EXPECT_EQ(ranges[0].second, 2 * 3 * frame);
  EXPECT_EQ(ranges[1].second, 3 * frame);
}

}  // namespace
}  // namespace sdpg::batch
