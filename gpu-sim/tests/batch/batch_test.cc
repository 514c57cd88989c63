// Batches on Hopper with the real physics: reset rules, determinism, containment of faults,
// snapshots, noise. The numbers of a batch are read as a caller reads them: from the rollout buffer
// and snapshots.

#include "batch/batch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <set>

#include "batch/philox.h"
#include "support/fixtures.h"
#include "support/randomise.h"

namespace sdpg::batch {
namespace {

using ::sdpg::testing::hopper_request;
using ::sdpg::testing::randomise;
using ::sdpg::testing::test_seed;

constexpr std::uint32_t kActions = 3, kPrivileged = 11, kHeader = 160;

// A batch with its pool, and typed views of its buffer.
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
    environments = batch->sizes().environments;
    means.assign(batch->sizes().nominals * kActions, 0.0f);
    // Poison, so that whatever a step does not write is seen.
    memset(batch->buffer(), 0xEE, batch->layout().bytes);
  }

  void begin(std::uint64_t epoch = 0, bool reset = false) {
    const Status status = batch->begin(pool, epoch, reset, nullptr);
    ASSERT_TRUE(status.ok()) << status.message;
  }
  StepReport step(std::uint32_t t, const std::vector<float>& log_std) {
    StepReport report;
    const Status status =
        batch->step(pool, t, means.data(), means.size(), log_std.empty() ? nullptr : log_std.data(),
                    log_std.size(), &report);
    EXPECT_TRUE(status.ok()) << status.message;
    return report;
  }
  void end() { ASSERT_TRUE(batch->end(nullptr).ok()); }
  // A whole segment with means drawn from `random`.
  void segment(std::uint64_t epoch, std::mt19937_64& random, const std::vector<float>& log_std) {
    begin(epoch);
    std::normal_distribution<float> normal;
    for (std::uint32_t t = 0; t < batch->sizes().horizon; ++t) {
      for (float& m : means) m = normal(random);
      step(t, log_std);
    }
    end();
  }

  std::vector<std::uint8_t> snapshot() const {
    std::vector<std::uint8_t> bytes(batch->snapshot_bytes());
    const Status status = batch->snapshot(bytes.data(), bytes.size());
    EXPECT_TRUE(status.ok()) << status.message;
    return bytes;
  }
  std::string buffer() const {
    return {static_cast<const char*>(batch->buffer()), batch->layout().bytes};
  }
  // Row of the privileged observation before step t.
  std::vector<float> observation(std::uint32_t slot, std::uint32_t e) const {
    const float* row = out.privileged + (std::uint64_t{slot} * environments + e) * kPrivileged;
    return {row, row + kPrivileged};
  }
  std::vector<float> successor(std::uint32_t t, std::uint32_t e) const {
    const float* row =
        out.privileged_successor + (std::uint64_t{t} * environments + e) * kPrivileged;
    return {row, row + kPrivileged};
  }
  template <class T>
  T flag(const T* array, std::uint32_t t, std::uint32_t e) const {
    return array[std::uint64_t{t} * environments + e];
  }

  std::unique_ptr<Batch> batch;
  ThreadPool pool;
  RolloutBuffer out;
  std::uint32_t environments;
  std::vector<float> means;
};

// Changes bytes of a snapshot's body and mends the checksum, as only a test would.
void edit_snapshot(std::vector<std::uint8_t>* bytes, std::uint64_t offset, const void* data,
                   std::size_t count) {
  memcpy(bytes->data() + kHeader + offset, data, count);
  const std::uint64_t checksum = fingerprint(bytes->data() + kHeader, bytes->size() - kHeader);
  memcpy(bytes->data() + 24, &checksum, sizeof checksum);
}

// Byte offset in a snapshot's body of the first state number (qpos[0]) of an environment, and of
// its progress; float32.
std::uint64_t state_offset(const Batch& batch, std::uint32_t e) {
  const std::uint32_t lanes = static_cast<std::uint32_t>(batch.lanes());
  const std::uint32_t blocks = (batch.sizes().environments + lanes - 1) / lanes;
  const std::uint64_t body = batch.snapshot_bytes() - kHeader;
  const std::uint64_t stride =
      (body - std::uint64_t{blocks} * lanes * 4 - batch.sizes().nominals * 4ull) / blocks;
  return e / lanes * stride + e % lanes * 4;
}
const std::vector<float> kLogStd = {-0.5f, -0.5f, -0.5f};

TEST(Batch, WithoutNoiseAuxiliariesEqualTheirNominalBitForBit) {
  // Conformance checks 1 and 2 of the reference: 5 members a group, so groups straddle blocks.
  Rig rig(hopper_request(7, 4, 40));
  std::mt19937_64 random(1);
  rig.segment(0, random, {});
  for (std::uint32_t t = 0; t < 40; ++t) {
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      const std::uint32_t nominal = e / 5 * 5;
      ASSERT_EQ(rig.observation(t, e), rig.observation(t, nominal)) << "t " << t << " e " << e;
      ASSERT_EQ(rig.successor(t, e), rig.successor(t, nominal));
      ASSERT_EQ(rig.flag(rig.out.reward, t, e), rig.flag(rig.out.reward, t, nominal));
      ASSERT_EQ(rig.flag(rig.out.done, t, e), rig.flag(rig.out.done, t, nominal));
      for (std::uint32_t j = 0; j < kActions; ++j)
        ASSERT_EQ(rig.out.noise[(t * rig.environments + e) * kActions + j], 0.0f);
    }
  }
}

