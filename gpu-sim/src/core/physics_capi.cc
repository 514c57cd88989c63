// The physics half of the C boundary (gpu_sim.h): a number of environments stepped without a task,
// for parity tests and the benchmark. Blocks are divided over a fixed number of threads; a block is
// always computed whole by one thread, so results do not depend on how many there are.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "core/kernels.h"
#include "gpu_sim.h"
#include "sdpg/model/v1/model.pb.h"

namespace {

using sdpg::core::BlockView;
using sdpg::core::Kernels;
using sdpg::core::Model;

// Zeroed memory on a cache line boundary.
struct Memory {
  explicit Memory(std::size_t bytes)
      : data(static_cast<unsigned char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64))) {
    if (data == nullptr) throw std::bad_alloc();
    std::memset(data, 0, bytes);
  }
  ~Memory() { std::free(data); }
  Memory(Memory&& other) noexcept : data(std::exchange(other.data, nullptr)) {}
  Memory(const Memory&) = delete;
  unsigned char* data;
};

int fail(int code, const std::string& line, char* error, std::size_t error_bytes) {
  if (error != nullptr && error_bytes > 0) {
    const std::size_t n = std::min(line.size(), error_bytes - 1);
    std::memcpy(error, line.data(), n);
    error[n] = 0;
  }
  return code;
}

}  // namespace

struct gpu_sim_physics {
  std::shared_ptr<const Model> model;
  const Kernels* kernels = nullptr;
  int environments = 0, threads = 1, blocks = 0;
  // Arrays of one block, each a multiple of a cache line, in the order of `Array`.
  enum Array {
    kQpos,
    kQvel,
    kCtrl,
    kWarmStart,
    kAct,
    kXpos,
    kXquat,
    kXipos,
    kStatus,
    kParameters,  // not a part of the state: setting that leaves them alone
    kArrays
  };
  std::size_t offset[kArrays + 1] = {};
  std::vector<Memory> state;    // one
  std::vector<Memory> scratch;  // one per thread

  void lay_out() {
    const int counts[kArrays] = {
        nq(*model),        nv(*model),        nu(*model),        nv(*model), na(*model),
        nbody(*model) * 3, nbody(*model) * 4, nbody(*model) * 3, 1,          nparameters(*model)};
    for (int a = 0; a < kArrays; ++a) {
      const std::size_t each = a == kStatus ? sizeof(std::uint32_t) : kernels->scalar_bytes;
      const std::size_t bytes = each * counts[a] * kernels->lanes;
      offset[a + 1] = offset[a] + (bytes + 63) / 64 * 64;
    }
    blocks = (environments + kernels->lanes - 1) / kernels->lanes;
    state.emplace_back(offset[kArrays] * blocks);
    // Lanes past the last environment hold the model's zero configuration like any other.
    for (int t = 0; t < threads; ++t) scratch.emplace_back(kernels->scratch_bytes(*model));
  }
  unsigned char* array(int block, int a) const {
    return state[0].data + offset[kArrays] * block + offset[a];
  }
  BlockView view(int block) const {
    return {array(block, kQpos),  array(block, kQvel),
            array(block, kCtrl),  array(block, kWarmStart),
            array(block, kXpos),  array(block, kXquat),
            array(block, kXipos), reinterpret_cast<std::uint32_t*>(array(block, kStatus)),
            array(block, kAct),   array(block, kParameters)};
  }

  void put(void* base, int index, int lane, double x) const {
    const std::size_t at = static_cast<std::size_t>(index) * kernels->lanes + lane;
    if (kernels->scalar_bytes == 4)
      static_cast<float*>(base)[at] = static_cast<float>(x);
    else
      static_cast<double*>(base)[at] = x;
  }
  double get(const void* base, int index, int lane) const {
    const std::size_t at = static_cast<std::size_t>(index) * kernels->lanes + lane;
    return kernels->scalar_bytes == 4 ? static_cast<const float*>(base)[at]
                                      : static_cast<const double*>(base)[at];
  }
  void write(int a, int count, const double* from) {
    for (int e = 0; e < environments; ++e)
      for (int i = 0; i < count; ++i)
        put(array(e / kernels->lanes, a), i, e % kernels->lanes, from[e * count + i]);
  }
  void read(int a, int count, double* to) const {
    for (int e = 0; e < environments; ++e)
      for (int i = 0; i < count; ++i)
        to[e * count + i] = get(array(e / kernels->lanes, a), i, e % kernels->lanes);
  }

