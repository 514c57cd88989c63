// A batch on a device (the CPU's stand-in for one) does what a batch on the CPU does, to the bit.
#include "batch/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "cuda/device.h"
#include "support/fixtures.h"
#include "support/views.h"

namespace sdpg::cuda {
namespace {

using batch::Batch;
using batch::Status;

struct Rig {
  Rig(const sim::v1::CreateBatchRequest& request, Device* device) : pool(1) {
    batch::CreateOptions options;
    options.isa = device == nullptr ? "emulated" : "";
    options.device = device;
    const Status status = Batch::create(request, options, &batch);
    EXPECT_TRUE(status.ok()) << status.message;
    if (!status.ok()) std::abort();
    means.resize(batch->action_values());
  }
  // Segments with random means; returns the rollout buffers one after the other.
  std::string segments(int count, std::uint64_t seed, std::uint32_t steps = UINT32_MAX) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    const std::vector<float> log_std(batch->sizes().actions, -0.5f);
    std::string out;
    for (int segment = 0; segment < count; ++segment) {
      // On a CPU the newest stacks live in the buffer from one segment to the next.
      if (!batch->draws()) std::memset(batch->buffer(), 0xee, batch->layout().bytes);
      batch::BeginReport begun;
      EXPECT_TRUE(batch->begin(pool, segment, segment == 1, &begun).ok());
      out += std::to_string(begun.images) + " ";
      EXPECT_EQ(begun.phases[1].phase != nullptr, batch->draws());
      for (std::uint32_t t = 0; t < std::min(steps, batch->sizes().horizon); ++t) {
        for (float& mean : means) mean = normal(random);
        batch::StepReport report;
        // Every third step without noise.
        const bool noise = t % 3 != 2;
        const Status status =
            batch->step(pool, t, means.data(), means.size(), noise ? log_std.data() : nullptr,
                        noise ? log_std.size() : 0, &report);
        EXPECT_TRUE(status.ok()) << status.message;
        out += std::to_string(report.nominals_done) + "/" + std::to_string(report.faults) + "/" +
               std::to_string(report.images) + " ";
        ended += report.nominals_done;
      }
      EXPECT_TRUE(batch->end(nullptr).ok());
      // Between the arrays of the layout lies padding that nobody writes.
      for (const batch::BufferArray& array : batch->layout().arrays)
        out.append(static_cast<const char*>(batch->buffer()) + array.offset_bytes, array.bytes());
    }
    return out;
  }
  std::vector<std::uint8_t> snapshot() {
    std::vector<std::uint8_t> bytes(batch->snapshot_bytes());
    EXPECT_TRUE(batch->snapshot(bytes.data(), bytes.size()).ok());
    return bytes;
  }