TEST(Batch, StartsEpisodesFromTheResetDistribution) {
  Rig rig(hopper_request(64, 0, 1));
  rig.begin();
  double low = 1, high = -1;
  for (std::uint32_t e = 0; e < 64; ++e) {
    const auto o = rig.observation(0, e);
    for (int i = 0; i < 5; ++i) {  // z, pitch, three joints: U(-0.05, 0.05)
      EXPECT_GE(o[i], -0.05f);
      EXPECT_LE(o[i], 0.05f);
      low = std::min<double>(low, o[i]);
      high = std::max<double>(high, o[i]);
    }
    for (int i = 5; i < 11; ++i) EXPECT_EQ(o[i], 0.0f);
    if (e > 0) {
      EXPECT_NE(o, rig.observation(0, e - 1));
    }
  }
  EXPECT_LT(low, -0.045);
  EXPECT_GT(high, 0.045);
}

// Everything a step writes, checked against the rules of the reference's section 1.4.
TEST(Batch, FollowsTheResetRules) {
  Rig rig(hopper_request(6, 7, 64));
  std::mt19937_64 random(test_seed());
  SCOPED_TRACE(::testing::Message() << "seed " << test_seed());
  const std::uint32_t members = 8;
  std::vector<std::int32_t> progress(rig.environments, 0);
  int nominal_ends = 0, auxiliary_ends = 0, cut_short = 0, diverged = 0;
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    rig.segment(epoch, random, kLogStd);
    // A segment starts with the auxiliaries in their nominal's state.
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      ASSERT_EQ(rig.observation(0, e), rig.observation(0, e / members * members));
      progress[e] = progress[e / members * members];
    }
    for (std::uint32_t t = 0; t < 64; ++t) {
      for (std::uint32_t e = 0; e < rig.environments; ++e) {
        const std::uint32_t nominal = e / members * members;
        const bool own = rig.flag(rig.out.terminated, t, e) || rig.flag(rig.out.truncated, t, e);
        const bool group =
            rig.flag(rig.out.terminated, t, nominal) || rig.flag(rig.out.truncated, t, nominal);
        ASSERT_EQ(rig.flag(rig.out.progress, t, e), progress[e] + 1);
        ASSERT_EQ(rig.flag(rig.out.done, t, e), own || group ? 1 : 0);
        ASSERT_FALSE(rig.flag(rig.out.terminated, t, e) && rig.flag(rig.out.truncated, t, e));
        const auto next = rig.observation(t + 1, e), here = rig.successor(t, e);
        const std::int32_t kept = progress[e] + 1;
        if (group) {
          ASSERT_EQ(next, rig.observation(t + 1, nominal));
          for (int i = 5; i < 11; ++i) ASSERT_EQ(next[i], 0.0f) << "a fresh episode is at rest";
          ASSERT_NE(next, rig.successor(t, nominal));
        } else if (own) {
          ASSERT_EQ(next, rig.successor(t, nominal)) << "copies the nominal's present state";
        } else {
          ASSERT_EQ(next, here) << "goes on undisturbed";
        }
        progress[e] = group ? 0 : own ? progress[nominal] : kept;
        nominal_ends += group && e == nominal;
        auxiliary_ends += own && e != nominal && !group;
        cut_short += group && !own;
        diverged += e != nominal && next != rig.observation(t + 1, nominal);
        // The copied state continues as the nominal's: same reward under no noise is checked
        // elsewhere.
        float sum = 0;
        const auto terms = rig.batch->sizes().rewards;
        for (std::uint32_t k = 0; k < terms; ++k)
          sum += rig.out.reward_terms[(std::uint64_t{t} * rig.environments + e) * terms + k];
        ASSERT_EQ(sum, rig.flag(rig.out.reward, t, e));
        ASSERT_EQ(rig.flag(rig.out.fault, t, e) & core::kNonFinite, 0);
        if (e == nominal) {
          for (std::uint32_t j = 0; j < rig.batch->sizes().actor; ++j)
            ASSERT_TRUE(std::isfinite(
                rig.out.actor[((t + 1) * 6 + e / members) * rig.batch->sizes().actor + j]));
        }
      }
    }
  }
  // The rules were all exercised.
  EXPECT_GT(nominal_ends, 0);
  EXPECT_GT(auxiliary_ends, 0);
  EXPECT_GT(cut_short, 0);
  EXPECT_GT(diverged, 0);
}

TEST(Batch, TruncatesNominalAndAuxiliariesTogetherAtTheTimeLimit) {
  auto request = hopper_request(2, 3, 12);
  request.mutable_task()->set_episode_length(10);
  request.mutable_task()->clear_terminations();
  Rig rig(request);
  std::mt19937_64 random(3);
  rig.segment(0, random, kLogStd);
  for (std::uint32_t t = 0; t < 12; ++t) {
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      EXPECT_EQ(rig.flag(rig.out.truncated, t, e), t == 9 ? 1 : 0);
      EXPECT_EQ(rig.flag(rig.out.terminated, t, e), 0);
    }
  }
  // The successor is the un-reset state, so that it can be bootstrapped.
  EXPECT_NE(rig.successor(9, 0), rig.observation(10, 0));
}