  // Calls work(block, scratch) for every block, a contiguous share per thread.
  void for_blocks(const std::function<void(int, void*)>& work) {
    const auto share = [&](int t) {
      for (int b = static_cast<int>(static_cast<long>(blocks) * t / threads);
           b < static_cast<int>(static_cast<long>(blocks) * (t + 1) / threads); ++b)
        work(b, scratch[t].data);
    };
    std::vector<std::thread> workers;
    for (int t = 1; t < threads; ++t) workers.emplace_back(share, t);
    share(0);
    for (std::thread& worker : workers) worker.join();
  }
};

int gpu_sim_physics_create(const uint8_t* model, size_t model_bytes, int environments,
                           int precision, int threads, const char* isa, gpu_sim_physics** out,
                           char* error, size_t error_bytes) {
  return gpu_sim_physics_create_with(model, model_bytes, nullptr, 0, environments, precision,
                                     threads, isa, out, error, error_bytes);
}

int gpu_sim_physics_create_with(const uint8_t* model, size_t model_bytes, const int32_t* slots,
                                int slot_count, int environments, int precision, int threads,
                                const char* isa, gpu_sim_physics** out, char* error,
                                size_t error_bytes) {
  try {
    if (slot_count < 0)
      return fail(3, "slot_count: expected at least 0, got " + std::to_string(slot_count), error,
                  error_bytes);
    if (environments < 1 || environments > 1 << 24)
      return fail(3, "environments: expected 1 to 16777216, got " + std::to_string(environments),
                  error, error_bytes);
    if (precision != 4 && precision != 8)
      return fail(3, "precision: expected 4 or 8 bytes, got " + std::to_string(precision), error,
                  error_bytes);
    if (threads < 1 || threads > 1024)
      return fail(3, "threads: expected 1 to 1024, got " + std::to_string(threads), error,
                  error_bytes);
    sdpg::model::v1::Model message;
    if (model_bytes > INT32_MAX || !message.ParseFromArray(model, static_cast<int>(model_bytes)))
      return fail(3, "model: not a serialised sdpg.model.v1.Model", error, error_bytes);
    std::string line;
    auto physics = std::make_unique<gpu_sim_physics>();
    std::vector<sdpg::core::ParameterSlot> varying;
    for (int i = 0; i < slot_count; ++i)
      varying.push_back({static_cast<sdpg::core::Parameter>(slots[2 * i]), slots[2 * i + 1]});
    physics->model = sdpg::core::make_model(message, varying, &line);
    if (!physics->model) return fail(3, line, error, error_bytes);
    physics->kernels = sdpg::core::select_kernels(
        precision == 4 ? sdpg::core::Precision::kFloat32 : sdpg::core::Precision::kFloat64,
        isa == nullptr ? "" : isa, &line);
    if (physics->kernels == nullptr) return fail(9, line, error, error_bytes);
    physics->environments = environments;
    physics->threads = threads;
    physics->lay_out();
    // Lanes past the last environment too hold the model's own values.
    for (int b = 0; b < physics->blocks; ++b)
      for (int i = 0; i < slot_count; ++i)
        for (int lane = 0; lane < physics->kernels->lanes; ++lane)
          physics->put(physics->array(b, gpu_sim_physics::kParameters), i, lane,
                       parameter_default(*physics->model, varying[i]));
    *out = physics.release();
    return 0;
  } catch (const std::bad_alloc&) {
    return fail(8, "out of memory for " + std::to_string(environments) + " environments", error,
                error_bytes);
  } catch (const std::exception& e) {
    return fail(13, std::string("physics: ") + e.what(), error, error_bytes);
  }
}

void gpu_sim_physics_destroy(gpu_sim_physics* physics) { delete physics; }

void gpu_sim_physics_sizes(const gpu_sim_physics* physics, int32_t out[8]) {
  const Model& m = *physics->model;
  const int lanes = physics->kernels->lanes;
  const int values[8] = {
      nq(m),           nv(m),
      nu(m),           nbody(m),
      max_contacts(m), max_rows(m),
      lanes,           static_cast<int>(physics->offset[gpu_sim_physics::kArrays] / lanes)};
  std::copy(values, values + 8, out);
}