  std::unique_ptr<Batch> batch;
  batch::ThreadPool pool;
  std::vector<float> means;
  std::uint32_t ended = 0;
};

task::v1::Instruction* add(google::protobuf::RepeatedPtrField<task::v1::Instruction>* section,
                           task::v1::Opcode op, std::uint32_t dst, std::uint32_t a,
                           std::uint32_t length, std::uint32_t index) {
  auto* instruction = section->Add();
  instruction->set_op(op);
  instruction->set_dst(dst);
  instruction->set_a(a);
  instruction->set_length(length);
  instruction->set_index(index);
  return instruction;
}

// Hopper with a velocity and a touch among its observations, a group's friction and an
// environment's own mass.
sim::v1::CreateBatchRequest varied_request(std::uint32_t nominals, std::uint32_t auxiliaries,
                                           std::uint32_t horizon) {
  auto request = testing::hopper_request(nominals, auxiliaries, horizon);
  task::v1::TaskProgram& task = *request.mutable_task();
  const std::uint32_t first = task.register_count();
  task.set_register_count(first + 8);
  auto* velocity = task.add_sensors();
  velocity->set_kind(task::v1::SENSOR_KIND_LINEAR_VELOCITY);
  velocity->set_object(2);
  auto* touch = task.add_sensors();
  touch->set_kind(task::v1::SENSOR_KIND_TOUCH_BODY);
  touch->set_object(4);
  add(task.mutable_observe(), task::v1::OPCODE_LOAD_SENSOR, first, 0, 4, 0);
  auto* observation = task.add_observations();
  observation->set_name("felt");
  observation->set_start(first);
  observation->set_length(4);
  observation->set_privileged(true);

  auto* friction = task.add_parameters();
  friction->set_field(task::v1::PARAMETER_FIELD_GEOM_FRICTION);
  friction->set_index(3 * 4);
  auto* mass = task.add_parameters();
  mass->set_field(task::v1::PARAMETER_FIELD_BODY_MASS);
  mass->set_index(1);
  mass->set_per_environment(true);
  const auto drawn = [&](auto* section, std::uint32_t draw, std::uint32_t parameter) {
    add(section, task::v1::OPCODE_RANDOM_UNIFORM, first + 4, 0, 1, draw);
    add(section, task::v1::OPCODE_CONSTANT, first + 5, 0, 1, 0)->set_immediate(0.5f);
    add(section, task::v1::OPCODE_ADD, first + 4, first + 4, 1, 0)->set_b(first + 5);
    add(section, task::v1::OPCODE_STORE_PARAMETER, 0, first + 4, 1, parameter);
  };
  std::uint32_t draws = 0;
  for (const auto& instruction : task.reset())
    if (instruction.op() == task::v1::OPCODE_RANDOM_UNIFORM)
      draws = std::max(draws, instruction.index() + instruction.length());
  drawn(task.mutable_reset(), draws, 0);
  drawn(task.mutable_vary(), 0, 1);
  return request;
}

void compare(const sim::v1::CreateBatchRequest& request, bool fibers, std::uint32_t order,
             int segments = 3) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed << " order " << order);
  Rig cpu(request, nullptr);
  const auto device = Device::emulated(order, fibers);
  Rig on_device(request, device.get());
  EXPECT_TRUE(cpu.segments(segments, seed) == on_device.segments(segments, seed));
  EXPECT_EQ(cpu.ended, on_device.ended);
  EXPECT_GT(cpu.ended, 0u) << "no episode ended: the test has not seen a reset";
  EXPECT_EQ(cpu.batch->fault_count(0), on_device.batch->fault_count(0));
}

// Poses and three views: colours with shadows, depth with noise, segmentation.
sim::v1::CreateBatchRequest shown_request(std::uint32_t nominals, std::uint32_t auxiliaries,
                                          std::uint32_t horizon) {
  auto request = varied_request(nominals, auxiliaries, horizon);
  request.mutable_task()->set_episode_length(4);
  request.set_poses(true);
  testing::add_view(&request, "colour", view::v1::IMAGE_KIND_RGB, 3, 19, 11);
  testing::add_view(&request, "depth", view::v1::IMAGE_KIND_DEPTH, 2, 8, 8, 0.01);
  testing::add_view(&request, "parts", view::v1::IMAGE_KIND_SEGMENTATION, 1, 5, 7);
  request.mutable_views(0)->set_shadows(true);
  return request;
}

// 7 groups of 6: groups straddle the blocks of 32, and the last block is not full.
TEST(DeviceBatch, StepsLikeTheCpuToTheBit) { compare(testing::hopper_request(7, 5, 40), false, 3); }

TEST(DeviceBatch, StepsLikeTheCpuWithMembersAsFibers) {
  compare(testing::hopper_request(2, 1, 30), true, 4);
}

TEST(DeviceBatch, StepsLikeTheCpuWithSensorsAndParametersOfItsOwn) {
  compare(varied_request(7, 5, 40), false, 5);
}

TEST(DeviceBatch, ShowsWhatTheCpuShowsThroughResets) {
  compare(shown_request(7, 5, 10), false, 6);
  compare(shown_request(7, 5, 1), false, 6, 12);
  auto request = shown_request(3, 2, 9);
  request.set_poses(false);
  compare(request, false, 7);
  request.clear_views();
  request.set_poses(true);
  Rig cpu(request, nullptr);
  const auto device = Device::emulated(8, false);
  Rig on_device(request, device.get());
  const auto pose = [](Rig& rig) {
    std::string out;
    const auto begin = [&] { EXPECT_TRUE(rig.batch->begin(rig.pool, 0, false, nullptr).ok()); };
    const auto step = [&](std::uint32_t t) {
      EXPECT_TRUE(
          rig.batch->step(rig.pool, t, rig.means.data(), rig.means.size(), nullptr, 0, nullptr)
              .ok());
    };
    begin();
    for (std::uint32_t t = 0; t < 9; ++t) step(t);
    EXPECT_TRUE(rig.batch->end(nullptr).ok());
    for (const batch::BufferArray& array : rig.batch->layout().arrays)
      if (array.name == "pose" || array.name == "fresh")
        out.append(static_cast<const char*>(rig.batch->buffer()) + array.offset_bytes,
                   array.bytes());
    return out;
  };
  EXPECT_TRUE(pose(cpu) == pose(on_device));
}

