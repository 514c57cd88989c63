// Models and requests that several tests start from.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/kernels.h"
#include "sdpg/sim/v1/sim.pb.h"

namespace sdpg::testing {

inline std::string read_file(const std::string& name) {
  std::ifstream file(std::string(SDPG_REPOSITORY) + "/gpu-sim/tests/data/" + name,
                     std::ios::binary);
  EXPECT_TRUE(file.good()) << "cannot read " << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

// Hopper with `nominals` groups of 1 + `auxiliaries`, bounds as in the reference.
inline sim::v1::CreateBatchRequest hopper_request(std::uint32_t nominals, std::uint32_t auxiliaries,
                                                  std::uint32_t horizon, std::uint64_t seed = 7) {
  sim::v1::CreateBatchRequest request;
  EXPECT_TRUE(request.mutable_model()->ParseFromString(read_file("hopper.model.binpb")));
  EXPECT_TRUE(request.mutable_task()->ParseFromString(read_file("hopper.task.binpb")));
  request.set_nominals(nominals);
  request.set_auxiliaries_per_nominal(auxiliaries);
  request.set_horizon(horizon);
  request.set_seed(seed);
  auto* bounds = request.mutable_action_bounds();
  bounds->set_mean_low(-2);
  bounds->set_mean_high(2);
  bounds->set_log_std_low(-5);
  bounds->set_log_std_high(2);
  return request;
}

// Tables this machine can run, in both precisions.
inline std::vector<const core::Kernels*> all_kernels() {
  std::vector<const core::Kernels*> tables;
  for (const char* isa : {"generic", "emulated", "avx2", "avx512"}) {
    for (const core::Precision precision : {core::Precision::kFloat32, core::Precision::kFloat64}) {
      std::string error;
      if (const core::Kernels* table = core::select_kernels(precision, isa, &error))
        tables.push_back(table);
    }
  }
  return tables;
}

// Seed of a randomised test: SDPG_TEST_SEED, or one fixed number. Print it where a failure shows
// it.
inline std::uint64_t test_seed() {
  const char* text = std::getenv("SDPG_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20260514;
}

}  // namespace sdpg::testing