TEST(Batch, TerminationWinsOverTruncation) {
  auto request = hopper_request(2, 1, 200);
  request.mutable_task()->set_episode_length(200);
  Rig rig(request);
  // Let it fall, see when, and make that step the time limit of another batch.
  std::mt19937_64 random(4);
  rig.segment(0, random, {});
  std::uint32_t fell = 0;
  while (fell < 200 && !rig.flag(rig.out.terminated, fell, 0)) ++fell;
  ASSERT_LT(fell, 200u) << "no fall in 200 steps";
  request.mutable_task()->set_episode_length(fell + 1);
  Rig limited(request);
  random.seed(4);
  limited.segment(0, random, {});
  EXPECT_EQ(limited.flag(limited.out.terminated, fell, 0), 1);
  EXPECT_EQ(limited.flag(limited.out.truncated, fell, 0), 0);
}

TEST(Batch, GivesTheSameBitsForAnyNumberOfThreads) {
  std::vector<std::string> buffers;
  std::vector<std::vector<std::uint8_t>> states;
  for (const int threads : {1, 2, 5}) {
    Rig rig(hopper_request(9, 6, 32), threads);
    std::mt19937_64 random(5);
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) rig.segment(epoch, random, kLogStd);
    buffers.push_back(rig.buffer());
    states.push_back(rig.snapshot());
  }
  EXPECT_TRUE(buffers[0] == buffers[1] && buffers[0] == buffers[2]);
  EXPECT_TRUE(states[0] == states[1] && states[0] == states[2]);
}

TEST(Batch, DependsOnSeedAndEpoch) {
  const auto noise_of = [](std::uint64_t seed, std::uint64_t epoch) {
    Rig rig(hopper_request(2, 3, 1, seed));
    std::mt19937_64 random(5);
    rig.segment(epoch, random, kLogStd);
    return std::vector<float>(rig.out.noise, rig.out.noise + rig.environments * kActions);
  };
  EXPECT_EQ(noise_of(1, 0), noise_of(1, 0));
  EXPECT_NE(noise_of(1, 0), noise_of(2, 0));
  EXPECT_NE(noise_of(1, 0), noise_of(1, 1));
}

TEST(Batch, SnapshotAndRestoreContinueWithTheSameBits) {
  for (const core::Kernels* kernels : testing::all_kernels()) {
    auto request = hopper_request(5, 4, 24);
    request.set_precision(kernels->scalar_bytes == 8 ? sim::v1::PRECISION_FLOAT64
                                                     : sim::v1::PRECISION_FLOAT32);
    Rig first(request, 2, kernels->isa);
    std::mt19937_64 random(6);
    first.segment(0, random, kLogStd);
    const auto saved = first.snapshot();
    std::mt19937_64 later = random;
    first.segment(1, random, kLogStd);

    Rig second(request, 1, kernels->isa);
    ASSERT_TRUE(second.batch->restore(saved.data(), saved.size()).ok());
    EXPECT_EQ(second.snapshot(), saved);
    EXPECT_EQ(second.batch->environment_steps(), 25u * 24u);
    second.segment(1, later, kLogStd);
    EXPECT_TRUE(second.buffer() == first.buffer()) << kernels->isa << kernels->scalar_bytes;
    EXPECT_TRUE(second.snapshot() == first.snapshot());
  }
}

TEST(Batch, RefusesASnapshotThatIsNotItsOwnAndStaysAsItWas) {
  Rig rig(hopper_request(3, 2, 4));
  const auto own = rig.snapshot();
  const auto says = [&](const std::vector<std::uint8_t>& bytes) {
    const Status status = rig.batch->restore(bytes.data(), bytes.size());
    EXPECT_EQ(rig.snapshot(), own);
    EXPECT_EQ(status.code, kInvalidArgument);
    return status.message;
  };
  Rig other_seed(hopper_request(3, 2, 4, 8));
  EXPECT_EQ(says(other_seed.snapshot()), "restore: expected seed 7, got 8");
  Rig other_size(hopper_request(3, 3, 4));
  EXPECT_EQ(says(other_size.snapshot()),
            "restore: expected 3 nominals with 2 auxiliaries, got 3 with 3");
  auto other_task = hopper_request(3, 2, 4);
  other_task.mutable_task()->set_episode_length(999);
  EXPECT_EQ(says(Rig(other_task).snapshot()), "restore: the snapshot is of another task program");
  auto other_model = hopper_request(3, 2, 4);
  other_model.mutable_model()->mutable_option()->set_timestep(0.004);
  EXPECT_EQ(says(Rig(other_model).snapshot()), "restore: the snapshot is of another model");
  if (std::string(rig.batch->isa()) != "generic") {  // as it is under the sanitizers
    EXPECT_EQ(says(Rig(hopper_request(3, 2, 4), 1, "generic").snapshot()).substr(0, 37),
              "restore: expected instruction set avx");
  }
  auto wide = hopper_request(3, 2, 4);
  wide.set_precision(sim::v1::PRECISION_FLOAT64);
  EXPECT_NE(says(Rig(wide).snapshot()), "");
  for (std::size_t length = 0; length < own.size(); length += 61)
    says({own.begin(), own.begin() + static_cast<std::ptrdiff_t>(length)});
  std::mt19937_64 random(test_seed());
  for (int round = 0; round < 500; ++round) {
    auto damaged = own;
    damaged[random() % damaged.size()] ^= static_cast<std::uint8_t>(1 + random() % 255);
    if (rig.batch->restore(damaged.data(), damaged.size()).ok()) {
      // Only the counters of the header are not bound to anything.
      EXPECT_TRUE(std::equal(own.begin() + kHeader, own.end(), damaged.begin() + kHeader));
      ASSERT_TRUE(rig.batch->restore(own.data(), own.size()).ok());
    }
  }
  EXPECT_TRUE(rig.batch->restore(own.data(), own.size()).ok());
}