TEST(DeviceBatch, ShowsWithMembersAsFibers) { compare(shown_request(2, 1, 6), true, 9); }

TEST(DeviceBatch, StacksGoOnAfterSegmentsThatEndEarlyAndAfterRestore) {
  const auto request = shown_request(3, 2, 10);
  const auto device = Device::emulated(1, false);
  // After a whole segment, after one that ended early, and before any.
  for (const int steps : {10, 3, -1}) {
    Rig cpu(request, nullptr), rig(request, device.get()), other(request, device.get());
    if (steps >= 0) {
      cpu.segments(1, 1, static_cast<std::uint32_t>(steps));
      rig.segments(1, 1, static_cast<std::uint32_t>(steps));
    }
    const std::vector<std::uint8_t> state = rig.snapshot();
    const std::string expected = rig.segments(1, 2);
    EXPECT_TRUE(expected == cpu.segments(1, 2)) << "after " << steps << " steps";
    other.segments(1, 4, 5);
    ASSERT_TRUE(other.batch->restore(state.data(), state.size()).ok());
    EXPECT_TRUE(other.snapshot() == state);
    EXPECT_TRUE(other.segments(1, 2) == expected) << "after " << steps << " steps";
    EXPECT_TRUE(other.snapshot() == rig.snapshot());
  }
}

TEST(DeviceBatch, StepsLikeTheCpuInAnyOrder) {
  const auto request = varied_request(5, 9, 20);
  const auto one = Device::emulated(1, false), other = Device::emulated(12345, false);
  Rig first(request, one.get()), second(request, other.get());
  EXPECT_TRUE(first.segments(2, 3) == second.segments(2, 3));
  EXPECT_EQ(first.snapshot(), second.snapshot());
}

TEST(DeviceBatch, RestoreGoesOnToTheBit) {
  const auto device = Device::emulated(1, false);
  const auto request = varied_request(3, 4, 20);
  Rig rig(request, device.get()), other(request, device.get());
  rig.segments(2, 1);
  const std::vector<std::uint8_t> state = rig.snapshot();
  const std::string expected = rig.segments(1, 2);
  ASSERT_TRUE(other.batch->restore(state.data(), state.size()).ok());
  EXPECT_TRUE(other.segments(1, 2) == expected);
  EXPECT_EQ(other.snapshot(), rig.snapshot());
  // Not on a CPU, nor from one.
  Rig cpu(request, nullptr);
  EXPECT_FALSE(cpu.batch->restore(state.data(), state.size()).ok());
  const std::vector<std::uint8_t> foreign = cpu.snapshot();
  EXPECT_FALSE(rig.batch->restore(foreign.data(), foreign.size()).ok());
}

TEST(DeviceBatch, FaultStaysInItsEnvironment) {
  const auto device = Device::emulated(1, false);
  const auto request = testing::hopper_request(4, 3, 3);
  Rig clean(request, device.get()), poisoned(request, device.get());
  // qvel[0] of environment 6: rows of 32 lanes, qpos first.
  std::vector<std::uint8_t> state = poisoned.snapshot();
  constexpr std::uint32_t kVictim = 6, kHeader = 160, kNq = 6;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(state.data() + kHeader + (kNq * kLanes + kVictim) * 4, &nan, 4);
  const std::uint64_t sum = batch::fingerprint(state.data() + kHeader, state.size() - kHeader);
  std::memcpy(state.data() + 24, &sum, sizeof sum);
  ASSERT_TRUE(poisoned.batch->restore(state.data(), state.size()).ok());
  // begin copies nominals into auxiliaries and would heal an auxiliary: the victim is no longer
  // faulty then, unless it is a nominal; so its whole group differs and nothing else.
  clean.segments(1, 5);
  poisoned.segments(1, 5);
  const auto out = [](Rig& rig) { return point_into(rig.batch->layout(), rig.batch->buffer()); };
  const std::uint32_t environments = clean.batch->sizes().environments;
  for (std::uint32_t t = 0; t < 3; ++t)
    for (std::uint32_t e = 0; e < environments; ++e)
      EXPECT_EQ(out(clean).reward[t * environments + e],
                out(poisoned).reward[t * environments + e]);
  EXPECT_EQ(poisoned.batch->fault_count(0), 0u);
}

