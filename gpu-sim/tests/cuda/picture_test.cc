// Pictures as a GPU draws them, on the CPU's stand-in for a device, have the bits of the CPU's
// renderer: pixels, depth noise, stacks.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/block.h"
#include "core/model/flat_model.h"
#include "cuda/device_renderer.h"
#include "render/flat_scene.h"
#include "render/random_scenes.h"
#include "support/fixtures.h"

namespace sdpg::cuda {
namespace {

using render::Kind;
using testing::SceneBuilder;
using testing::view_message;

using Bytes = std::vector<unsigned char>;

struct Drawing {
  std::uint32_t environments = 1;
  std::vector<std::uint8_t> fresh;  // empty: all
  Bytes stacks;                     // what `from` holds
  bool in_place = false;            // `to` is the same memory
  std::uint64_t seed = 0, picture = 0;
};

// The stacks after one advance. What is not written stays 0xab.
Bytes on_device(const render::Scene& scene, const render::View& view,
                const std::vector<float>& poses, const Drawing& drawing = {}, bool fibers = false,
                std::uint32_t order = 5) {
  const auto device = Device::emulated(order, fibers);
  std::string error;
  const auto renderer = DeviceRenderer::create(*device, scene, &error);
  EXPECT_TRUE(renderer) << error;
  const std::size_t bytes =
      frame_bytes(view) * static_cast<std::size_t>(view.frames) * drawing.environments;
  const auto put = [&](const void* from, std::size_t count) {
    DeviceMemory memory(*device, count + 64);
    device->upload(memory.data(), from, count);
    return memory;
  };
  const Bytes untouched(bytes + 64, 0xab);
  const DeviceMemory pose = put(poses.data(), poses.size() * sizeof(float));
  const DeviceMemory fresh = put(drawing.fresh.data(), drawing.fresh.size());
  const DeviceMemory from = put(drawing.stacks.data(), drawing.stacks.size());
  const DeviceMemory to = put(untouched.data(), untouched.size());
  DrawArgs args{};
  args.view = view;
  args.environments = drawing.environments;
  args.pose = reinterpret_cast<const float*>(pose.data());
  args.fresh = drawing.fresh.empty() ? nullptr : fresh.data();
  args.from = from.data();
  args.to = drawing.in_place ? from.data() : to.data();
  args.seed = drawing.seed;
  args.picture = drawing.picture;
  renderer->draw(args);
  Bytes out(bytes + 64);
  device->download(out.data(), args.to, bytes + 64);
  for (std::size_t i = bytes; !drawing.in_place && i < out.size(); ++i)
    EXPECT_EQ(out[i], 0xab) << "written past the stacks";
  out.resize(bytes);
  return out;
}

render::View made_view(const render::Scene& scene, const view::v1::View& message) {
  render::View view;
  std::string error;
  EXPECT_TRUE(render::make_view(scene, message, &view, &error)) << error;
  return view;
}

void expect_as_on_cpu(const render::Scene& scene, const view::v1::View& message,
                      const std::vector<float>& pose, bool fibers = false) {
  const Bytes expected = testing::draw_bytes(scene, message, pose, {}, "emulated");
  EXPECT_TRUE(on_device(scene, made_view(scene, message), pose, {}, fibers) == expected)
      << message.ShortDebugString();
}

TEST(DevicePictures, OfEveryShapeAreTheCpus) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const int sizes[][2] = {{84, 84}, {58, 87}, {1, 1}, {7, 5}, {3, 130}};
  for (int i = 0; i < 6; ++i) {
    const SceneBuilder builder = testing::crowded_scene(seed, i);
    const auto scene = builder.scene();
    for (const auto& [width, height] : sizes) {
      for (const Kind kind : {Kind::kRgb, Kind::kDepth, Kind::kSegmentation}) {
        auto message = view_message(kind, width, height);
        message.set_shadows(i % 3 != 0);
        expect_as_on_cpu(*scene, message, builder.pose);
      }
    }
  }
}

// A block's threads as fibers, each running the kernel, in two orders.
TEST(DevicePictures, AreTheSameWithThreadsAsFibers) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const int i : {1, 5}) {
    const SceneBuilder builder = testing::crowded_scene(seed, i);
    const auto scene = builder.scene();
    auto message = view_message(Kind::kRgb, 37, 30);
    message.set_shadows(true);
    const Bytes expected = testing::draw_bytes(*scene, message, builder.pose, {}, "emulated");
    for (const std::uint32_t order : {1u, 777u})
      EXPECT_TRUE(on_device(*scene, made_view(*scene, message), builder.pose, {}, true, order) ==
                  expected);
  }
}

