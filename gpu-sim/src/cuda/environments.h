// A number of environments of a model on a device, stepped without a task: for tests, and for the
// parity check and the benchmark of gpu-sim/tools/gpu_check.cc.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "core/model.h"
#include "cuda/device_model.h"

namespace sdpg::cuda {

class Environments {
 public:
  // Null and a line in `error` when the model or its environments do not fit the device.
  static std::unique_ptr<Environments> create(Device& device, const core::Model& model,
                                              std::uint32_t count, std::string* error) {
    std::unique_ptr<Environments> out(new Environments(device));
    PhysicsArgs& a = out->args;
    if (!device.plan(model, 0, &a.plan, error)) return nullptr;
    Rows& rows = a.state.rows;
    const auto field = [&](std::uint32_t& row, int n) {
      row = rows.end;
      rows.end += static_cast<std::uint32_t>(n);
    };
    field(rows.qpos, model.nq);
    field(rows.qvel, model.nv);
    field(rows.ctrl, model.nu);
    field(rows.warmstart, model.nv);
    field(rows.act, model.na);
    field(rows.parameters, model.nparameters);
    a.state.environments = a.count = count;
    a.stride = 1;
    a.state.block_bytes = std::uint64_t{rows.end} * kLanes * sizeof(float);
    const std::uint64_t blocks = (count + kLanes - 1) / kLanes;
    const std::size_t sizes[] = {static_cast<std::size_t>(blocks * a.state.block_bytes),
                                 std::size_t{a.plan.teams} * a.plan.far_bytes,
                                 std::size_t{count} * sizeof(std::uint32_t)};
    for (const std::size_t bytes : sizes) {
      out->memory_.emplace_back(device, bytes);
      out->bytes_ += bytes;
    }
    bool fits = upload_model(device, model, &a.model, &out->model_);
    for (const DeviceMemory& memory : out->memory_) fits = fits && memory;
    if (!fits) {
      *error = "the device has no memory for " + std::to_string(count) + " environments";
      return nullptr;
    }
    a.state.base = out->memory_[0].data();
    a.far = out->memory_[1].data();
    a.status = reinterpret_cast<std::uint32_t*>(out->memory_[2].data());
    out->host_.resize(sizes[0] / sizeof(float));
    return out;
  }

  // Number `row` of environment e in the host's copy of the state.
  float& number(std::uint32_t e, std::uint32_t row) {
    return host_[(std::size_t{e / kLanes} * args.state.rows.end + row) * kLanes + e % kLanes];
  }
  void put() { device_.upload(args.state.base, host_.data(), host_.size() * sizeof(float)); }
  void get() { device_.download(host_.data(), args.state.base, host_.size() * sizeof(float)); }
  std::vector<std::uint32_t> status() {
    std::vector<std::uint32_t> out(args.count);
    device_.download(out.data(), args.status, out.size() * sizeof(std::uint32_t));
    return out;
  }
  // Launches; synchronize() of the device waits.
  void step(int substeps) {
    args.substeps = substeps;
    device_.simulate(args);
  }
  // On the device, the model apart.
  std::size_t bytes() const { return bytes_; }
  const std::vector<float>& host() const { return host_; }

  PhysicsArgs args{};

 private:
  explicit Environments(Device& device) : device_(device) {}

  Device& device_;
  DeviceMemory model_;
  std::vector<DeviceMemory> memory_;
  std::vector<float> host_;
  std::size_t bytes_ = 0;
};

}  // namespace sdpg::cuda
