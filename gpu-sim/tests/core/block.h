// One block of environments in the memory layout of core/kernels.h, for tests.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "core/kernels.h"
#include "sdpg/model/v1/model.pb.h"
#include "support/fixtures.h"

namespace sdpg::testing {

inline model::v1::Model hopper_message() {
  model::v1::Model message;
  EXPECT_TRUE(message.ParseFromString(read_file("hopper.model.binpb")));
  return message;
}

inline std::shared_ptr<const core::Model> made(const model::v1::Model& message) {
  std::string error;
  auto model = core::make_model(message, &error);
  EXPECT_TRUE(model) << error;
  return model;
}

class Block {
 public:
  Block(const core::Model& model, const core::Kernels& kernels) : m_(model), k_(kernels) {
    const int counts[] = {nq(m_),        nv(m_), nu(m_), nv(m_), nbody(m_) * 3, nbody(m_) * 4,
                          nbody(m_) * 3, nv(m_), nv(m_), nv(m_), na(m_),        nparameters(m_)};
    for (const int count : counts) arrays_.push_back(allocate(bytes(count)));
    status_ = allocate(64 * 4);
    scratch_ = allocate(k_.scratch_bytes(m_));
    // Nothing may be read before it is written: poison it with NaN.
    std::memset(scratch_.get(), 0xff, k_.scratch_bytes(m_));
  }

  enum Array {
    kQpos,
    kQvel,
    kCtrl,
    kWarm,
    kXpos,
    kXquat,
    kXipos,
    kQacc,
    kSmooth,
    kForce,
    kAct,
    kParameters
  };

  double get(Array a, int index, int lane) const {
    const std::size_t at = static_cast<std::size_t>(index) * k_.lanes + lane;
    return k_.scalar_bytes == 4 ? reinterpret_cast<const float*>(arrays_[a].get())[at]
                                : reinterpret_cast<const double*>(arrays_[a].get())[at];
  }
  void set(Array a, int index, int lane, double x) {
    const std::size_t at = static_cast<std::size_t>(index) * k_.lanes + lane;
    if (k_.scalar_bytes == 4)
      reinterpret_cast<float*>(arrays_[a].get())[at] = static_cast<float>(x);
    else
      reinterpret_cast<double*>(arrays_[a].get())[at] = x;
  }
  std::vector<double> row(Array a, int count, int lane) const {
    std::vector<double> values(count);
    for (int i = 0; i < count; ++i) values[i] = get(a, i, lane);
    return values;
  }
  // The bits of one lane's state, to compare exactly (NaN included).
  std::vector<unsigned char> bits(int lane) const {
    std::vector<unsigned char> out;
    const auto add = [&](Array a, int count) {
      for (int i = 0; i < count; ++i) {
        const unsigned char* at =
            arrays_[a].get() + (static_cast<std::size_t>(i) * k_.lanes + lane) * k_.scalar_bytes;
        out.insert(out.end(), at, at + k_.scalar_bytes);
      }
    };
    add(kQpos, nq(m_));
    add(kQvel, nv(m_));
    add(kWarm, nv(m_));
    add(kAct, na(m_));
    return out;
  }

  // A standing, falling, touching or buried robot, by the drawn height.
  void randomize(int lane, std::mt19937_64& random) {
    std::uniform_real_distribution<double> one(-1, 1);
    for (int i = 0; i < nq(m_); ++i) set(kQpos, i, lane, (i < 3 ? 0.4 : 0.8) * one(random));
    for (int i = 0; i < nv(m_); ++i) set(kQvel, i, lane, 3 * one(random));
    for (int i = 0; i < nu(m_); ++i) set(kCtrl, i, lane, one(random));
    for (int i = 0; i < nv(m_); ++i) set(kWarm, i, lane, 0);
  }

  core::BlockView view() {
    return {arrays_[kQpos].get(),  arrays_[kQvel].get(),
            arrays_[kCtrl].get(),  arrays_[kWarm].get(),
            arrays_[kXpos].get(),  arrays_[kXquat].get(),
            arrays_[kXipos].get(), reinterpret_cast<std::uint32_t*>(status_.get()),
            arrays_[kAct].get(),   arrays_[kParameters].get()};
  }
  void step(int substeps) { k_.step(m_, view(), scratch_.get(), substeps); }
  void kinematics() { k_.kinematics(m_, view(), scratch_.get()); }
  void forward() {
    k_.forward(m_, view(), scratch_.get(), arrays_[kQacc].get(), arrays_[kSmooth].get(),
               arrays_[kForce].get());
  }
  std::vector<std::vector<double>> contacts(int lane) const {
    std::vector<double> flat(max_contacts(m_) * core::kContactNumbers + 1);
    const int count = k_.contacts(m_, scratch_.get(), lane, flat.data());
    std::vector<std::vector<double>> out;
    for (int c = 0; c < count; ++c)
      out.emplace_back(flat.begin() + c * core::kContactNumbers,
                       flat.begin() + (c + 1) * core::kContactNumbers);
    return out;
  }
  std::uint32_t status(int lane) const {
    return reinterpret_cast<const std::uint32_t*>(status_.get())[lane];
  }
  void clear_status() { std::memset(status_.get(), 0, 64 * 4); }
  int lanes() const { return k_.lanes; }

 private:
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  using Memory = std::unique_ptr<unsigned char, Free>;
  std::size_t bytes(int count) const {
    return static_cast<std::size_t>(count) * k_.lanes * k_.scalar_bytes;
  }
  static Memory allocate(std::size_t bytes) {
    const std::size_t rounded = (bytes + 127) / 64 * 64;
    Memory memory(static_cast<unsigned char*>(std::aligned_alloc(64, rounded)));
    std::memset(memory.get(), 0, rounded);
    return memory;
  }
  const core::Model& m_;
  const core::Kernels& k_;
  std::vector<Memory> arrays_;
  Memory status_, scratch_;
};

}  // namespace sdpg::testing