// Shared memory does not hold the frame, and a tile's shapes fill several words.
TEST(DevicePictures, OfManyShapesAreTheCpus) {
  std::mt19937_64 random(testing::test_seed());
  std::uniform_real_distribution<double> one(-1, 1);
  SceneBuilder builder;
  builder.camera({0, 0, 0});
  builder.geom(0, {0, 0, 1}, {0, 0, -2});
  for (int i = 0; i < 210; ++i)
    builder.geom(i % 2 == 0 ? 2 : 3, {0.1, 0.2},
                 {4 + one(random), 2 * one(random), 2 * one(random)},
                 testing::random_quaternion(random), {0.5 + 0.4 * one(random), 0.3, 0.8, 1});
  builder.light(true, {0, 0, 5}, {0.3, 0.2, -1})->set_castshadow(true);
  const auto scene = builder.scene();
  EXPECT_GT(Device::emulated(1, false)->plan_pictures(arrays_of(*scene)).far_bytes, 0u);
  auto message = view_message(Kind::kRgb, 60, 50);
  message.set_shadows(true);
  expect_as_on_cpu(*scene, message, builder.pose);
  message.set_kind(view::v1::IMAGE_KIND_SEGMENTATION);
  expect_as_on_cpu(*scene, message, builder.pose);
}

TEST(DevicePictures, FollowCamerasAndLightsOfEveryMode) {
  for (int mode = 0; mode <= 4; ++mode) {
    SceneBuilder builder(2);
    auto* camera = builder.camera({0.1, 0.2, 0.3});
    camera->set_mode(mode);
    camera->set_bodyid(1);
    camera->set_targetbodyid(2);
    for (int i = 0; i < 3; ++i) camera->set_pos0(i, 0.2 * i);
    auto* lamp = builder.light(false, {0, 0.3, 1}, {0.1, 0, -1});
    lamp->set_mode(mode);
    lamp->set_bodyid(2);
    lamp->set_targetbodyid(1);
    builder.place(1, {0, 0, 0.5}, {0.9, 0.1, 0.3, 0.3});
    builder.place(2, {3, 0.5, -0.2}, {0.5, 0.5, -0.5, 0.5});
    builder.geom(0, {4, 4, 1}, {0, 0, -1});
    builder.geom(6, {0.3, 0.5, 0.2}, {0, 0, 0}, {1, 0, 0, 0}, {1, 0.5, 0.2, 1}, -1, 2);
    expect_as_on_cpu(*builder.scene(), view_message(Kind::kRgb, 40, 33), builder.pose);
    expect_as_on_cpu(*builder.scene(), view_message(Kind::kDepth, 40, 33), builder.pose);
  }
}

// The poses of a model's bodies in random states, [count][nbody][7].
std::vector<float> random_poses(const core::Model& model, int count, std::uint64_t seed) {
  std::string error;
  const core::Kernels* kernels =
      core::select_kernels(core::Precision::kFloat32, "emulated", &error);
  std::mt19937_64 random(seed);
  std::vector<float> out;
  for (int e = 0; e < count; ++e) {
    testing::Block block(model, *kernels);
    block.randomize(0, random);
    block.kinematics();
    for (int b = 0; b < core::nbody(model); ++b) {
      for (int k = 0; k < 3; ++k)
        out.push_back(static_cast<float>(block.get(testing::Block::kXpos, 3 * b + k, 0)));
      for (int k = 0; k < 4; ++k)
        out.push_back(static_cast<float>(block.get(testing::Block::kXquat, 4 * b + k, 0)));
    }
  }
  return out;
}