// F13 of the reliability targets: one environment's state is poisoned; the bit is set in the same
// step, it restarts, and every other environment is as in a run without the fault.
TEST(Batch, ContainsANonFiniteEnvironment) {
  const std::uint32_t members = 4, groups = 8, horizon = 12;
  for (const std::uint32_t poisoned :
       {0u, 5u, 12u, 31u}) {  // nominals 0 and 12, auxiliaries 5 and 31
    for (const float poison : {NAN, INFINITY, 1e11f}) {
      Rig clean(hopper_request(groups, members - 1, horizon)),
          faulty(hopper_request(groups, members - 1, horizon));
      std::mt19937_64 random(8);
      clean.segment(0, random, kLogStd);
      const auto state = clean.snapshot();
      ASSERT_TRUE(faulty.batch->restore(state.data(), state.size()).ok());
      // An auxiliary is overwritten when a segment begins, so its nominal carries the poison.
      const std::uint32_t nominal = poisoned / members * members;
      auto bad = state;
      edit_snapshot(&bad, state_offset(*faulty.batch, nominal), &poison, sizeof poison);
      ASSERT_TRUE(faulty.batch->restore(bad.data(), bad.size()).ok());
      std::mt19937_64 one = random, two = random;
      clean.segment(1, one, kLogStd);
      faulty.segment(1, two, kLogStd);
      for (std::uint32_t t = 0; t < horizon; ++t) {
        for (std::uint32_t e = 0; e < clean.environments; ++e) {
          if (e / members == nominal / members) {
            if (t == 0) {
              EXPECT_EQ(faulty.flag(faulty.out.fault, t, e) & core::kNonFinite, 1);
              EXPECT_EQ(faulty.flag(faulty.out.terminated, t, e), 1);
              EXPECT_EQ(faulty.flag(faulty.out.truncated, t, e), 0);
              EXPECT_EQ(faulty.flag(faulty.out.reward, t, e), 0.0f);
            }
            for (const float x : faulty.observation(t, e)) EXPECT_TRUE(std::isfinite(x));
            for (const float x : faulty.successor(t, e)) EXPECT_TRUE(std::isfinite(x));
            continue;
          }
          ASSERT_EQ(faulty.observation(t + 1, e), clean.observation(t + 1, e));
          ASSERT_EQ(faulty.successor(t, e), clean.successor(t, e));
          ASSERT_EQ(faulty.flag(faulty.out.reward, t, e), clean.flag(clean.out.reward, t, e));
          ASSERT_EQ(faulty.flag(faulty.out.done, t, e), clean.flag(clean.out.done, t, e));
        }
      }
      EXPECT_GE(faulty.batch->fault_count(0), members);
      EXPECT_EQ(clean.batch->fault_count(0), 0u);
      // After the restart the poison is gone from the state.
      const auto after = faulty.snapshot();
      float x;
      memcpy(&x, after.data() + kHeader + state_offset(*faulty.batch, nominal), sizeof x);
      EXPECT_LT(std::abs(x), 100.0f);
    }
  }
}

// A mean that is not finite faults the group it is for, whatever the control program makes of it.
TEST(Batch, ContainsAControlThatIsNotFinite) {
  const std::uint32_t members = 5, groups = 7, horizon = 6, poisoned = 3;
  for (const std::string& isa : {std::string("generic"), std::string()}) {
    for (const float poison : {NAN, INFINITY, -INFINITY}) {
      for (const bool swallowed : {false, true}) {
        auto request = hopper_request(groups, members - 1, horizon);
        if (swallowed) {
          // The control program's minimum turns NaN into a number.
          auto* task = request.mutable_task();
          const std::uint32_t r = task->register_count();
          task->clear_control();
          const auto add = [&](task::v1::Opcode op, std::uint32_t dst, std::uint32_t a,
                               std::uint32_t b, std::uint32_t length, float immediate) {
            auto* in = task->add_control();
            in->set_op(op);
            in->set_dst(dst);
            in->set_a(a);
            in->set_b(b);
            in->set_b_scalar(true);
            in->set_length(length);
            in->set_immediate(immediate);
          };
          task->set_register_count(r + 8);
          add(task::v1::OPCODE_LOAD_ACTION, r, 0, 0, 3, 0);
          add(task::v1::OPCODE_CONSTANT, r + 3, 0, 0, 1, 0.5f);
          add(task::v1::OPCODE_MIN, r + 4, r, r + 3, 3, 0);
          add(task::v1::OPCODE_STORE_CTRL, 0, r + 4, 0, 3, 0);
        }
        Rig clean(request, 1, isa), faulty(request, 2, isa);
        clean.begin();
        faulty.begin();
        std::mt19937_64 random(2);
        std::normal_distribution<float> normal;
        for (std::uint32_t t = 0; t < horizon; ++t) {
          for (float& m : clean.means) m = normal(random);
          faulty.means = clean.means;
          if (t == 2) faulty.means[poisoned * kActions + 1] = poison;
          EXPECT_EQ(clean.step(t, kLogStd).faults, 0u);
          EXPECT_EQ(faulty.step(t, kLogStd).faults, t == 2 ? members : 0u) << "t " << t;
          for (std::uint32_t e = 0; e < clean.environments; ++e) {
            if (e / members == poisoned) {
              if (t == 2) {
                EXPECT_EQ(faulty.flag(faulty.out.fault, t, e), core::kNonFinite);
                EXPECT_EQ(faulty.flag(faulty.out.terminated, t, e), 1);
                EXPECT_EQ(faulty.flag(faulty.out.done, t, e), 1);
                EXPECT_EQ(faulty.flag(faulty.out.reward, t, e), 0.0f);
              }
              for (const float x : faulty.observation(t + 1, e)) EXPECT_TRUE(std::isfinite(x));
              for (const float x : faulty.successor(t, e)) EXPECT_TRUE(std::isfinite(x));
              for (std::uint32_t j = 0; j < kActions; ++j)
                EXPECT_TRUE(
                    std::isfinite(faulty.out.action[(t * clean.environments + e) * kActions + j]));
              continue;
            }
            ASSERT_EQ(faulty.observation(t + 1, e), clean.observation(t + 1, e));
            ASSERT_EQ(faulty.successor(t, e), clean.successor(t, e));
            ASSERT_EQ(faulty.flag(faulty.out.reward, t, e), clean.flag(clean.out.reward, t, e));
            ASSERT_EQ(faulty.flag(faulty.out.fault, t, e), 0);
          }
        }
        EXPECT_EQ(faulty.batch->fault_count(0), members);
      }
    }
  }
}

