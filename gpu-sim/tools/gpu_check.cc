// What gpu_check.sh runs on a machine with a GPU: the CUDA mapping against the CPU's on compiled
// models, determinism, containment of faults, memory and speed, as one table. Exit code 0 when all
// checks hold, 1 when one does not, 2 when there is no device.
//
//   gpu_check [--emulated] [--seconds S] FOLDER    with FOLDER/{hopper,walker,ant,humanoid}.flat
//
// --emulated runs the checks, without the benchmark, on the CPU's stand-in for a device.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/kernels.h"
#include "core/model.h"
#include "core/model/flat_model.h"
#include "cuda/environments.h"

using namespace sdpg;

namespace {

constexpr std::uint64_t kSeed = 20260514;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::uint64_t hash(const void* bytes, std::size_t count) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < count; ++i)
    h = (h ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3u;
  return h;
}

// Positions, velocities and controls of environments, [e][index].
struct States {
  std::vector<double> qpos, qvel, ctrl;
};

// `mild`: near the reference pose, else as wild as a fall.
States random_states(const core::Model& m, std::uint32_t count, double scale, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> one(-1, 1);
  States s;
  for (std::uint32_t e = 0; e < count; ++e) {
    for (int i = 0; i < m.nq; ++i) s.qpos.push_back(m.d.qpos0[i] + 0.3 * scale * one(random));
    for (int i = 0; i < m.nv; ++i) s.qvel.push_back(2 * scale * one(random));
    for (int i = 0; i < m.nu; ++i) s.ctrl.push_back(one(random));
    // The height of a floating body, so that some stand and some lie in the floor.
    if (m.njnt > 0 && m.jnt_type[0] == core::JointType::kFree)
      s.qpos[s.qpos.size() - m.nq + 2] = m.d.qpos0[2] * (0.6 + 0.4 * std::abs(one(random)));
  }
  return s;
}

// The CPU's environments, in blocks of the table's lanes.
class Cpu {
 public:
  Cpu(const core::Model& m, const core::Kernels& k, std::uint32_t count)
      : m_(m), k_(k), count_(count) {
    const std::uint32_t lanes = static_cast<std::uint32_t>(k.lanes);
    blocks_ = (count + lanes - 1) / lanes;
    int row = 0;
    for (int a = 0; a < kArrays; ++a) {
      row_[a] = row;
      const int counts[kArrays] = {m.nq,        m.nv,        m.nu, m.nv,         3 * m.nbody,
                                   4 * m.nbody, 3 * m.nbody, m.na, m.nparameters};
      row += (counts[a] + 15) / 16 * 16;
    }
    stride_ = static_cast<std::size_t>(row) * lanes;
    numbers_ = zeroed<float>(stride_ * blocks_);
    status_ = zeroed<std::uint32_t>(std::size_t{blocks_} * lanes);
    scratch_ = zeroed<unsigned char>(k.scratch_bytes(m));
  }
  ~Cpu() {
    std::free(numbers_);
    std::free(status_);
    std::free(scratch_);
  }
  Cpu(const Cpu&) = delete;
  enum Array { kQpos, kQvel, kCtrl, kWarm, kXpos, kXquat, kXipos, kAct, kParameters, kArrays };

  float& at(Array a, std::uint32_t e, int i) {
    const std::uint32_t lanes = static_cast<std::uint32_t>(k_.lanes);
    return numbers_[stride_ * (e / lanes) + static_cast<std::size_t>(row_[a] + i) * lanes +
                    e % lanes];
  }
  void step(int substeps) {
    for (std::uint32_t b = 0; b < blocks_; ++b) {
      const auto p = [&](Array a) {
        return numbers_ + stride_ * b + static_cast<std::size_t>(row_[a]) * k_.lanes;
      };
      core::BlockView view{p(kQpos), p(kQvel),      p(kCtrl),  p(kWarm),
                           p(kXpos), p(kXquat),     p(kXipos), status_ + std::size_t{b} * k_.lanes,
                           p(kAct),  p(kParameters)};
      k_.step(m_, view, scratch_, substeps);
    }
  }

 private:
  template <class X>
  static X* zeroed(std::size_t count) {
    const std::size_t bytes = (count * sizeof(X) + 127) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (memory == nullptr) std::abort();
    std::memset(memory, 0, bytes);
    return static_cast<X*>(memory);
  }
  const core::Model& m_;
  const core::Kernels& k_;
  std::uint32_t count_, blocks_;
  int row_[kArrays];
  std::size_t stride_;
  float* numbers_;
  std::uint32_t* status_;
  unsigned char* scratch_;
};