void gpu_sim_physics_set(gpu_sim_physics* physics, const double* qpos, const double* qvel,
                         const double* ctrl) {
  const Model& m = *physics->model;
  for (int b = 0; b < physics->blocks; ++b)
    std::memset(physics->array(b, 0), 0, physics->offset[gpu_sim_physics::kParameters]);
  physics->write(gpu_sim_physics::kQpos, nq(m), qpos);
  physics->write(gpu_sim_physics::kQvel, nv(m), qvel);
  physics->write(gpu_sim_physics::kCtrl, nu(m), ctrl);
}

void gpu_sim_physics_set_ctrl(gpu_sim_physics* physics, const double* ctrl) {
  physics->write(gpu_sim_physics::kCtrl, nu(*physics->model), ctrl);
}

int gpu_sim_physics_na(const gpu_sim_physics* physics) { return na(*physics->model); }

void gpu_sim_physics_set_act(gpu_sim_physics* physics, const double* act) {
  physics->write(gpu_sim_physics::kAct, na(*physics->model), act);
}

void gpu_sim_physics_get_act(const gpu_sim_physics* physics, double* act) {
  physics->read(gpu_sim_physics::kAct, na(*physics->model), act);
}

void gpu_sim_physics_set_parameters(gpu_sim_physics* physics, const double* values) {
  physics->write(gpu_sim_physics::kParameters, nparameters(*physics->model), values);
}

void gpu_sim_physics_get(const gpu_sim_physics* physics, double* qpos, double* qvel) {
  physics->read(gpu_sim_physics::kQpos, nq(*physics->model), qpos);
  physics->read(gpu_sim_physics::kQvel, nv(*physics->model), qvel);
}

void gpu_sim_physics_step(gpu_sim_physics* physics, int substeps) {
  physics->for_blocks([&](int block, void* scratch) {
    physics->kernels->step(*physics->model, physics->view(block), scratch, substeps);
  });
}

void gpu_sim_physics_forward(gpu_sim_physics* physics, double* qacc, double* qacc_smooth,
                             double* qfrc_constraint, double* contacts, int32_t* contact_count) {
  const Model& m = *physics->model;
  const Kernels& k = *physics->kernels;
  const int n = nv(m), numbers = max_contacts(m) * sdpg::core::kContactNumbers;
  const std::size_t array_bytes =
      (static_cast<std::size_t>(k.scalar_bytes) * n * k.lanes + 63) / 64 * 64;
  physics->for_blocks([&](int block, void* scratch) {
    const Memory results(3 * array_bytes);
    void* arrays[3] = {results.data, results.data + array_bytes, results.data + 2 * array_bytes};
    k.forward(m, physics->view(block), scratch, arrays[0], arrays[1], arrays[2]);
    double* targets[3] = {qacc, qacc_smooth, qfrc_constraint};
    std::vector<double> lane_contacts(numbers + 1);
    for (int lane = 0; lane < k.lanes && block * k.lanes + lane < physics->environments; ++lane) {
      const std::size_t e = static_cast<std::size_t>(block) * k.lanes + lane;
      for (int a = 0; a < 3; ++a)
        for (int i = 0; targets[a] != nullptr && i < n; ++i)
          targets[a][e * n + i] = physics->get(arrays[a], i, lane);
      if (contacts == nullptr && contact_count == nullptr) continue;
      const int count = k.contacts(m, scratch, lane, lane_contacts.data());
      if (contact_count != nullptr) contact_count[e] = count;
      if (contacts != nullptr)
        std::copy_n(lane_contacts.data(), count * sdpg::core::kContactNumbers,
                    contacts + e * numbers);
    }
  });
}

void gpu_sim_physics_status(const gpu_sim_physics* physics, uint32_t* status) {
  for (int e = 0; e < physics->environments; ++e)
    status[e] = reinterpret_cast<const std::uint32_t*>(physics->array(
        e / physics->kernels->lanes, gpu_sim_physics::kStatus))[e % physics->kernels->lanes];
}