// A solver that stops at its limit leaves a state that nobody should learn from.
TEST(Batch, EndsTheEpisodeWhereTheSolverStoppedAtItsLimit) {
  auto request = hopper_request(4, 3, 80);
  request.mutable_model()->mutable_option()->set_iterations(1);
  request.mutable_model()->mutable_option()->set_tolerance(0);
  request.mutable_model()->clear_content_hash();
  Rig rig(request);
  std::mt19937_64 random(5);
  rig.segment(0, random, kLogStd);
  std::uint64_t faults = 0;
  for (std::uint32_t t = 0; t < 80; ++t) {
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      if ((rig.flag(rig.out.fault, t, e) & core::kNotConverged) == 0) continue;
      faults += 1;
      EXPECT_EQ(rig.flag(rig.out.terminated, t, e), 1);
      EXPECT_EQ(rig.flag(rig.out.truncated, t, e), 0);
      EXPECT_EQ(rig.flag(rig.out.done, t, e), 1);
      EXPECT_EQ(rig.flag(rig.out.reward, t, e), 0.0f);
      EXPECT_EQ(rig.observation(t + 1, e), rig.observation(t + 1, e / 4 * 4));
    }
  }
  EXPECT_GT(faults, 0u);
  EXPECT_EQ(rig.batch->fault_count(2), faults);
}

// A fault of one auxiliary in the middle of a segment: its velocity overflows under a reward term
// that divides by a progress-dependent zero, so only rows with noise are hit.
TEST(Batch, ContainsAFaultOfOneAuxiliaryAlone) {
  auto request = hopper_request(2, 7, 6);
  auto* task = request.mutable_task();
  // reward term: log(2 + action[0] - 1.9 ...) is NaN where the action is small; nominals act with
  // +1.
  const std::uint32_t base = task->register_count();
  task->set_register_count(base + 3);
  auto* load = task->add_step();
  load->set_op(task::v1::OPCODE_LOAD_ACTION);
  load->set_dst(base);
  load->set_length(1);
  auto* log = task->add_step();
  log->set_op(task::v1::OPCODE_LOG);
  log->set_dst(base + 1);
  log->set_a(base);
  log->set_length(1);
  auto* term = task->add_rewards();
  term->set_name("log_action");
  term->set_register_(base + 1);
  Rig rig(request);
  std::fill(rig.means.begin(), rig.means.end(), 0.3f);
  rig.begin();
  int faults = 0;
  for (std::uint32_t t = 0; t < 6; ++t) {
    const StepReport report = rig.step(t, kLogStd);
    std::uint32_t here = 0;
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      const std::uint32_t nominal = e / 8 * 8;
      const bool expected =
          !(rig.out.action[(t * rig.environments + e) * kActions] > 0);  // log of 0 or less
      ASSERT_EQ(rig.flag(rig.out.fault, t, e) & core::kNonFinite, expected ? 1 : 0);
      if (!expected) continue;
      here += 1;
      EXPECT_NE(e, nominal);
      EXPECT_EQ(rig.flag(rig.out.reward, t, e), 0.0f);
      EXPECT_EQ(rig.flag(rig.out.terminated, t, e), 1);
      EXPECT_EQ(rig.flag(rig.out.done, t, e), 1);
      EXPECT_EQ(rig.observation(t + 1, e), rig.observation(t + 1, nominal));
    }
    EXPECT_EQ(report.faults, here);
    faults += static_cast<int>(here);
  }
  EXPECT_GT(faults, 0);
  EXPECT_EQ(rig.batch->fault_count(0), static_cast<std::uint64_t>(faults));
}

TEST(Batch, DrawsTheDocumentedNoise) {
  // An independent computation in double from the description in philox.h.
  const std::uint64_t seed = 0x123456789abcdefu;
  for (const core::Kernels* kernels : testing::all_kernels()) {
    auto request = hopper_request(3, 6, 4, seed);
    request.set_precision(kernels->scalar_bytes == 8 ? sim::v1::PRECISION_FLOAT64
                                                     : sim::v1::PRECISION_FLOAT32);
    Rig rig(request, 1, kernels->isa);
    std::mt19937_64 random(9);
    rig.segment(77, random, kLogStd);
    for (std::uint32_t t = 0; t < 4; ++t) {
      for (std::uint32_t e = 0; e < rig.environments; ++e) {
        const std::uint32_t counter[4] = {1u << 28, e, t, 77};
        std::uint32_t w[4];
        philox(counter, seed, w);
        for (std::uint32_t j = 0; j < kActions; ++j) {
          const double u1 = ((w[j & ~1u] >> 8) + 0.5) / 16777216.0;
          const double angle = 2 * M_PI * (w[j | 1u] >> 8) / 16777216.0;
          const double expected =
              std::sqrt(-2 * std::log(u1)) * (j % 2 == 0 ? std::cos(angle) : std::sin(angle));
          const float drawn = rig.out.noise[(t * rig.environments + e) * kActions + j];
          EXPECT_NEAR(drawn, e % 7 == 0 ? 0.0 : expected, 4e-6) << kernels->isa;
        }
      }
    }
  }
}