void load(cuda::Environments& environments, const core::Model& m, const States& s,
          std::uint32_t count, std::uint32_t shift = 0) {
  const cuda::Rows& rows = environments.args.state.rows;
  for (std::uint32_t e = 0; e < count; ++e) {
    const std::uint32_t to = (e + shift) % count;
    for (int i = 0; i < m.nq; ++i)
      environments.number(to, rows.qpos + i) = static_cast<float>(s.qpos[e * m.nq + i]);
    for (int i = 0; i < m.nv; ++i) {
      environments.number(to, rows.qvel + i) = static_cast<float>(s.qvel[e * m.nv + i]);
      environments.number(to, rows.warmstart + i) = 0;
    }
    for (int i = 0; i < m.nu; ++i)
      environments.number(to, rows.ctrl + i) = static_cast<float>(s.ctrl[e * m.nu + i]);
  }
  environments.put();
}

std::unique_ptr<cuda::Environments> make(cuda::Device& device, const core::Model& m,
                                         std::uint32_t count) {
  std::string error;
  auto out = cuda::Environments::create(device, m, count, &error);
  if (!out) {
    std::fprintf(stderr, "gpu_check: %s\n", error.c_str());
    std::exit(1);
  }
  return out;
}

// Largest difference of a velocity after one step from the same state, against the largest change
// of any velocity of its environment; both in float32.
double parity(cuda::Device& device, const core::Model& m, const core::Kernels& k,
              std::uint32_t count) {
  double worst = 0;
  for (const double scale : {0.1, 1.0}) {
    const States s = random_states(m, count, scale, kSeed);
    Cpu cpu(m, k, count);
    const auto gpu = make(device, m, count);
    load(*gpu, m, s, count);
    for (std::uint32_t e = 0; e < count; ++e) {
      for (int i = 0; i < m.nq; ++i)
        cpu.at(Cpu::kQpos, e, i) = static_cast<float>(s.qpos[e * m.nq + i]);
      for (int i = 0; i < m.nv; ++i)
        cpu.at(Cpu::kQvel, e, i) = static_cast<float>(s.qvel[e * m.nv + i]);
      for (int i = 0; i < m.nu; ++i)
        cpu.at(Cpu::kCtrl, e, i) = static_cast<float>(s.ctrl[e * m.nu + i]);
    }
    cpu.step(1);
    gpu->step(1);
    gpu->get();
    const cuda::Rows& rows = gpu->args.state.rows;
    for (std::uint32_t e = 0; e < count; ++e) {
      double scale_of = 1e-2, difference = 0;
      for (int i = 0; i < m.nv; ++i) {
        const double before = static_cast<float>(s.qvel[e * m.nv + i]);
        const double a = cpu.at(Cpu::kQvel, e, i), b = gpu->number(e, rows.qvel + i);
        scale_of = std::max(scale_of, std::abs(a - before));
        difference = std::max(difference, std::abs(a - b));
        if (!(std::abs(b) < 1e10)) difference = 1e30;
      }
      worst = std::max(worst, difference / scale_of);
    }
  }
  return worst;
}

// Bits after many steps: the same again, and wherever in the batch an environment is.
bool deterministic(cuda::Device& device, const core::Model& m, std::uint32_t count, int launches,
                   int substeps) {
  const States s = random_states(m, count, 0.3, kSeed + 1);
  std::vector<std::vector<std::uint64_t>> seen;
  for (const std::uint32_t shift : {0u, 0u, 13u}) {
    const auto gpu = make(device, m, count);
    load(*gpu, m, s, count, shift);
    for (int t = 0; t < launches; ++t) gpu->step(substeps);
    gpu->get();
    std::vector<std::uint64_t> hashes(count);
    std::vector<float> state(gpu->args.state.rows.end);
    for (std::uint32_t e = 0; e < count; ++e) {
      for (std::uint32_t r = 0; r < state.size(); ++r)
        state[r] = gpu->number((e + shift) % count, r);
      hashes[e] = hash(state.data(), state.size() * sizeof(float));
    }
    seen.push_back(hashes);
  }
  return seen[0] == seen[1] && seen[0] == seen[2];
}

// A NaN in one environment is seen there and changes no other by a bit.
bool contained(cuda::Device& device, const core::Model& m, std::uint32_t count) {
  const States s = random_states(m, count, 0.3, kSeed + 2);
  const auto clean = make(device, m, count), poisoned = make(device, m, count);
  const std::uint32_t victim = count / 2;
  load(*clean, m, s, count);
  States bad = s;
  bad.qvel[victim * m.nv] = std::nan("");
  load(*poisoned, m, bad, count);
  clean->step(20);
  poisoned->step(20);
  clean->get();
  poisoned->get();
  const auto status = poisoned->status(), clean_status = clean->status();
  bool good = (status[victim] & core::kNonFinite) != 0;
  for (std::uint32_t e = 0; e < count; ++e) {
    if (e == victim) continue;
    good = good && status[e] == clean_status[e];
    for (std::uint32_t r = 0; r < clean->args.state.rows.end; ++r) {
      const float a = clean->number(e, r), b = poisoned->number(e, r);
      good = good && std::memcmp(&a, &b, sizeof a) == 0;
    }
  }
  return good;
}