TEST(DeviceBatch, FaultyNominalIsResetInTheSameStep) {
  const auto device = Device::emulated(1, false);
  const auto request = testing::hopper_request(4, 3, 3);
  Rig clean(request, device.get()), poisoned(request, device.get());
  std::vector<std::uint8_t> state = poisoned.snapshot();
  constexpr std::uint32_t kVictim = 4, kHeader = 160, kNq = 6;  // nominal of group 1
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(state.data() + kHeader + (kNq * kLanes + kVictim) * 4, &nan, 4);
  const std::uint64_t sum = batch::fingerprint(state.data() + kHeader, state.size() - kHeader);
  std::memcpy(state.data() + 24, &sum, sizeof sum);
  ASSERT_TRUE(poisoned.batch->restore(state.data(), state.size()).ok());
  clean.segments(1, 5);
  poisoned.segments(1, 5);
  const auto out = [](Rig& rig) { return point_into(rig.batch->layout(), rig.batch->buffer()); };
  const std::uint32_t environments = clean.batch->sizes().environments;
  EXPECT_EQ(poisoned.batch->fault_count(0), 4u);  // the nominal and its three copies, once
  for (std::uint32_t e = 0; e < environments; ++e) {
    const bool hit = e / 4 == 1;
    EXPECT_EQ(out(poisoned).fault[e], hit ? core::kNonFinite : 0);
    EXPECT_EQ(out(poisoned).done[e], hit ? 1 : out(clean).done[e]);
    for (std::uint32_t t = 0; t < 3; ++t) {
      const std::uint32_t at = t * environments + e;
      if (!hit) EXPECT_EQ(out(poisoned).reward[at], out(clean).reward[at]);
      if (hit && t > 0) EXPECT_EQ(out(poisoned).fault[at], 0);
    }
  }
}

TEST(DeviceBatch, RefusesDoublePrecision) {
  const auto device = Device::emulated(1, false);
  auto request = testing::hopper_request(1, 1, 1);
  request.set_precision(sim::v1::PRECISION_FLOAT64);
  batch::CreateOptions options;
  options.device = device.get();
  std::unique_ptr<Batch> batch;
  const Status status = Batch::create(request, options, &batch);
  EXPECT_EQ(status.code, batch::kInvalidArgument);
  EXPECT_NE(status.message.find("float32"), std::string::npos) << status.message;
}

TEST(DeviceBatch, RefusesWhatDoesNotFit) {
  const auto device = Device::emulated(1, false);
  batch::CreateOptions options;
  options.device = device.get();
  options.memory_limit_bytes = 1 << 20;
  std::unique_ptr<Batch> batch;
  Status status = Batch::create(testing::hopper_request(100, 63, 100), options, &batch);
  EXPECT_EQ(status.code, batch::kResourceExhausted);
  EXPECT_NE(status.message.find("lower nominals"), std::string::npos) << status.message;
  auto request = testing::hopper_request(4, 1, 10);
  testing::add_view(&request, "colour", view::v1::IMAGE_KIND_RGB, 3, 84, 84);
  status = Batch::create(request, options, &batch);
  EXPECT_EQ(status.code, batch::kResourceExhausted);
  EXPECT_NE(status.message.find(", 2540160 of it images), 1048576 are allowed; lower nominals"),
            std::string::npos)
      << status.message;
  // More bytes than 64 bits count.
  request = testing::hopper_request(1 << 22, 0, 65536);
  for (int i = 0; i < 64; ++i)
    testing::add_view(&request, ("v" + std::to_string(i)).c_str(), view::v1::IMAGE_KIND_DEPTH, 16,
                      4096, 4096);
  status = Batch::create(request, options, &batch);
  EXPECT_EQ(status.code, batch::kResourceExhausted);
  EXPECT_NE(status.message.find("images need"), std::string::npos) << status.message;
}

TEST(Device, OpenSaysWhyThereIsNone) {
  std::string error;
  const auto device = Device::open(1 << 20, &error);  // no machine has so many
  EXPECT_FALSE(device);
  EXPECT_NE(error.find("CUDA"), std::string::npos) << error;
}

}  // namespace
}  // namespace sdpg::cuda