TEST(Philox, ReproducesTheKnownAnswersOfItsAuthors) {
  // Test vectors of the Random123 distribution (kat_vectors, philox4x32 10).
  const struct {
    std::uint32_t counter[4];
    std::uint64_t key;
    std::uint32_t expected[4];
  } cases[] = {
      {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       0xffffffffffffffffu,
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       0x299f31d0a4093822u,
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto& c : cases) {
    std::uint32_t out[4];
    philox(c.counter, c.key, out);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(out[i], c.expected[i]);
  }
}

TEST(Batch, NoiseHasMeanZeroAndVarianceOne) {
  Rig rig(hopper_request(16, 63, 8));
  std::mt19937_64 random(10);
  rig.segment(3, random, kLogStd);
  double sum = 0, squares = 0, fourth = 0;
  std::size_t count = 0;
  for (std::uint32_t t = 0; t < 8; ++t) {
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      if (e % 64 == 0) continue;
      for (std::uint32_t j = 0; j < kActions; ++j, ++count) {
        const double x = rig.out.noise[(t * rig.environments + e) * kActions + j];
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
      }
    }
  }
  const double n = static_cast<double>(count);
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 4 * std::sqrt(2 / n));
  EXPECT_NEAR(fourth / n, 3, 4 * std::sqrt(96 / n));
}

// ---- randomised constants
// ------------------------------------------------------------------------

constexpr std::uint32_t kThigh = 2;

// What the critic sees of environment e in a slot, the parameters last.
std::vector<float> seen(const Rig& rig, const float* array, std::uint32_t slot, std::uint32_t e) {
  const std::uint32_t values = rig.batch->sizes().privileged;
  const float* row = array + (std::uint64_t{slot} * rig.environments + e) * values;
  return {row, row + values};
}

TEST(Batch, GroupsShareTheirParametersAndDifferInThem) {
  auto request = hopper_request(9, 2, 30);
  randomise(&request, task::v1::PARAMETER_FIELD_BODY_MASS, kThigh, 2, 8, false);
  Rig rig(request), plain(hopper_request(9, 2, 30));
  for (Rig* each : {&rig, &plain}) {
    std::mt19937_64 random(3);
    each->segment(0, random, {});
  }
  std::set<float> masses;
  for (std::uint32_t group = 0; group < 9; ++group) {
    const std::uint32_t nominal = group * 3;
    const float mass = seen(rig, rig.out.privileged, 0, nominal).back();
    EXPECT_GE(mass, 2);
    EXPECT_LT(mass, 8);
    masses.insert(mass);
    bool moved_otherwise = false;
    for (std::uint32_t t = 0; t < 30; ++t) {
      for (std::uint32_t e = nominal; e < nominal + 3; ++e) {
        // Without noise a member is its nominal, mass included.
        ASSERT_EQ(seen(rig, rig.out.privileged, t, e), seen(rig, rig.out.privileged, t, nominal));
      }
      auto with = seen(rig, rig.out.privileged, t, nominal);
      with.pop_back();
      const auto without = plain.observation(t, nominal);
      if (t == 0) {
        EXPECT_EQ(with, without) << "the start does not depend on the mass";
      }
      moved_otherwise |= with != without;
    }
    EXPECT_TRUE(moved_otherwise) << "group " << group << " of mass " << mass;
  }
  EXPECT_EQ(masses.size(), 9u);
}

TEST(Batch, AParameterEqualToTheModelsConstantChangesNoBit) {
  auto request = hopper_request(6, 3, 25);
  const auto mass = static_cast<float>(request.model().bodies().mass(kThigh));
  randomise(&request, task::v1::PARAMETER_FIELD_BODY_MASS, kThigh, mass, mass, false);
  Rig rig(request), plain(hopper_request(6, 3, 25));
  for (Rig* each : {&rig, &plain}) {
    std::mt19937_64 random(4);
    each->segment(0, random, kLogStd);
  }
  for (std::uint32_t t = 0; t < 25; ++t) {
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      auto with = seen(rig, rig.out.privileged_successor, t, e);
      with.pop_back();
      ASSERT_EQ(with, plain.successor(t, e)) << "t " << t << " e " << e;
    }
  }
}

TEST(Batch, AParameterIsDrawnAnewWithEveryEpisodeAndKeptUntilThen) {
  auto request = hopper_request(4, 1, 60);
  request.mutable_task()->set_episode_length(25);
  randomise(&request, task::v1::PARAMETER_FIELD_BODY_MASS, kThigh, 2, 8, false);
  randomise(&request, task::v1::PARAMETER_FIELD_DOF_DAMPING, 4, 0, 3, true);
  Rig rig(request);
  std::mt19937_64 random(5);
  rig.segment(0, random, {});
  for (std::uint32_t e = 0; e < rig.environments; ++e) {
    std::vector<std::vector<float>> episodes;
    for (std::uint32_t t = 0; t < 60; ++t) {
      const auto now = seen(rig, rig.out.privileged, t, e);
      const std::vector<float> drawn(now.end() - 2, now.end());
      const bool fresh = t == 0 || rig.flag(rig.out.done, t - 1, e / 2 * 2) != 0;
      if (fresh) {
        for (const auto& earlier : episodes) EXPECT_NE(drawn, earlier) << "t " << t << " e " << e;
        episodes.push_back(drawn);
      }
      ASSERT_EQ(drawn, episodes.back()) << "t " << t << " e " << e;
    }
    EXPECT_GE(episodes.size(), 3u);
  }
}