// Physics steps a second with `count` environments, four steps a launch. `settled`: small controls
// and no new starts, so that the robots lie on the floor; else full controls, started anew every
// 100 launches.
double speed(cuda::Device& device, const core::Model& m, std::uint32_t count, bool settled,
             double seconds) {
  constexpr int kSubsteps = 4;
  States s = random_states(m, count, 0.1, kSeed + 3);
  if (settled)
    for (double& c : s.ctrl) c *= 0.1;
  const auto gpu = make(device, m, count);
  load(*gpu, m, s, count);
  const int settle = settled ? 250 : 5;
  for (int t = 0; t < settle; ++t) gpu->step(kSubsteps);
  device.synchronize();
  double spent = 0, steps = 0;
  while (spent < seconds) {
    const double started = now();
    for (int t = 0; t < 100; ++t) gpu->step(kSubsteps);
    device.synchronize();
    spent += now() - started;
    steps += 100.0 * kSubsteps * count;
    if (!settled) load(*gpu, m, s, count);
  }
  return steps / spent;
}

}  // namespace

int main(int argc, char** argv) {
  bool emulated = false;
  double seconds = 2;
  std::string folder;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--emulated")
      emulated = true;
    else if (argument == "--seconds" && i + 1 < argc)
      seconds = std::atof(argv[++i]);
    else
      folder = argument;
  }
  if (folder.empty() || !(seconds > 0)) {
    std::fprintf(stderr, "gpu_check [--emulated] [--seconds S] FOLDER\n");
    return 2;
  }
  std::string error;
  const auto device = emulated ? cuda::Device::emulated(1, false) : cuda::Device::open(0, &error);
  if (!device) {
    std::fprintf(stderr, "gpu_check: %s\n", error.c_str());
    return 2;
  }
  const core::Kernels* k = core::select_kernels(core::Precision::kFloat32, "", &error);
  if (k == nullptr) {
    std::fprintf(stderr, "gpu_check: %s\n", error.c_str());
    return 1;
  }
  std::printf("device %s, CPU %s, seed %llu\n", device->name(), k->isa,
              static_cast<unsigned long long>(kSeed));
  std::printf("%-9s %10s %7s %7s %9s %9s %9s", "model", "parity", "same", "faults", "state B",
              "shared B", "B/env");
  const std::uint32_t sizes[] = {4096, 16384, 65536};
  if (!emulated)
    for (const std::uint32_t count : sizes) std::printf("  settled %5u   random %5u", count, count);
  std::printf("\n");

  bool all = true;
  for (const char* name : {"hopper", "walker", "ant", "humanoid"}) {
    std::ifstream in(folder + "/" + name + ".flat", std::ios::binary);
    std::stringstream bytes;
    bytes << in.rdbuf();
    const auto model = core::load_flat_model(bytes.str(), &error);
    if (!in || !model) {
      std::fprintf(stderr, "gpu_check: %s/%s.flat: %s\n", folder.c_str(), name,
                   in ? error.c_str() : "cannot be read");
      return 1;
    }
    const core::Model& m = *model;
    const double difference = parity(*device, m, *k, emulated ? 48 : 4096);
    const bool same =
        emulated ? deterministic(*device, m, 40, 4, 5) : deterministic(*device, m, 4096, 250, 4);
    const bool faults = contained(*device, m, emulated ? 40 : 4096);
    const auto full = make(*device, m, emulated ? 64 : 65536);
    const bool good = difference < 1e-4 && same && faults;
    all = all && good;
    std::printf("%-9s %10.2e %7s %7s %9u %9u %9.0f", name, difference, same ? "yes" : "NO",
                faults ? "held" : "SPREAD", full->args.state.rows.end * 4,
                full->args.plan.near_bytes,
                static_cast<double>(full->bytes()) / full->args.state.environments);
    if (!emulated)
      for (const std::uint32_t count : sizes)
        std::printf("  %10.2f M/s   %9.2f M/s", speed(*device, m, count, true, seconds) / 1e6,
                    speed(*device, m, count, false, seconds) / 1e6);
    std::printf("%s\n", good ? "" : "  FAILED");
    std::fflush(stdout);
  }
  std::printf("%s\n", all ? "all checks hold" : "a check FAILED");
  return all ? 0 : 1;
}