// The committed scenes, which gpu_check.sh draws, with every camera of theirs.
TEST(DevicePictures, OfTheTasksModelsAreTheCpus) {
  for (const char* name : {"hopper", "walker", "ant", "humanoid"}) {
    std::string error;
    const auto model =
        core::load_flat_model(testing::read_file(std::string(name) + ".flat"), &error);
    ASSERT_TRUE(model) << name << ": " << error;
    const auto scene =
        render::load_flat_scene(testing::read_file(std::string(name) + ".scene"), &error);
    ASSERT_TRUE(scene) << name << ": " << error << "; see gpu-sim/tests/data/README.md";
    const auto poses = random_poses(*model, 2, testing::test_seed());
    const std::size_t numbers = poses.size() / 2;
    for (const std::string& camera : scene->camera_names) {
      for (const bool shadows : {false, true}) {
        for (const Kind kind : {Kind::kRgb, Kind::kDepth, Kind::kSegmentation}) {
          auto message = view_message(kind, 84, 84, camera);
          message.set_shadows(shadows);
          Drawing drawing;
          drawing.environments = 2;
          const Bytes drawn = on_device(*scene, made_view(*scene, message), poses, drawing);
          Bytes expected;
          for (int e = 0; e < 2; ++e) {
            const auto from = poses.begin() + static_cast<std::ptrdiff_t>(e * numbers);
            const Bytes one = testing::draw_bytes(
                *scene, message, {from, from + static_cast<std::ptrdiff_t>(numbers)}, {},
                "emulated");
            expected.insert(expected.end(), one.begin(), one.end());
          }
          EXPECT_TRUE(drawn == expected) << name << " " << message.ShortDebugString();
        }
      }
    }
  }
}

TEST(DevicePictures, MoveStacksUpAndKeyTheirNoise) {
  const SceneBuilder builder = testing::crowded_scene(testing::test_seed(), 0);
  const auto scene = builder.scene();
  auto message = view_message(Kind::kDepth, 13, 10);
  message.set_depth_noise(0.05);
  message.set_frames(3);
  const render::View view = made_view(*scene, message);
  const std::size_t frame = frame_bytes(view);
  constexpr std::uint32_t kCount = 5;
  Drawing drawing;
  drawing.environments = kCount;
  drawing.fresh = {0, 1, 0, 0, 1};
  drawing.seed = 99;
  drawing.picture = (std::uint64_t{7} << 32) + 3;
  std::mt19937_64 random(3);
  for (std::size_t i = 0; i < kCount * 3 * frame; ++i)
    drawing.stacks.push_back(static_cast<unsigned char>(random()));
  std::vector<float> poses;
  Bytes expected;
  for (std::uint32_t e = 0; e < kCount; ++e) {
    auto pose = builder.pose;
    pose[7] += 0.1f * static_cast<float>(e);
    poses.insert(poses.end(), pose.begin(), pose.end());
    const Bytes drawn =
        testing::draw_bytes(*scene, message, pose, {drawing.seed, e, drawing.picture}, "emulated");
    const auto old = drawing.stacks.begin() + static_cast<std::ptrdiff_t>(e * 3 * frame);
    for (int f = 1; f < 3; ++f) {
      if (drawing.fresh[e] != 0)
        expected.insert(expected.end(), drawn.begin(), drawn.end());
      else
        expected.insert(expected.end(), old + static_cast<std::ptrdiff_t>(f * frame),
                        old + static_cast<std::ptrdiff_t>((f + 1) * frame));
    }
    expected.insert(expected.end(), drawn.begin(), drawn.end());
  }
  for (const bool in_place : {false, true}) {
    drawing.in_place = in_place;
    EXPECT_TRUE(on_device(*scene, view, poses, drawing) == expected) << in_place;
  }
}

TEST(FlatScene, LoadsWhatWasSaved) {
  const SceneBuilder builder = testing::crowded_scene(testing::test_seed(), 1);
  const auto scene = builder.scene();
  const std::string file = render::save_flat_scene(*scene);
  std::string error;
  const auto loaded = render::load_flat_scene(file, &error);
  ASSERT_TRUE(loaded) << error;
  auto message = view_message(Kind::kRgb, 30, 30);
  message.set_shadows(true);
  EXPECT_TRUE(testing::draw_bytes(*loaded, message, builder.pose) ==
              testing::draw_bytes(*scene, message, builder.pose));
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{10}, std::size_t{200}, file.size() - 1}) {
    EXPECT_FALSE(render::load_flat_scene(file.substr(0, bytes), &error)) << bytes;
    EXPECT_NE(error.find("flat scene"), std::string::npos) << error;
  }
  EXPECT_FALSE(render::load_flat_scene(file + "x", &error));
  std::string other = file;
  other[7] ^= 1;
  EXPECT_FALSE(render::load_flat_scene(other, &error));
  EXPECT_NE(error.find("another version"), std::string::npos) << error;
}

}  // namespace
}  // namespace sdpg::cuda