TEST(Batch, ParametersOfAnEnvironmentStayItsOwnThroughCopies) {
  auto request = hopper_request(5, 6, 40);
  request.mutable_task()->set_episode_length(1000);
  randomise(&request, task::v1::PARAMETER_FIELD_BODY_MASS, kThigh, 2, 8, false);
  randomise(&request, task::v1::PARAMETER_FIELD_BODY_MASS, 3, 1, 5, true);
  Rig rig(request);
  std::set<float> own;
  for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<bool> started(rig.environments, false);
    std::vector<std::vector<float>> present(rig.environments);
    std::mt19937_64 random(6 + epoch);
    rig.segment(epoch, random, {0.5f, 0.5f, 0.5f});
    for (std::uint32_t e = 0; e < rig.environments; ++e) {
      const std::uint32_t nominal = e / 7 * 7;
      for (std::uint32_t t = 0; t < 40; ++t) {
        const auto at = seen(rig, rig.out.privileged, t, e);
        const auto of_nominal = seen(rig, rig.out.privileged, t, nominal);
        ASSERT_EQ(at[11], of_nominal[11]) << "the group's mass";
        const bool fresh = t == 0 || rig.flag(rig.out.done, t - 1, nominal) != 0;
        const bool copied = fresh || rig.flag(rig.out.done, t - 1, e) != 0;
        if (copied) {
          // The state is the nominal's, the mass of the leg its own.
          ASSERT_EQ(std::vector<float>(at.begin(), at.begin() + 12),
                    std::vector<float>(of_nominal.begin(), of_nominal.begin() + 12));
        }
        if (fresh) present[e] = {at[12]};
        ASSERT_EQ(at[12], present[e][0]) << "t " << t << " e " << e;
        own.insert(at[12]);
      }
    }
  }
  EXPECT_GE(own.size(), rig.environments);  // nobody shares
}

TEST(Batch, RandomisedBatchesGiveTheSameBitsOnAnyThreadsAndAfterARestore) {
  auto request = hopper_request(11, 4, 30, 99);
  request.mutable_task()->set_episode_length(40);
  randomise(&request, task::v1::PARAMETER_FIELD_BODY_MASS, kThigh, 2, 8, false);
  randomise(&request, task::v1::PARAMETER_FIELD_ACTUATOR_GAIN, 1, 0.5, 1.5, true);
  Rig one(request, 1), three(request, 3);
  for (Rig* rig : {&one, &three}) {
    std::mt19937_64 random(8);
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) rig->segment(epoch, random, kLogStd);
  }
  EXPECT_EQ(one.buffer(), three.buffer());
  EXPECT_EQ(one.snapshot(), three.snapshot());
  Rig restored(request, 2);
  const auto state = one.snapshot();
  ASSERT_TRUE(restored.batch->restore(state.data(), state.size()).ok());
  for (Rig* rig : {&one, &restored}) {
    std::mt19937_64 random(9);
    rig->segment(3, random, kLogStd);
  }
  EXPECT_EQ(one.buffer(), restored.buffer());
}

TEST(Batch, RefusesAParameterTheModelCannotHave) {
  auto request = hopper_request(1, 0, 1);
  randomise(&request, task::v1::PARAMETER_FIELD_BODY_MASS, kThigh, NAN, NAN, true);
  std::unique_ptr<Batch> batch;
  const Status status = Batch::create(request, {}, &batch);
  EXPECT_EQ(status.code, kInvalidArgument);
  EXPECT_NE(status.message.find("immediate is not finite"), std::string::npos) << status.message;
}

TEST(Batch, ClipsMeansStandardDeviationsAndActions) {
  Rig rig(hopper_request(2, 3, 1));
  rig.means = {5, -5, 0.5f, 5, -5, 0.5f};
  rig.begin();
  rig.step(0, {9, 9, -9});  // clipped to e^2, e^2, e^-5
  for (std::uint32_t e = 0; e < rig.environments; ++e) {
    const float* a = rig.out.action + e * kActions;
    const float* z = rig.out.noise + e * kActions;
    if (e % 4 == 0) {
      EXPECT_EQ(a[0], 2.0f);
      EXPECT_EQ(a[1], -2.0f);
      EXPECT_EQ(a[2], 0.5f);
      continue;
    }
    const double expected[] = {2 + std::exp(2.0) * z[0], -2 + std::exp(2.0) * z[1],
                               0.5 + std::exp(-5.0) * z[2]};
    for (int j = 0; j < 3; ++j) {
      EXPECT_NEAR(a[j], std::min(2.0, std::max(-2.0, expected[j])), 1e-5);
      EXPECT_NE(z[j], 0.0f);
    }
  }
}

TEST(Batch, TakesAStandardDeviationPerNominal) {
  Rig rig(hopper_request(2, 3, 1));
  rig.begin();
  rig.step(0, {-1, -1, -1, 0, 0, 0});
  for (std::uint32_t e = 0; e < rig.environments; ++e) {
    for (std::uint32_t j = 0; j < kActions; ++j) {
      const double z = rig.out.noise[e * kActions + j];
      const double std = e < 4 ? std::exp(-1.0) : 1.0;
      EXPECT_NEAR(rig.out.action[e * kActions + j], std::min(2.0, std::max(-2.0, std * z)), 1e-6);
    }
  }
}

TEST(Batch, AnswersMisuseWithOneLine) {
  Rig rig(hopper_request(2, 1, 2));
  const std::vector<float> mean(6, 0.0f);
  const auto step = [&](std::uint32_t t, const std::vector<float>& m,
                        const std::vector<float>& log_std) {
    return rig.batch->step(rig.pool, t, m.data(), m.size(),
                           log_std.empty() ? nullptr : log_std.data(), log_std.size(), nullptr);
  };
  EXPECT_EQ(step(0, mean, {}).message, "step: no segment is open; send Begin first");
  EXPECT_EQ(rig.batch->end(nullptr).code, kFailedPrecondition);
  EXPECT_EQ(rig.batch->begin(rig.pool, std::uint64_t{1} << 32, false, nullptr).message,
            "begin: epoch: expected below 2^32, got 4294967296");
  rig.begin();
  EXPECT_EQ(rig.batch->begin(rig.pool, 0, false, nullptr).code, kFailedPrecondition);
  EXPECT_EQ(step(1, mean, {}).message, "step: t: expected 0, got 1");
  EXPECT_EQ(step(0, {1, 2}, {}).message, "step: mean: expected [2, 3] = 6 values, got 2");
  EXPECT_EQ(step(0, mean, {1, 2}).message,
            "step: log_std: expected [3] or [2, 3] values or none, got 2");
  EXPECT_EQ(step(0, mean, {0, NAN, 0}).message,
            "step: log_std[1] is nan, no usable standard deviation");
  std::vector<std::uint8_t> room(rig.batch->snapshot_bytes());
  EXPECT_EQ(rig.batch->snapshot(room.data(), room.size()).code, kFailedPrecondition);
  EXPECT_EQ(rig.batch->restore(room.data(), room.size()).code, kFailedPrecondition);
  EXPECT_TRUE(step(0, mean, {}).ok());
  EXPECT_TRUE(step(1, mean, {}).ok());
  EXPECT_EQ(step(2, mean, {}).message, "step: the segment has its 2 steps; send End");
  rig.end();
}

TEST(Batch, RefusesRequestsThatDoNotFitByName) {
  const auto says = [](sim::v1::CreateBatchRequest request, std::uint64_t limit = UINT64_MAX) {
    CreateOptions options;
    options.memory_limit_bytes = limit;
    std::unique_ptr<Batch> batch;
    const Status status = Batch::create(request, options, &batch);
    EXPECT_FALSE(batch);
    return status.message;
  };
  auto request = hopper_request(0, 3, 4);
  EXPECT_EQ(says(request), "nominals: expected at least 1, got 0");
  request.set_nominals(4000000000u);
  EXPECT_EQ(
      says(request),
      "nominals * (1 + auxiliaries_per_nominal): expected at most 4194304, got 4000000000 * 4");
  request = hopper_request(2, 4294967295u, 4);
  EXPECT_NE(says(request).find("expected at most 4194304"), std::string::npos);
  request = hopper_request(2, 3, 0);
  EXPECT_EQ(says(request), "horizon: expected 1 to 65536, got 0");
  request = hopper_request(2, 3, 4);
  request.set_label("No/Such");
  EXPECT_EQ(says(request), "label: expected [a-z0-9-]{0,40}, got 'No/Such'");
  request = hopper_request(2, 3, 4);
  request.mutable_action_bounds()->set_mean_low(NAN);
  EXPECT_EQ(says(request).substr(0, 35), "action_bounds: expected low <= high");
  request = hopper_request(2, 3, 4);
  request.clear_model();
  EXPECT_EQ(says(request), "model: expected a model, got none");
  request = hopper_request(2, 3, 4);
  request.clear_task();
  EXPECT_EQ(says(request), "task: expected a program, got none");
  const std::string limited = says(hopper_request(64, 63, 32), 1 << 20);
  EXPECT_NE(limited.find("1048576 are allowed"), std::string::npos) << limited;
}

TEST(Batch, LaysTheBufferOutAsTheContractSays) {
  Rig rig(hopper_request(3, 4, 5));
  sim::v1::CreateBatchResponse response;
  rig.batch->describe(&response);
  ASSERT_EQ(response.tensors_size(), 12);
  const struct {
    const char* name;
    std::vector<std::int64_t> shape;
  } expected[] = {{"privileged", {6, 15, 11}},
                  {"privileged_successor", {5, 15, 11}},
                  {"actor", {6, 3, 11}},
                  {"noise", {5, 15, 3}},
                  {"action", {5, 15, 3}},
                  {"reward", {5, 15}},
                  {"reward_terms", {5, 15, static_cast<std::int64_t>(rig.batch->sizes().rewards)}},
                  {"terminated", {5, 15}},
                  {"truncated", {5, 15}},
                  {"done", {5, 15}},
                  {"fault", {5, 15}},
                  {"progress", {5, 15}}};
  for (int i = 0; i < 12; ++i) {
    const auto& tensor = response.tensors(i);
    EXPECT_EQ(tensor.name(), expected[i].name);
    EXPECT_EQ(
        std::vector<std::int64_t>(tensor.tensor().shape().begin(), tensor.tensor().shape().end()),
        expected[i].shape);
    EXPECT_EQ(tensor.offset_bytes() % 64, 0u);
  }
}

}  // namespace
}  // namespace sdpg::batch
